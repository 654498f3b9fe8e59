//! `forward_native.Server`, for Python's event loop. Its methods only move data: none waits for I/O.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;

mod convert;
mod totals;

use self::convert::{tuple, values, Given};
use self::totals::Totals;
use crate::counts::loaded;
use crate::events::Command;
use crate::grpc::framed;
use crate::io::{Ending, Options};
use crate::lane::metrics::{Bounds, Metrics};
use crate::lane_python::{Admission, GivenModel};
use crate::listen::Listener;
use crate::methods::Methods;
use crate::onnx_python::OnnxSession;
use crate::server::{run, THREAD_NAME};
use crate::shared::Shared;
use crate::tls::{server_config, Tls};

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
        *, methods, max_connections, max_concurrent_streams, max_message_bytes,
        max_metadata_bytes, handshake_seconds, keepalive_seconds, keepalive_timeout_seconds,
        max_age_seconds, age_grace_seconds, min_ping_seconds, needs_token, drained, access_log,
        traces, trace_share, admission, seconds_bounds, images_bounds
    ))]
    #[expect(clippy::too_many_arguments, reason = "settings, given by their names")]
    fn new(
        methods: Vec<(String, bool)>,
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
        access_log: f64,
        traces: bool,
        trace_share: f64,
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
            access_log,
            traces,
            trace_share,
            admission: Arc::clone(&admission.shared),
            metrics: Arc::clone(&metrics),
        };
        let state = State::New {
            options: Some(options),
            listeners: Vec::new(),
        };
        Ok(Self {
            shared: Arc::new(Shared::new(Methods::new(methods))?),
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

    /// Give samples of the lane's images, with their logits, or no more.
    fn set_samples(&self, are_wanted: bool) {
        self.shared
            .wants_samples
            .store(are_wanted, Ordering::Relaxed);
    }

    /// Everything that was counted since the start.
    fn totals(&self) -> Totals {
        Totals::of(&self.shared, &self.metrics)
    }

    /// A number that grows while the io thread gets on, several times in a few seconds.
    fn beats(&self) -> u64 {
        loaded(&self.shared.beats)
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

    /// Let the io thread do nothing for so long; for a test of what becomes of the process.
    fn sleep(&self, seconds: f64) {
        self.shared.push_command(Command::Sleep { seconds });
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

/// A server without its io thread would be up and answer nothing.
fn end_process_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("a thread");
        eprintln!("forward-native: {name} failed and the process ends: {panic}");
        std::process::abort();
    }));
}
