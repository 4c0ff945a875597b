module "lambda_function" {
  source  = "terraform-aws-modules/lambda/aws"
  version = "~> 7.0"

  function_name = "my-lambda1"
  description   = "My awesome lambda function"
  handler       = "index.lambda_handler"
  runtime       = "python3.12"
  memory_size   = 2048

  source_path = "../src/lambda-function1"
}

module "own" {
  source        = "./modules/function"
  function_name = "own-module"
  memory_size   = 2048
}
