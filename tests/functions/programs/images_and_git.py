"""Many short child processes: ImageMagick and git."""

import os
import shutil

from common import run, write


def start():
    os.environ.update(HOME="/tmp", GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@example.com")
    os.environ.update(GIT_COMMITTER_NAME="a", GIT_COMMITTER_EMAIL="a@example.com")


def handle(event):
    run("convert", "-size", "500x400", "plasma:red-blue", "-resize", "250x200", "/tmp/image.png")
    shutil.rmtree("/tmp/repository", ignore_errors=True)
    run("git", "init", "-q", "/tmp/repository")
    for number in range(4):
        write(f"/tmp/repository/file{number}", str(number) * 2_000)
        run("git", "-C", "/tmp/repository", "add", ".")
        run("git", "-C", "/tmp/repository", "commit", "-qm", str(number))
    return {"commits": len(run("git", "-C", "/tmp/repository", "log", "--oneline").splitlines())}
