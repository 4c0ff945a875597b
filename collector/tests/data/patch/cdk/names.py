import aws_cdk.aws_lambda as lambda_
from aws_cdk.aws_lambda_python_alpha import PythonFunction
import aws_cdk as cdk

MEMORY = 1024

def add(scope, stage, **kwargs):
    lambda_.Function(scope, "A", function_name=f"{stage}-report", memory_size=1024, **kwargs)
    PythonFunction(scope, "B", function_name="constant", entry="src", memory_size=MEMORY)
    PythonFunction(scope, "C", function_name="arguments", entry="src", **kwargs)
    cdk.aws_lambda.Function(scope, "D", function_name="full-path", handler="a.b", code=None, runtime=None)
