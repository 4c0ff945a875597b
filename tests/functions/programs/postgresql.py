"""A PostgreSQL server in the background, with one process for each connection."""

import glob
import os

from common import run, wait_for_port

PORT = 8096
QUERY = "select sum(length(md5(n::text))) from generate_series(1, 150000) n"


def start():
    programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
    options = f"-p {PORT} -k /tmp -c listen_addresses=127.0.0.1 -c dynamic_shared_memory_type=mmap"
    os.makedirs("/tmp/postgresql", exist_ok=True)
    run(f"{programs}/initdb", "-D", "/tmp/postgresql/data", "-U", "test", "--no-sync", "--locale=C", "-A", "trust")
    log = "/tmp/postgresql/log"
    run(f"{programs}/pg_ctl", "-D", "/tmp/postgresql/data", "-o", options, "-l", log, "-w", "start")
    wait_for_port(PORT)


def handle(event):
    answer = run("psql", "-h", "127.0.0.1", "-p", str(PORT), "-U", "test", "-tAc", QUERY, "postgres")
    return {"sum": int(answer)}
