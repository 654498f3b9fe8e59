//! What the lane counts, as the Python server does; Python reads it when it is scraped.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::counts::{add, loaded};
use crate::grpc;

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
        self.observe_alike(value, 1);
    }

    /// Counts so many observations of that value in.
    pub fn observe_alike(&self, value: f64, count: usize) {
        let place = self.bounds.partition_point(|&bound| bound < value);
        add(&self.counts[place], count as u64);
        let sum = f64::from_bits(loaded(&self.sum_bits)) + value * count as f64;
        self.sum_bits.store(sum.to_bits(), Ordering::Relaxed); // one thread writes
    }

    /// Returns the count of each bucket by itself, and the sum of all values.
    pub fn totals(&self) -> (Vec<u64>, f64) {
        let counts = self.counts.iter().map(loaded).collect();
        (counts, f64::from_bits(loaded(&self.sum_bits)))
    }
}

/// Sums of one value by the buckets of another. Only the io thread adds.
#[derive(Debug)]
pub struct Sums {
    bounds: Vec<f64>,
    bits: Vec<AtomicU64>,
}

impl Sums {
    fn new(bounds: &[f64]) -> Self {
        let zero = || AtomicU64::new(0f64.to_bits());
        Self {
            bounds: bounds.to_vec(),
            bits: (0..=bounds.len()).map(|_| zero()).collect(),
        }
    }

    fn add(&self, of: f64, value: f64) {
        let bits = &self.bits[self.bounds.partition_point(|&bound| bound < of)];
        let sum = f64::from_bits(loaded(bits)) + value;
        bits.store(sum.to_bits(), Ordering::Relaxed); // one thread writes
    }

    pub fn totals(&self) -> Vec<f64> {
        let sum = |bits| f64::from_bits(loaded(bits));
        self.bits.iter().map(sum).collect()
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

impl End {
    /// Returns the code of gRPC.
    pub fn code(self) -> u32 {
        match self {
            Self::Ok => grpc::OK,
            Self::Cancelled => grpc::CANCELLED,
            Self::DeadlineExceeded => grpc::DEADLINE_EXCEEDED,
            Self::Unavailable => grpc::UNAVAILABLE,
            Self::ResourceExhausted => grpc::RESOURCE_EXHAUSTED,
        }
    }
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

/// One run of the runtime.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Requests that had images in it.
    pub requests: usize,
    pub images: usize,
    pub seconds: f64,
}

#[derive(Debug)]
pub struct Metrics {
    pub images: AtomicU64,
    pub run_requests: Histogram,
    pub run_images: Histogram,
    pub run_seconds: Histogram,
    /// By the images of the run.
    pub sized_seconds: Sums,
    pub queue_seconds: Histogram,
    pub encode_seconds: Histogram,
    pub calls: [Calls; PATHS.len()],
    started: Instant,
    /// When the oldest request that waits came, in nanoseconds since the start; 0: none waits.
    oldest: AtomicU64,
}

impl Metrics {
    pub fn new(bounds: &Bounds) -> Self {
        let seconds = || Histogram::new(&bounds.seconds);
        Self {
            images: AtomicU64::new(0),
            run_requests: Histogram::new(&bounds.images),
            run_images: Histogram::new(&bounds.images),
            run_seconds: seconds(),
            sized_seconds: Sums::new(&bounds.images),
            queue_seconds: seconds(),
            encode_seconds: seconds(),
            calls: PATHS.map(|_| Calls {
                ended: CODES.map(|_| AtomicU64::new(0)),
                handling_seconds: seconds(),
            }),
            started: Instant::now(),
            oldest: AtomicU64::new(0),
        }
    }

    pub fn observe_run(&self, run: &Run) {
        add(&self.images, run.images as u64);
        self.run_requests.observe(run.requests as f64);
        self.run_images.observe(run.images as f64);
        self.run_seconds.observe(run.seconds);
        self.sized_seconds.add(run.images as f64, run.seconds);
    }

    /// Notes when the oldest request that waits came.
    pub fn set_oldest(&self, arrived: Option<Instant>) {
        let since_start = |at: Instant| (at - self.started).as_nanos() as u64;
        let oldest = arrived.map_or(0, |at| since_start(at).max(1));
        self.oldest.store(oldest, Ordering::Relaxed);
    }

    /// Returns how long the oldest request has waited that waits; 0: none does.
    pub fn oldest_seconds(&self, now: Instant) -> f64 {
        match loaded(&self.oldest) {
            0 => 0.0,
            arrived => (now - self.started).as_secs_f64() - arrived as f64 * 1e-9,
        }
    }

    pub fn observe_call(&self, method: Method, end: End, seconds: f64) {
        let calls = &self.calls[method as usize];
        add(&calls.ended[end as usize], 1);
        calls.handling_seconds.observe(seconds);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn the_seconds_of_runs_are_added_up_by_their_images() {
        let images = vec![1.0, 4.0];
        let bounds = Bounds {
            images,
            ..Bounds::default()
        };
        let metrics = Metrics::new(&bounds);
        for (images, seconds) in [(1, 0.5), (2, 1.0), (4, 2.0), (5, 4.0)] {
            let requests = 1;
            metrics.observe_run(&Run {
                requests,
                images,
                seconds,
            });
        }
        assert_eq!(metrics.sized_seconds.totals(), [0.5, 3.0, 4.0]);
    }

    #[test]
    fn the_age_of_the_oldest_request_grows_until_none_waits() {
        let metrics = Metrics::new(&Bounds::default());
        let (arrived, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(metrics.oldest_seconds(arrived), 0.0);
        metrics.set_oldest(Some(arrived));
        assert!((metrics.oldest_seconds(arrived + second) - 1.0).abs() < 1e-6);
        metrics.set_oldest(None);
        assert_eq!(metrics.oldest_seconds(arrived + second), 0.0);
    }

    #[test]
    fn methods_are_known_by_their_paths() {
        assert_eq!(Method::of(PATHS[2]), Some(Method::ModelInfer));
        assert_eq!(Method::of("/forward.v1.ForwardService/Trace"), None);
    }
}
