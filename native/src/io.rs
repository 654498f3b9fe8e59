//! What the connections and calls of the io thread share; one thread, so no locks.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use http::HeaderMap;

use crate::counts::{add, loaded};
use crate::events::Command;
use crate::grpc::{Status, Value, OK};
use crate::held::Held;
use crate::lane::admission::Admission;
use crate::lane::metrics::Metrics;
use crate::lane::sampling::Sampler;
use crate::lane::served::Served;
use crate::lane::tokens::Tokens;
use crate::laned::Lane;
use crate::observer::Observer;
use crate::outbox::{Outbox, Slot};
use crate::request_id::RequestIds;
use crate::shared::Shared;
use crate::tls::Tls;

/// A status that ends a call, with its text and trailing metadata.
#[derive(Clone, Debug)]
pub struct Ending {
    pub code: u32,
    pub text: String,
    pub trailing: Vec<(String, Value)>,
}

impl Ending {
    pub fn ok() -> Self {
        Self::from(Status::new(OK, ""))
    }
}

impl From<Status> for Ending {
    fn from(status: Status) -> Self {
        Self {
            code: status.code,
            text: status.text,
            trailing: Vec::new(),
        }
    }
}

/// The settings of a server; sizes in bytes, times in seconds.
pub struct Options {
    pub max_connections: usize,
    pub max_concurrent_streams: u32,
    pub max_message_bytes: usize,
    pub max_metadata_bytes: usize,
    pub handshake_seconds: f64,
    /// 0: idle connections are not pinged.
    pub keepalive_seconds: f64,
    pub keepalive_timeout_seconds: f64,
    /// 0: connections may be of any age.
    pub max_age_seconds: f64,
    pub age_grace_seconds: f64,
    /// Clients may ping so often while no call runs.
    pub min_ping_seconds: f64,
    /// Whether a call needs a token.
    pub needs_token: bool,
    /// What a stream in the lane ends with when the server drains.
    pub drained: Ending,
    /// The share of all calls that Python's log has.
    pub access_log: f64,
    /// Whether Python takes traces.
    pub traces: bool,
    /// The share of the calls without a `traceparent` that are traced, 0 to 1.
    pub trace_share: f64,
    /// Shared with Python.
    pub admission: Arc<Admission>,
    pub metrics: Arc<Metrics>,
}

/// The state of the io thread.
pub struct Io {
    pub options: Options,
    pub shared: Arc<Shared>,
    pub outbox: Outbox,
    pub tls: Option<Arc<Tls>>,
    pub held: Rc<Held>,
    pub lane: Lane,
    pub request_ids: RequestIds,
    pub observer: Observer,
    generation: Cell<u64>, // of the version in the lane, or of none
    tokens: RefCell<Tokens>,
    calls: RefCell<HashMap<u64, Rc<Slot>>>,
    next_id: Cell<u64>,
}

impl Io {
    pub fn new(options: Options, shared: Arc<Shared>, tls: Option<Arc<Tls>>) -> Self {
        let (admission, metrics) = (&options.admission, &options.metrics);
        let sampler = Sampler::new(Arc::clone(&shared.wants_samples));
        Self {
            held: Held::new(options.max_message_bytes),
            lane: Lane::new(Arc::clone(admission), Arc::clone(metrics), sampler),
            request_ids: RequestIds::new(),
            observer: Observer::new(options.access_log, options.traces, options.trace_share),
            generation: Cell::new(0),
            tokens: RefCell::new(Tokens::new(options.needs_token)),
            options,
            outbox: Outbox::new(Arc::clone(&shared)),
            shared,
            tls,
            calls: RefCell::default(),
            next_id: Cell::new(0),
        }
    }

    /// Return a new call's number and where its commands come.
    pub fn register(&self) -> (u64, Rc<Slot>) {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let slot = Rc::<Slot>::default();
        self.calls.borrow_mut().insert(id, Rc::clone(&slot));
        (id, slot)
    }

    pub fn forget(&self, id: u64) {
        self.calls.borrow_mut().remove(&id);
    }

    /// Whether a call with these headers may be answered in the lane.
    pub fn is_lane_open(&self, headers: &HeaderMap) -> bool {
        let newest = self.shared.generation.load(Ordering::Relaxed);
        newest == self.generation.get()
            && !self.shared.is_gate_closed()
            && self.tokens.borrow().allow(headers)
    }

    /// Do what a command says, or hand it to its call; one that has ended gets none.
    pub fn dispatch(&self, command: Command) {
        let command = match command {
            Command::Serve(version) => {
                self.generation.set(self.generation.get() + 1);
                let served = version.map(|version| Served::new(version.0, Box::new(version.1)));
                return self.lane.serve(served);
            }
            Command::SetTokens(tokens) => return self.tokens.borrow_mut().set(tokens),
            command => command,
        };
        let slot = command
            .call()
            .and_then(|id| self.calls.borrow().get(&id).cloned());
        if let Some(slot) = slot {
            slot.push(command);
        }
    }
}

/// A call that counts, as long as it lives.
pub struct Counted(Rc<Io>);

impl Counted {
    pub fn new(io: &Rc<Io>) -> Self {
        add(&io.shared.calls, 1);
        Self(Rc::clone(io))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let calls = &self.0.shared.calls;
        calls.store(loaded(calls) - 1, Ordering::Relaxed);
    }
}
