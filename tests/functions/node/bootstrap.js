// A handler and a minimal runtime, which fetches each event from the Runtime API and posts the response.
//
// WORKLOAD selects the work; the default is `wait`.
'use strict';
const http = require('node:http');
const zlib = require('node:zlib');
const { promisify } = require('node:util');

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

const ask = (delayMs) => request(`http://${process.env.SERVER}/${delayMs}`);

const workloads = {
  // Three concurrent requests, then JSON serialization.
  async wait(event) {
    const answers = await Promise.all([1, 2, 3].map(() => ask(event.delay_ms ?? 60)));
    const rows = Array.from({ length: event.items ?? 2000 }, (_, id) => ({ id, name: `item-${id}` }));
    return { answers: answers.length, bytes: JSON.stringify(rows).length };
  },
  // Arithmetic on one thread.
  async compute(event) {
    let state = 1;
    for (let i = 0; i < (event.rounds ?? 8e6); i += 1) state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return { state };
  },
  // Concurrent compression on libuv's thread pool.
  async pool(event) {
    const block = Buffer.alloc(event.bytes ?? 1 << 19, 'lambda');
    const packed = await Promise.all([1, 2, 3, 4].map(() => promisify(zlib.gzip)(block)));
    return { bytes: packed[0].length };
  },
  // Short CPU bursts between requests with a delay of 1 ms.
  async chat(event) {
    let bytes = 0;
    for (let i = 0; i < (event.requests ?? 25); i += 1) {
      bytes += JSON.stringify(Array.from((await ask(1)).body)).length;
    }
    return { bytes };
  },
  // `compute` with a profile.
  async profile(event) {
    return require('./profiles').profiled('compute', () => workloads.compute(event));
  },
  // Allocation of many objects, and garbage collection.
  async allocate(event) {
    const rows = Array.from({ length: event.items ?? 150000 }, (_, id) => ({ id, name: `row-${id}` }));
    return { names: new Set(rows.map((row) => row.name)).size };
  },
};
const handler = workloads[process.env.WORKLOAD] ?? workloads.wait;

async function main() {
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
