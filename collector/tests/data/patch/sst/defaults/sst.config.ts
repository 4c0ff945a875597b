export default $config({
  app() { return { name: "d", home: "aws" }; },
  async run() {
    $transform(sst.aws.Function, (args) => { args.memory ??= "512 MB"; });
    new sst.aws.Function("A", { handler: "a.b" });
    new sst.aws.Function("B", { handler: "a.b", memory: "4 GB" });
  },
});
