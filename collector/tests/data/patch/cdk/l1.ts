import { aws_lambda as lambda } from 'aws-cdk-lib';
import { Construct } from 'constructs';
export const make = (scope: Construct) =>
  new lambda.CfnFunction(scope, 'RawFunction', {
    code: { zipFile: 'x' },
    role: 'arn:aws:iam::123456789012:role/r',
    memorySize: 1024
  });
