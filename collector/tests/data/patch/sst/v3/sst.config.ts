/// <reference path="./.sst/platform/config.d.ts" />

export default $config({
  app(input) {
    return { name: "my-app", home: "aws", removal: input?.stage === "production" ? "retain" : "remove" };
  },
  async run() {
    new sst.aws.Function("MyFunction", {
      handler: "src/lambda.handler",
      timeout: "3 minutes",
      memory: "1024 MB",
    });
    const small = new sst.aws.Function("Small", { handler: "src/small.handler" });
    new sst.aws.Function("Named", { handler: "a.b", name: `${$app.name}-${$app.stage}-named`, memory: "2 GB" });
    new sst.aws.Function("Wrong", { handler: "a.b", name: "wrong-unit", memory: 1024 });
    return { url: small.url };
  },
});
