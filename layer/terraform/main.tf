# A function with the Lambda Tailor layer. Take over the marked parts.

terraform {
  required_providers {
    aws = { source = "hashicorp/aws", version = ">= 5.0" }
  }
}

variable "tailor_layer_arn" { type = string }
variable "tailor_endpoint" { type = string }

# One of the two: the collector's key, or the ARN of a Secrets Manager secret with it.
variable "tailor_api_key" {
  type      = string
  sensitive = true
  default   = ""
}
variable "tailor_api_key_secret" {
  type    = string
  default = ""
}

variable "role_arn" { type = string }
variable "zip" { type = string }

resource "aws_lambda_function" "example" {
  function_name = "example"
  role          = var.role_arn
  filename      = var.zip
  runtime       = "python3.13"
  handler       = "app.handler"
  architectures = ["x86_64"]
  memory_size   = 512

  layers = [var.tailor_layer_arn] # 1: the layer, of the function's architecture

  environment {
    variables = {
      TAILOR_ENDPOINT       = var.tailor_endpoint # 2: where to send
      TAILOR_API_KEY        = var.tailor_api_key  # An empty one counts as unset.
      TAILOR_API_KEY_SECRET = var.tailor_api_key_secret
    }
  }

  # 3: only for functions whose memory the collector may change: the tag that permits it, and word to
  # Terraform not to change it back.
  # tags = { "tailor:tune" = "apply" }
  # lifecycle {
  #   ignore_changes = [memory_size]
  # }
}

# 4: only for a secret: the permission to read it.
resource "aws_iam_role_policy" "tailor_api_key" {
  count = var.tailor_api_key_secret == "" ? 0 : 1
  name  = "tailor-api-key"
  role  = reverse(split("/", var.role_arn))[0]
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = "secretsmanager:GetSecretValue"
      Resource = var.tailor_api_key_secret
    }]
  })
}
