"""Copies an archive from the S3 server's file interface, reads it with DuckDB, and measures a query over all of it.

usage: measure.py URL FOLDER   prints one line of JSON
"""

import json
import os
import sys
import time
import urllib.request

import duckdb

url, folder = sys.argv[1:]


def copy(path):
    request = urllib.request.Request(f"{url}{path}/?limit=1000000", headers={"Accept": "application/json"})
    for entry in json.load(urllib.request.urlopen(request))["Entries"] or []:
        name = entry["FullPath"].rsplit("/", 1)[1]
        if name.endswith(".parquet"):
            os.makedirs(f"{folder}{path}", exist_ok=True)
            urllib.request.urlretrieve(f"{url}{path}/{name}", f"{folder}{path}/{name}")
            sizes.append(os.path.getsize(f"{folder}{path}/{name}"))
        else:
            copy(f"{path}/{name}")


sizes = []
copy("")
archive = f"read_parquet('{folder}/day=*/account=*/*.parquet', hive_partitioning = true)"
database = duckdb.connect()
rows, keys, billed_ms = database.execute(
    f"""SELECT count(*), count(DISTINCT (environment_id, batch_sequence, request_id)), sum(billed_ms)::BIGINT
        FROM {archive}"""
).fetchone()
start = time.monotonic()
database.execute(
    f"""SELECT function, count(*) AS invocations, sum(cost_picodollars) / 1e12 AS dollars,
        quantile_cont(duration_us, 0.99) / 1000 AS p99_ms
        FROM {archive} GROUP BY function ORDER BY dollars DESC"""
).fetchall()
seconds = round(time.monotonic() - start, 2)
print(
    json.dumps(
        {
            "rows": rows,
            "keys": keys,
            "billed_ms": billed_ms,
            "objects": len(sizes),
            "bytes": sum(sizes),
            "query_seconds": seconds,
        }
    )
)
