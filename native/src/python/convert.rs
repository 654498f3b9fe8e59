//! What crosses the boundary: metadata both ways, and events as tuples.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::clock::monotonic_seconds_of;
use crate::events::Event;
use crate::grpc::Value;
use crate::lane::queue::Batch;
use crate::lane::sampling::Sample;
use crate::observer::{Audience, Observation};

/// Metadata as Python gives it: text, or bytes of keys that end with -bin.
#[derive(FromPyObject)]
pub enum Given {
    Binary(Vec<u8>),
    Text(String),
}

pub fn values(given: Vec<(String, Given)>) -> Vec<(String, Value)> {
    let value = |(key, value)| match value {
        Given::Binary(bytes) => (key, Value::Binary(bytes)),
        Given::Text(text) => (key, Value::Text(text)),
    };
    given.into_iter().map(value).collect()
}

/// Return an event as Python takes it: a number of its kind, and what belongs to it.
pub fn tuple(py: Python<'_>, event: Event) -> PyResult<Bound<'_, PyTuple>> {
    match event {
        Event::Call {
            id,
            method,
            peer,
            metadata,
            deadline,
            message,
            began: _,
        } => {
            let message = message.map(|message| PyBytes::new(py, &message));
            (
                0,
                id,
                method,
                &*peer,
                listed(py, metadata)?,
                deadline,
                message,
            )
                .into_pyobject(py)
        }
        Event::Message { id, message } => (1, id, PyBytes::new(py, &message)).into_pyobject(py),
        Event::HalfClosed { id } => (2, id).into_pyobject(py),
        Event::Sent { id } => (3, id).into_pyobject(py),
        Event::Ended { id, code } => (4, id, code).into_pyobject(py),
        Event::Stopped => (5,).into_pyobject(py),
        Event::Log { level, text } => (6, level, text).into_pyobject(py),
        Event::Observed(observation) => (7, Record::from(*observation)).into_pyobject(py),
        Event::Sampled(samples) => {
            let tuples = samples.iter().map(|each| sampled(py, each));
            (8, tuples.collect::<PyResult<Vec<_>>>()?).into_pyobject(py)
        }
    }
}

fn sampled<'py>(py: Python<'py>, sample: &Sample) -> PyResult<Bound<'py, PyTuple>> {
    (
        sample.version,
        PyBytes::new(py, &sample.pixels),
        sample.is_uint8,
        PyBytes::new(py, &sample.logits),
    )
        .into_pyobject(py)
}

/// Number, begin in seconds of CLOCK_MONOTONIC, seconds, requests and images of a batch that was run.
type Run = (u64, f64, f64, usize, usize);

fn run(batch: &Batch) -> Run {
    let started = batch.started.map_or(0.0, monotonic_seconds_of);
    let Batch {
        number,
        seconds,
        requests,
        images,
        ..
    } = *batch;
    (number, started, seconds, requests, images)
}

/// An observation by the names of the fields of server/observability/records.py.
#[derive(IntoPyObject)]
struct Record {
    method: String,
    peer: String,
    request_id: String,
    traceparent: Option<String>,
    started: f64,
    seconds: f64,
    images: usize,
    request_bytes: usize,
    response_bytes: usize,
    queue_seconds: f64,
    run_seconds: f64,
    encode_seconds: f64,
    model_version: i64,
    runs: Vec<Run>,
    code: u32,
    is_logged: bool,
}

impl From<Observation> for Record {
    fn from(observation: Observation) -> Self {
        let answered = observation.answered;
        Self {
            method: observation.method,
            peer: observation.peer.to_string(),
            request_id: observation.request_id,
            traceparent: observation.traceparent,
            started: observation.started,
            seconds: observation.seconds,
            images: answered.images,
            request_bytes: observation.request_bytes,
            response_bytes: observation.response_bytes,
            queue_seconds: answered.queue_seconds,
            run_seconds: answered.run_seconds,
            encode_seconds: answered.encode_seconds,
            model_version: answered.version,
            runs: observation.runs.iter().map(run).collect(),
            code: observation.code,
            is_logged: observation.audience == Audience::All,
        }
    }
}

fn listed(py: Python<'_>, metadata: Vec<(String, Value)>) -> PyResult<Bound<'_, PyTuple>> {
    let pairs: PyResult<Vec<_>> = metadata
        .into_iter()
        .map(|(key, value)| match value {
            Value::Text(text) => (key, PyString::new(py, &text)).into_pyobject(py),
            Value::Binary(bytes) => (key, PyBytes::new(py, &bytes)).into_pyobject(py),
        })
        .collect();
    PyTuple::new(py, pairs?)
}
