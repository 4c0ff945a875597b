"""Reads an archive with DuckDB, and checks the definition of the table for Athena with sqlglot.

usage: read.py FOLDER [DDL]   prints one line of JSON
"""

import json
import sys

import duckdb

folder = sys.argv[1]
files = f"{folder}/day=*/account=*/*.parquet"
archive = f"read_parquet('{files}', hive_partitioning = true, hive_types = {{'day': DATE, 'account': VARCHAR}})"
database = duckdb.connect()
database.execute("SET TimeZone = 'UTC'")
rows, keys, billed_ms, cost, cpu = database.execute(
    f"""SELECT count(*), count(DISTINCT (environment_id, batch_sequence, request_id)), sum(billed_ms)::BIGINT,
        sum(cost_picodollars)::HUGEINT, count(cpu_user_us) FROM {archive}"""
).fetchone()
partitions = database.execute(
    f"""SELECT day::VARCHAR, account, count(*), sum(billed_ms)::BIGINT FROM {archive}
        WHERE started_at::DATE = day GROUP BY ALL ORDER BY ALL"""
).fetchall()
functions = database.execute(
    f"SELECT function, count(*), sum(cost_picodollars)::BIGINT FROM {archive} GROUP BY ALL ORDER BY ALL"
).fetchall()
columns = [(name, kind) for name, kind, *_ in database.execute(f"DESCRIBE SELECT * FROM {archive}").fetchall()]

if len(sys.argv) > 2:
    import sqlglot

    with open(sys.argv[2]) as file:
        table = sqlglot.parse_one(file.read(), read="athena")
    athena = [(c.name, c.kind.sql()) for c in table.find_all(sqlglot.exp.ColumnDef)]
    types = {
        "BIGINT": "BIGINT",
        "VARCHAR": "TEXT",
        "BOOLEAN": "BOOLEAN",
        "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
        "DATE": "DATE",
    }
    # DuckDB sorts the partition columns by name.
    expected = [(name, types[kind]) for name, kind in columns]
    assert sorted(expected) == sorted(athena), (expected, athena)
    assert [c for c in expected if c[0] not in ("day", "account")] == athena[:-2], athena

print(
    json.dumps(
        {
            "rows": rows,
            "keys": keys,
            "billed_ms": billed_ms,
            "cost_picodollars": int(cost or 0),
            "with_cpu": cpu,
            "partitions": partitions,
            "functions": functions,
            "columns": columns,
        }
    )
)
