#!/usr/bin/env node
// A telemetry extension that behaves as AWS's Node.js sample: it listens on port 4243 and subscribes to everything.
// It prints the number of records of each type when the environment ends.

const http = require('http');
const path = require('path');

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
const NAME = path.basename(__filename);
const PORT = 4243;

const counts = {};

const read = async (stream) => {
  let text = '';
  for await (const part of stream) text += part;
  return text;
};

const call = (method, path, headers, body) => new Promise((resolve, reject) => {
  const options = { host, port, method, path, headers: { 'Content-Type': 'application/json', ...headers } };
  const request = http.request(options, async (answer) => resolve({ headers: answer.headers, body: await read(answer) }));
  request.on('error', reject);
  request.end(body && JSON.stringify(body));
});

const receive = async (request, response) => {
  for (const { type } of JSON.parse(await read(request))) counts[type] = (counts[type] ?? 0) + 1;
  response.end();
};

(async () => {
  const registered = await call('POST', '/2020-01-01/extension/register', { 'Lambda-Extension-Name': NAME },
    { events: ['INVOKE', 'SHUTDOWN'] });
  const identifier = { 'Lambda-Extension-Identifier': registered.headers['lambda-extension-identifier'] };
  // Fails when the port is in use: the extension ends, and with it the environment.
  await new Promise((resolve) => http.createServer(receive).listen(PORT, '0.0.0.0', resolve));
  await call('PUT', '/2022-07-01/telemetry', identifier, {
    schemaVersion: '2022-07-01',
    types: ['platform', 'function', 'extension'],
    buffering: { maxItems: 1000, maxBytes: 256 * 1024, timeoutMs: 100 },
    destination: { protocol: 'HTTP', URI: `http://sandbox.localdomain:${PORT}` },
  });
  for (;;) {
    const event = JSON.parse((await call('GET', '/2020-01-01/extension/event/next', identifier)).body);
    if (event.eventType === 'SHUTDOWN') {
      // The last records come after SHUTDOWN.
      await new Promise((resolve) => setTimeout(resolve, 400));
      console.log('received', JSON.stringify(counts));
      process.exit(0);
    }
  }
})();
