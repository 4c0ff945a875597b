import { StackContext, Function } from "sst/constructs";

export function Jobs({ stack }: StackContext) {
  new Function(stack, "Nightly", {
    handler: "functions/nightly.main",
    memorySize: "1 GB",
  });
  new Function(stack, "Hourly", { handler: "functions/hourly.main", memorySize: 256 });
}
