// A minimal runtime. WORKLOAD names a function of workloads.js.
'use strict';
const http = require('node:http');
const agent = new http.Agent({ keepAlive: true });
const api = `http://${process.env.AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation`;

function request(url, method = 'GET', body = undefined) {
  return new Promise((resolve, reject) => {
    const headers = { 'Content-Type': 'application/json', 'Content-Length': body ? Buffer.byteLength(body) : 0 };
    const outgoing = http.request(url, { method, agent, headers }, (answer) => {
      const chunks = [];
      answer.on('data', (chunk) => chunks.push(chunk));
      answer.on('end', () => resolve({ headers: answer.headers, body: Buffer.concat(chunks).toString() }));
      answer.on('error', reject);
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

async function main() {
  const handler = require('./workloads.js')(request)[process.env.WORKLOAD];
  for (;;) {
    const next = await request(`${api}/next`);
    const path = `${api}/${next.headers['lambda-runtime-aws-request-id']}`;
    try {
      await request(`${path}/response`, 'POST', JSON.stringify(await handler(JSON.parse(next.body || '{}'))));
    } catch (error) {
      const body = JSON.stringify({ errorMessage: String(error.message), errorType: error.name });
      await request(`${path}/error`, 'POST', body);
    }
  }
}

main();
