//! Runs the files under `tests/slt/`: each query is compared with the answer below it, and its rows
//! with those of an engine that pushes nothing down. `UPDATE_EXPECT=1` writes the answers anew.

use std::{fmt::Write as _, path::Path, sync::Arc};

use arrow::array::RecordBatch;
use trine_model::TenantId;
use trine_query::{SqlEngine, SqlError, SqlRequest, output::text_rows};

use crate::memory::{MemoryTables, limits, run};
use crate::signals::signals;

fn render(result: &Result<Vec<RecordBatch>, SqlError>, sorted: bool) -> String {
    let batches = match result {
        Ok(batches) => batches,
        Err(error) => return format!("error: {error}\n"),
    };
    let Some(first) = batches.first() else { return "(nothing)\n".to_owned() };
    let names: Vec<String> = first.schema().fields().iter().map(|field| field.name().clone()).collect();
    let mut lines = Vec::new();
    for batch in batches {
        for row in text_rows(batch).unwrap() {
            let cells: Vec<String> = row.into_iter().map(|cell| cell.unwrap_or("NULL".to_owned())).collect();
            lines.push(cells.join(" | ").replace("\\n", "\n"));
        }
    }
    if sorted {
        lines.sort();
    }
    let mut text = format!("{}\n", names.join(" | "));
    lines.iter().for_each(|line| writeln!(text, "{}", line.trim_end()).unwrap());
    text
}

fn check(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt").join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    let tables: Arc<MemoryTables> = Arc::new(signals());
    let engine = Arc::new(SqlEngine::new(tables.clone(), limits()));
    let plain = Arc::new(SqlEngine::new(tables, limits()).without_pushdown());
    let (mut output, mut wrong, mut queries) = (String::new(), Vec::new(), 0);
    let blocks = text.split("\n\n");
    for block in blocks {
        let block = block.trim_end_matches('\n');
        let (head, expected) = block.split_once("\n----").unwrap_or((block, ""));
        let (comment, query) = match head.find("query") {
            Some(at) if at == 0 || head.as_bytes()[at - 1] == b'\n' => head.split_at(at),
            _ => {
                write!(output, "{block}\n\n").unwrap();
                continue;
            }
        };
        let (kind, sql) = query.split_once('\n').expect("a query has a line of SQL");
        queries += 1;
        let sorted = kind == "query sorted";
        let request = SqlRequest::new(TenantId::default(), sql);
        let answer = run(&engine, request.clone());
        let actual = render(&answer, sorted);
        if answer.is_ok() && !sql.starts_with("EXPLAIN") {
            let without = render(&run(&plain, request), true);
            let with = render(&answer, true);
            assert_eq!(with, without, "pushdown changes the answer of {sql}");
        }
        if actual.trim_end() != expected.trim_matches('\n') {
            wrong.push(format!("{sql}\nexpected:{expected}\nactual:\n{actual}"));
        }
        write!(output, "{comment}{kind}\n{sql}\n----\n{}\n\n", actual.trim_end()).unwrap();
    }
    assert!(queries > 0, "{file} has no query");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, format!("{}\n", output.trim_end())).unwrap();
        return;
    }
    assert!(wrong.is_empty(), "{file}: {} of {queries} differ\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn columns_labels_and_attributes() {
    check("columns.slt");
}

#[test]
fn conditions_and_what_is_pushed() {
    check("conditions.slt");
}

#[test]
fn counts_and_groups() {
    check("counts.slt");
}

#[test]
fn spans_and_what_is_pushed() {
    check("spans.slt");
}

#[test]
fn joins_read_by_what_they_know() {
    check("joins.slt");
}

#[test]
fn metrics_and_what_is_read() {
    check("metrics.slt");
}

#[test]
fn wrong_queries_say_what_to_do() {
    check("errors.slt");
}
