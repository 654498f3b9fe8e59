//! PredictStream in the lane: what was read of a stream and not yet answered, in order.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::Bytes;

use crate::grpc::PREFIX_BYTES;

use super::metrics::End;
use super::queue::{Answered, Batch, Caller};

/// As in server/api/forward_v1/stream.py.
const MAX_MESSAGES: usize = 64;
const MAX_RUNS: usize = 1000;

/// The messages that were read and not yet answered; dropped with their stream.
#[derive(Default)]
pub struct Ahead(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    entries: VecDeque<Entry>,
    first: u64, // number of the first entry; each has its own
    images: usize,
    is_closed: bool,
    waker: Option<Waker>,
    totals: Totals,
    keeps_runs: bool,
}

/// All that was answered of a stream.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub request_bytes: usize,
    pub response_bytes: usize,
    /// Sums, but for the version and the batch, which are the last one's.
    pub answered: Answered,
    /// The last of them, if they are kept.
    pub runs: VecDeque<Batch>,
}

impl Totals {
    fn add(&mut self, framed_bytes: usize, answered: &Answered) {
        self.response_bytes += framed_bytes - PREFIX_BYTES;
        let all = &mut self.answered;
        all.images += answered.images;
        all.version = answered.version;
        all.queue_seconds += answered.queue_seconds;
        all.run_seconds += answered.run_seconds;
        all.encode_seconds += answered.encode_seconds;
        all.batch = answered.batch;
    }

    /// Keeps the batch of a message, if it is not that of the one before.
    fn keep(&mut self, batch: Batch) {
        if self
            .runs
            .back()
            .is_some_and(|last| last.number == batch.number)
        {
            return;
        }
        if self.runs.len() == MAX_RUNS {
            self.runs.pop_front();
        }
        self.runs.push_back(batch);
    }
}

struct Entry {
    message: Bytes,
    images: usize,
    state: State,
}

enum State {
    Waiting,
    Answered(Bytes),
    HandedBack,
}

/// The oldest message that was not yet answered.
pub enum First {
    Nothing,
    Waiting,
    /// A response, framed, to be sent before `leave`.
    Answered(Bytes),
    /// It and all after it are for Python.
    HandedBack,
}

impl Ahead {
    /// Keeps which runs it had, if that is so.
    pub fn new(keeps_runs: bool) -> Self {
        let ahead = Self::default();
        ahead.0.borrow_mut().keeps_runs = keeps_runs;
        ahead
    }

    /// Tells whether a message of so many images must wait; a larger one goes alone.
    pub fn is_full(&self, images: usize, max_images: usize) -> bool {
        let inner = self.0.borrow();
        let count = inner.entries.len();
        count >= MAX_MESSAGES || (count > 0 && inner.images + images > max_images)
    }

    pub fn is_empty(&self) -> bool {
        self.0.borrow().entries.is_empty()
    }

    /// Takes a message in; returns who waits for its answer.
    pub fn enter(&self, message: Bytes, images: usize) -> StreamCaller {
        let mut inner = self.0.borrow_mut();
        let number = inner.first + inner.entries.len() as u64;
        inner.images += images;
        inner.totals.request_bytes += message.len();
        inner.entries.push_back(Entry {
            message,
            images,
            state: State::Waiting,
        });
        StreamCaller {
            inner: Rc::clone(&self.0),
            number,
        }
    }

    pub fn first(&self) -> First {
        match self.0.borrow().entries.front().map(|entry| &entry.state) {
            None => First::Nothing,
            Some(State::Waiting) => First::Waiting,
            Some(State::Answered(response)) => First::Answered(response.clone()),
            Some(State::HandedBack) => First::HandedBack,
        }
    }

    pub fn totals(&self) -> Totals {
        self.0.borrow().totals.clone()
    }

    /// Counts the first message out: its answer was sent.
    pub fn leave(&self) {
        let mut inner = self.0.borrow_mut();
        if let Some(entry) = inner.entries.pop_front() {
            inner.first += 1;
            inner.images -= entry.images;
        }
    }

    /// Returns all messages that were not answered, in order, for Python.
    pub fn take_rest(&self) -> VecDeque<Bytes> {
        let mut inner = self.0.borrow_mut();
        inner.is_closed = true;
        inner.entries.drain(..).map(|entry| entry.message).collect()
    }

    /// Has the task woken when a message is answered or handed back.
    pub fn watch(&self, cx: &Context<'_>) {
        let mut inner = self.0.borrow_mut();
        match &mut inner.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let mut inner = self.0.borrow_mut();
        inner.is_closed = true;
        inner.entries.clear();
    }
}

/// A message of a stream in the queue.
pub struct StreamCaller {
    inner: Rc<RefCell<Inner>>,
    number: u64,
}

impl StreamCaller {
    fn set(&self, state: State) {
        let mut inner = self.inner.borrow_mut();
        let at = self.number - inner.first; // nothing leaves before it was set
        if let Some(entry) = inner.entries.get_mut(at as usize) {
            entry.state = state;
        }
        if at == 0 {
            if let Some(waker) = inner.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Caller for StreamCaller {
    fn is_waiting(&mut self) -> bool {
        !self.inner.borrow().is_closed
    }

    fn answer(self, response: Bytes, answered: &Answered) {
        {
            let inner = &mut *self.inner.borrow_mut();
            inner.totals.add(response.len(), answered);
            if inner.keeps_runs {
                inner.totals.keep(answered.batch);
            }
        }
        self.set(State::Answered(response));
    }

    fn lose(self, _end: End) {} // its stream is told of as one

    fn hand_back(self) {
        self.set(State::HandedBack);
    }
}
