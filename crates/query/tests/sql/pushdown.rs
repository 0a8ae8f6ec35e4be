//! Random conditions keep the same rows whether the scan applies them or the plan does.
//!
//! The generator is a few lines of our own: `proptest` here would change features of crates that
//! DataFusion shares, and so build DataFusion a second time.

use std::{collections::BTreeMap, sync::Arc};

use trine_model::TenantId;
use trine_query::{SqlEngine, SqlError, SqlRequest, output::text_rows};

use crate::memory::{collect, limits, runtime};
use crate::outputs::{NOON, sample};

/// Conditions tried; `SQL_CASES` asks for more.
const CASES: u64 = 500;

const TEXTS: [&str; 31] = [
    "",
    "cart",
    "cart-1",
    "cart-2",
    "prod",
    "dev",
    "web",
    "db",
    "eu",
    "us",
    "a",
    "u3",
    "ERROR",
    "timeout",
    "TIME",
    "user%",
    "%line%",
    "%e",
    "_eb",
    "%c%r%",
    "%100\\%%",
    "line one%",
    "%ß%",
    "200",
    "^t",
    "o.e$",
    "(?i)TIMEOUT",
    "a|b",
    "e*",
    ".",
    "INFO",
];
const COLUMNS: [&str; 16] = [
    "service",
    "env",
    "k8s_pod_name",
    "\"k8s.pod.name\"",
    "labels['env']",
    "region",
    "\"user\"",
    "attributes['user']",
    "http_status",
    "body",
    "body",
    "body",
    "level",
    "severity_text",
    "service_name",
    "labels['service']",
];
const OPERATORS: [&str; 12] =
    ["=", "!=", "<", ">=", "~", "!~", "~*", "!~*", "LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"];
const QUERIES: [&str; 6] = [
    "SELECT * FROM logs WHERE {}",
    "SELECT timestamp FROM logs WHERE {} ORDER BY timestamp DESC LIMIT 7",
    "SELECT timestamp, body FROM logs WHERE {} ORDER BY timestamp LIMIT 3 OFFSET 2",
    "SELECT service, level, count(*) FROM logs WHERE {} GROUP BY service, level",
    "SELECT date_bin(interval '2 minutes', timestamp), env, count(*), count(level) FROM logs WHERE {} GROUP BY 1, 2",
    "SELECT count(*) FROM logs WHERE {}",
];

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    pub fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn condition(&mut self, depth: u32) -> String {
        match self.below(if depth == 0 { 15 } else { 24 }) {
            0..=5 => format!("{} {} '{}'", self.of(&COLUMNS), self.of(&OPERATORS), self.of(&TEXTS)),
            6..=7 => {
                let list: Vec<&str> = (0..=self.below(5)).map(|_| self.of(&TEXTS)).collect();
                format!("{} {} ('{}')", self.of(&COLUMNS), self.of(&["IN", "NOT IN"]), list.join("','"))
            }
            8 => format!("{} {}", self.of(&COLUMNS), self.of(&["IS NULL", "IS NOT NULL"])),
            9 => {
                let rest = ["= 9", "> 9", "<= 16", "BETWEEN 5 AND 17", "IN (1, 2, 21)", "% 4 = 1"];
                format!("severity_number {}", self.of(&rest))
            }
            10..=11 => {
                let at = NOON + self.below(62) as i64 * 10_000_000_000 + self.below(3) as i64;
                let at = chrono::DateTime::from_timestamp_nanos(at);
                let at = at.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true);
                format!("timestamp {} '{at}'", self.of(&["=", "<", "<=", ">", ">=", "!="]))
            }
            12 => format!("trace_id = '{:032x}'", 42 + self.below(6)),
            13 => {
                let rest = ["> 0", "= 0", ">= 1", "<> 0", "< 1", "= 3"];
                format!("strpos(body, '{}') {}", self.of(&TEXTS), self.of(&rest))
            }
            14 => {
                let function = self.of(&["contains", "starts_with", "ends_with", "regexp_like"]);
                format!("{function}(body, '{}')", self.of(&TEXTS))
            }
            15..=18 => format!("({} AND {})", self.condition(depth - 1), self.condition(depth - 1)),
            19..=22 => format!("({} OR {})", self.condition(depth - 1), self.condition(depth - 1)),
            _ => format!("NOT ({})", self.condition(depth - 1)),
        }
    }
}

async fn rows(engine: &SqlEngine, sql: &str) -> Result<Vec<Vec<Option<String>>>, SqlError> {
    let answer = engine.query(SqlRequest::new(TenantId::default(), sql)).await?;
    let batches = collect(answer).await?;
    let mut rows: Vec<_> = batches.iter().flat_map(|batch| text_rows(batch).unwrap()).collect();
    rows.sort();
    Ok(rows)
}

#[test]
fn the_scan_and_the_plan_agree_on_every_condition() {
    let tables = Arc::new(sample());
    let with = SqlEngine::new(tables.clone(), limits());
    let without = SqlEngine::new(tables, limits()).without_pushdown();
    let cases = std::env::var("SQL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES);
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    runtime().block_on(async {
        for seed in 0..cases {
            let mut random = Random(seed);
            let query = random.of(&QUERIES);
            let sql = query.replace("{}", &random.condition(3));
            let outcome = match (rows(&with, &sql).await, rows(&without, &sql).await) {
                (Ok(a), Ok(b)) => {
                    assert_eq!(a, b, "seed {seed}: {sql}");
                    if a.is_empty() { "empty" } else { "rows" }
                }
                (Err(_), Err(_)) => "errors",
                (a, b) => panic!("seed {seed}: {sql}\nwith: {a:?}\nwithout: {b:?}"),
            };
            *outcomes.entry(outcome).or_default() += 1;
        }
    });
    println!("{outcomes:?}");
    let share = |name: &str| outcomes.get(name).copied().unwrap_or(0) * 100 / cases;
    assert!(share("rows") > 30 && share("errors") < 10, "the conditions test too little: {outcomes:?}");
}
