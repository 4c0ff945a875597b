"""The functions in Python. `n` of the event is the amount of work."""

import base64
import csv
import hashlib
import heapq
import hmac
import html
import http.client
import io
import json
import os
import random
import re
import socket
import sqlite3
import string
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor

SERVER = os.environ.get("SERVER")
POOL = ThreadPoolExecutor(4)
RANDOM = random.Random(7)
ROWS = [{"id": i, "name": f"customer {i}", "total": RANDOM.random() * 900, "tags": ["a", "b"]} for i in range(4_000)]
CSV_TEXT = "id,name,total\n" + "".join(f"{row['id']},{row['name']},{row['total']:.2f}\n" for row in ROWS)
LOG = "\n".join(f'10.0.{i % 250}.7 - - [{i}] "GET /item/{i} HTTP/1.1" {200 + i % 4} {i * 37 % 9000}' for i in range(3_000))


def fetch(delay_ms):
    with urllib.request.urlopen(f"http://{SERVER}/{delay_ms}", timeout=20) as answer:
        return answer.read()


def digest(n):
    """Work in native code, without the interpreter's lock."""
    return hashlib.pbkdf2_hmac("sha256", b"key", b"salt", n).hex()


# Real programs, one thread.


def json_transform(event):
    text = json.dumps(ROWS[: event["n"]])
    rows = sorted(json.loads(text), key=lambda row: row["total"])
    return {"bytes": len(json.dumps([{**row, "total": round(row["total"], 2)} for row in rows]))}


def csv_report(event):
    totals = {}
    for _ in range(event["n"]):
        for row in csv.DictReader(io.StringIO(CSV_TEXT)):
            totals[row["id"][-2:]] = totals.get(row["id"][-2:], 0) + float(row["total"])
    return {"groups": len(totals)}


def page(event):
    row = string.Template("<tr><td>$id</td><td>$name</td><td>$total</td></tr>")
    rows = "".join(row.substitute({k: html.escape(str(v)) for k, v in one.items()}) for one in ROWS[: event["n"]])
    return {"bytes": len(f"<table>{rows}</table>")}


def pdf(event):
    """An invoice with compressed pages, as PDF libraries write it."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    for number in range(event["n"]):
        lines = [f"BT /F1 9 Tf 40 {800 - 12 * at} Td ({row['name']} {row['total']:.2f}) Tj ET" for at, row in enumerate(ROWS[number : number + 60])]
        stream = zlib.compress("\n".join(lines).encode())
        objects.append(b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(stream), stream))
    out, offsets = io.BytesIO(b"%PDF-1.7\n"), []
    for number, content in enumerate(objects, 1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, content))
    return {"bytes": out.tell(), "objects": len(offsets)}


def compress(event):
    return {"bytes": len(zlib.compress(LOG.encode() * event["n"], 6))}


def manifest(event):
    block = LOG.encode()
    return {"last": [hashlib.sha256(block + bytes([i % 250])).hexdigest() for i in range(event["n"])][-1]}


def sql(event):
    database = sqlite3.connect(":memory:")
    database.execute("create table orders(id integer primary key, name text, total real)")
    database.executemany("insert into orders values(:id, :name, :total)", ROWS[: event["n"]])
    query = "select substr(name, -1) k, count(*), sum(total) from orders group by k order by 3 desc"
    return {"groups": len(database.execute(query).fetchall())}


def routes(event):
    """Shortest paths from one node of a grid with weights."""
    side = event["n"]
    cost = [RANDOM.randrange(1, 9) for _ in range(side * side)]
    best, queue = {0: 0}, [(0, 0)]
    while queue:
        distance, node = heapq.heappop(queue)
        if distance > best[node]:
            continue
        for other in (node + 1 if (node + 1) % side else -1, node + side, node - side):
            if 0 <= other < side * side and distance + cost[other] < best.get(other, 1 << 30):
                best[other] = distance + cost[other]
                heapq.heappush(queue, (best[other], other))
    return {"farthest": max(best.values())}


def thumbnail(event):
    """Scales a greyscale image to half its size."""
    side = event["n"]
    image = bytes(i * 7 & 255 for i in range(256)) * (side * side // 256)
    lines = [image[y * side : (y + 1) * side] for y in range(side)]
    small = [bytes((a + b + c + d) // 4 for a, b, c, d in zip(one[::2], one[1::2], two[::2], two[1::2])) for one, two in zip(lines[::2], lines[1::2])]
    return {"bytes": sum(map(len, small))}


def log_parse(event):
    pattern = re.compile(r'^(\S+) .*?\[(\d+)\] "(\w+) (\S+) [^"]*" (\d+) (\d+)$')
    sizes = {}
    for _ in range(event["n"]):
        for line in LOG.splitlines():
            match = pattern.match(line)
            sizes[match[5]] = sizes.get(match[5], 0) + int(match[6])
    return sizes


def authorise(event):
    """Checks the signature of a token."""
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")
    for _ in range(event["n"]):
        body = part({"alg": "HS256"}) + b"." + part({"sub": "user", "exp": 4_000_000_000})
        hmac.new(b"secret", body, "sha256").digest()
    return {"isAuthorized": True}


# Waiting.


def api_then_work(event):
    fetch(event["delay_ms"])
    return json_transform(event)


def chatty(event):
    return {"bytes": sum(len(json.dumps(list(fetch(1)))) for _ in range(event["n"]))}


def fan_out(event):
    answers = POOL.map(fetch, [event["delay_ms"]] * event["n"])
    return {"bytes": sum(len(json.dumps(list(answer))) for answer in answers)}


# Threads.


def pool_parallel(event):
    return {"last": list(POOL.map(digest, [event["n"]] * 4))[-1]}


def pool_sequential(event):
    return {"last": [POOL.submit(digest, event["n"]).result() for _ in range(4)][-1]}


def ended_threads(event):
    threads = [threading.Thread(target=digest, args=(event["n"],)) for _ in range(event.get("threads", 4))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"threads": len(threads)}


def allocate(event):
    rows = [{"id": i, "name": f"row-{i}", "next": [i]} for i in range(event["n"])]
    return {"names": len({row["name"] for row in rows})}


def write_files(event):
    for number in range(event["n"]):
        with open(f"/tmp/part-{number}", "wb") as file:
            for _ in range(event["blocks"]):
                file.write(LOG.encode())
            file.flush()
            os.fsync(file.fileno())
    return {"files": event["n"]}


# Processes.


def run(*command, text=None):
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.decode()[-200:]}")
    return done.stdout


def child_gzip(event):
    return {"bytes": len(run("gzip", "-6", text=LOG.encode() * event["n"]))}


def child_awk(event):
    program = "{ size[$7] += $8; n = split($6, parts, \"/\"); for (i = 1; i <= n; i++) seen[parts[i]]++ } END { for (k in size) print k, size[k] }"
    return {"lines": len(run("awk", program, text=("\n".join([LOG] * event["n"])).encode()).splitlines())}


def child_image(event):
    command = ["convert", "-size", f"{event['n']}x{event['n']}", "plasma:blue-red", "-resize", "50%", "-blur", "0x2", "jpg:-"]
    return {"bytes": len(run(*command))}


def child_video(event):
    command = ["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", f"testsrc=duration={event['n']}:size=160x120:rate=25"]
    return {"bytes": len(run(*command, "-f", "mpeg", "-"))}


def child_sql(event):
    script = "create table t(a, b); with recursive c(x) as (select 1 union all select x + 1 from c where x < %d) insert into t select x, x * 7 %% 1000 from c; select b, count(*) from t group by b order by 2 desc limit 5;"
    return {"bytes": len(run("sqlite3", ":memory:", text=(script % event["n"]).encode()))}


def children(event):
    """Two Python processes that compute at the same time."""
    program = f"import hashlib; print(hashlib.pbkdf2_hmac('sha256', b'k', b's', {event['n']}).hex())"
    started = [subprocess.Popen([sys.executable, "-S", "-c", program], stdout=subprocess.PIPE) for _ in range(2)]
    return {"bytes": sum(len(child.communicate()[0]) for child in started)}


SERVICE = """
import http.server, json, sys, zlib
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_GET(self):
        n = int(self.path.strip("/"))
        rows = [{"id": i, "name": "row %d" % i} for i in range(n)]
        body = zlib.compress(json.dumps(rows).encode())
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", 8123), Handler).serve_forever()
"""


def start_web_adapter():
    """A web server in its own process, to which the runtime forwards events."""
    subprocess.Popen([sys.executable, "-c", SERVICE])
    for _ in range(500):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", 8123)) == 0:
                return
        time.sleep(0.02)


def web_adapter(event):
    connection = http.client.HTTPConnection("127.0.0.1", 8123)
    connection.request("GET", f"/{event['n']}")
    return {"bytes": len(connection.getresponse().read())}


def modes(event):
    """Input with two sizes: one invocation of three is ten times as large."""
    return json_transform({"n": event["n"] * (10 if RANDOM.random() < 0.33 else 1)})


def modes_wait(event):
    """Two of five inputs are in a cache; the others need a request."""
    if RANDOM.random() < 0.6:
        fetch(event["delay_ms"])
    return json_transform(event)
