resource "aws_lambda_function" "this" {
  function_name = "${var.project}-ingest"
  package_type  = "Image"
  image_uri     = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/ingest:1"
  role          = aws_iam_role.this.arn
}
