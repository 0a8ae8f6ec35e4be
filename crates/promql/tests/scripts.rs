//! Every function and operator answers as the scripts beside this file say.

use std::{fs, path::Path};

use trine_promql::script;

#[test]
fn scripts_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut evals = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let report =
            script::run(&script::engine(), &text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!(report.failures, Vec::<String>::new(), "{path:?}");
        evals += report.evals;
    }
    assert!(evals > 150, "only {evals} evals were found");
}

#[test]
fn a_wrong_expectation_is_told() {
    let text = "load 1m\n  m 1 2\n\neval instant at 1m m\n  m 3\n\neval instant at 1m m\n  expect fail\n\n\
                eval instant at 1m m\n  expect warn\n  m 2\n";
    let report = script::run(&script::engine(), text).unwrap();
    assert_eq!((report.evals, report.failures.len()), (3, 3));
    assert!(report.failures[0].contains("expected 3, got 2"), "{:?}", report.failures);
}

#[test]
fn names_go_with_each_operation_unless_delayed() {
    let text = "load 1m\n  a{x=\"1\"} 1\n  b{x=\"1\"} 2\n\neval instant at 0 -{x=\"1\"}\n  \
                expect fail msg: vector cannot contain metrics with the same labelset\n\n\
                eval instant at 0 abs(a)\n  {x=\"1\"} 1\n";
    let engine = trine_promql::Engine::default();
    assert_eq!(script::run(&engine, text).unwrap().failures, Vec::<String>::new());
}
