//! Choices at random, which are no secrets.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// xorshift64*, with a seed of its own.
pub struct Random(Cell<u64>);

impl Random {
    pub fn new() -> Self {
        Self(Cell::new(RandomState::new().hash_one(0) | 1))
    }

    pub fn next(&self) -> u64 {
        let mut state = self.0.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0.set(state);
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number below that one, which is far below 2^64.
    pub fn below(&self, limit: u64) -> u64 {
        self.next() % limit
    }
}
