"""Node.js: a cluster of two processes, each with two worker threads."""

import subprocess

from common import get, wait_for_port, write

PORT = 8097

PROGRAM = """
const cluster = require('cluster'), http = require('http'), crypto = require('crypto');
const { Worker, isMainThread, parentPort } = require('worker_threads');
const hash = () => { let h = 'x'; for (let i = 0; i < 30000; i++) h = crypto.createHash('sha1').update(h).digest('hex'); return h; };
if (!isMainThread) parentPort.on('message', () => parentPort.postMessage(hash()));
else if (cluster.isPrimary) { cluster.fork(); cluster.fork(); }
else {
  const workers = [new Worker(__filename), new Worker(__filename)];
  http.createServer((request, response) => Promise.all(workers.map(worker => new Promise(resolve => {
    worker.once('message', resolve); worker.postMessage(0); }))).then(hashes => response.end(hashes[0]))
  ).listen(PORT, '127.0.0.1');
}
"""


def start():
    write("/tmp/server.js", PROGRAM.replace("PORT", str(PORT)))
    subprocess.Popen(["node", "/tmp/server.js"])
    wait_for_port(PORT)
    get(PORT)


def handle(event):
    return {"hash": get(PORT).decode()}
