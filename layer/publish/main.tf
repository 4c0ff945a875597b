# Publishes the Lambda Tailor layer.

terraform {
  required_providers {
    aws = { source = "hashicorp/aws", version = ">= 5.0" }
  }
}

variable "zip" {
  description = "Path of the zip that `cargo xtask layer` made."
  type        = string
}

variable "architecture" {
  description = "x86_64 or arm64: the zip's."
  type        = string
  default     = "x86_64"
}

resource "aws_lambda_layer_version" "tailor" {
  layer_name               = "tailor-extension-${var.architecture}"
  description              = "Measures, costs and right-sizes every invocation"
  filename                 = var.zip
  source_code_hash         = filebase64sha256(var.zip)
  compatible_architectures = [var.architecture]
  license_info             = "Apache-2.0"

  # A new zip makes a new version; the old one stays for the functions that still have it.
  skip_destroy = true
}

output "layer_arn" {
  value = aws_lambda_layer_version.tailor.arn
}
