//! Numbers that one thread counts and another reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// Add to a number that this thread alone writes: that needs no locked instruction.
pub fn add(count: &AtomicU64, more: u64) {
    count.store(loaded(count) + more, Ordering::Relaxed);
}

pub fn loaded(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
