import pulumi
import pulumi_aws as aws

role = "arn:aws:iam::123456789012:role/r"
image = aws.lambda_.Function("image",
    package_type="Image",
    image_uri="123456789012.dkr.ecr.eu-west-1.amazonaws.com/a:1",
    role=role,
    memory_size=1024)
zip_ = aws.lambda_.Function(
    "zip",
    code=pulumi.FileArchive("./app"),
    role=role,
    handler="a.b",
    runtime="python3.12",
    opts=pulumi.ResourceOptions(protect=True),
)
