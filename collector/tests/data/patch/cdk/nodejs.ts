import { NodejsFunction } from 'aws-cdk-lib/aws-lambda-nodejs';
import { Duration, aws_lambda as lambda } from 'aws-cdk-lib';
import { Construct } from 'constructs';

export class Api extends Construct {
  constructor(scope: Construct, id: string) {
    super(scope, id);
    new NodejsFunction(this, 'Handler', { entry: 'src/index.ts', memorySize: 1_024, timeout: Duration.seconds(10) });
    new lambda.DockerImageFunction(this, 'Image', {
      code: lambda.DockerImageCode.fromImageAsset('.'),
      memorySize: 2048 /* MB */,
    })
  }
}
export const build = (scope: Construct) => new Api(scope, 'Orders-Api');
