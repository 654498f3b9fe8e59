//! The seam: events for Python's event loop, and what it answers. The only place of locks.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::{watch, Notify};

use crate::grpc::Value;
use crate::lane::model::LaneModel;
use crate::onnx::Session;

/// What happens to calls, in order, for Python.
#[derive(Debug)]
pub enum Event {
    /// A call begins; of a unary one the message is there, None if the client sent none.
    Call {
        id: u64,
        method: String,
        peer: Arc<str>,
        metadata: Vec<(String, Value)>,
        /// Seconds of CLOCK_MONOTONIC.
        deadline: Option<f64>,
        message: Option<Bytes>,
    },
    Message {
        id: u64,
        message: Bytes,
    },
    /// The client sends no more messages.
    HalfClosed {
        id: u64,
    },
    /// A message that was sent has gone to the connection.
    Sent {
        id: u64,
    },
    /// The call ended before its response: cancelled, lost, or late for its deadline.
    Ended {
        id: u64,
    },
    /// All connections are closed, after `stop`.
    Stopped,
    Log {
        level: &'static str,
        text: String,
    },
}

impl Event {
    fn call(&self) -> Option<u64> {
        match self {
            Self::Call { id, .. }
            | Self::Message { id, .. }
            | Self::HalfClosed { id }
            | Self::Sent { id }
            | Self::Ended { id } => Some(*id),
            Self::Stopped | Self::Log { .. } => None,
        }
    }

    fn begun(&self) -> Option<u64> {
        matches!(self, Self::Call { .. }).then(|| self.call())?
    }

    fn ended(&self) -> Option<u64> {
        matches!(self, Self::Ended { .. }).then(|| self.call())?
    }
}

/// What Python answers.
pub enum Command {
    /// The response of a unary call, framed.
    Respond {
        id: u64,
        message: Bytes,
    },
    /// A message of a stream, framed.
    Send {
        id: u64,
        message: Bytes,
    },
    /// Python has taken a message of the stream: another may be read.
    Taken {
        id: u64,
    },
    Finish {
        id: u64,
        code: u32,
        text: String,
        trailing: Vec<(String, Value)>,
    },
    /// Let the lane answer by this version; None: not at all.
    Serve(Option<Box<(LaneModel, Session)>>),
    /// Tokens of which a call in the lane needs one.
    SetTokens(Vec<String>),
    /// End as a fault would: a test sees what becomes of the process.
    Panic,
    Stop {
        grace_seconds: f64,
    },
}

impl Command {
    pub fn call(&self) -> Option<u64> {
        match self {
            Self::Respond { id, .. }
            | Self::Send { id, .. }
            | Self::Taken { id }
            | Self::Finish { id, .. } => Some(*id),
            Self::Serve(_) | Self::SetTokens(_) | Self::Panic | Self::Stop { .. } => None,
        }
    }
}

/// What both threads reach.
pub struct Shared {
    events: Mutex<Vec<Event>>,
    event_fd: OwnedFd,
    commands: Mutex<Vec<Command>>,
    has_commands: Notify,
    /// Whether the server refuses calls, for it drains.
    gate_closed: watch::Sender<bool>,
    /// Counts the versions: the lane is off while it has not seen the newest.
    pub generation: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process, so no lock is ever poisoned.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new() -> std::io::Result<Self> {
        // SAFETY: eventfd takes no pointers; the descriptor is new and owned by nobody else.
        let event_fd = unsafe {
            let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
            if fd < 0 {
                return Err(std::io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self {
            events: Mutex::default(),
            event_fd,
            commands: Mutex::default(),
            has_commands: Notify::new(),
            gate_closed: watch::Sender::new(false),
            generation: AtomicU64::new(0),
        })
    }

    pub fn event_fd(&self) -> RawFd {
        self.event_fd.as_raw_fd()
    }

    /// Add events; wake Python if it knows of none yet.
    pub fn publish(&self, batch: &mut Vec<Event>) {
        let mut events = locked(&self.events);
        let was_empty = events.is_empty();
        events.append(batch);
        drop(events);
        if was_empty {
            let one = 1u64;
            // SAFETY: the pointer is to 8 bytes that live through the call.
            unsafe { libc::write(self.event_fd(), (&raw const one).cast(), 8) };
        }
    }

    /// Return all events. The descriptor is cleared first: the other order would lose a wake-up.
    pub fn take_events(&self) -> Vec<Event> {
        let mut count = 0u64;
        // SAFETY: the pointer is to 8 bytes that live through the call.
        unsafe { libc::read(self.event_fd(), (&raw mut count).cast(), 8) };
        let events = std::mem::take(&mut *locked(&self.events));
        without_ended_calls(events)
    }

    pub fn push_command(&self, command: Command) {
        locked(&self.commands).push(command);
    }

    /// Wake the io thread for the commands.
    pub fn flush(&self) {
        self.has_commands.notify_one();
    }

    /// Wait for commands; return them in order.
    pub async fn take_commands(&self) -> Vec<Command> {
        loop {
            self.has_commands.notified().await;
            let commands = std::mem::take(&mut *locked(&self.commands));
            if !commands.is_empty() {
                return commands;
            }
        }
    }

    pub fn is_gate_closed(&self) -> bool {
        *self.gate_closed.borrow()
    }

    pub fn set_gate(&self, closed: bool) {
        self.gate_closed.send_replace(closed);
    }

    /// Return when the server refuses calls.
    pub async fn gate_closed(&self) {
        let mut gate = self.gate_closed.subscribe();
        let _ = gate.wait_for(|&closed| closed).await; // the sender lives as long as this
    }
}

/// Leave out the calls that ended before Python heard of them: a client that resets its calls at
/// once (CVE-2023-44487) makes it no work.
fn without_ended_calls(mut events: Vec<Event>) -> Vec<Event> {
    let mut unheard: HashSet<u64> = events.iter().filter_map(Event::ended).collect();
    if unheard.is_empty() {
        return events;
    }
    let begun: HashSet<u64> = events.iter().filter_map(Event::begun).collect();
    unheard.retain(|id| begun.contains(id));
    events.retain(|event| event.call().is_none_or(|id| !unheard.contains(&id)));
    events
}

/// The io thread's own events, which go to Python together at the end of a turn.
pub struct Outbox {
    shared: Arc<Shared>,
    events: RefCell<Vec<Event>>,
    has_events: Notify,
}

impl Outbox {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            events: RefCell::default(),
            has_events: Notify::new(),
        }
    }

    pub fn push(&self, event: Event) {
        let mut events = self.events.borrow_mut();
        events.push(event);
        if events.len() == 1 {
            self.has_events.notify_one();
        }
    }

    pub fn log(&self, level: &'static str, text: String) {
        self.push(Event::Log { level, text });
    }

    /// Publish what came until the end of the turn that brought the first, for ever.
    pub async fn keep_publishing(&self) {
        loop {
            self.has_events.notified().await;
            tokio::task::yield_now().await;
            self.publish();
        }
    }

    pub fn publish(&self) {
        self.shared.publish(&mut self.events.borrow_mut());
    }
}

/// The commands for one call, in the io thread.
#[derive(Default)]
pub struct Slot {
    commands: RefCell<VecDeque<Command>>,
    waker: Cell<Option<Waker>>,
}

impl Slot {
    pub fn push(&self, command: Command) {
        self.commands.borrow_mut().push_back(command);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Command> {
        if let Some(command) = self.commands.borrow_mut().pop_front() {
            return Poll::Ready(command);
        }
        self.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
