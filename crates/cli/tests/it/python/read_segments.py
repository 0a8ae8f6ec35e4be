"""Reads segments with DuckDB and with pyarrow; prints rows and services as each sees them."""

import sys

import duckdb
import pyarrow.parquet as pq

has_body, *files = sys.argv[1:]
rows, services = duckdb.execute(
    "SELECT count(*), count(DISTINCT service) FROM read_parquet(?)", [files]
).fetchone()
tables = [pq.read_table(file) for file in files]
seen = {str(value) for table in tables for value in table["service"].unique()}
if has_body == "body":
    (good,) = duckdb.execute(
        "SELECT count(*) FROM read_parquet(?) WHERE regexp_full_match(body, 'request [0-9]+ of round [01] took [0-9]+ms')",
        [files],
    ).fetchone()
    assert good == rows, f"{good} of {rows} bodies are as sent"
    assert sum(1 for table in tables for body in table["body"] if str(body).startswith("request ")) == rows
print(f"duckdb {rows} {services}, pyarrow {sum(table.num_rows for table in tables)} {len(seen)}")
