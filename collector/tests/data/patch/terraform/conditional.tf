resource "aws_lambda_function" "this" {
  function_name = "by-stage"
  role          = aws_iam_role.this.arn
  memory_size   = terraform.workspace == "prod" ? 1024 : 256
}
