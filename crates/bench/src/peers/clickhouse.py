"""ClickHouse on the same load, embedded through the package chdb.

usage: clickhouse.py logs|traces DATA.rowbinary TRUTH.json WORKDIR REPEATS TEXT_INDEX(0|1)

Makes a table as the OpenTelemetry collector's exporter does, inserts the load in blocks, merges
everything, then asks the questions. Prints one JSON object. CPU seconds are those of this process;
parsing is part of them, as it is for every server.
"""
import glob, json, os, resource, shutil, statistics, sys, time
import chdb.session

signal, data, truth_path, workdir, repeats, text_index = *sys.argv[1:5], int(sys.argv[5]), sys.argv[6] == "1"
truth = json.load(open(truth_path))
at = lambda ns: f"fromUnixTimestamp64Nano(toInt64({ns}))"


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def logs():
    """Ordered by service and time, Delta/ZSTD(1)."""
    table = "bench.otel_logs"
    index = "INDEX idx_body Body TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 8," if text_index else ""
    create = f"""CREATE TABLE {table} (
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
    ) ENGINE = MergeTree PARTITION BY toDate(Timestamp) ORDER BY (ServiceName, Timestamp)"""
    columns = "s String, p String, n String, l String, b String, t String, i String, ts Int64"
    insert = f"""INSERT INTO {table} (Timestamp, TraceId, SpanId, SeverityText, ServiceName, Pod, Namespace, Body)
        SELECT fromUnixTimestamp64Nano(ts), t, i, l, s, p, n, b
        FROM file('{os.path.abspath(data)}', 'RowBinary', '{columns}')"""
    tail, trace = truth["tail"], truth["trace"][0]
    word, regex, common = truth["rare_word"], truth["rare_regex"], truth["common"]
    word_filter = f"hasToken(Body, '{word[0]}')" if text_index else f"Body LIKE '%{word[0]}%'"
    return table, create, insert, {
        "tail": [(f"SELECT toUnixTimestamp64Nano(Timestamp), Body FROM {table} WHERE ServiceName='{tail['service']}' "
                  f"AND Timestamp >= {at(tail['from_ns'])} AND Timestamp < {at(tail['to_ns'])} ORDER BY Timestamp DESC LIMIT 1000",
                  lambda r: len(r) == tail["lines"] and int(r[-1][0]) == tail["oldest_ns"] and int(r[0][0]) == tail["newest_ns"])],
        "rare_word": [(f"SELECT Timestamp, Body FROM {table} WHERE {word_filter}", lambda r: len(r) == word[1])],
        "trace_id": [(f"SELECT Timestamp, Body FROM {table} WHERE TraceId='{trace}'", lambda r: len(r) == truth["trace"][1])],
        "rare_regex": [(f"SELECT Timestamp, Body FROM {table} WHERE match(Body, '{regex[0]}')", lambda r: len(r) == regex[1])],
        "common_count": [(f"SELECT count() FROM {table} WHERE Body LIKE '%{common[0]}%'", lambda r: int(r[0][0]) == common[1])],
        "levels": [(f"SELECT toStartOfMinute(Timestamp) m, SeverityText, count() FROM {table} GROUP BY m, SeverityText ORDER BY m",
                    lambda r: sum(int(x[2]) for x in r) == truth["lines"] and len(r) == len(truth["levels"]))],
    }


def traces():
    """Ordered by service, operation and time, as the exporter does."""
    table = "bench.otel_traces"
    pairs = "Map(LowCardinality(String), String)"
    create = f"""CREATE TABLE {table} (
        Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
        TraceId String CODEC(ZSTD(1)),
        SpanId String CODEC(ZSTD(1)),
        ParentSpanId String CODEC(ZSTD(1)),
        TraceState String CODEC(ZSTD(1)),
        SpanName LowCardinality(String) CODEC(ZSTD(1)),
        SpanKind LowCardinality(String) CODEC(ZSTD(1)),
        ServiceName LowCardinality(String) CODEC(ZSTD(1)),
        ResourceAttributes {pairs} CODEC(ZSTD(1)),
        ScopeName String CODEC(ZSTD(1)),
        SpanAttributes {pairs} CODEC(ZSTD(1)),
        Duration UInt64 CODEC(ZSTD(1)),
        StatusCode LowCardinality(String) CODEC(ZSTD(1)),
        StatusMessage String CODEC(ZSTD(1)),
        Events Nested (Timestamp DateTime64(9), Name LowCardinality(String), Attributes {pairs}) CODEC(ZSTD(1)),
        INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
        INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
        INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
        INDEX idx_span_attr_key mapKeys(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
        INDEX idx_span_attr_value mapValues(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
        INDEX idx_duration Duration TYPE minmax GRANULARITY 1
    ) ENGINE = MergeTree PARTITION BY toDate(Timestamp) ORDER BY (ServiceName, SpanName, toDateTime(Timestamp))"""
    strings = "Map(String, String)"
    columns = ("ts Int64, d UInt64, t String, i String, p String, n String, k String, s String, "
               f"r {strings}, a {strings}, c String, m String, et Array(Int64), en Array(String), ea Array({strings})")
    insert = f"""INSERT INTO {table} (Timestamp, Duration, TraceId, SpanId, ParentSpanId, SpanName, SpanKind, ServiceName,
            ResourceAttributes, SpanAttributes, StatusCode, StatusMessage, Events.Timestamp, Events.Name, Events.Attributes)
        SELECT fromUnixTimestamp64Nano(ts), d, t, i, p, n, k, s, r, a, c, m, arrayMap(x -> fromUnixTimestamp64Nano(x), et), en, ea
        FROM file('{os.path.abspath(data)}', 'RowBinary', '{columns}')"""
    newest = truth["newest"]
    errors = sorted((ns // 10**9, service, n) for ns, service, n in truth["errors"])
    p99 = {name: (low, high) for name, low, high in truth["p99"]}
    whole = lambda spans: lambda r: len(r) == spans
    return table, create, insert, {
        "trace": [(f"SELECT * FROM {table} WHERE TraceId='{trace}'", whole(spans)) for trace, spans in truth["kept"]],
        "newest": [(f"SELECT toUnixTimestamp64Nano(Timestamp), TraceId, SpanId, Duration, StatusCode FROM {table} "
                    f"WHERE ServiceName='{newest['service']}' AND SpanName='{newest['operation']}' "
                    f"AND Timestamp >= {at(newest['from_ns'])} AND Timestamp < {at(newest['to_ns'])} ORDER BY Timestamp DESC LIMIT 20",
                    lambda r: [int(x[0]) for x in r] == newest["starts"])],
        "slow": [(f"SELECT TraceId, SpanId, Timestamp, ServiceName, SpanName, Duration FROM {table} "
                  "WHERE SpanAttributes['http.response.status_code'] = '500' AND Duration > 1000000000",
                  lambda r: len(r) == truth["slow"])],
        "errors": [(f"SELECT toUnixTimestamp(toStartOfMinute(Timestamp)) m, ServiceName, count() FROM {table} "
                    "WHERE StatusCode = 'Error' GROUP BY m, ServiceName",
                    lambda r: sorted((int(x[0]), x[1], int(x[2])) for x in r) == errors)],
        "p99": [(f"SELECT SpanName, quantile(0.99)(Duration) FROM {table} GROUP BY SpanName",
                 lambda r: len(r) == len(p99) and all(p99[x[0]][0] <= float(x[1]) <= p99[x[0]][1] for x in r))],
    }


shutil.rmtree(workdir, ignore_errors=True)
session = chdb.session.Session(workdir)
ask = lambda sql: session.query(sql, "JSONCompact")
rows = lambda sql: json.loads(ask(sql).bytes())["data"]
table, create, insert, questions = logs() if signal == "logs" else traces()
# Without this the second run of a filter answers from remembered granules, not from the data.
ask("SET use_query_condition_cache = 0")
ask("CREATE DATABASE IF NOT EXISTS bench ENGINE = Atomic")
ask(create)
cpu0, wall0 = cpu(), time.monotonic()
ask(insert)
insert_wall, cpu_inserted = time.monotonic() - wall0, cpu()
ask(f"OPTIMIZE TABLE {table} FINAL")
cpu1 = cpu()
disk = int(rows("SELECT sum(bytes_on_disk) FROM system.parts WHERE database='bench' AND active")[0][0])
by_column = rows("SELECT name, data_compressed_bytes FROM system.columns WHERE database='bench' ORDER BY 2 DESC")

answers = {name: {"ms": [], "ok": True} for name in questions}
for round in range(repeats + 1):
    for name, wordings in questions.items():
        sql, check = wordings[round % len(wordings)]
        begin = time.perf_counter()
        got = ask(sql).bytes()
        took = (time.perf_counter() - begin) * 1000
        answers[name]["ok"] &= bool(check(json.loads(got)["data"]))
        answers[name]["ms"].append(took)

# Push to visible: one insert of 20 rows, then a question until it shows.
visible, mark = [], "Body" if signal == "logs" else "SpanName"
for n in range(50):
    begin = time.perf_counter()
    ask(f"INSERT INTO {table} (Timestamp, ServiceName, {mark}) SELECT now64(9), 'probe', 'probe {n}' FROM numbers(20)")
    while int(rows(f"SELECT count() FROM {table} WHERE ServiceName='probe' AND {mark}='probe {n}'")[0][0]) == 0:
        pass
    visible.append((time.perf_counter() - begin) * 1000)

quantile = lambda values, q: sorted(values)[min(len(values) - 1, int(len(values) * q))]
if signal == "logs":
    items, raw_gb = truth["lines"], truth["raw_bytes"] / 1e9
    sizes = {"cpu_s_per_gb": (cpu1 - cpu0) / raw_gb, "disk_per_raw": disk / truth["raw_bytes"]}
else:
    items = truth["spans"]
    sizes = {"cpu_s_per_million_taking_in": (cpu_inserted - cpu0) / (items / 1e6),
             "cpu_s_per_million": (cpu1 - cpu0) / (items / 1e6), "disk_per_item": disk / items}
print(json.dumps({
    "name": "ClickHouse " + chdb.engine_version + (" with a text index" if text_index else ""),
    "lines": items,
    "lines_per_s": items / insert_wall,
    "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "visible_p50_ms": quantile(visible, 0.5),
    "visible_p99_ms": quantile(visible, 0.99),
    "columns": {c[0]: int(c[1]) for c in by_column},
    "queries": {n: {"median_ms": statistics.median(a["ms"][1:]), "p95_ms": quantile(a["ms"][1:], 0.95),
                    "p99_ms": quantile(a["ms"][1:], 0.99), "ok": a["ok"]} for n, a in answers.items()},
    **sizes,
}))
