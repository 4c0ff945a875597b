"""Headless Chromium with its usual processes prints a page to PDF."""

import glob
import os
import shutil

from common import run, write

PAGE = "<html><body>" + "".join(f"<h2>Section {n}</h2><p>{'text ' * 80}</p>" for n in range(60)) + "</body></html>"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-pdf-header-footer"]


def start():
    os.environ["HOME"] = "/tmp"
    write("/tmp/page.html", PAGE)


def browser():
    names = ["chromium-headless-shell", "chromium"]
    found = [path for path in map(shutil.which, names) if path] + glob.glob("/usr/lib/chromium/chromium*")
    return found[0]


def handle(event):
    run(browser(), *FLAGS, "--user-data-dir=/tmp/profile", "--print-to-pdf=/tmp/page.pdf", "file:///tmp/page.html")
    return {"bytes": os.path.getsize("/tmp/page.pdf")}
