//! Which batches are known.
//!
//! A key is *pending* while its batch is on the way to the disk and *stored* after. A second
//! append with a pending key gets the first one's result, so nobody is told "duplicate" before the
//! first is durable; when the first fails, the second fails too and the sender tries again.
//! Stored keys live for the window, or less when more than the bound are known. They ride in the
//! log with their batch, and a flush saves those of the flushed batches in the catalog, so a restart
//! knows them all.

use std::collections::VecDeque;

use hashbrown::{HashMap, hash_map::Entry};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{Appended, StoreError};

pub(crate) type AppendResult = Result<Appended, StoreError>;

/// What to do with a batch.
pub(crate) enum Claim {
    /// It is new: store it, then call [`Dedup::settle`].
    Mine,
    /// Stored before.
    Stored,
    /// On the way: the result comes here.
    Pending(oneshot::Receiver<AppendResult>),
}

enum State {
    Pending(Vec<oneshot::Sender<AppendResult>>),
    /// Wall clock in milliseconds.
    Stored(i64),
}

#[derive(Default)]
struct Inner {
    known: HashMap<u128, State>,
    /// Stored keys in order of storing. The clock may jump, so times here need not rise.
    order: VecDeque<(u128, i64)>,
}

pub(crate) struct Dedup {
    window_ms: i64,
    bound: usize,
    inner: Mutex<Inner>,
}

impl Dedup {
    pub fn new(window_ms: i64, bound: usize) -> Self {
        Self { window_ms, bound, inner: Mutex::default() }
    }

    /// Asks for a key and takes it when it is free.
    pub fn claim(&self, key: u128, now_ms: i64) -> Claim {
        let mut inner = self.inner.lock();
        self.forget(&mut inner, now_ms);
        match inner.known.entry(key) {
            Entry::Vacant(free) => {
                free.insert(State::Pending(Vec::new()));
                Claim::Mine
            }
            Entry::Occupied(mut found) => match found.get_mut() {
                State::Stored(_) => Claim::Stored,
                State::Pending(waiting) => {
                    let (sender, receiver) = oneshot::channel();
                    waiting.push(sender);
                    Claim::Pending(receiver)
                }
            },
        }
    }

    /// The batch of a claimed key is stored, or is not.
    pub fn settle(&self, key: u128, at_ms: i64, result: &AppendResult) {
        let mut inner = self.inner.lock();
        let before = inner.known.remove(&key);
        if result.is_ok() {
            inner.known.insert(key, State::Stored(at_ms));
            inner.order.push_back((key, at_ms));
        }
        drop(inner);
        if let Some(State::Pending(waiting)) = before {
            let told = result.clone().map(|_| Appended::Duplicate);
            for sender in waiting {
                // A receiver that is gone has lost interest.
                let _ = sender.send(told.clone());
            }
        }
    }

    /// A key found in the log or the catalog at open.
    pub fn restore(&self, key: u128, at_ms: i64) {
        let mut inner = self.inner.lock();
        inner.known.insert(key, State::Stored(at_ms));
        inner.order.push_back((key, at_ms));
    }

    /// Number of keys known.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.inner.lock().known.len()
    }

    fn forget(&self, inner: &mut Inner, now_ms: i64) {
        while let Some(&(key, at_ms)) = inner.order.front() {
            // A time ahead of the clock has age zero: the clock went back.
            let expired = now_ms.saturating_sub(at_ms) > self.window_ms;
            if !expired && inner.order.len() <= self.bound {
                break;
            }
            inner.order.pop_front();
            if matches!(inner.known.get(&key), Some(State::Stored(at)) if *at == at_ms) {
                inner.known.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: AppendResult = Ok(Appended::Stored { rows: 1 });

    #[test]
    fn keys_are_known_for_the_window_and_up_to_the_bound() {
        let dedup = Dedup::new(100, 3);
        for key in 1..=5 {
            assert!(matches!(dedup.claim(key, 0), Claim::Mine));
            dedup.settle(key, 0, &STORED);
        }
        assert!(matches!(dedup.claim(5, 0), Claim::Stored));
        assert!(matches!(dedup.claim(1, 0), Claim::Mine), "the oldest went at the bound");
        assert!(
            matches!(dedup.claim(5, -1_000_000), Claim::Stored),
            "a clock that goes back forgets nothing"
        );
        assert!(matches!(dedup.claim(5, 101), Claim::Mine));
        assert!(dedup.len() <= 3);
    }

    #[test]
    fn a_concurrent_duplicate_shares_the_first_ones_fate() {
        let dedup = Dedup::new(100, 10);
        assert!(matches!(dedup.claim(1, 0), Claim::Mine));
        let Claim::Pending(mut second) = dedup.claim(1, 0) else { panic!("the key is pending") };
        assert!(second.try_recv().is_err(), "told before the first was stored");
        dedup.settle(1, 0, &Err(StoreError::Closed));
        assert!(matches!(second.try_recv(), Ok(Err(StoreError::Closed))));
        assert!(matches!(dedup.claim(1, 0), Claim::Mine), "a failed batch may come again");
        let Claim::Pending(mut second) = dedup.claim(1, 0) else { panic!("the key is pending") };
        dedup.settle(1, 0, &STORED);
        assert!(matches!(second.try_recv(), Ok(Ok(Appended::Duplicate))));
    }
}
