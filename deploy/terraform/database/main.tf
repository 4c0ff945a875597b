# RDS for PostgreSQL, for the templates on Fargate and as a Lambda function.

terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = { source = "hashicorp/aws", version = ">= 6.0" }
  }
}

variable "vpc_id" {
  type = string
}

variable "subnet_ids" {
  description = "Two private subnets or more, in different availability zones."
  type        = list(string)
}

variable "client_security_group_id" {
  description = "The security group of the collectors. Nothing else can connect."
  type        = string
}

variable "password" {
  description = "8 to 128 letters and digits."
  type        = string
  sensitive   = true
}

variable "class" {
  type = string
}

resource "aws_security_group" "database" {
  name_prefix = "tailor-database-"
  description = "The database of Lambda Tailor"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  security_group_id            = aws_security_group.database.id
  description                  = "From the collectors"
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
  referenced_security_group_id = var.client_security_group_id
}

resource "aws_db_subnet_group" "database" {
  name_prefix = "tailor-"
  subnet_ids  = var.subnet_ids
}

resource "aws_db_instance" "database" {
  identifier_prefix         = "tailor-"
  engine                    = "postgres"
  engine_version            = "18"
  instance_class            = var.class
  allocated_storage         = 20
  max_allocated_storage     = 200
  storage_type              = "gp3"
  storage_encrypted         = true
  db_name                   = "tailor"
  username                  = "tailor"
  password                  = var.password
  db_subnet_group_name      = aws_db_subnet_group.database.name
  vpc_security_group_ids    = [aws_security_group.database.id]
  backup_retention_period   = 7
  copy_tags_to_snapshot     = true
  deletion_protection       = true
  final_snapshot_identifier = "tailor-final"
}

output "endpoint" {
  description = "Host and port."
  value       = aws_db_instance.database.endpoint
}

output "security_group_id" {
  description = "The security group of the database."
  value       = aws_security_group.database.id
}
