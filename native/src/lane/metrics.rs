//! What the lane counts, as the Python server does; Python reads it when it is scraped.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets; Python gives them, so that both count alike.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    pub seconds: Vec<f64>,
    pub images: Vec<f64>,
}

/// Observations by buckets. Only the io thread observes.
#[derive(Debug)]
pub struct Histogram {
    bounds: Vec<f64>,
    /// One for each bound, of values up to it and above the one before, and one for all above.
    counts: Vec<AtomicU64>,
    sum_bits: AtomicU64,
}

impl Histogram {
    pub fn new(bounds: &[f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        let (bounds, sum_bits) = (bounds.to_vec(), AtomicU64::new(0f64.to_bits()));
        Self {
            bounds,
            counts,
            sum_bits,
        }
    }

    pub fn observe(&self, value: f64) {
        let place = self.bounds.partition_point(|&bound| bound < value);
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        let sum = f64::from_bits(self.sum_bits.load(Ordering::Relaxed)) + value;
        self.sum_bits.store(sum.to_bits(), Ordering::Relaxed); // one thread writes
    }

    /// Returns the count of each bucket by itself, and the sum of all values.
    pub fn totals(&self) -> (Vec<u64>, f64) {
        let load = |each: &AtomicU64| each.load(Ordering::Relaxed);
        let counts = self.counts.iter().map(load).collect();
        (counts, f64::from_bits(load(&self.sum_bits)))
    }
}

/// How a call of the lane ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Ok,
    Cancelled,
    DeadlineExceeded,
    Unavailable,
    ResourceExhausted,
}

/// The names of `End` in gRPC, in its order.
pub const CODES: [&str; 5] = [
    "OK",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "UNAVAILABLE",
    "RESOURCE_EXHAUSTED",
];

/// The methods that the lane answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    Predict,
    PredictStream,
    ModelInfer,
}

/// Paths of `Method`, in its order.
pub const PATHS: [&str; 3] = [
    "/forward.v1.ForwardService/Predict",
    "/forward.v1.ForwardService/PredictStream",
    "/inference.GRPCInferenceService/ModelInfer",
];

impl Method {
    /// Returns the method of a path.
    pub fn of(path: &str) -> Option<Self> {
        let all = [Self::Predict, Self::PredictStream, Self::ModelInfer];
        all.into_iter()
            .find(|&method| PATHS[method as usize] == path)
    }
}

/// The calls of one method.
#[derive(Debug)]
pub struct Calls {
    pub ended: [AtomicU64; CODES.len()],
    pub handling_seconds: Histogram,
}

#[derive(Debug)]
pub struct Metrics {
    pub images: AtomicU64,
    pub run_images: Histogram,
    pub run_seconds: Histogram,
    pub queue_seconds: Histogram,
    pub calls: [Calls; PATHS.len()],
}

impl Metrics {
    pub fn new(bounds: &Bounds) -> Self {
        let seconds = || Histogram::new(&bounds.seconds);
        Self {
            images: AtomicU64::new(0),
            run_images: Histogram::new(&bounds.images),
            run_seconds: seconds(),
            queue_seconds: seconds(),
            calls: PATHS.map(|_| Calls {
                ended: CODES.map(|_| AtomicU64::new(0)),
                handling_seconds: seconds(),
            }),
        }
    }

    pub fn observe_run(&self, images: usize, seconds: f64) {
        self.images.fetch_add(images as u64, Ordering::Relaxed);
        self.run_images.observe(images as f64);
        self.run_seconds.observe(seconds);
    }

    pub fn observe_call(&self, method: Method, end: End, seconds: f64) {
        let calls = &self.calls[method as usize];
        calls.ended[end as usize].fetch_add(1, Ordering::Relaxed);
        calls.handling_seconds.observe(seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_the_first_bucket_whose_bound_it_does_not_pass() {
        let histogram = Histogram::new(&[1.0, 2.0]);
        [0.5, 1.0, 1.5, 2.0, 2.5]
            .iter()
            .for_each(|&value| histogram.observe(value));
        assert_eq!(histogram.totals(), (vec![2, 2, 1], 7.5));
    }

    #[test]
    fn methods_are_known_by_their_paths() {
        assert_eq!(Method::of(PATHS[2]), Some(Method::ModelInfer));
        assert_eq!(Method::of("/forward.v1.ForwardService/Trace"), None);
    }
}
