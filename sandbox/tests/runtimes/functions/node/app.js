// The same operations as the handlers in other languages: echo, fail, sleep, use memory.
let invocations = 0;

exports.handler = async (event, context) => {
  invocations += 1;
  switch (event.do) {
    case "fail":
      throw new RangeError("boom");
    case "sleep":
      await new Promise((resolve) => setTimeout(resolve, event.seconds * 1000));
      break;
    case "memory":
      return Buffer.alloc(event.mb * 1024 * 1024, 1).length;
  }
  return { invocations, request_id: context.awsRequestId, memory_mb: context.memoryLimitInMB };
};

// Writes three parts over 40 ms or more, and then fails if asked to.
exports.stream = awslambda.streamifyResponse(async (event, stream) => {
  for (const part of ["one ", "two ", "three"]) {
    stream.write(part);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  if (event.do === "fail") {
    throw new RangeError("boom");
  }
  stream.end();
});
