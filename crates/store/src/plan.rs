//! Which segments to bring together, and how: pure decisions.
//!
//! There are two ways. *Merging* sorts all rows anew and encodes them again: dear, and worth it for small
//! segments, whose streams are cut into shreds. *Joining* copies what is encoded behind one another: cheap,
//! and good for segments with long runs. Only segments of one UTC day (of their latest row) come together. A
//! segment with at least half the target's bytes is *done* and stays. Of the others, oldest first:
//! 1. sixteen small ones of about one size (a factor of eight) are merged, so that trickles stay few;
//! 2. sixteen large ones, or as many as reach the target, are joined;
//! 3. when nothing was flushed for a while, four or more small ones fresh from a flush are merged;
//! 4. when it is forced, and for days that are over when nothing was flushed for a while, all small ones are
//!    merged, then everything is joined.
//!
//! A flush under load is large, so its rows are encoded once.
//!
//! Of two samples of a series with one time the later arrival counts, and of segments the one with the last row
//! of the log is taken for the later. So segments of metrics do not come together over the head of another that
//! shares times with an earlier one of them: it would lose to what is older.

use trine_schema::Signal;

use crate::{catalog::Sources, files::MAX_SOURCES_TEXT};

/// Most inputs of one merge, and most runs in them; each holds a granule (about 2 MB) in memory.
pub(crate) const MAX_MERGED: usize = 32;

/// Most inputs of one join.
const MAX_JOINED: usize = 64;

/// Rules 1 and 2.
const ENOUGH: usize = 16;

/// Segments below the target's 64th part are small; a flush under load is larger.
const SMALL: u64 = 64;

/// Rule 3.
const QUIET: usize = 4;

/// A row counts for at least so many bytes: rows with short bodies or none are work and take room too, and
/// must come to an end.
const ROW_BYTES: u64 = 16;
/// Bytes of a span besides its operation and attributes: ids, times, flags. A memtable of spans alone becomes a
/// large segment by them.
const SPAN_BYTES: u64 = 64;

/// What a segment counts for.
pub(crate) fn size(signal: Signal, rows: u64, raw_bytes: u64) -> u64 {
    match signal {
        Signal::Spans => raw_bytes.saturating_add(rows.saturating_mul(SPAN_BYTES)),
        Signal::Logs | Signal::Metrics => raw_bytes.max(rows.saturating_mul(ROW_BYTES)),
    }
}

/// What the plan knows of a segment.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub id: u64,
    pub day: i64,
    pub level: u8,
    /// Its [`size`].
    pub bytes: u64,
    pub sources: Sources,
    /// First and last time of its rows, if it counts which rows came later.
    pub times: Option<(i64, i64)>,
}

impl Candidate {
    /// Whether its rows and another's may be of one time, of which the later counts.
    fn contends(&self, other: &Self) -> bool {
        let both = self.times.zip(other.times);
        both.is_some_and(|((a_first, a_last), (b_first, b_last))| a_first <= b_last && b_first <= a_last)
    }

    /// Whether segments that come together would go ahead of this one, which is none of them, with older rows.
    fn is_passed_by(&self, run: &[&Self]) -> bool {
        let at = self.sources.last();
        run.iter().any(|member| member.sources.last() > at)
            && run.iter().any(|member| member.sources.last() < at && member.contends(self))
    }
}

/// Why a plan is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Data keeps coming.
    Busy,
    /// Nothing was flushed for a while.
    Quiet,
    /// Bring everything to its final shape.
    Forced,
}

/// What to do next; ids of the segments, oldest rows first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Sort the rows of all anew.
    Merge(Vec<u64>),
    /// Lay them one behind the other.
    Join(Vec<u64>),
}

/// The next step; `None` when all is well.
pub(crate) fn plan(all: &[Candidate], target: u64, mood: Mood) -> Option<Step> {
    let mut open: Vec<&Candidate> = all.iter().filter(|c| c.bytes < target / 2).collect();
    open.sort_by_key(|c| (c.day, c.sources.0.first().copied(), c.id));
    let last = open.last()?.day;
    open.chunk_by(|a, b| a.day == b.day).find_map(|day| {
        // A day that is over gets its final shape when there is time.
        let over = mood == Mood::Quiet && day[0].day < last;
        of_day(all, day, target, if over { Mood::Forced } else { mood })
    })
}

fn of_day(all: &[Candidate], day: &[&Candidate], target: u64, mood: Mood) -> Option<Step> {
    let ids = |run: &[&Candidate]| run.iter().map(|c| c.id).collect();
    let (small, large): (Vec<&Candidate>, Vec<&Candidate>) =
        day.iter().partition(|c| c.bytes < target / SMALL);
    let merge = |wanted: &dyn Fn(&Candidate) -> bool, enough: usize| {
        let some: Vec<&Candidate> = small.iter().copied().filter(|c| wanted(c)).collect();
        let run = together(all, &some, target, MAX_MERGED, enough)?;
        Some(Step::Merge(ids(&run)))
    };
    let tier = |c: &Candidate| (target / c.bytes.max(1)).ilog2() / 3;
    let mut tiers: Vec<u32> = small.iter().map(|c| tier(c)).collect();
    tiers.dedup();
    let by_size = || tiers.iter().find_map(|t| merge(&|c| tier(c) == *t, ENOUGH));
    let join = |some: &[&Candidate], enough: usize| {
        let run = together(all, some, target, MAX_JOINED, 2)?;
        let whole: u64 = run.iter().map(|c| c.bytes).sum();
        (run.len() >= enough || whole >= target).then(|| Step::Join(ids(&run)))
    };
    match mood {
        Mood::Busy => by_size().or_else(|| join(&large, ENOUGH)),
        Mood::Quiet => by_size().or_else(|| join(&large, ENOUGH)).or_else(|| merge(&|c| c.level == 0, QUIET)),
        Mood::Forced => merge(&|_| true, 2).or_else(|| join(day, 2)),
    }
}

/// The first of the candidates up to the target's size and the bounds on inputs and on the length of a name;
/// `None` when they are fewer than `enough`. Where a candidate's sources go with no other's into a name,
/// it is passed over. None of `all` is passed by.
fn together<'a>(
    all: &[Candidate],
    some: &[&'a Candidate],
    target: u64,
    most: usize,
    enough: usize,
) -> Option<Vec<&'a Candidate>> {
    let bounded = |some: &[&'a Candidate]| {
        let mut run: Vec<&Candidate> = Vec::new();
        let mut bytes = 0;
        for candidate in some {
            let sources = Sources::union(run.iter().map(|c| &c.sources).chain([&candidate.sources]));
            if run.len() == most || bytes >= target || sources.to_text().len() > MAX_SOURCES_TEXT {
                break;
            }
            run.push(candidate);
            let passes = |other: &Candidate| other.is_passed_by(&run) && run.iter().all(|c| c.id != other.id);
            if all.iter().any(passes) {
                run.pop();
                break;
            }
            bytes += candidate.bytes;
        }
        run
    };
    (0..some.len()).map(|start| bounded(&some[start..])).find(|run| run.len() >= enough.max(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn fresh(id: u64, day: i64, megabytes: u64) -> Candidate {
        let sources = Sources::range(id * 10, id * 10 + 9);
        Candidate { id, day, level: 0, bytes: megabytes * MB, sources, times: None }
    }

    /// Plays steps until nothing is left to do; returns the megabytes merged and joined and the final sizes.
    fn settle(all: &mut Vec<Candidate>, mood: Mood) -> (u64, u64, Vec<u64>) {
        let (mut merges, mut joins) = (0, 0);
        while let Some(step) = plan(all, 1024 * MB, mood) {
            let (ids, written) = match step {
                Step::Merge(ids) => (ids, &mut merges),
                Step::Join(ids) => (ids, &mut joins),
            };
            let (merged, rest): (Vec<_>, Vec<_>) = all.drain(..).partition(|c| ids.contains(&c.id));
            let bytes: u64 = merged.iter().map(|c| c.bytes).sum();
            *written += bytes / MB;
            *all = rest;
            all.push(Candidate {
                id: 1000 + ids[0],
                day: merged[0].day,
                level: merged.iter().map(|c| c.level).max().unwrap() + 1,
                bytes,
                sources: Sources::union(merged.iter().map(|c| &c.sources)),
                times: merged.iter().filter_map(|c| c.times).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))),
            });
        }
        (merges, joins, all.iter().map(|c| c.bytes / MB).collect())
    }

    #[test]
    fn under_load_no_row_is_encoded_again_and_the_final_shape_is_few_large_segments() {
        let mut all = Vec::new();
        let (mut merged, mut joined, mut most) = (0, 0, 0);
        for id in 0..250 {
            all.push(fresh(id, 1, 40));
            let (merges, joins, _) = settle(&mut all, Mood::Busy);
            (merged, joined, most) = (merged + merges, joined + joins, most.max(all.len()));
        }
        let (merges, joins, _) = settle(&mut all, Mood::Forced);
        assert_eq!((merged + merges, joined + joins), (0, 250 * 40));
        assert!(all.len() <= 17 && most <= 32, "{} segments for 10 GB, {most} on the way", all.len());
    }

    #[test]
    fn one_gigabyte_becomes_one_segment_when_forced_and_days_stay_apart() {
        let mut all: Vec<_> = (0..15).map(|id| fresh(id, 1, 45)).collect();
        assert_eq!(settle(&mut all, Mood::Busy), (0, 0, vec![45; 15]), "more may come");
        assert_eq!(settle(&mut all, Mood::Quiet), (0, 0, vec![45; 15]));
        assert_eq!(settle(&mut all, Mood::Forced), (0, 15 * 45, vec![15 * 45]));
        let mut all = vec![fresh(1, 1, 45), fresh(2, 1, 1), fresh(3, 1, 2), fresh(4, 2, 1)];
        assert_eq!(settle(&mut all, Mood::Forced), (3, 48, vec![1, 48]));
        assert_eq!(plan(&all, 1024 * MB, Mood::Forced), None);
    }

    #[test]
    fn a_day_that_is_over_gets_its_final_shape_in_quiet_times() {
        let mut all = vec![fresh(1, 1, 45), fresh(2, 1, 45), fresh(3, 1, 1), fresh(4, 2, 45), fresh(5, 2, 1)];
        assert_eq!(plan(&all, 1024 * MB, Mood::Busy), None);
        let (merged, joined, mut sizes) = settle(&mut all, Mood::Quiet);
        sizes.sort_unstable();
        assert_eq!((merged, joined, sizes), (0, 91, vec![1, 45, 91]));
    }

    #[test]
    fn a_trickle_stays_few_and_is_written_few_times() {
        let mut all = Vec::new();
        let mut written = 0;
        for id in 0..1000 {
            all.push(fresh(id, 1, 1));
            let (merges, joins, _) = settle(&mut all, Mood::Quiet);
            written += merges + joins;
        }
        assert!(all.len() <= 48, "{} segments", all.len());
        assert!(written <= 4 * 1000, "{written} MB written again for 1000 MB");
        assert_eq!(plan(&[fresh(1, 1, 1), fresh(2, 1, 1)], 1024 * MB, Mood::Quiet), None);
        let four: Vec<_> = (0..4).map(|id| fresh(id, 1, 1)).collect();
        assert_eq!(plan(&four, 1024 * MB, Mood::Quiet), Some(Step::Merge(vec![0, 1, 2, 3])));
    }

    #[test]
    fn rows_without_bodies_are_not_merged_again_and_again() {
        let (mut all, mut written) = (Vec::new(), 0);
        for id in 0..300 {
            all.push(Candidate { bytes: size(Signal::Metrics, 400_000, 0), ..fresh(id, 1, 0) });
            let (merges, joins, _) = settle(&mut all, Mood::Busy);
            written += merges + joins;
        }
        assert!(all.len() <= 48 && written <= 3 * 300 * 6, "{} segments, {written} MB written", all.len());
        assert_eq!((size(Signal::Logs, 1, 200), size(Signal::Spans, 1, 200)), (200, 264));
    }

    /// A segment of metrics of these times.
    fn timed(id: u64, megabytes: u64, times: (i64, i64)) -> Candidate {
        Candidate { times: Some(times), ..fresh(id, 1, megabytes) }
    }

    #[test]
    fn no_segment_is_passed_by_over_times_that_it_shares_with_older_ones() {
        let day = |large: (i64, i64)| {
            let small = |id| timed(id, 1, (id as i64 * 10, id as i64 * 10 + 9));
            (0..4).map(small).chain([timed(4, 600, large)]).chain((5..9).map(small)).collect::<Vec<_>>()
        };
        let merged = |all: &[Candidate]| match plan(all, 1024 * MB, Mood::Forced) {
            Some(Step::Merge(ids)) => ids,
            other => panic!("{other:?}"),
        };
        assert_eq!(merged(&day((40, 49))), [0, 1, 2, 3, 5, 6, 7, 8], "it shares no time");
        assert_eq!(merged(&day((55, 80))), [0, 1, 2, 3, 5, 6, 7, 8], "it shares times with later ones");
        assert_eq!(merged(&day((15, 49))), [0, 1, 2, 3]);
        let (_, _, mut sizes) = settle(&mut day((15, 49)), Mood::Forced);
        sizes.sort_unstable();
        assert_eq!(sizes, [4, 4, 600]);
    }

    #[test]
    fn whatever_comes_together_of_two_samples_the_later_arrival_counts() {
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut below = |most: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % most
        };
        for _ in 0..200 {
            let mut all = Vec::new();
            // What each segment was written from, in the order in which samples win.
            let mut parts: Vec<(u64, Vec<Candidate>)> = Vec::new();
            for id in 0..60 {
                let first = below(100) as i64;
                let megabytes = if below(10) == 0 { 600 } else { 1 + below(40) };
                let mood = [Mood::Busy, Mood::Quiet, Mood::Forced][below(3) as usize];
                let candidate = timed(id, megabytes, (first, first + below(20) as i64));
                parts.push((id, vec![candidate.clone()]));
                all.push(candidate);
                while let Some(Step::Merge(ids) | Step::Join(ids)) = plan(&all, 1024 * MB, mood) {
                    let (mut merged, rest): (Vec<_>, Vec<_>) =
                        std::mem::take(&mut all).into_iter().partition(|c| ids.contains(&c.id));
                    merged.sort_by_key(|c| (c.sources.last(), c.id));
                    let times =
                        |of: fn(&(i64, i64)) -> i64| merged.iter().filter_map(|c| c.times.as_ref()).map(of);
                    let (first, last) = (times(|t| t.0).min().unwrap(), times(|t| t.1).max().unwrap());
                    let id = 1000 * (1 + merged.iter().map(|c| c.id).max().unwrap());
                    let own = merged.iter().flat_map(|c| {
                        parts.iter().find(|(of, _)| *of == c.id).map(|(_, parts)| parts.clone()).unwrap()
                    });
                    parts.push((id, own.collect()));
                    all = rest;
                    all.push(Candidate {
                        id,
                        bytes: merged.iter().map(|c| c.bytes).sum(),
                        level: 1,
                        sources: Sources::union(merged.iter().map(|c| &c.sources)),
                        times: Some((first, last)),
                        day: 1,
                    });
                }
            }
            all.sort_by_key(|c| (c.sources.last(), c.id));
            let order: Vec<Candidate> = all
                .iter()
                .flat_map(|c| {
                    parts.iter().find(|(of, _)| *of == c.id).map(|(_, parts)| parts.clone()).unwrap()
                })
                .collect();
            assert_eq!(order.len(), 60);
            for (at, earlier) in order.iter().enumerate() {
                let wrong =
                    order[at + 1..].iter().find(|later| later.id < earlier.id && later.contends(earlier));
                assert_eq!(wrong.map(|later| later.id), None, "against {}", earlier.id);
            }
        }
    }

    #[test]
    fn names_stay_short_enough_for_a_file_system() {
        let all: Vec<_> = (0..40).map(|id| fresh(id * 1_000_000_007, 1, 1)).collect();
        let Some(Step::Merge(ids)) = plan(&all, 1024 * MB, Mood::Forced) else { panic!("nothing to merge") };
        let picked = all.iter().filter(|c| ids.contains(&c.id)).map(|c| &c.sources);
        assert!(ids.len() >= 2 && Sources::union(picked).to_text().len() <= MAX_SOURCES_TEXT);
    }
}
