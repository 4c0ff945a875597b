"""nginx as a child of the runtime."""

import subprocess

from common import wait_for_port
from nginx_daemon import PORT, handle, prepare

__all__ = ["handle", "start"]


def start():
    prepare("off")
    subprocess.Popen(["/usr/sbin/nginx", "-e", "/tmp/nginx.log", "-c", "/tmp/nginx.conf"])
    wait_for_port(PORT)
