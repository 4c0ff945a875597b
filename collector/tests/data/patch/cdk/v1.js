const cdk = require('@aws-cdk/core');
const { Function, Runtime, Code } = require('@aws-cdk/aws-lambda');
class S extends cdk.Stack {
  constructor(scope, id) {
    super(scope, id);
    new Function(this, 'Job', {
      runtime: Runtime.NODEJS_14_X,
      handler: 'index.handler',
      code: Code.fromInline('exports.handler = () => {}')
    });
  }
}
module.exports = { S };
