//! What people see on a terminal.

use expect_test::{Expect, expect};
use trine_traces::{
    Trace,
    waterfall::{Options, waterfall},
};

use crate::spans::{MS, Row, Spans, T0, checkout, row, trace_of};

fn check(trace: &Trace, options: &Options, want: &Expect) {
    let text = waterfall(trace, options);
    want.assert_eq(&text);
}

fn plain(width: usize) -> Options {
    Options { width, ..Options::default() }
}

#[test]
fn a_checkout() {
    check(
        &checkout(),
        &plain(80),
        &expect![[r"
        trace 00000000000000000000000000000001
        2023-01-29 08:49:19.000000 UTC · 40.0 ms · 3 spans · 2 services · 1 error
        frontend 2  payment 1

                                0          10.0 ms     20.0 ms         40.0 ms
        frontend POST /checkout ██████████████████████████████████████████████   40.0 ms
        └ charge                     ▐██████████████████████████████████▌        30.0 ms
          └ ✗ payment Charge             ███████████████████████▌                20.0 ms
              card expired
    "]],
    );
}

#[test]
fn events_links_and_attributes_below_their_spans() {
    check(
        &checkout(),
        &Options { events: true, attributes: true, ..plain(80) },
        &expect![[r#"
        trace 00000000000000000000000000000001
        2023-01-29 08:49:19.000000 UTC · 40.0 ms · 3 spans · 2 services · 1 error
        frontend 2  payment 1

                                0          10.0 ms     20.0 ms         40.0 ms
        frontend POST /checkout ██████████████████████████████████████████████   40.0 ms
          http.request.method = POST
          otel.scope.version = 1.2
        └ charge                     ▐██████████████████████████████████▌        30.0 ms
          └ ✗ payment Charge             ███████████████████████▌                20.0 ms
              card expired
              otel.dropped_events_count = 3
              rpc.system = grpc
              · +12.0 ms exception
                exception.message = card "4711" expired
                otel.dropped_attributes_count = 2
              → trace 00000000000000000000000000000abc span 0000000000000def
    "#]],
    );
}

#[test]
fn equal_siblings_are_folded_and_those_that_failed_are_not() {
    let mut rows = vec![row("orders", "list", 1, 0, 0, 100 * MS)];
    for n in 0..40 {
        let id = 10 + 2 * n;
        let failed = if n == 20 { (2, "timeout") } else { (0, "") };
        rows.push(Row { status: failed, ..row("orders", "load order", id, 1, n as i64 * 2 * MS, 2 * MS) });
        rows.push(row("db", "SELECT", id + 1, id, n as i64 * 2 * MS, MS));
    }
    check(
        &trace_of(&rows),
        &plain(80),
        &expect![[r"
        trace 00000000000000000000000000000001
        2023-01-29 08:49:19.000000 UTC · 100 ms · 81 spans · 2 services · 1 error
        orders 41  db 40

                                          0        25.0 ms  50.0 ms     100 ms
        orders list                       ████████████████████████████████████    100 ms
        ├ load order                      █                                      2.00 ms
        │ └ db SELECT                     ▌                                      1.00 ms
        ├ load order                      ▐▌                                     2.00 ms
        │ └ db SELECT                     ▐▌                                     1.00 ms
        ├ load order                       █▌                                    2.00 ms
        │ └ db SELECT                      █                                     1.00 ms
        ├ … 36 more of the same, 72 spans   ░░░░░░░░░░░░░░░░░░░░░░░░░░░         Σ72.0 ms
        └ ✗ load order                                  █▌                       2.00 ms
            timeout
          └ db SELECT                                   █                        1.00 ms
    "]],
    );
    let unfolded = waterfall(&trace_of(&rows), &Options { fold: false, max_rows: 10, ..plain(80) });
    assert!(unfolded.ends_with("… 71 more spans not shown\n"), "{unfolded}");
}

#[test]
fn strange_traces_are_shown_and_explained() {
    let rows = [
        row("web", "root", 1, 0, 0, 10 * MS),
        row("web", "clock went back", 2, 1, 5 * MS, -2 * MS),
        row("cart", "before its parent", 3, 1, -3 * MS, MS),
        row("cart", "orphan", 4, 99, 4 * MS, MS),
        row("cart", "orphan", 4, 99, 4 * MS, MS),
        row("cart", "its own parent", 5, 5, 6 * MS, MS),
        row("", "nobody's", 6, 1, 7 * MS, 0),
    ];
    check(
        &trace_of(&rows),
        &plain(90),
        &expect![[r"
            trace 00000000000000000000000000000001
            2023-01-29 08:49:18.997000 UTC · 13.0 ms · 6 spans · 3 services · 0 errors
            ? the parent is not there, late or lost: 1 span
            ↺ its ancestors lead back to itself: 1 span
            × stored more than once: 1 span
            clock? starts before its parent or ends before it starts: 2 spans
            cart 3  web 2  (no service) 1

                                            0           3.25 ms     6.50 ms          13.0 ms
            web root                                   █████████████████████████████████████   10.0 ms
            ├ cart before its parent clock? ████                                               1.00 ms
            ├ clock went back clock?                              ▒▒▒▒▒▒▒▒                    -2.00 ms
            └ (no service) nobody's                                             ▐                 0 ns
            ? cart orphan ×2                                         ▐████                     1.00 ms
            ↺ cart its own parent                                            ████              1.00 ms
        "]],
    );
}

#[test]
fn what_lies_days_away_does_not_squeeze_the_rest() {
    let day = 86_400_000 * MS;
    let rows = [
        row("web", "root", 1, 0, 0, 10 * MS),
        row("web", "work", 2, 1, 2 * MS, 6 * MS),
        row("batch", "days later", 3, 1, 3 * day, 10 * MS),
        row("batch", "days before", 4, 1, -2 * day, 10 * MS),
    ];
    check(
        &trace_of(&rows),
        &plain(80),
        &expect![[r"
            trace 00000000000000000000000000000001
            2023-01-27 08:49:19.000000 UTC · 5d00h · 4 spans · 2 services · 0 errors
            clock? starts before its parent or ends before it starts: 1 span
            batch 2  web 2

            the axis begins 2d00h after the first start; ◂ and ▸ lie outside of it
                                       0         2.50 ms    5.00 ms        10.0 ms
            web root                   ███████████████████████████████████████████   10.0 ms
            ├ batch days before clock? ◂                                             10.0 ms
            ├ work                             ▐█████████████████████████▌           6.00 ms
            └ batch days later                                                   ▸   10.0 ms
        "]],
    );
}

#[test]
fn wide_letters_keep_the_columns_and_control_letters_do_not_reach_the_terminal() {
    let rows = [
        row("订单服务", "取消订单", 1, 0, 0, 10 * MS),
        row("frontend 🛒", "naïve x\u{301}", 2, 1, MS, 5 * MS),
        row("x", "\x1b[31mred\nline \u{202e}", 3, 1, 6 * MS, 4 * MS),
    ];
    check(
        &trace_of(&rows),
        &plain(70),
        &expect![[r"
        trace 00000000000000000000000000000001
        2023-01-29 08:49:19.000000 UTC · 10.0 ms · 3 spans · 3 services · 0 errors
        订单服务 1  frontend 🛒 1  x 1

                                        0                    10.0 ms
        订单服务 取消订单               ████████████████████████████   10.0 ms
        ├ frontend 🛒 naïve x́             ▐██████████████              5.00 ms
        └ x \u{1b}[31mred\nline \u{202…                 ▐███████████   4.00 ms
    "]],
    );
}

#[test]
fn deep_trees_and_narrow_terminals_keep_the_names_readable() {
    let rows: Vec<_> = (1..=30).map(|n| row("svc", "call", n, n - 1, n as i64 * MS, 60 * MS)).collect();
    let text = waterfall(&trace_of(&rows), &plain(10));
    assert!(text.lines().skip(2).all(|line| line.chars().count() <= 42), "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.contains("call"), "{last:?}");
}

#[test]
fn colours_are_written_only_when_asked_for() {
    let coloured = waterfall(&checkout(), &Options { color: true, ..plain(80) });
    assert!(coloured.contains("\x1b["));
    assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), waterfall(&checkout(), &plain(80)));
}

/// Each row holds the end of its guides only; all of them would be a gigabyte here.
#[test]
fn a_chain_of_many_spans_is_shown_whole() {
    const SPANS: u64 = 30_000;
    let rows: Vec<_> = (1..=SPANS).map(|n| row("svc", "call", n, n - 1, n as i64, 60_000)).collect();
    let text = waterfall(&trace_of(&rows), &Options { fold: false, max_rows: usize::MAX, ..plain(80) });
    assert_eq!(text.lines().count() as u64, SPANS + 4);
    let line = text.lines().last().unwrap();
    assert!(line.starts_with("…") && line.contains("└ call"), "{line:?}");
}

#[test]
fn an_event_before_its_span_has_one_sign() {
    let mut spans = Spans::new();
    spans.builder().event(T0 - 2 * MS, "early");
    spans.builder().event(T0 + 3 * MS, "late");
    spans.push(row("web", "root", 1, 0, 0, 10 * MS));
    let text = waterfall(&spans.trace(), &Options { events: true, ..plain(80) });
    assert!(text.contains("· -2.00 ms early\n") && text.contains("· +3.00 ms late\n"), "{text}");
}
