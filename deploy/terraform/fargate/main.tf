# Lambda Tailor on Fargate: stateless collectors behind a load balancer with TLS, and the measurements in RDS for PostgreSQL.

terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = { source = "hashicorp/aws", version = ">= 6.0" }
  }
}

variable "vpc_id" {
  type = string
}

variable "private_subnet_ids" {
  description = "Two subnets or more, with a route to ECR, CloudWatch Logs and Secrets Manager."
  type        = list(string)
}

variable "load_balancer_subnet_ids" {
  type = list(string)
}

variable "internal" {
  description = "Whether the load balancer has private addresses only."
  type        = bool
  default     = true
}

variable "client_cidr" {
  description = "The network of the functions and of the people who use the collector."
  type        = string
}

variable "certificate_arn" {
  description = "The certificate in ACM for the collector's name."
  type        = string
}

variable "image" {
  description = "The image of deploy/container/Dockerfile, with the certificate authorities of RDS (cargo xtask package --database-ca FILE)."
  type        = string
}

variable "architecture" {
  description = "X86_64 or ARM64: the image's."
  type        = string
  default     = "ARM64"
}

variable "api_keys" {
  description = "Digests of the keys, such as `sha256:DIGEST scopes=ingest name=functions; sha256:DIGEST scopes=read,admin name=ops`."
  type        = string
  sensitive   = true
}

variable "database_password" {
  description = "The password of the database, 8 to 128 letters and digits."
  type        = string
  sensitive   = true
}

variable "tasks" {
  type    = number
  default = 2
}

variable "database_class" {
  type    = string
  default = "db.t4g.small"
}

data "aws_region" "current" {}

data "aws_partition" "current" {}

data "aws_subnet" "load_balancer" {
  count = length(var.load_balancer_subnet_ids)
  id    = var.load_balancer_subnet_ids[count.index]
}

locals {
  # X-Forwarded-For is used only from the load balancer's subnets. Functions and people in a trusted network can name another address
  # in their requests.
  trusted_proxies = join(",", data.aws_subnet.load_balancer[*].cidr_block)
}

resource "aws_security_group" "load_balancer" {
  name_prefix = "tailor-load-balancer-"
  description = "The load balancer of Lambda Tailor"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "load_balancer" {
  security_group_id = aws_security_group.load_balancer.id
  description       = "HTTPS"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = var.client_cidr
}

resource "aws_vpc_security_group_egress_rule" "load_balancer" {
  security_group_id            = aws_security_group.load_balancer.id
  description                  = "To the collectors"
  ip_protocol                  = "tcp"
  from_port                    = 8080
  to_port                      = 8080
  referenced_security_group_id = aws_security_group.collector.id
}

resource "aws_security_group" "collector" {
  name_prefix = "tailor-collector-"
  description = "The collectors of Lambda Tailor"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "collector" {
  security_group_id            = aws_security_group.collector.id
  description                  = "From the load balancer"
  ip_protocol                  = "tcp"
  from_port                    = 8080
  to_port                      = 8080
  referenced_security_group_id = aws_security_group.load_balancer.id
}

resource "aws_vpc_security_group_egress_rule" "collector" {
  security_group_id = aws_security_group.collector.id
  description       = "To the database, ECR, CloudWatch Logs, Secrets Manager, and Lambda for the tuner"
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
}

module "database" {
  source                   = "../database"
  vpc_id                   = var.vpc_id
  subnet_ids               = var.private_subnet_ids
  client_security_group_id = aws_security_group.collector.id
  password                 = var.database_password
  class                    = var.database_class
}

# Without rotation: a collector reads the password when it starts.
resource "aws_secretsmanager_secret" "database" {
  name_prefix = "tailor-database-"
}

resource "aws_secretsmanager_secret_version" "database" {
  secret_id     = aws_secretsmanager_secret.database.id
  secret_string = var.database_password
}

resource "aws_cloudwatch_log_group" "collector" {
  name_prefix       = "tailor-"
  retention_in_days = 30
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "password" {
  statement {
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [aws_secretsmanager_secret.database.arn]
  }
}

resource "aws_iam_role" "execution" {
  name_prefix        = "tailor-execution-"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy_attachment" "execution" {
  role       = aws_iam_role.execution.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}

resource "aws_iam_role_policy" "password" {
  name   = "password"
  role   = aws_iam_role.execution.id
  policy = data.aws_iam_policy_document.password.json
}

# For the tuner add the policies of docs/iam.
resource "aws_iam_role" "task" {
  name_prefix        = "tailor-task-"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_ecs_cluster" "collector" {
  name = "tailor"
}

resource "aws_ecs_task_definition" "collector" {
  family                   = "tailor"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 512
  memory                   = 1024
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn

  runtime_platform {
    cpu_architecture        = var.architecture
    operating_system_family = "LINUX"
  }

  volume {
    name = "data"
  }

  container_definitions = jsonencode([{
    name                   = "collector"
    image                  = var.image
    essential              = true
    readonlyRootFilesystem = true
    user                   = "65532"
    stopTimeout            = 60
    portMappings           = [{ containerPort = 8080, protocol = "tcp" }]
    mountPoints            = [{ sourceVolume = "data", containerPath = "/data", readOnly = false }]
    ulimits                = [{ name = "nofile", softLimit = 16384, hardLimit = 16384 }]
    environment = [
      { name = "TAILOR_DATABASE", value = "postgres://tailor@${module.database.endpoint}/tailor?sslmode=require" },
      { name = "TAILOR_DATABASE_CA", value = "/etc/ssl/certs/database-ca.pem" },
      { name = "TAILOR_API_KEYS", value = var.api_keys },
      { name = "TAILOR_TRUSTED_PROXY", value = local.trusted_proxies },
      # All connections come from the load balancer.
      { name = "TAILOR_MAX_CONNECTIONS_PER_ADDRESS", value = "8192" },
    ]
    secrets = [{ name = "TAILOR_DATABASE_PASSWORD", valueFrom = aws_secretsmanager_secret.database.arn }]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        "awslogs-group"         = aws_cloudwatch_log_group.collector.name
        "awslogs-region"        = data.aws_region.current.region
        "awslogs-stream-prefix" = "tailor"
      }
    }
  }])
}

resource "aws_lb" "collector" {
  name_prefix                = "tailor"
  internal                   = var.internal
  load_balancer_type         = "application"
  subnets                    = var.load_balancer_subnet_ids
  security_groups            = [aws_security_group.load_balancer.id]
  drop_invalid_header_fields = true
}

resource "aws_lb_target_group" "collector" {
  name_prefix          = "tailor"
  vpc_id               = var.vpc_id
  target_type          = "ip"
  protocol             = "HTTP"
  port                 = 8080
  deregistration_delay = 30

  health_check {
    # Not /readyz: all collectors have one database. While it restarts none is ready, and ECS would replace all of them.
    path              = "/healthz"
    interval          = 10
    healthy_threshold = 2
  }

  # A browser's session is known to one collector.
  stickiness {
    type            = "lb_cookie"
    cookie_duration = 43200
  }
}

resource "aws_lb_listener" "collector" {
  load_balancer_arn = aws_lb.collector.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.collector.arn
  }
}

resource "aws_ecs_service" "collector" {
  name                               = "tailor"
  cluster                            = aws_ecs_cluster.collector.id
  launch_type                        = "FARGATE"
  task_definition                    = aws_ecs_task_definition.collector.arn
  desired_count                      = var.tasks
  health_check_grace_period_seconds  = 60
  deployment_minimum_healthy_percent = 50

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets         = var.private_subnet_ids
    security_groups = [aws_security_group.collector.id]
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.collector.arn
    container_name   = "collector"
    container_port   = 8080
  }

  depends_on = [aws_lb_listener.collector, aws_iam_role_policy.password]
}

output "address" {
  description = "The collector. The name in the certificate must lead to this name."
  value       = "https://${aws_lb.collector.dns_name}"
}
