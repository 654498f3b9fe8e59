//! The io thread's side of the seam: its events until they go to Python, and the commands of a call.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::events::{Command, Event};
use crate::lane::sampling::Sample;
use crate::observer::Observation;
use crate::shared::Shared;

/// The io thread's own events, which go to Python together at the end of a turn.
pub struct Outbox {
    shared: Arc<Shared>,
    events: RefCell<Vec<Event>>,
    has_events: Notify,
    observed: RefCell<Vec<Event>>,
    has_observed: Notify,
    /// There are enough of them to be published.
    has_many: Notify,
    samples: RefCell<Vec<Sample>>,
}

const MAX_SAMPLES: usize = 64; // that wait to be published
const MANY_OBSERVED: usize = 64;
const OBSERVED_DELAY: Duration = Duration::from_millis(100);

impl Outbox {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            events: RefCell::default(),
            has_events: Notify::new(),
            observed: RefCell::default(),
            has_observed: Notify::new(),
            has_many: Notify::new(),
            samples: RefCell::default(),
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

    /// Tell of a call that ended, soon, if not too many such events wait already: to wake Python for
    /// each would cost more than the rest of the call.
    pub fn observe(&self, observation: Observation) {
        if !self.shared.observations.enter() {
            return;
        }
        let mut observed = self.observed.borrow_mut();
        observed.push(Event::Observed(Box::new(observation)));
        match observed.len() {
            1 => self.has_observed.notify_one(),
            MANY_OBSERVED => self.has_many.notify_one(),
            _ => {}
        }
    }

    /// Give Python what was observed when there is much of it, or after a moment, for ever.
    pub async fn keep_publishing_observed(&self) {
        loop {
            self.has_observed.notified().await;
            let _ = timeout(OBSERVED_DELAY, self.has_many.notified()).await;
            yield_now().await; // the calls of one run go together
            self.publish_observed();
        }
    }

    /// Give Python what was observed since the last time.
    pub fn publish_observed(&self) {
        for event in self.observed.take() {
            self.push(event);
        }
    }

    /// Keep a sample for `publish_samples`: to wake Python for each would cost more than the sample.
    pub fn sample(&self, sample: Sample) {
        let mut samples = self.samples.borrow_mut();
        if samples.len() < MAX_SAMPLES {
            samples.push(sample);
        }
    }

    /// Give Python what was sampled since the last time, if it has taken that.
    pub fn publish_samples(&self) {
        if !self.samples.borrow().is_empty() && self.shared.samples.enter() {
            self.push(Event::Sampled(self.samples.take()));
        }
    }

    /// Publish what came until the end of the turn that brought the first, for ever.
    pub async fn keep_publishing(&self) {
        loop {
            self.has_events.notified().await;
            yield_now().await;
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
