//! The queue of the lane: requests that came in one turn of the loop share a run.
//!
//! All in the io thread, so without locks. The rules, beside those of server/engine/batcher.py:
//! the first request wakes the lane, which lets the loop read all that has arrived, and then runs
//! what waits, first come, first served, up to `max_batch_images` at a time, until nothing waits.
//! A run holds the loop, so nothing changes meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::admission::{Admission, Admitted};
use super::arrivals::{Arrival, Arrivals};
use super::metrics::{End, Method, Metrics};
use super::refusal::Fill;
use super::sampling::{Sample, Sampler};
use super::served::{Request, Served};

mod run;

/// Who waits for an answer.
pub trait Caller {
    /// Whether the answer is still wanted.
    fn is_waiting(&mut self) -> bool;
    /// Takes the response, framed, and what is known of it.
    fn answer(self, response: Bytes, answered: &Answered);
    /// Takes note of how the call ended, whose client waits no more.
    fn lose(self, end: End);
    /// Lets Python answer.
    fn hand_back(self);
}

/// What is known of a request that was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Answered {
    pub images: usize,
    /// Of the model.
    pub version: i64,
    pub queue_seconds: f64,
    /// Of all runs of its batch; of a stream, of its batches.
    pub run_seconds: f64,
    /// The mean of its batch.
    pub encode_seconds: f64,
    pub batch: Batch,
}

/// The requests that were run together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Batch {
    /// Each has another.
    pub number: u64,
    pub requests: usize,
    pub images: usize,
    pub started: Option<Instant>,
    /// Of all its runs.
    pub seconds: f64,
}

/// What the lane tells while it runs.
pub enum Told {
    /// A run failed, of that error.
    Failed(String),
    Sampled(Sample),
}

/// A request for a version.
pub struct Decoded {
    served: Rc<Served>,
    method: Method,
    request: Request,
}

impl Decoded {
    pub fn images(&self) -> usize {
        self.request.images
    }

    /// Returns the most images that its version takes in a request.
    pub fn max_images(&self) -> usize {
        self.served.model.max_batch_images
    }
}

struct Waiting<C> {
    decoded: Decoded,
    _admitted: Admitted,
    caller: C,
    deadline: Option<Instant>,
    arrived: Instant,
}

/// The caller's own clock may be a little ahead, as in server/transport/grpc/handlers.py.
const CLOCK: Duration = Duration::from_millis(20);

/// Returns how a call ended whose client has reset it: at its deadline, or before.
pub fn end_of_lost(deadline: Option<Instant>, now: Instant) -> End {
    match deadline {
        Some(deadline) if now + CLOCK >= deadline => End::DeadlineExceeded,
        _ => End::Cancelled,
    }
}

pub struct Queue<C> {
    served: RefCell<Option<Rc<Served>>>,
    waiting: RefCell<VecDeque<Waiting<C>>>,
    batch: RefCell<Vec<Waiting<C>>>, // empty but for its memory
    responses: RefCell<Vec<Bytes>>,  // as well
    has_requests: Notify,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
    seconds_per_image: Cell<f64>,
    arrivals: Arrivals,
    sampler: Sampler,
    sampled: Cell<Option<Sample>>,
    batches: Cell<u64>, // so far
}

/// What becomes of a request of which only the begin is there.
pub enum Begun {
    /// It has so many images, and there is no room for them.
    Refused(usize),
    /// Room is kept for it, if there is room left to be kept.
    Awaited(Option<Arrival>),
}

/// The part of the queue that is kept for requests that arrive.
const KEPT_PART: usize = 2;

impl<C: Caller> Queue<C> {
    /// Returns a lane that is off.
    pub fn new(admission: Arc<Admission>, metrics: Arc<Metrics>, sampler: Sampler) -> Self {
        Self {
            served: RefCell::default(),
            waiting: RefCell::default(),
            batch: RefCell::default(),
            responses: RefCell::default(),
            has_requests: Notify::new(),
            admission,
            metrics,
            seconds_per_image: Cell::new(0.0),
            arrivals: Arrivals::default(),
            sampler,
            sampled: Cell::default(),
            batches: Cell::new(0),
        }
    }

    /// Answers by another version from now on, None: not at all. What waits keeps its own.
    pub fn serve(&self, served: Option<Served>) {
        *self.served.borrow_mut() = served.map(Rc::new);
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns a request of the current version, or None if Python is to answer it.
    pub fn decode(&self, method: Method, message: &Bytes) -> Option<Decoded> {
        let served = self.served.borrow().clone()?;
        let request = served.decode(method, message)?;
        Some(Decoded {
            served,
            method,
            request,
        })
    }

    /// Awaits a request of so many bytes that begins so, if there is room for its images.
    pub fn begin(&self, method: Method, begin: &[u8], bytes: usize, now: Instant) -> Begun {
        let Some(served) = &*self.served.borrow() else {
            return Begun::Awaited(None);
        };
        let images = served.announced(method, begin, bytes);
        let kept = self.arrivals.images(now) + images;
        if !self.admission.has_room(kept.max(1)) {
            return Begun::Refused(images.max(1));
        }
        let may_be_kept = kept <= self.admission.max() as usize / KEPT_PART;
        Begun::Awaited(may_be_kept.then(|| self.arrivals.keep(images, now)))
    }

    /// Returns what waits and runs now, with what room is kept for.
    pub fn fill(&self, now: Instant) -> Fill {
        let (kept, max) = (self.arrivals.images(now), self.admission.max());
        Fill {
            queued: (self.admission.images() + kept as i64).min(max),
            max,
            seconds_per_image: self.seconds_per_image.get(),
        }
    }

    /// Takes a request in, if there is room for its images; else returns its caller.
    pub fn submit(&self, decoded: Decoded, caller: C, deadline: Option<Instant>) -> Result<(), C> {
        let Some(admitted) = Admitted::of(&self.admission, decoded.images()) else {
            return Err(caller);
        };
        let arrived = Instant::now();
        let mut waiting = self.waiting.borrow_mut();
        waiting.push_back(Waiting {
            decoded,
            _admitted: admitted,
            caller,
            deadline,
            arrived,
        });
        if waiting.len() == 1 {
            self.metrics.set_oldest(Some(arrived));
            self.has_requests.notify_one();
        }
        Ok(())
    }

    /// Runs what comes, for ever.
    pub async fn keep_running(&self, tell: impl Fn(Told)) {
        loop {
            self.has_requests.notified().await;
            // Others read what has arrived; between runs, what the last one answered leaves.
            yield_now().await;
            while !self.waiting.borrow().is_empty() {
                if let Err(error) = self.run_batch() {
                    tell(Told::Failed(error));
                }
                if let Some(sample) = self.sampled.take() {
                    tell(Told::Sampled(sample));
                }
                yield_now().await;
            }
        }
    }
}
