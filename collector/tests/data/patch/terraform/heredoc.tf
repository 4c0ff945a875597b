resource "aws_lambda_function" "inline" {
  function_name = "inline"
  description   = <<-EOT
    memory_size = 128
  EOT
  role          = "arn:aws:iam::123456789012:role/r"
}
