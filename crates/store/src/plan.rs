//! Which segments to merge: pure decisions.
//!
//! Only segments of one UTC day (of their latest row) are merged. A segment with at least half the
//! target's raw bytes is *done* and stays. Of the others, oldest first:
//! 1. as many as reach the target become one;
//! 2. sixteen small ones of about one size (a factor of eight) become one, so that trickles stay few;
//! 3. when nothing was flushed for a while, four or more fresh from a flush become one;
//! 4. when a merge is forced, all become one, and a single one fresh from a flush is rewritten.
//!
//! Under load rule 1 decides alone, so a row is written twice: at the flush and at one merge.

use crate::{catalog::Sources, files::MAX_SOURCES_TEXT};

/// Most inputs of one merge; each holds a granule (about 2 MB) in memory.
const MAX_INPUTS: usize = 32;

/// Rule 2.
const SAME_SIZE: usize = 16;

/// Rule 2 is for segments below the target's 32nd part; a flush under load is larger.
const SMALL: u64 = 32;

/// Rule 3.
const QUIET: usize = 4;

/// What the plan knows of a segment.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub id: u64,
    pub day: i64,
    pub level: u8,
    pub raw_bytes: u64,
    pub sources: Sources,
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

/// Ids of the segments to merge next, oldest rows first; `None` when all is well.
pub(crate) fn plan(all: &[Candidate], target: u64, mood: Mood) -> Option<Vec<u64>> {
    let mut open: Vec<&Candidate> = all.iter().filter(|c| c.raw_bytes < target / 2).collect();
    open.sort_by_key(|c| (c.day, c.sources.0.first().copied(), c.id));
    open.chunk_by(|a, b| a.day == b.day).find_map(|day| of_day(day, target, mood))
}

fn of_day(day: &[&Candidate], target: u64, mood: Mood) -> Option<Vec<u64>> {
    let ids = |run: Vec<&Candidate>| Some(run.iter().map(|c| c.id).collect());
    // A candidate whose sources go with no other's into a file name is passed over.
    let starts = (0..day.len()).map(|start| bounded(&day[start..], target));
    let run = starts.clone().find(|run| run.len() >= 2).or_else(|| starts.clone().next())?;
    let whole: u64 = run.iter().map(|c| c.raw_bytes).sum();
    if run.len() >= 2 && (whole >= target || run.len() == MAX_INPUTS || mood == Mood::Forced) {
        return ids(run);
    }
    if mood == Mood::Forced {
        return day.iter().find(|c| c.level == 0).map(|c| vec![c.id]);
    }
    let merge = |wanted: &dyn Fn(&Candidate) -> bool, enough: usize| {
        let some: Vec<&Candidate> = day.iter().copied().filter(|c| wanted(c)).collect();
        let run = bounded(&some, target);
        if run.len() >= enough { ids(run) } else { None }
    };
    let tier = |c: &Candidate| (target / c.raw_bytes.max(1)).ilog2() / 3;
    let small = |c: &Candidate| c.raw_bytes < target / SMALL;
    let tiers: Vec<u32> = day.iter().filter(|c| small(c)).map(|c| tier(c)).collect();
    let by_size = tiers.into_iter().find_map(|t| merge(&|c| small(c) && tier(c) == t, SAME_SIZE));
    by_size.or_else(|| if mood == Mood::Quiet { merge(&|c| c.level == 0, QUIET) } else { None })
}

/// The first candidates up to the target's size, the bound on inputs and the length of a name.
fn bounded<'a>(day: &[&'a Candidate], target: u64) -> Vec<&'a Candidate> {
    let mut run: Vec<&Candidate> = Vec::new();
    let mut bytes = 0;
    for candidate in day {
        if run.len() == MAX_INPUTS || bytes >= target {
            break;
        }
        let sources = Sources::union(run.iter().map(|c| &c.sources).chain([&candidate.sources]));
        if sources.to_text().len() > MAX_SOURCES_TEXT {
            break;
        }
        bytes += candidate.raw_bytes;
        run.push(candidate);
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn fresh(id: u64, day: i64, megabytes: u64) -> Candidate {
        let sources = Sources::range(id * 10, id * 10 + 9);
        Candidate { id, day, level: 0, raw_bytes: megabytes * MB, sources }
    }

    /// Plays merges until nothing is left to do; returns the bytes written and the final sizes in MB.
    fn settle(all: &mut Vec<Candidate>, mood: Mood) -> (u64, Vec<u64>) {
        let mut written = 0;
        while let Some(ids) = plan(all, 1024 * MB, mood) {
            let (merged, rest): (Vec<_>, Vec<_>) = all.drain(..).partition(|c| ids.contains(&c.id));
            let raw_bytes: u64 = merged.iter().map(|c| c.raw_bytes).sum();
            written += raw_bytes;
            *all = rest;
            all.push(Candidate {
                id: 1000 + ids[0],
                day: merged[0].day,
                level: merged.iter().map(|c| c.level).max().unwrap() + 1,
                raw_bytes,
                sources: Sources::union(merged.iter().map(|c| &c.sources)),
            });
        }
        (written / MB, all.iter().map(|c| c.raw_bytes / MB).collect())
    }

    #[test]
    fn under_load_a_row_is_merged_once_and_the_final_shape_is_few_large_segments() {
        let mut all = Vec::new();
        let mut written = 0;
        for id in 0..250 {
            all.push(fresh(id, 1, 40));
            written += settle(&mut all, Mood::Busy).0;
        }
        written += settle(&mut all, Mood::Forced).0;
        assert_eq!(written, 250 * 40);
        assert!(all.len() <= 10, "{} segments for 10 GB", all.len());
    }

    #[test]
    fn one_gigabyte_becomes_one_segment_when_forced_and_days_stay_apart() {
        let mut all: Vec<_> = (0..20).map(|id| fresh(id, 1, 45)).collect();
        assert_eq!(settle(&mut all, Mood::Busy), (0, vec![45; 20]), "more may come");
        assert_eq!(settle(&mut all.clone(), Mood::Quiet), (20 * 45, vec![900]));
        assert_eq!(settle(&mut all, Mood::Forced), (20 * 45, vec![900]));
        let mut all = vec![fresh(1, 1, 45), fresh(2, 1, 45), fresh(3, 2, 1)];
        assert_eq!(settle(&mut all, Mood::Forced), (91, vec![90, 1]));
        assert_eq!(plan(&all, 1024 * MB, Mood::Forced), None);
    }

    #[test]
    fn a_trickle_stays_few_and_is_written_few_times() {
        let mut all = Vec::new();
        let mut written = 0;
        for id in 0..1000 {
            all.push(fresh(id, 1, 1));
            written += settle(&mut all, Mood::Quiet).0;
        }
        assert!(all.len() <= 48, "{} segments", all.len());
        assert!(written <= 4 * 1000, "{written} MB merged for 1000 MB");
        assert_eq!(plan(&[fresh(1, 1, 1), fresh(2, 1, 1)], 1024 * MB, Mood::Quiet), None);
        assert!(
            plan(&(0..4).map(|id| fresh(id, 1, 1)).collect::<Vec<_>>(), 1024 * MB, Mood::Quiet).is_some()
        );
    }

    #[test]
    fn names_stay_short_enough_for_a_file_system() {
        let all: Vec<_> = (0..40).map(|id| fresh(id * 1_000_000_007, 1, 1)).collect();
        let ids = plan(&all, 1024 * MB, Mood::Forced).unwrap();
        let picked = all.iter().filter(|c| ids.contains(&c.id)).map(|c| &c.sources);
        assert!(ids.len() >= 2 && Sources::union(picked).to_text().len() <= MAX_SOURCES_TEXT);
    }
}
