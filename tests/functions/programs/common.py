"""What the handlers share."""

import socket
import subprocess
import time
import urllib.request


def run(*command, **options):
    """Runs a command and returns its output."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    if result.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {result.stderr.decode()}")
    return result.stdout


def wait_for_port(port):
    """Waits until a server listens on the port."""
    for _ in range(500):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")


def get(port, path="/"):
    """The body of a response."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"accept-encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.read()


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
