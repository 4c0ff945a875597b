import { lambda } from "@pulumi/aws";
export const fn = new lambda.Function("plain", {
    role: "arn:aws:iam::123456789012:role/r",
    packageType: "Image",
    imageUri: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/a:1"
});
