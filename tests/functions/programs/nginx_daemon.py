"""nginx in its default mode: it runs in the background, and its processes have titles. It compresses each response."""

import random

from common import get, run, wait_for_port, write

PORT = 8091
DAEMON = "on"


def configuration(daemon):
    temporary = "\n".join(
        f"{kind}_temp_path /tmp/{kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    )
    return f"""daemon {daemon};
worker_processes 2;
pid /tmp/nginx.pid;
error_log /tmp/nginx.log;
events {{}}
http {{
    {temporary}
    access_log off;
    gzip on;
    gzip_comp_level 9;
    gzip_types text/plain;
    default_type text/plain;
    server {{ listen 127.0.0.1:{PORT}; root /tmp/site; }}
}}
"""


def prepare(daemon):
    run("mkdir", "-p", "/tmp/site")
    words = random.Random(1)
    write("/tmp/site/text", " ".join(f"{words.random():.6f}" for _ in range(150_000)))
    write("/tmp/nginx.conf", configuration(daemon))


def start():
    prepare(DAEMON)
    run("/usr/sbin/nginx", "-e", "/tmp/nginx.log", "-c", "/tmp/nginx.conf")
    wait_for_port(PORT)


def handle(event):
    return {"bytes": len(get(PORT, "/text"))}
