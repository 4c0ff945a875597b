// Attaches the Lambda Tailor layer to the functions of a CDK app, or of any part of one:
//
//   Aspects.of(app).add(new TailorLayer({
//     layerArns: { x86_64: '...', arm64: '...' }, endpoint, apiKeySecret,
//     include: (fn) => fn.node.path.startsWith('Shop/'),
//   }));
import { IAspect, Stack } from 'aws-cdk-lib';
import { Role } from 'aws-cdk-lib/aws-iam';
import { Function, LayerVersion, Runtime } from 'aws-cdk-lib/aws-lambda';
import { ISecret } from 'aws-cdk-lib/aws-secretsmanager';
import { IConstruct } from 'constructs';

export interface TailorLayerProps {
  /** ARN of the layer version for each architecture; functions of one without are left as they are. */
  readonly layerArns: { readonly x86_64?: string; readonly arm64?: string };
  /** The collector's URL. */
  readonly endpoint: string;
  /** A secret with the collector's key: functions get `secretsmanager:GetSecretValue` on it and read it when they run. */
  readonly apiKeySecret?: ISecret;
  /** The collector's key itself, in place of a secret. It is then part of the template. */
  readonly apiKey?: string;
  /** Which functions; all that can take the layer, if absent. */
  readonly include?: (fn: Function) => boolean;
}

export class TailorLayer implements IAspect {
  constructor(private readonly props: TailorLayerProps) {}

  public visit(node: IConstruct): void {
    if (!(node instanceof Function) || !takesLayers(node) || !(this.props.include?.(node) ?? true)) {
      return;
    }
    // A layer of the other architecture would keep the function from starting.
    const arn = this.props.layerArns[node.architecture.name as 'x86_64' | 'arm64'];
    if (arn) {
      node.addLayers(LayerVersion.fromLayerVersionArn(node, 'TailorLayer', arn));
      node.addEnvironment('TAILOR_ENDPOINT', this.props.endpoint);
      if (this.props.apiKeySecret) {
        node.addEnvironment('TAILOR_API_KEY_SECRET', this.props.apiKeySecret.secretArn);
        this.props.apiKeySecret.grantRead(node);
      } else if (this.props.apiKey) {
        node.addEnvironment('TAILOR_API_KEY', this.props.apiKey);
      }
    }
  }
}

/** Container images and Lambda@Edge take no layers, and CDK's own helpers run only while a stack is deployed. */
function takesLayers(fn: Function): boolean {
  const trusted = fn.role instanceof Role ? Stack.of(fn).resolve(fn.role.assumeRolePolicy) : undefined;
  const helper = /(^|\/)framework-on(Event|Timeout)$|(^|\/)framework-isComplete$/.test(fn.node.path)
    || fn.node.metadata.some(({ type }) => type.startsWith('aws:cdk:is-custom-resource-handler'));
  return fn.runtime !== Runtime.FROM_IMAGE && !helper
    && !(JSON.stringify(trusted) ?? '').includes('edgelambda.amazonaws.com');
}
