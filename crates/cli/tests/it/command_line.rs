//! What the terminal shows: help, wrong usage, wrong questions, formats.

use std::process::Stdio;

use crate::site::{Site, trine};

#[test]
fn help_names_every_command_and_wrong_usage_exits_with_2() {
    let help = String::from_utf8(trine().arg("--help").output().unwrap().stdout).unwrap();
    for command in ["server", "demo", "load", "sql", "logql", "tail", "verify", "bench", "completions"] {
        assert!(help.contains(&format!("  {command} ")), "{command} is missing in:\n{help}");
    }
    assert_eq!(trine().arg("sing").output().unwrap().status.code(), Some(2));
    for setting in [["--retention-age", "0s"], ["--retention-bytes", "0"], ["--query-timeout", "0s"]] {
        let output = trine().arg("server").args(setting).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && told.contains("would leave nothing"), "{told}");
    }
    let completions = trine().args(["completions", "bash"]).output().unwrap();
    assert!(String::from_utf8(completions.stdout).unwrap().contains("_trine"));
}

/// What programs read keeps the bytes of a line, and a range that ends now has its newest step.
#[tokio::test(flavor = "multi_thread")]
async fn coloured_lines_and_ranges_up_to_now_come_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    let line = "{\"msg\": \"\\u001b[31mred\\u001b[0m\", \"service\": \"paint\"}";
    assert_eq!(site.post("/api/v1/ingest/jsonlines", "application/x-ndjson", line.to_owned()).await.0, 200);
    let csv = site.ok(&["logql", "{service=\"paint\"}", "-o", "csv"]);
    assert!(csv.contains("\u{1b}[31mred\u{1b}[0m"), "{csv:?}");
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let count = "sum(count_over_time({service=\"paint\"}[5m]))";
    for _ in 0..3 {
        let counted = site.ok(&["logql", count, "--from", "-15m", "--step", "5m", "-o", "csv"]);
        assert_eq!(counted.lines().filter(|row| row.ends_with(",1")).count(), 1, "{counted:?}");
    }
}

/// Settings come from the command line, the environment, the file, the defaults, in this order.
#[test]
fn settings_come_from_a_file_too_and_are_printed_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let printed = |file: &str, more: &[&str]| {
        let mut command = trine();
        command.args(["server", "--print-config", "--config", file]).args(more);
        let output = command.env("TRINE_OTLP_GRPC", "127.0.0.1:2").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let addresses =
        ["http", "otlp_grpc", "otlp_http"].map(|key| format!("{key} = \"127.0.0.1:3\"\n")).concat();
    let file = write("trine.toml", &(addresses + "fsync = false\nretention_age = \"30d\"\n"));
    let settings = printed(&file, &["--http", "127.0.0.1:1"]);
    for line in [
        "http = \"127.0.0.1:1\"",
        "otlp_grpc = \"127.0.0.1:2\"",
        "otlp_http = \"127.0.0.1:3\"",
        "fsync = false",
        "retention_age = \"30d\"",
        "# retention_bytes is not set",
        "memtable_bytes = \"32MiB\"",
        "# Longest run of one query",
    ] {
        assert!(settings.lines().any(|found| found == line), "{line} is missing in:\n{settings}");
    }
    assert_eq!(printed(&write("again.toml", &settings), &[]), settings);

    let schema = trine().args(["server", "--config-schema"]).output().unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["fsync"]["type"], "boolean");
    assert_eq!(schema["properties"]["bodies"]["enum"], serde_json::json!(["templates", "plain"]));
    for key in schema["properties"].as_object().unwrap().keys() {
        let told = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key} "));
        assert!(settings.lines().any(told), "{key} is missing in:\n{settings}");
    }

    for (text, want) in [
        ("fsync = true\nhttps = 1", "wrong.toml:2: https is no setting; the settings are data_dir, "),
        (
            "query_memory = \"much\"",
            "wrong.toml:1: query_memory = \"much\" cannot be taken: \"much\" is no size",
        ),
    ] {
        let output = trine().args(["server", "--config", &write("wrong.toml", text)]).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(want), "{message}");
    }
    let output = trine().args(["server", "--config", "/nowhere.toml"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read /nowhere.toml"));
}

#[test]
fn without_a_server_the_message_says_what_to_do() {
    let output = trine().args(["sql", "SELECT 1", "--server", "http://127.0.0.1:9"]).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("no server answers at http://127.0.0.1:9"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_questions_are_named_and_answers_come_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    let lines =
        "{\"time\": \"2026-01-01T00:00:00Z\", \"message\": \"a, \\\"b\\\"\", \"service\": \"cart\"}\n";
    assert_eq!(site.post("/api/v1/ingest/jsonlines", "application/x-ndjson", lines).await.0, 200);

    let query = "SELECT service, body FROM logs";
    assert_eq!(site.ok(&["sql", query, "-o", "csv"]), "service,body\ncart,\"a, \"\"b\"\"\"\n");
    assert_eq!(site.ok(&["sql", query, "-o", "json"]).trim(), r#"[{"service":"cart","body":"a, \"b\""}]"#);
    let table = site.ok(&["sql", query]);
    assert!(table.contains("| cart    | a, \"b\" |"), "{table}");
    assert_eq!(site.ok(&["sql", query, "--from", "2026-01-02T00:00:00Z", "-o", "jsonl"]), "");

    for (args, words) in [
        (vec!["sql", "SELECT nothing FROM logs"], "nothing"),
        (vec!["sql", "SELEC 1"], "SELEC"),
        (vec!["sql", "DROP TABLE logs"], "DROP"),
        (vec!["logql", "{app="], "line 1, col"),
        (vec!["logql", "{}", "--from", "yesterday"], "\"yesterday\""),
    ] {
        let output = site.run(&args);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {message}");
        assert!(message.contains(words), "{args:?}: {message}");
    }
}

/// The join would take days; its budget ends it, and it is not in the way of the next query.
#[test]
fn a_query_that_takes_too_long_is_told_so_and_the_next_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trine.toml");
    std::fs::write(&file, "query_timeout = \"2s\"\n").unwrap();
    let site = Site::start_with(&dir.path().join("data"), &["--config", file.to_str().unwrap()]);
    let endless = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b";
    for _ in 0..3 {
        let output = site.run(&["sql", endless]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("time limit after 2000 ms"), "{message}");
        assert_eq!(site.count("SELECT 1 AS one"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    let lines: String = (0..50_000).map(|i| format!("{{\"message\": \"line {i}\"}}\n")).collect();
    assert_eq!(site.post("/api/v1/ingest/jsonlines", "application/x-ndjson", lines).await.0, 200);
    let mut client = trine()
        .args(["sql", "SELECT body FROM logs", "-o", "csv", "--server", &site.http])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(client.stdout.take());
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_file_is_loaded_and_bad_lines_are_told_by_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(&dir.path().join("data"));
    let good = r#"{"resourceLogs":[{"resource":{"attributes":[]},"scopeLogs":[{"logRecords":[{"timeUnixNano":"1700000000000000000","body":{"stringValue":"hello"}}]}]}]}"#;
    let file = dir.path().join("logs.jsonl");
    std::fs::write(&file, format!("{good}\nnonsense\n\n{}\n", good.replace("hello", "again"))).unwrap();
    let output = site.run(&["load", file.to_str().unwrap()]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("logs.jsonl:2:"), "{errors}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("loaded 2 records in 3 requests"));
    assert_eq!(site.count("SELECT count(*) FROM logs"), 2);
    let missing = site.run(&["load", "/nowhere/logs.jsonl"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cannot open /nowhere/logs.jsonl"));
}

#[test]
fn a_file_without_a_record_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(&dir.path().join("data"));
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1700000000000000000","body":{"stringValue":"hello"}}]}]}]}"#;
    let (good, wrong, empty) = (file("good", good), file("wrong", "{\"foo\":1}\n"), file("empty", ""));
    let output = site.run(&["load", &good, &wrong, &empty, "-o", "csv"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    for file in [&wrong, &empty] {
        assert!(errors.contains(&format!("{file}: there is no record in it")), "{errors}");
    }
    assert!(!errors.contains("good"), "{errors}");
    let counts = String::from_utf8_lossy(&output.stdout);
    assert!(counts.starts_with("requests,accepted_records,"), "{counts}");
    assert!(counts.lines().nth(1).unwrap().starts_with("2,1,0,0,0,"), "{counts}");
    assert!(site.run(&["load", &good]).status.success(), "it is known, not empty");
}

#[test]
fn a_table_without_rows_has_its_columns_and_errors_of_promql_are_plain() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    let table = site.ok(&["sql", "SELECT timestamp, body FROM logs"]);
    assert!(table.contains("| timestamp | body |") && table.ends_with("0 rows\n"), "{table}");
    let output = site.run(&["promql", "up["]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && errors.starts_with("error: invalid parameter"), "{errors}");
}
