//! Everything that was counted since the start, as Python reads it.

use pyo3::prelude::*;
use tokio::time::Instant;

use crate::connections::{Connections, CLOSED, REFUSED};
use crate::counts::loaded;
use crate::lane::metrics::{Calls, Histogram, Metrics, CODES, PATHS};
use crate::shared::Shared;

/// The counts of buckets, and the sum.
type Observed = (Vec<u64>, f64);
/// Names, each with its count.
type Named = Vec<(&'static str, u64)>;
/// A method's path, its calls by their codes, and their times.
type Counted = (&'static str, Named, Observed);

#[derive(IntoPyObject)]
pub struct Totals {
    lane: LaneTotals,
    /// Calls that ended before a service or the lane had them: path, code and how many.
    ended: Vec<(String, u32, u64)>,
    calls_in_flight: u64,
    observations_dropped: u64,
    connections: ConnectionTotals,
}

#[derive(IntoPyObject)]
struct LaneTotals {
    images: u64,
    run_requests: Observed,
    run_images: Observed,
    run_seconds: Observed,
    sized_seconds: Vec<f64>,
    queue_seconds: Observed,
    encode_seconds: Observed,
    queue_oldest_seconds: f64,
    calls: Vec<Counted>,
}

#[derive(IntoPyObject)]
struct ConnectionTotals {
    open: u64,
    opened: u64,
    closed: Named,
    refused: Named,
}

impl Totals {
    pub fn of(shared: &Shared, metrics: &Metrics) -> Self {
        Self {
            lane: metrics.into(),
            ended: shared.methods.ended(),
            calls_in_flight: loaded(&shared.calls),
            observations_dropped: loaded(&shared.observations.dropped),
            connections: (&shared.connections).into(),
        }
    }
}

impl From<&Metrics> for LaneTotals {
    fn from(metrics: &Metrics) -> Self {
        Self {
            images: loaded(&metrics.images),
            run_requests: Histogram::totals(&metrics.run_requests),
            run_images: Histogram::totals(&metrics.run_images),
            run_seconds: Histogram::totals(&metrics.run_seconds),
            sized_seconds: metrics.sized_seconds.totals(),
            queue_seconds: Histogram::totals(&metrics.queue_seconds),
            encode_seconds: Histogram::totals(&metrics.encode_seconds),
            queue_oldest_seconds: metrics.oldest_seconds(Instant::now()),
            calls: PATHS
                .iter()
                .zip(&metrics.calls)
                .map(|(path, calls)| counted(path, calls))
                .collect(),
        }
    }
}

impl From<&Connections> for ConnectionTotals {
    fn from(connections: &Connections) -> Self {
        let closed = CLOSED
            .into_iter()
            .zip(connections.closed.iter().map(loaded));
        let refused = REFUSED
            .into_iter()
            .zip(connections.refused.iter().map(loaded));
        Self {
            open: connections.open(),
            opened: loaded(&connections.opened),
            closed: closed.collect(),
            refused: refused.collect(),
        }
    }
}

fn counted(path: &'static str, calls: &Calls) -> Counted {
    let codes = CODES.into_iter().zip(calls.ended.iter().map(loaded));
    (path, codes.collect(), calls.handling_seconds.totals())
}
