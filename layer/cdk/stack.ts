// Attaches the Lambda Tailor layer to every function of a CDK app:
//
//   Aspects.of(app).add(new TailorLayer({ layerArn, endpoint, apiKey }));
import { IAspect } from 'aws-cdk-lib';
import { Function, LayerVersion } from 'aws-cdk-lib/aws-lambda';
import { IConstruct } from 'constructs';

export interface TailorLayerProps {
  /** ARN of the layer version; its architecture must be the functions'. */
  readonly layerArn: string;
  /** The collector's URL. */
  readonly endpoint: string;
  /** The collector's key. */
  readonly apiKey: string;
}

export class TailorLayer implements IAspect {
  constructor(private readonly props: TailorLayerProps) {}

  public visit(node: IConstruct): void {
    if (!(node instanceof Function)) {
      return;
    }
    node.addLayers(LayerVersion.fromLayerVersionArn(node, 'TailorLayer', this.props.layerArn));
    node.addEnvironment('TAILOR_ENDPOINT', this.props.endpoint);
    node.addEnvironment('TAILOR_API_KEY', this.props.apiKey);
  }
}
