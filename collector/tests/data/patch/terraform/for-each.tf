resource "aws_lambda_function" "each" {
  for_each      = toset(["a", "b"])
  function_name = "worker-${each.key}"
  role          = aws_iam_role.this.arn
  memory_size   = 1024
}
