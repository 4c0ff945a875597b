// The functions in Node.js. `n` of the event is the amount of work.
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const zlib = require('node:zlib');
const { spawn } = require('node:child_process');
const { promisify } = require('node:util');
const { Worker } = require('node:worker_threads');

const gzip = promisify(zlib.gzip);
const pbkdf2 = promisify(crypto.pbkdf2);
const rows = Array.from({ length: 4000 }, (_, id) => ({ id, name: `customer ${id}`, total: (id * 7919) % 900, tags: ['a', 'b'] }));
const csv = rows.map((row) => `${row.id},${row.name},${row.total}`).join('\n');
const text = Buffer.from(rows.map((row) => `${row.id} GET /item/${row.name} ${row.total}\n`).join(''));
const escape = (value) => String(value).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const hash = (n) => pbkdf2('key', 'salt', n, 32, 'sha256');

module.exports = (request) => {
  const ask = (delayMs) => request(`http://${process.env.SERVER}/${delayMs}`);
  let service;
  const workloads = {
    // Real programs, one thread.
    async jsonTransform({ n }) {
      const parsed = JSON.parse(JSON.stringify(rows.slice(0, n))).sort((a, b) => a.total - b.total);
      return { bytes: JSON.stringify(parsed.map((row) => ({ ...row, total: row.total.toFixed(2) }))).length };
    },
    async csvReport({ n }) {
      const totals = new Map();
      for (let i = 0; i < n; i += 1) {
        for (const line of csv.split('\n')) {
          const [id, , total] = line.split(',');
          totals.set(id.slice(-2), (totals.get(id.slice(-2)) ?? 0) + Number(total));
        }
      }
      return { groups: totals.size };
    },
    async page({ n }) {
      const lines = rows.slice(0, n).map((row) => `<tr>${Object.values(row).map((v) => `<td>${escape(v)}</td>`).join('')}</tr>`);
      return { bytes: `<table>${lines.join('')}</table>`.length };
    },
    async markdown({ n }) {
      const source = '# Title\n\nSome *text* with `code` and [a link](https://example.com).\n\n'.repeat(n);
      const html = source.split('\n\n').map((block) => block.replace(/^# (.*)$/gm, '<h1>$1</h1>').replace(/\*(.+?)\*/g, '<em>$1</em>')
        .replace(/`(.+?)`/g, '<code>$1</code>').replace(/\[(.+?)\]\((.+?)\)/g, '<a href="$2">$1</a>'));
      return { bytes: html.join('').length };
    },
    async routes({ n }) {
      const best = new Int32Array(n * n).fill(1 << 30);
      const queue = [0];
      best[0] = 0;
      for (let at = 0; at < queue.length; at += 1) {
        const node = queue[at];
        for (const other of [node + 1, node + n, node - n]) {
          const cost = best[node] + ((other * 31) % 9) + 1;
          if (other >= 0 && other < n * n && cost < best[other]) { best[other] = cost; queue.push(other); }
        }
      }
      return { farthest: best[n * n - 1] };
    },
    // A convolution with a kernel of 3 × 3.
    async image({ n }) {
      const from = new Uint8Array(n * n).map((_, i) => (i * 7) & 255);
      const to = new Uint8Array(n * n);
      for (let y = 1; y < n - 1; y += 1) {
        for (let x = 1; x < n - 1; x += 1) {
          let sum = 0;
          for (let dy = -1; dy <= 1; dy += 1) for (let dx = -1; dx <= 1; dx += 1) sum += from[(y + dy) * n + x + dx];
          to[y * n + x] = sum / 9;
        }
      }
      return { last: to[n * n - n - 2] };
    },
    async manifest({ n }) {
      let last = '';
      for (let i = 0; i < n; i += 1) last = crypto.createHash('sha256').update(text).update(last).digest('hex');
      return { last };
    },
    async authorise({ n }) {
      const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
      for (let i = 0; i < n; i += 1) {
        crypto.createHmac('sha256', 'secret').update(`${part({ alg: 'HS256' })}.${part({ sub: 'user' })}`).digest('base64url');
      }
      return { isAuthorized: true };
    },
    // Waiting.
    async apiThenWork(event) {
      await ask(event.delay_ms);
      return workloads.jsonTransform(event);
    },
    async chatty({ n }) {
      let bytes = 0;
      for (let i = 0; i < n; i += 1) bytes += JSON.stringify(Array.from((await ask(1)).body)).length;
      return { bytes };
    },
    async fanOut({ n, delay_ms: delayMs }) {
      const answers = await Promise.all(Array.from({ length: n }, () => ask(delayMs)));
      return { bytes: JSON.stringify(answers.map((answer) => Array.from(answer.body))).length };
    },
    // Threads.
    async gzipParallel({ n }) {
      const packed = await Promise.all([1, 2, 3, 4].map(() => gzip(Buffer.concat(Array(n).fill(text)))));
      return { bytes: packed[0].length };
    },
    async gzipSequential({ n }) {
      let bytes = 0;
      for (let i = 0; i < 4; i += 1) bytes += (await gzip(Buffer.concat(Array(n).fill(text)))).length;
      return { bytes };
    },
    async hashParallel({ n }) {
      return { last: (await Promise.all([hash(n), hash(n), hash(n)]))[2].toString('hex') };
    },
    async hashSequential({ n }) {
      return { last: (await hash(n)) && (await hash(n)).toString('hex') };
    },
    async workers({ n }) {
      const code = `const c = require('node:crypto'); require('node:worker_threads').parentPort.postMessage(c.pbkdf2Sync('k', 's', ${n}, 32, 'sha256').toString('hex'))`;
      const run = () => new Promise((resolve, reject) => new Worker(code, { eval: true }).once('message', resolve).once('error', reject));
      return { last: (await Promise.all([run(), run()]))[1] };
    },
    // Objects that live long enough to be copied by the collector.
    async allocate({ n }) {
      const made = Array.from({ length: n }, (_, id) => ({ id, name: `row-${id}`, next: [id] }));
      return { names: new Set(made.map((row) => row.name)).size };
    },
    async cache({ n }) {
      const kept = new Map();
      for (let i = 0; i < n; i += 1) {
        kept.set(`key-${i % 5000}`, { text: `value ${i}`, at: [i, i + 1] });
      }
      return { kept: kept.size };
    },
    // New code in each invocation, for the compiler.
    async compile({ n }) {
      let sum = 0;
      for (let i = 0; i < n; i += 1) {
        const work = new Function('limit', `let s = ${i}; for (let k = 0; k < limit; k += 1) s = (s * 31 + k + ${i}) | 0; return s;`);
        for (let k = 0; k < 4; k += 1) sum += work(20000);
      }
      return { sum };
    },
    async writeFiles({ n, blocks }) {
      for (let i = 0; i < n; i += 1) {
        const file = await fs.promises.open(`/tmp/part-${i}`, 'w');
        for (let k = 0; k < blocks; k += 1) await file.write(text);
        await file.sync();
        await file.close();
      }
      return { files: n };
    },
    // Processes.
    async child({ n, command }) {
      const process = spawn(command[0], command.slice(1), { stdio: ['pipe', 'pipe', 'ignore'] });
      let bytes = 0;
      process.stdout.on('data', (chunk) => { bytes += chunk.length; });
      process.stdin.end(Buffer.concat(Array(n).fill(text)));
      const code = await new Promise((resolve, reject) => process.once('close', resolve).once('error', reject));
      if (code !== 0) throw new Error(`${command[0]} ended with ${code}`);
      return { bytes };
    },
    // A web server in its own process, to which the runtime forwards events.
    async webAdapter({ n }) {
      if (!service) {
        const code = `require('node:http').createServer((q, a) => { const n = Number(q.url.slice(1));
          a.end(JSON.stringify(Array.from({ length: n }, (_, id) => ({ id, name: 'row ' + id })).reverse())); }).listen(8123, '127.0.0.1', () => console.log('ready'))`;
        service = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
        await new Promise((resolve) => service.stdout.once('data', resolve));
      }
      return { bytes: (await request(`http://127.0.0.1:8123/${n}`)).body.length };
    },
    // Input with two sizes: one invocation of four is eight times as large.
    async modes({ n }) {
      return workloads.page({ n: Math.random() < 0.25 ? n * 8 : n });
    },
  };
  return workloads;
};
