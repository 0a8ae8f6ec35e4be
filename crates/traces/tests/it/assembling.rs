//! Guarantee: whatever spans come, in whatever order, each has exactly one place in the tree.

use proptest::{prelude::*, sample::Index};
use trine_traces::{Place, Span, Trace, assemble};

use crate::spans::{MS, Row, Spans, T0, row, span_id, trace_of};

fn operations(trace: &Trace) -> Vec<(usize, &str)> {
    trace.tree().walk().into_iter().map(|(n, depth)| (depth, &*trace.spans()[n].operation)).collect()
}

#[test]
fn spans_become_a_tree_in_order_of_start() {
    let trace = trace_of(&[
        row("cart", "late", 4, 1, 9 * MS, MS),
        row("cart", "inner", 3, 2, 2 * MS, MS),
        row("web", "root", 1, 0, 0, 10 * MS),
        row("cart", "early", 2, 1, MS, 5 * MS),
    ]);
    assert_eq!(operations(&trace), [(0, "root"), (1, "early"), (2, "inner"), (1, "late")]);
    assert_eq!((trace.start(), trace.end(), trace.duration()), (T0, T0 + 10 * MS, 10 * MS));
    assert_eq!(trace.services(), ["web", "cart"]);
    assert_eq!(&*trace.root().operation, "root");
}

#[test]
fn a_span_whose_parent_is_not_there_is_a_root_of_its_own_and_marked() {
    let trace = trace_of(&[
        row("a", "orphan", 2, 77, 0, MS),
        row("a", "below", 3, 2, 0, MS / 2),
        row("a", "root", 1, 0, MS, MS),
    ]);
    assert_eq!(operations(&trace), [(0, "orphan"), (1, "below"), (0, "root")]);
    assert_eq!(trace.tree().place(0), Place::Orphan);
    assert_eq!(trace.tree().place(2), Place::Root);
    assert_eq!(&*trace.root().operation, "root", "what names no parent stands for the trace");
}

#[test]
fn circles_are_opened_at_their_first_span() {
    let trace = trace_of(&[
        row("a", "self", 9, 9, 50, 1),
        row("a", "x", 1, 3, 10, 1),
        row("a", "y", 2, 1, 20, 1),
        row("a", "z", 3, 2, 30, 1),
        row("a", "below y", 4, 2, 40, 1),
    ]);
    assert_eq!(operations(&trace), [(0, "x"), (1, "y"), (2, "z"), (2, "below y"), (0, "self")]);
    assert_eq!(trace.tree().place(0), Place::Cycle);
    assert_eq!(trace.tree().place(4), Place::Cycle);
}

/// Senders repeat what they think was lost: TrainTicket's data has 7,667 such spans.
#[test]
fn a_span_that_came_twice_is_there_once_and_counted_while_others_with_its_id_stay() {
    let twice = row("a", "work", 1, 0, 0, MS);
    let trace =
        trace_of(&[twice, twice, Row { operation: "other work", ..twice }, row("a", "part", 2, 1, 0, 1)]);
    let copies: Vec<_> = trace.spans().iter().map(|span| (&*span.operation, span.copies)).collect();
    assert_eq!(copies.len(), 3);
    assert!(copies.contains(&("work", 2)) && copies.contains(&("other work", 1)), "{copies:?}");
    assert_eq!(trace.tree().roots().len(), 2);
}

#[test]
fn zipkins_two_halves_of_a_call_are_one_below_the_other() {
    let client = Row { kind: 3, ..row("web", "call", 2, 1, MS, 8 * MS) };
    let server = Row { kind: 2, ..row("cart", "serve", 2, 1, 3 * MS, 4 * MS) };
    let trace = trace_of(&[
        row("cart", "query", 3, 2, 4 * MS, MS),
        server,
        row("web", "root", 1, 0, 0, 10 * MS),
        client,
        row("web", "wait", 4, 2, 5 * MS, MS),
    ]);
    let want = [(0, "root"), (1, "call"), (2, "serve"), (3, "query"), (2, "wait")];
    assert_eq!(operations(&trace), want);

    // A server's span that only has the id of a client's is no half of it, and leads in no circle.
    let trace = trace_of(&[
        Row { kind: 2, ..row("a", "server", 5, 0, 0, 0) },
        row("a", "between", 1, 5, 1, 0),
        Row { kind: 3, ..row("a", "client", 5, 1, 5, 0) },
    ]);
    assert_eq!(operations(&trace), [(0, "server"), (1, "between"), (2, "client")]);
}

#[test]
fn batches_of_many_traces_fall_apart_and_a_projection_is_enough() {
    let mut spans = Spans::new();
    for trace in 1..=3u128 {
        spans.push(Row { trace, ..row("a", "op", 1, 0, trace as i64 * MS, MS) });
    }
    let first = spans.batch();
    spans.push(Row { trace: 2, ..row("b", "op", 2, 1, 5 * MS, MS) });
    let batches = [first.project(&[0, 1, 3, 4]).unwrap(), spans.batch().project(&[0, 1, 3, 4]).unwrap()];
    let traces = assemble(&batches, &spans.registry).unwrap();
    let sizes: Vec<_> = traces.iter().map(|trace| (trace.start() - T0, trace.spans().len())).collect();
    assert_eq!(sizes, [(3 * MS, 1), (2 * MS, 2), (MS, 1)], "newest first");
    let error = assemble(&[batches[0].project(&[0, 1, 2]).unwrap()], &spans.registry).unwrap_err();
    assert!(error.to_string().contains("no column \"span_id\""), "{error}");
}

#[test]
fn long_chains_and_many_equal_ids_take_no_recursion_and_no_square_of_time() {
    const N: u64 = 100_000;
    let chain: Vec<_> = (1..=N).map(|n| row("a", "deep", n, n - 1, n as i64, 1)).collect();
    assert_eq!(trace_of(&chain).tree().walk().last().unwrap().1, N as usize - 1);
    let equal: Vec<_> = (1..=N).map(|n| row("a", "same id", 7, 7, n as i64, 1)).collect();
    assert_eq!(trace_of(&equal).tree().walk().len(), N as usize);
}

/// Few ids for many spans: parents that miss, repeat and lead in circles.
fn any_rows() -> impl Strategy<Value = Vec<Row<'static>>> {
    let any_row = (1..12u64, 0..14u64, 0..20i64, -3..10i64, 0..6u8, 0..2usize).prop_map(
        |(id, parent, start, duration, kind, service)| Row {
            kind,
            ..row(["a", "b"][service], "op", id, parent, start, duration)
        },
    );
    prop::collection::vec(any_row, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_span_has_one_place_whatever_the_order(
        rows in any_rows(),
        swaps in prop::collection::vec((any::<Index>(), any::<Index>()), 0..40),
    ) {
        let trace = trace_of(&rows);
        let copies: u32 = trace.spans().iter().map(|span| span.copies).sum();
        prop_assert_eq!(copies as usize, rows.len());

        let tree = trace.tree();
        let mut walked: Vec<usize> = tree.walk().into_iter().map(|(position, _)| position).collect();
        walked.sort_unstable();
        prop_assert_eq!(walked, (0..trace.spans().len()).collect::<Vec<_>>());
        for (position, span) in trace.spans().iter().enumerate() {
            match tree.place(position) {
                Place::Root => prop_assert_eq!(span.parent_id, None),
                Place::Child(parent) => {
                    let parent = &trace.spans()[parent];
                    prop_assert!(span.parent_id == Some(parent.id) || span.id == parent.id);
                }
                Place::Orphan => {
                    let there = trace.spans().iter().any(|other| Some(other.id) == span.parent_id);
                    prop_assert!(!there);
                }
                Place::Cycle => prop_assert!(span.parent_id.is_some()),
            }
        }

        let mut shuffled = rows.clone();
        for (a, b) in swaps {
            let (a, b) = (a.index(rows.len()), b.index(rows.len()));
            shuffled.swap(a, b);
        }
        let again = trace_of(&shuffled);
        let key = |trace: &Trace| {
            let key = |span: &Span| (span.start, span.duration, span.id, span.copies);
            trace.spans().iter().map(key).collect::<Vec<_>>()
        };
        prop_assert_eq!(key(&trace), key(&again));
    }
}

#[test]
fn attributes_are_in_order_of_their_keys() {
    let trace = trace_of(&[Row { attributes: &[("z", "1"), ("a", "2")], ..row("a", "op", 1, 0, 0, 1) }]);
    let keys: Vec<_> = trace.spans()[0].attributes.iter().map(|(key, _)| &**key).collect();
    assert_eq!(keys, ["a", "z"]);
    assert_eq!(trace.spans()[0].id, span_id(1));
}
