//! Calls of which Python gets a record for its log and its traces, though they never reached it.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::clock::monotonic_seconds_of;
use crate::grpc;
use crate::lane::queue::{Answered, Batch};
use crate::random::Random;

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A call that ended, by the fields of server/observability/records.py.
#[derive(Debug)]
pub struct Observation {
    pub method: String,
    pub peer: Arc<str>,
    pub request_id: String,
    /// As it came.
    pub traceparent: Option<String>,
    /// Seconds of CLOCK_MONOTONIC.
    pub started: f64,
    pub seconds: f64,
    pub request_bytes: usize,
    pub response_bytes: usize,
    pub answered: Answered,
    /// Those that it shared, the last of them.
    pub runs: Vec<Batch>,
    pub code: u32,
    pub audience: Audience,
}

/// The end of a call, to be observed.
pub struct Ends {
    pub method: String,
    pub peer: Arc<str>,
    pub request_id: String,
    pub traceparent: Option<String>,
    pub began: Instant,
    pub code: u32,
    pub audience: Audience,
}

impl Ends {
    /// Return the record of a call that was answered.
    pub fn answered(
        self,
        request_bytes: usize,
        response_bytes: usize,
        answered: Answered,
        runs: &[Batch],
    ) -> Observation {
        Observation {
            method: self.method,
            peer: self.peer,
            request_id: self.request_id,
            traceparent: self.traceparent,
            started: monotonic_seconds_of(self.began),
            seconds: self.began.elapsed().as_secs_f64(),
            request_bytes,
            response_bytes,
            answered,
            runs: runs.to_vec(),
            code: self.code,
            audience: self.audience,
        }
    }

    /// Return the record of a call that was not.
    pub fn unanswered(self, request_bytes: usize) -> Observation {
        self.answered(request_bytes, 0, Answered::default(), &[])
    }
}

/// Who is to know of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Audience {
    /// The traces alone.
    Traces,
    /// The log as well.
    All,
}

/// A share of the calls: of 2^64 numbers, those below choose one; None: all do.
#[derive(Clone, Copy)]
struct Share(Option<u64>);

impl Share {
    fn of(share: f64) -> Self {
        let below = (share * 2f64.powi(64)) as u64; // it stops at the largest
        Self((share < 1.0).then_some(below))
    }
}

/// Chooses the calls that are observed.
pub struct Observer {
    logged: Share,
    /// Whether calls are observed whose client has sampled them for tracing.
    traces: bool,
    /// Of the calls that no client has decided of.
    traced: Share,
    random: Random,
}

impl Observer {
    /// Log that share of all calls, 0 to 1; trace those that their client does, and of the others
    /// that share.
    pub fn new(logged: f64, traces: bool, traced: f64) -> Self {
        Self {
            logged: Share::of(logged),
            traces,
            traced: Share::of(traced),
            random: Random::new(),
        }
    }

    /// Tell who is to know of a call with these headers that ends with that code.
    pub fn audience(&self, headers: &HeaderMap, code: u32) -> Option<Audience> {
        if is_failure_of_server(code) || self.chooses(self.logged) {
            return Some(Audience::All);
        }
        let is_traced = match traceparent(headers) {
            Some(header) => self.traces && is_sampled(header),
            None => self.chooses(self.traced),
        };
        is_traced.then_some(Audience::Traces)
    }

    fn chooses(&self, share: Share) -> bool {
        let Share(Some(below)) = share else {
            return true;
        };
        below > 0 && self.random.next() < below
    }

    /// Whether any calls are traced.
    pub fn traces(&self) -> bool {
        self.traces
    }
}

/// As OpenTelemetry's semantic conventions have it for servers of gRPC.
pub fn is_failure_of_server(code: u32) -> bool {
    const DATA_LOSS: u32 = 15;
    [
        grpc::UNKNOWN,
        grpc::DEADLINE_EXCEEDED,
        grpc::UNIMPLEMENTED,
        grpc::INTERNAL,
        grpc::UNAVAILABLE,
        DATA_LOSS,
    ]
    .contains(&code)
}

/// Return the header of the caller's span: of several the last counts.
pub fn traceparent(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get_all(TRACEPARENT).iter().next_back()
}

/// Tell if the client records the trace: W3C Trace Context, the lowest bit of the flags.
fn is_sampled(traceparent: &HeaderValue) -> bool {
    const FLAGS_END: usize = 55; // "00-", 32 digits, "-", 16 digits, "-", 2 digits
    let digit = traceparent.as_bytes().get(FLAGS_END - 1);
    digit.is_some_and(|&digit| {
        char::from(digit)
            .to_digit(16)
            .is_some_and(|flags| flags & 1 == 1)
    })
}

/// Return a header as text, if it is there and is one.
pub fn text_of(value: Option<&HeaderValue>) -> Option<String> {
    value?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: u32 = grpc::OK;

    #[test]
    fn a_share_of_the_calls_is_chosen() {
        let headers = HeaderMap::new();
        let observed = |share| {
            let observer = Observer::new(share, false, 0.0);
            (0..10_000)
                .filter(|_| observer.audience(&headers, OK) == Some(Audience::All))
                .count()
        };
        assert_eq!((observed(0.0), observed(1.0)), (0, 10_000));
        assert!((2_200..2_800).contains(&observed(0.25)));
    }

    #[test]
    fn failures_of_the_server_are_always_observed() {
        let observer = Observer::new(0.0, false, 0.0);
        let observed = (0..17).filter(|&code| observer.audience(&HeaderMap::new(), code).is_some());
        assert_eq!(observed.collect::<Vec<_>>(), [2, 4, 12, 13, 14, 15]);
    }

    #[test]
    fn traces_that_the_client_records_are_observed_while_traces_are_taken() {
        let (digits, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (flags, expected) in [("01", true), ("00", false), ("03", true), ("0", false)] {
            let value = format!("00-{digits}-{parent}-{flags}").parse().unwrap();
            let headers = HeaderMap::from_iter([(TRACEPARENT, value)]);
            let audience = |traces| Observer::new(0.0, traces, 0.0).audience(&headers, OK);
            assert_eq!(
                audience(true),
                expected.then_some(Audience::Traces),
                "{flags}"
            );
            assert_eq!(audience(false), None);
        }
    }

    #[test]
    fn of_the_calls_that_no_client_decides_of_a_share_is_traced() {
        let value = format!("00-{}-{}-00", "1".repeat(32), "1".repeat(16));
        let decided = HeaderMap::from_iter([(TRACEPARENT, value.parse().unwrap())]);
        let observer = Observer::new(0.0, true, 0.25);
        let traced = |headers: &HeaderMap| {
            let chosen = (0..10_000).filter_map(|_| observer.audience(headers, OK));
            chosen.filter(|each| *each == Audience::Traces).count()
        };
        assert!((2_200..2_800).contains(&traced(&HeaderMap::new())));
        assert_eq!(traced(&decided), 0);
    }
}
