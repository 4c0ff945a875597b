"""A Redis server in the background."""

import socket

from common import run, wait_for_port

PORT = 8095


def start():
    run("redis-server", "--port", str(PORT), "--bind", "127.0.0.1", "--daemonize", "yes", "--save", "", "--dir", "/tmp")
    wait_for_port(PORT)


def handle(event):
    commands = b"".join(b"SET key%d %s\r\n" % (number % 5_000, b"x" * 200) for number in range(40_000))
    with socket.create_connection(("127.0.0.1", PORT)) as client:
        client.sendall(commands + b"QUIT\r\n")
        received = 0
        while data := client.recv(65_536):
            received += data.count(b"+OK")
    return {"replies": received}
