# Lambda Tailor on one small instance: the collector as a hardened systemd service with its own TLS, the data on a volume of its own
# that outlives the instance. The user data runs at the first start only: another release_url changes nothing on an instance that runs.
# deploy/README.md has the steps of an upgrade.

terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = { source = "hashicorp/aws", version = ">= 6.0" }
  }
}

variable "subnet_id" {
  description = "A subnet from which the instance reaches AWS and the release, and which the functions can reach."
  type        = string
}

variable "client_cidr" {
  description = "The network of the functions and of the people who use the collector."
  type        = string
}

variable "release_url" {
  description = "HTTPS URL of tailor-VERSION-linux-arm64.tar.gz, for the first start. Another one does not upgrade the program: deploy/README.md has the steps."
  type        = string
}

variable "release_sha256" {
  description = "The digest of that file, from SHA256SUMS."
  type        = string
}

variable "certificate_parameter" {
  description = "Name of the SSM parameter with the certificate and its issuers (PEM)."
  type        = string
  default     = "/tailor/certificate"
}

variable "key_parameter" {
  description = "Name of the SSM parameter (SecureString) with the private key of the certificate (PEM)."
  type        = string
  default     = "/tailor/certificate-key"
}

variable "instance_type" {
  description = "Any arm64 type. docs/operations.md has the sizes."
  type        = string
  default     = "t4g.small"
}

variable "volume_gib" {
  type    = number
  default = 20
}

data "aws_subnet" "collector" {
  id = var.subnet_id
}

data "aws_region" "current" {}

data "aws_partition" "current" {}

data "aws_caller_identity" "current" {}

data "aws_ssm_parameter" "image" {
  name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64"
}

resource "aws_security_group" "collector" {
  name_prefix = "tailor-"
  description = "The collector of Lambda Tailor"
  vpc_id      = data.aws_subnet.collector.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "collector" {
  security_group_id = aws_security_group.collector.id
  description       = "Batches, pages and the API over TLS"
  ip_protocol       = "tcp"
  from_port         = 8443
  to_port           = 8443
  cidr_ipv4         = var.client_cidr
}

resource "aws_vpc_security_group_egress_rule" "collector" {
  security_group_id = aws_security_group.collector.id
  description       = "To AWS and the release"
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "certificate" {
  statement {
    actions = ["ssm:GetParameter"]
    resources = [
      for name in [var.certificate_parameter, var.key_parameter] :
      "arn:${data.aws_partition.current.partition}:ssm:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:parameter${name}"
    ]
  }
}

# For the tuner add the policies of docs/iam.
resource "aws_iam_role" "collector" {
  name_prefix        = "tailor-"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

# Session Manager in place of SSH.
resource "aws_iam_role_policy_attachment" "session_manager" {
  role       = aws_iam_role.collector.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_role_policy" "certificate" {
  name   = "certificate"
  role   = aws_iam_role.collector.id
  policy = data.aws_iam_policy_document.certificate.json
}

resource "aws_iam_instance_profile" "collector" {
  name_prefix = "tailor-"
  role        = aws_iam_role.collector.name
}

resource "aws_ebs_volume" "data" {
  availability_zone = data.aws_subnet.collector.availability_zone
  size              = var.volume_gib
  type              = "gp3"
  encrypted         = true
  final_snapshot    = true
  tags              = { Name = "tailor-data" }
}

resource "aws_instance" "collector" {
  ami                    = data.aws_ssm_parameter.image.value
  instance_type          = var.instance_type
  subnet_id              = var.subnet_id
  vpc_security_group_ids = [aws_security_group.collector.id]
  iam_instance_profile   = aws_iam_instance_profile.collector.name
  tags                   = { Name = "tailor" }

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted = true
  }

  user_data = templatefile("${path.module}/user-data.sh.tftpl", {
    release_url           = var.release_url
    release_sha256        = var.release_sha256
    certificate_parameter = var.certificate_parameter
    key_parameter         = var.key_parameter
    region                = data.aws_region.current.region
  })

  # A newer image, or another release, would replace the instance in any later apply. Both are used when the instance is replaced on
  # purpose: terraform apply -replace=ADDRESS of this resource.
  lifecycle {
    ignore_changes = [ami, user_data]
  }
}

resource "aws_volume_attachment" "data" {
  device_name = "/dev/sdf"
  instance_id = aws_instance.collector.id
  volume_id   = aws_ebs_volume.data.id

  # The file system is unmounted before the volume leaves an instance that is replaced.
  stop_instance_before_detaching = true
}

output "address" {
  description = "The collector. The name in the certificate must lead to this address."
  value       = "https://${aws_instance.collector.private_ip}:8443"
}

output "session" {
  description = "How to open a shell. The keys are in /var/lib/tailor/ingest-key and /var/lib/tailor/api-key."
  value       = "aws ssm start-session --target ${aws_instance.collector.id}"
}
