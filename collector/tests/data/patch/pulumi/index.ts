import * as pulumi from "@pulumi/pulumi";
import * as aws from "@pulumi/aws";

const config = new pulumi.Config();
const fn = new aws.lambda.Function("thumbnailer", {
    code: new pulumi.asset.FileArchive("./app"),
    runtime: aws.lambda.Runtime.NodeJS20dX,
    role: "arn:aws:iam::123456789012:role/r",
    handler: "index.handler",
}, { protect: true });
new aws.lambda.Function("sized", {
    name: "sized-by-config",
    memorySize: config.requireNumber("memory"),
    role: "arn:aws:iam::123456789012:role/r",
});
new aws.lambda.CallbackFunction("callback", {
    memorySize: 256, // small
    callback: async () => {},
});
