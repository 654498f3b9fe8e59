//! What both threads reach: the queues of the seam, with the only locks, and what is counted.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{watch, Notify};

use crate::connections::Connections;
use crate::counts::add;
use crate::events::{Command, Event};
use crate::methods::Methods;
use crate::unheard::drop_unheard;

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
    /// The calls that have begun and not ended.
    pub calls: AtomicU64,
    /// Grows while the io thread gets on.
    pub beats: AtomicU64,
    pub connections: Connections,
    pub methods: Methods,
    pub observations: Bounded,
    /// Whether Python wants samples of images.
    pub wants_samples: Arc<AtomicBool>,
    pub samples: Bounded,
}

/// Counts events of one kind that wait for Python: there are never more than so many.
pub struct Bounded {
    waiting: AtomicUsize,
    max: usize,
    pub dropped: AtomicU64,
}

impl Bounded {
    fn new(max: usize) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            max,
            dropped: AtomicU64::new(0),
        }
    }

    /// Count one in, or count that it is dropped; tell which. The io thread alone does.
    pub fn enter(&self) -> bool {
        if self.waiting.load(Ordering::Relaxed) >= self.max {
            add(&self.dropped, 1);
            return false;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn leave(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
    }
}

const MAX_OBSERVATIONS: usize = 1024;
const MAX_SAMPLES: usize = 1; // batches of them

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process, so no lock is ever poisoned.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(methods: Methods) -> std::io::Result<Self> {
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
            calls: AtomicU64::new(0),
            beats: AtomicU64::new(0),
            connections: Connections::default(),
            methods,
            observations: Bounded::new(MAX_OBSERVATIONS),
            wants_samples: Arc::default(),
            samples: Bounded::new(MAX_SAMPLES),
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
        let mut events = std::mem::take(&mut *locked(&self.events));
        let count = |of: fn(&Event) -> bool| events.iter().filter(|event| of(event)).count();
        let observed = count(|event| matches!(event, Event::Observed(_)));
        self.observations.leave(observed);
        let sampled = count(|event| matches!(event, Event::Sampled(_)));
        self.samples.leave(sampled);
        drop_unheard(&mut events, &self.methods);
        events
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::loaded;

    #[test]
    fn what_is_more_than_may_wait_is_dropped_and_counted() {
        let bounded = Bounded::new(2);
        let entered: Vec<_> = (0..4).map(|_| bounded.enter()).collect();
        assert_eq!(entered, [true, true, false, false]);
        bounded.leave(1);
        assert!(bounded.enter() && !bounded.enter());
        assert_eq!(loaded(&bounded.dropped), 3);
    }
}
