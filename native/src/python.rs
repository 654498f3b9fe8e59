//! `forward_native.Server`, for Python's event loop. Its methods only move data: none waits for I/O.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use crate::events::{Command, Event, Shared};
use crate::grpc::{framed, Value};
use crate::io::{Ending, Options};
use crate::lane::metrics::{Bounds, Metrics};
use crate::lane_python::{Admission, GivenModel, Totals};
use crate::onnx_python::OnnxSession;
use crate::server::{run, Listener, THREAD_NAME};
use crate::tls::{server_config, Tls};

/// Metadata as Python gives it: text, or bytes of keys that end with -bin.
#[derive(FromPyObject)]
enum Given {
    Binary(Vec<u8>),
    Text(String),
}

#[pyclass(frozen, module = "forward_native")]
pub struct Server {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    tls: OnceLock<Arc<Tls>>,
    state: Mutex<State>,
}

enum State {
    New {
        options: Option<Options>,
        listeners: Vec<Listener>,
    },
    Running(JoinHandle<()>),
    Joined,
}

#[pymethods]
impl Server {
    #[new]
    #[pyo3(signature = (
        *, unary_methods, max_connections, max_concurrent_streams, max_message_bytes,
        max_metadata_bytes, handshake_seconds, keepalive_seconds, keepalive_timeout_seconds,
        max_age_seconds, age_grace_seconds, min_ping_seconds, needs_token, drained, admission,
        seconds_bounds, images_bounds
    ))]
    #[expect(clippy::too_many_arguments, reason = "settings, given by their names")]
    fn new(
        unary_methods: Vec<String>,
        max_connections: usize,
        max_concurrent_streams: u32,
        max_message_bytes: usize,
        max_metadata_bytes: usize,
        handshake_seconds: f64,
        keepalive_seconds: f64,
        keepalive_timeout_seconds: f64,
        max_age_seconds: f64,
        age_grace_seconds: f64,
        min_ping_seconds: f64,
        needs_token: bool,
        drained: (u32, String, Vec<(String, Given)>),
        admission: &Admission,
        seconds_bounds: Vec<f64>,
        images_bounds: Vec<f64>,
    ) -> PyResult<Self> {
        let bounds = Bounds {
            seconds: seconds_bounds,
            images: images_bounds,
        };
        let metrics = Arc::new(Metrics::new(&bounds));
        let (code, text, trailing) = drained;
        let trailing = values(trailing);
        let drained = Ending {
            code,
            text,
            trailing,
        };
        let options = Options {
            unary_methods: unary_methods.into_iter().collect(),
            max_connections,
            max_concurrent_streams,
            max_message_bytes,
            max_metadata_bytes,
            handshake_seconds,
            keepalive_seconds,
            keepalive_timeout_seconds,
            max_age_seconds,
            age_grace_seconds,
            min_ping_seconds,
            needs_token,
            drained,
            admission: Arc::clone(&admission.shared),
            metrics: Arc::clone(&metrics),
        };
        let state = State::New {
            options: Some(options),
            listeners: Vec::new(),
        };
        Ok(Self {
            shared: Arc::new(Shared::new()?),
            metrics,
            tls: OnceLock::new(),
            state: Mutex::new(state),
        })
    }

    /// Listen on a socket, from `start` on; the descriptor is the server's from now on.
    fn adopt(&self, fd: i32, is_unix: bool) -> PyResult<()> {
        match &mut *self.state.lock().expect("no panic holds it") {
            State::New { listeners, .. } => listeners.push(Listener::adopt(fd, is_unix)),
            _ => return Err(PyRuntimeError::new_err("the server has been started")),
        }
        Ok(())
    }

    /// Speak TLS: handshakes from now on use these, PEM. The first time is before `start`.
    ///
    /// ValueError: the transport can't use one of them; the text begins with which.
    #[pyo3(signature = (chain, key, client_ca))]
    fn set_tls(&self, chain: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> PyResult<()> {
        let config = server_config(chain, key, client_ca).map_err(PyValueError::new_err)?;
        match self.tls.get() {
            Some(tls) => tls.replace(config),
            None => drop(self.tls.set(Arc::new(Tls::new(config)))), // one thread makes a server
        }
        Ok(())
    }

    /// Start the io thread.
    fn start(&self) -> PyResult<()> {
        let mut state = self.state.lock().expect("no panic holds it");
        let State::New { options, listeners } = &mut *state else {
            return Err(PyRuntimeError::new_err("the server has been started"));
        };
        let options = options.take().expect("it is taken once");
        let listeners = std::mem::take(listeners);
        let (shared, tls) = (Arc::clone(&self.shared), self.tls.get().cloned());
        let thread = std::thread::Builder::new()
            .name(THREAD_NAME.into())
            .spawn(move || {
                end_process_on_panic();
                if let Err(error) = run(shared, options, listeners, tls) {
                    panic!("the native transport could not serve: {error}");
                }
            })?;
        *state = State::Running(thread);
        Ok(())
    }

    /// The descriptor that is readable when there are events.
    #[getter]
    fn event_fd(&self) -> i32 {
        self.shared.event_fd()
    }

    /// Return all events: tuples of a kind and what belongs to it.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let events = self.shared.take_events();
        let tuples: PyResult<Vec<_>> = events.into_iter().map(|event| tuple(py, event)).collect();
        PyList::new(py, tuples?)
    }

    /// Answer a unary call with its message.
    fn respond(&self, id: u64, message: &[u8]) {
        self.shared.push_command(Command::Respond {
            id,
            message: framed(message),
        });
    }

    /// Send a message of a stream; the event SENT tells when it has gone.
    fn send(&self, id: u64, message: &[u8]) {
        self.shared.push_command(Command::Send {
            id,
            message: framed(message),
        });
    }

    /// A message of a stream was taken.
    fn taken(&self, id: u64) {
        self.shared.push_command(Command::Taken { id });
    }

    /// End a call with a status: the number of a gRPC code, its text and trailing metadata.
    fn finish(&self, id: u64, code: u32, text: String, trailing: Vec<(String, Given)>) {
        let trailing = values(trailing);
        self.shared.push_command(Command::Finish {
            id,
            code,
            text,
            trailing,
        });
    }

    /// Hand over everything since the last flush.
    fn flush(&self) {
        self.shared.flush();
    }

    /// Let every call go to Python from now on, which refuses it, or the lane answer again.
    fn set_gate(&self, closed: bool) {
        self.shared.set_gate(closed);
    }

    /// Let the lane answer by the version that a session computes; None: by none, at once.
    #[pyo3(signature = (session, model))]
    fn set_lane(&self, session: Option<&OnnxSession>, model: Option<GivenModel>) -> PyResult<()> {
        let served = match (session, model) {
            (Some(session), Some(model)) => {
                let session = session
                    .take()
                    .ok_or_else(|| PyValueError::new_err("the session is in the lane already"))?;
                Some(Box::new((model.into(), session)))
            }
            _ => None,
        };
        self.shared.generation.fetch_add(1, Ordering::Relaxed);
        self.shared.push_command(Command::Serve(served));
        self.shared.flush();
        Ok(())
    }

    /// A call in the lane needs one of these tokens from now on.
    fn set_tokens(&self, tokens: Vec<String>) {
        self.shared.push_command(Command::SetTokens(tokens));
        self.shared.flush();
    }

    /// Everything that the lane has counted since the start.
    fn lane_totals(&self) -> Totals {
        Totals::from(&*self.metrics)
    }

    /// Accept no more; reset the calls that still run after so many seconds. Then STOPPED comes.
    fn stop(&self, grace_seconds: f64) -> PyResult<()> {
        if !(0.0..=1e9).contains(&grace_seconds) {
            return Err(PyValueError::new_err("grace_seconds: expected 0 to 1e9"));
        }
        self.shared.push_command(Command::Stop { grace_seconds });
        self.shared.flush();
        Ok(())
    }

    /// Let the io thread panic, which ends the process; for a test of that.
    fn panic(&self) {
        self.shared.push_command(Command::Panic);
        self.shared.flush();
    }

    /// Wait for the io thread to end, after STOPPED.
    fn join(&self, py: Python<'_>) {
        let mut state = self.state.lock().expect("no panic holds it");
        if let State::Running(thread) = std::mem::replace(&mut *state, State::Joined) {
            drop(state);
            let _ = py.detach(|| thread.join()); // a panic has ended the process
        }
    }
}

fn values(given: Vec<(String, Given)>) -> Vec<(String, Value)> {
    let value = |(key, value)| match value {
        Given::Binary(bytes) => (key, Value::Binary(bytes)),
        Given::Text(text) => (key, Value::Text(text)),
    };
    given.into_iter().map(value).collect()
}

/// A server without its io thread would be up and answer nothing.
fn end_process_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("a thread");
        eprintln!("forward-native: {name} failed and the process ends: {panic}");
        std::process::abort();
    }));
}

fn tuple(py: Python<'_>, event: Event) -> PyResult<Bound<'_, PyTuple>> {
    match event {
        Event::Call {
            id,
            method,
            peer,
            metadata,
            deadline,
            message,
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
        Event::Ended { id } => (4, id).into_pyobject(py),
        Event::Stopped => (5,).into_pyobject(py),
        Event::Log { level, text } => (6, level, text).into_pyobject(py),
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
