import { Function as Fn, Runtime, Code } from 'aws-cdk-lib/aws-lambda';
import { MyFunction } from './my-function';
import { Construct } from 'constructs';
const memorySize = 1024;
const defaults = { runtime: Runtime.NODEJS_22_X, memorySize: 1024 };
export function add(scope: Construct, stage: string, props: any) {
  new Fn(scope, 'A', { functionName: 'shorthand', memorySize, runtime: Runtime.NODEJS_22_X, handler: 'a', code: Code.fromAsset('.') });
  new Fn(scope, 'B', { functionName: 'spread', ...defaults, handler: 'a', code: Code.fromAsset('.') });
  new Fn(scope, 'C', { functionName: `by-stage`, memorySize: stage === 'prod' ? 1024 : 128, ...defaults, handler: 'a', code: Code.fromAsset('.') });
  new Fn(scope, 'D', props);
  new MyFunction(scope, 'E', { functionName: 'own', memorySize: 512 });
  new Fn(scope, 'F', { functionName: `${stage}-literal`, ...defaults, memorySize: 1024, handler: 'a', code: Code.fromAsset('.') });
}
