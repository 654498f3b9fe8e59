//! Images of which the server keeps statistics: few enough that they cost nearly nothing.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// At most one sample in so long.
const INTERVAL: Duration = Duration::from_millis(10);

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
    next: Cell<Instant>,
}

impl Sampler {
    /// Samples while that is true.
    pub fn new(is_wanted: Arc<AtomicBool>) -> Self {
        let next = Cell::new(Instant::now());
        Self { is_wanted, next }
    }

    /// Tells if a sample is to be taken now.
    pub fn take(&self, now: Instant) -> bool {
        let is_due = self.is_wanted.load(Ordering::Relaxed) && now >= self.next.get();
        if is_due {
            self.next.set(now + INTERVAL);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_sample_is_taken_in_its_interval() {
        let wanted = Arc::new(AtomicBool::new(false));
        let (sampler, now) = (Sampler::new(Arc::clone(&wanted)), Instant::now());
        assert!(!sampler.take(now));
        wanted.store(true, Ordering::Relaxed);
        assert!(sampler.take(now));
        assert!(!sampler.take(now + INTERVAL / 2));
        assert!(sampler.take(now + INTERVAL));
    }
}
