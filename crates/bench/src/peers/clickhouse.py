"""ClickHouse on the same load, embedded through the package chdb.

usage: clickhouse.py DATA.rowbinary TRUTH.json WORKDIR REPEATS TEXT_INDEX(0|1)

Makes an OpenTelemetry-like logs table (ordered by service and time, Delta/ZSTD(1)), inserts the load
in blocks, merges everything, then asks the questions. Prints one JSON object. CPU seconds are those
of this process; parsing is part of them, as it is for every server.
"""
import glob, json, os, resource, shutil, statistics, sys, time
import chdb.session

data, truth_path, workdir, repeats, text_index = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5] == "1"
truth = json.load(open(truth_path))
raw_gb = truth["raw_bytes"] / 1e9


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def size(folder):
    return sum(os.stat(f).st_blocks * 512 for f in glob.glob(folder + "/**/*", recursive=True) if os.path.isfile(f))


shutil.rmtree(workdir, ignore_errors=True)
session = chdb.session.Session(workdir)
ask = lambda sql: session.query(sql, "JSONCompact")
rows = lambda sql: json.loads(ask(sql).bytes())["data"]
index = "INDEX idx_body Body TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 8," if text_index else ""
# Without this the second run of a filter answers from remembered granules, not from the data.
ask("SET use_query_condition_cache = 0")
ask("CREATE DATABASE IF NOT EXISTS bench ENGINE = Atomic")
ask(f"""CREATE TABLE bench.otel_logs (
    Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    TraceId String CODEC(ZSTD(1)),
    SpanId String CODEC(ZSTD(1)),
    SeverityText LowCardinality(String) CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    Pod LowCardinality(String) CODEC(ZSTD(1)),
    Namespace LowCardinality(String) CODEC(ZSTD(1)),
    Body String CODEC(ZSTD(1)),
    {index}
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1
) ENGINE = MergeTree PARTITION BY toDate(Timestamp) ORDER BY (ServiceName, Timestamp)""")

columns = "s String, p String, n String, l String, b String, t String, i String, ts Int64"
cpu0, wall0 = cpu(), time.monotonic()
ask(f"""INSERT INTO bench.otel_logs (Timestamp, TraceId, SpanId, SeverityText, ServiceName, Pod, Namespace, Body)
    SELECT fromUnixTimestamp64Nano(ts), t, i, l, s, p, n, b
    FROM file('{os.path.abspath(data)}', 'RowBinary', '{columns}')""")
insert_wall = time.monotonic() - wall0
ask("OPTIMIZE TABLE bench.otel_logs FINAL")
cpu1 = cpu()
active = rows("SELECT sum(bytes_on_disk), sum(data_compressed_bytes), count() FROM system.parts WHERE database='bench' AND active")[0]
by_column = rows("SELECT name, data_compressed_bytes FROM system.columns WHERE database='bench' ORDER BY 2 DESC")

tail, trace = truth["tail"], truth["trace"][0]
at = lambda ns: f"fromUnixTimestamp64Nano(toInt64({ns}))"
table = "bench.otel_logs"
word, regex, common = truth["rare_word"], truth["rare_regex"], truth["common"]
word_filter = f"hasToken(Body, '{word[0]}')" if text_index else f"Body LIKE '%{word[0]}%'"
questions = {
    "tail": (f"SELECT toUnixTimestamp64Nano(Timestamp), Body FROM {table} WHERE ServiceName='{tail['service']}' "
             f"AND Timestamp >= {at(tail['from_ns'])} AND Timestamp < {at(tail['to_ns'])} ORDER BY Timestamp DESC LIMIT 1000",
             lambda r: len(r) == tail["lines"] and int(r[-1][0]) == tail["oldest_ns"] and int(r[0][0]) == tail["newest_ns"]),
    "rare_word": (f"SELECT Timestamp, Body FROM {table} WHERE {word_filter}", lambda r: len(r) == word[1]),
    "trace_id": (f"SELECT Timestamp, Body FROM {table} WHERE TraceId='{trace}'", lambda r: len(r) == truth["trace"][1]),
    "rare_regex": (f"SELECT Timestamp, Body FROM {table} WHERE match(Body, '{regex[0]}')", lambda r: len(r) == regex[1]),
    "common_count": (f"SELECT count() FROM {table} WHERE Body LIKE '%{common[0]}%'", lambda r: int(r[0][0]) == common[1]),
    "levels": (f"SELECT toStartOfMinute(Timestamp) m, SeverityText, count() FROM {table} GROUP BY m, SeverityText ORDER BY m",
               lambda r: sum(int(x[2]) for x in r) == truth["lines"] and len(r) == len(truth["levels"])),
}
answers = {}
for name in questions:
    answers[name] = {"ms": [], "ok": True}
for _ in range(repeats + 1):
    for name, (sql, check) in questions.items():
        begin = time.perf_counter()
        got = ask(sql).bytes()
        took = (time.perf_counter() - begin) * 1000
        answers[name]["ok"] &= bool(check(json.loads(got)["data"]))
        answers[name]["ms"].append(took)

# Push to visible: one insert of 20 rows, then a question until it shows.
visible = []
for n in range(50):
    begin = time.perf_counter()
    ask(f"INSERT INTO {table} (Timestamp, ServiceName, Body) SELECT now64(9), 'probe', 'probe {n}' FROM numbers(20)")
    while int(rows(f"SELECT count() FROM {table} WHERE ServiceName='probe' AND Body='probe {n}'")[0][0]) == 0:
        pass
    visible.append((time.perf_counter() - begin) * 1000)

quantile = lambda values, q: sorted(values)[min(len(values) - 1, int(len(values) * q))]
print(json.dumps({
    "name": "ClickHouse " + chdb.engine_version + (" with a text index" if text_index else ""),
    "lines": truth["lines"],
    "cpu_s_per_gb": (cpu1 - cpu0) / raw_gb,
    "lines_per_s": truth["lines"] / insert_wall,
    "disk_per_raw": int(active[0]) / truth["raw_bytes"],
    "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "visible_p50_ms": quantile(visible, 0.5),
    "visible_p99_ms": quantile(visible, 0.99),
    "columns": {c[0]: int(c[1]) for c in by_column},
    "queries": {n: {"median_ms": statistics.median(a["ms"][1:]), "p95_ms": quantile(a["ms"][1:], 0.95), "ok": a["ok"]}
                for n, a in answers.items()},
}))
