variable "memory_size" {
  type    = number
  default = 1024
}

resource "aws_lambda_function" "this" {
  function_name = "sized-by-variable"
  role          = aws_iam_role.this.arn
  memory_size   = var.memory_size
}
