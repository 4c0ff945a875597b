"""gunicorn with three workers in the background."""

from common import get, run, wait_for_port, write

PORT = 8093

APPLICATION = """import hashlib
table = bytearray(b"x" * (40 << 20))
def application(environ, start_response):
    digest = hashlib.sha256()
    for _ in range(3): digest.update(table)
    start_response("200 OK", [("content-type", "text/plain")])
    return [digest.hexdigest().encode()]
"""


def start():
    write("/tmp/application.py", APPLICATION)
    options = ["--preload", "--daemon", "--worker-tmp-dir", "/tmp", "--chdir", "/tmp", "--workers", "3"]
    run("gunicorn", *options, "--bind", f"127.0.0.1:{PORT}", "--pid", "/tmp/gunicorn.pid", "application")
    wait_for_port(PORT)


def handle(event):
    return {"digest": get(PORT).decode()}
