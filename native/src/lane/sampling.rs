//! Images of which the server keeps statistics: few enough that they cost nearly nothing.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::random::Random;

/// At most one sample in so long, and of so many requests; these are as in
/// server/observability/drift.py.
pub const INTERVAL: Duration = Duration::from_millis(10);
const MIN_GAP: u64 = 4;
const MAX_GAP: u64 = 7;

/// An image with its logits, as bytes: the pixels as they came, the logits float32.
#[derive(Debug, PartialEq)]
pub struct Sample {
    /// Of the model.
    pub version: i64,
    pub pixels: Bytes,
    pub is_uint8: bool,
    pub logits: Vec<u8>,
}

/// Says when the next sample is to be taken.
pub struct Sampler {
    is_wanted: Arc<AtomicBool>,
    /// Requests until then: chosen at random, so that no client's rhythm is followed.
    due: Cell<u64>,
    /// And no earlier than this.
    next: Cell<Instant>,
    random: Random,
}

impl Sampler {
    /// Samples while that is true.
    pub fn new(is_wanted: Arc<AtomicBool>) -> Self {
        Self {
            is_wanted,
            due: Cell::new(0),
            next: Cell::new(Instant::now()),
            random: Random::new(),
        }
    }

    /// Tells of which request of a run a sample is to be taken now, if of any.
    pub fn choose(&self, now: Instant, requests: usize) -> Option<usize> {
        if !self.is_wanted.load(Ordering::Relaxed) {
            return None;
        }
        let due = self.due.get().saturating_sub(requests as u64);
        self.due.set(due);
        if due > 0 || now < self.next.get() {
            return None;
        }
        let gap = MIN_GAP + self.random.below(MAX_GAP - MIN_GAP + 1);
        self.due.set(gap);
        self.next.set(now + INTERVAL);
        Some(self.random.below(requests as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn wanted() -> Sampler {
        Sampler::new(Arc::new(AtomicBool::new(true)))
    }

    #[test]
    fn nothing_is_sampled_while_nobody_wants_it() {
        let wanted = Arc::new(AtomicBool::new(false));
        let (sampler, now) = (Sampler::new(Arc::clone(&wanted)), Instant::now());
        assert_eq!(sampler.choose(now, 1), None);
        wanted.store(true, Ordering::Relaxed);
        assert_eq!(sampler.choose(now, 1), Some(0));
    }

    proptest! {
        /// Runs of so many requests, so many ms after the one before; as in
        /// tests/unit/server/test_drift.py.
        #[test]
        fn at_most_every_fourth_request_and_100_a_second(
            runs in vec((1..10usize, 0..30u64), 1..200)
        ) {
            let (sampler, mut now) = (wanted(), Instant::now());
            let (mut requests, mut taken) = (0, Vec::new());
            for (count, milliseconds) in runs {
                now += Duration::from_millis(milliseconds);
                requests += count;
                if let Some(chosen) = sampler.choose(now, count) {
                    prop_assert!(chosen < count);
                    taken.push((requests, now));
                }
            }
            prop_assert!(!taken.is_empty(), "the first is taken");
            for pair in taken.windows(2) {
                prop_assert!(pair[1].0 - pair[0].0 >= 4);
                prop_assert!(pair[1].1 - pair[0].1 >= INTERVAL);
            }
        }
    }

    #[test]
    fn the_gaps_are_of_four_to_seven_requests() {
        let (sampler, start) = (wanted(), Instant::now());
        let at = |each| start + INTERVAL * each;
        let taken: Vec<u32> = (0..1000)
            .filter(|&each| sampler.choose(at(each), 1).is_some())
            .collect();
        let gaps: BTreeSet<u32> = taken.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps, BTreeSet::from([4, 5, 6, 7]));
    }

    #[test]
    fn each_request_of_a_run_is_chosen_at_times() {
        let (sampler, start) = (wanted(), Instant::now());
        let chosen = (0..1000).filter_map(|each| sampler.choose(start + INTERVAL * each, 9));
        assert_eq!(chosen.collect::<BTreeSet<_>>(), (0..9).collect());
    }
}
