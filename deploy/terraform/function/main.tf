# Lambda Tailor as a Lambda function behind a function URL, with the measurements in RDS for PostgreSQL. Nothing of it runs while no
# function sends and no client reads, except the database.

terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = { source = "hashicorp/aws", version = ">= 6.29" }
  }
}

variable "vpc_id" {
  type = string
}

variable "private_subnet_ids" {
  description = "Two subnets or more. The function needs no route to the internet, unless egress_cidrs is set."
  type        = list(string)
}

variable "zip" {
  description = "Path of tailor-function-ARCHITECTURE.zip: that of a release, or of cargo xtask package --database-ca FILE. Both have the certificate authorities of RDS. In China and GovCloud RDS has others."
  type        = string
}

variable "architecture" {
  description = "x86_64 or arm64: the zip's."
  type        = string
  default     = "arm64"
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

variable "url_authentication" {
  description = "NONE: the API key is enough, and browsers can sign in. AWS_IAM: requests must be signed, too."
  type        = string
  default     = "NONE"
}

variable "concurrency" {
  description = "The highest number of environments. Each has up to 10 connections to the database."
  type        = number
  default     = 10
}

variable "database_class" {
  type    = string
  default = "db.t4g.micro"
}

variable "egress_cidrs" {
  description = "Networks that the function reaches with HTTPS besides the database, such as 0.0.0.0/0 for a webhook or profiles. A webhook also needs a NAT gateway in the routes of the subnets, and profiles a gateway endpoint of S3."
  type        = list(string)
  default     = []
}

resource "aws_security_group" "function" {
  name_prefix = "tailor-function-"
  description = "The collector of Lambda Tailor"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_egress_rule" "function" {
  security_group_id            = aws_security_group.function.id
  description                  = "To the database"
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
  referenced_security_group_id = module.database.security_group_id
}

resource "aws_vpc_security_group_egress_rule" "https" {
  for_each          = toset(var.egress_cidrs)
  security_group_id = aws_security_group.function.id
  description       = "To the webhook and S3"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = each.value
}

module "database" {
  source                   = "../database"
  vpc_id                   = var.vpc_id
  subnet_ids               = var.private_subnet_ids
  client_security_group_id = aws_security_group.function.id
  password                 = var.database_password
  class                    = var.database_class
}

data "aws_partition" "current" {}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "function" {
  name_prefix        = "tailor-"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy_attachment" "function" {
  role       = aws_iam_role.function.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole"
}

resource "aws_cloudwatch_log_group" "function" {
  name_prefix       = "tailor-"
  retention_in_days = 30
}

resource "aws_lambda_function" "collector" {
  function_name                  = "tailor-collector"
  description                    = "The collector of Lambda Tailor"
  runtime                        = "provided.al2023"
  architectures                  = [var.architecture]
  handler                        = "bootstrap"
  filename                       = var.zip
  source_code_hash               = filebase64sha256(var.zip)
  memory_size                    = 1769
  timeout                        = 60
  reserved_concurrent_executions = var.concurrency
  role                           = aws_iam_role.function.arn

  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.function.name
  }

  vpc_config {
    subnet_ids         = var.private_subnet_ids
    security_group_ids = [aws_security_group.function.id]
  }

  environment {
    variables = {
      TAILOR_DATABASE          = "postgres://tailor@${module.database.endpoint}/tailor?sslmode=require"
      TAILOR_DATABASE_CA       = "/var/task/database-ca.pem"
      TAILOR_DATABASE_PASSWORD = var.database_password
      TAILOR_API_KEYS          = var.api_keys
      TAILOR_LOG_FORMAT        = "json"
    }
  }

  depends_on = [aws_iam_role_policy_attachment.function]
}

resource "aws_lambda_function_url" "collector" {
  function_name      = aws_lambda_function.collector.function_name
  authorization_type = var.url_authentication
}

# Lambda checks both. Requests are still refused without an API key.
resource "aws_lambda_permission" "url" {
  count                  = var.url_authentication == "NONE" ? 1 : 0
  action                 = "lambda:InvokeFunctionUrl"
  function_name          = aws_lambda_function.collector.function_name
  principal              = "*"
  function_url_auth_type = "NONE"
}

resource "aws_lambda_permission" "invoke" {
  count                    = var.url_authentication == "NONE" ? 1 : 0
  action                   = "lambda:InvokeFunction"
  function_name            = aws_lambda_function.collector.function_name
  principal                = "*"
  invoked_via_function_url = true
}

# Lambda freezes the function between requests. Maintenance of the store and summaries are done when this event comes.
resource "aws_cloudwatch_event_rule" "maintenance" {
  name_prefix         = "tailor-"
  description         = "Maintenance of Lambda Tailor's store"
  schedule_expression = "rate(5 minutes)"
}

resource "aws_cloudwatch_event_target" "maintenance" {
  rule = aws_cloudwatch_event_rule.maintenance.name
  arn  = aws_lambda_function.collector.arn
}

resource "aws_lambda_permission" "maintenance" {
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.collector.function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.maintenance.arn
}

output "address" {
  description = "TAILOR_ENDPOINT of the functions, and the web page."
  value       = aws_lambda_function_url.collector.function_url
}
