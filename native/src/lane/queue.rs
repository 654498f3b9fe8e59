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
use super::served::{Request, Served};

/// Who waits for an answer.
pub trait Caller {
    /// Whether the answer is still wanted.
    fn is_waiting(&mut self) -> bool;
    /// Takes the response, framed.
    fn answer(self, response: Bytes);
    /// Lets Python answer.
    fn hand_back(self);
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

/// Weight of the newest run in the mean time of an image, as in server/engine/admission.py.
const SMOOTHING: f64 = 0.1;

pub struct Queue<C> {
    served: RefCell<Option<Rc<Served>>>,
    waiting: RefCell<VecDeque<Waiting<C>>>,
    batch: RefCell<Vec<Waiting<C>>>, // empty but for its memory
    has_requests: Notify,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
    seconds_per_image: Cell<f64>,
    arrivals: Arrivals,
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
    pub fn new(admission: Arc<Admission>, metrics: Arc<Metrics>) -> Self {
        Self {
            served: RefCell::default(),
            waiting: RefCell::default(),
            batch: RefCell::default(),
            has_requests: Notify::new(),
            admission,
            metrics,
            seconds_per_image: Cell::new(0.0),
            arrivals: Arrivals::default(),
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
            self.has_requests.notify_one();
        }
        Ok(())
    }

    /// Runs what comes, for ever; errors of runs go to the log.
    pub async fn keep_running(&self, log: impl Fn(String)) {
        loop {
            self.has_requests.notified().await;
            // Others read what has arrived; between runs, what the last one answered leaves.
            yield_now().await;
            while !self.waiting.borrow().is_empty() {
                if let Err(error) = self.run_batch() {
                    log(format!(
                        "a run failed, Python answers its requests: {error}"
                    ));
                }
                yield_now().await;
            }
        }
    }

    /// Runs one batch; the error is that of the run, whose requests were handed back.
    fn run_batch(&self) -> Result<(), String> {
        let mut batch = std::mem::take(&mut *self.batch.borrow_mut());
        let started = Instant::now();
        self.take_batch(&mut batch, started);
        let outcome = self.answer_batch(&mut batch, started);
        batch.clear();
        *self.batch.borrow_mut() = batch;
        outcome
    }

    /// Moves the oldest requests of one version into a batch, without those that are in vain.
    fn take_batch(&self, batch: &mut Vec<Waiting<C>>, now: Instant) {
        let (mut images, mut version) = (0, None);
        while let Some(mut next) = self.next_if(images, version.as_ref()) {
            images += next.decoded.images();
            version.get_or_insert_with(|| Rc::clone(&next.decoded.served));
            if !next.caller.is_waiting() {
                let seconds = (now - next.arrived).as_secs_f64();
                self.count(&next, end_of_lost(next.deadline, now), seconds);
            } else if next.deadline.is_some_and(|deadline| deadline <= now) {
                let Waiting {
                    caller, _admitted, ..
                } = next;
                drop(_admitted); // before Python asks for the same room
                caller.hand_back();
            } else {
                batch.push(next);
            }
        }
    }

    /// Takes the oldest request, if it is of that version and fits beside so many images.
    fn next_if(&self, images: usize, version: Option<&Rc<Served>>) -> Option<Waiting<C>> {
        let mut waiting = self.waiting.borrow_mut();
        let next = &waiting.front()?.decoded;
        let fits = version.is_none_or(|version| {
            let together = images + next.images();
            Rc::ptr_eq(version, &next.served) && together <= version.model.max_batch_images
        });
        if !fits {
            return None;
        }
        waiting.pop_front()
    }

    fn answer_batch(&self, batch: &mut Vec<Waiting<C>>, started: Instant) -> Result<(), String> {
        let Some(first) = batch.first() else {
            return Ok(());
        };
        let served = Rc::clone(&first.decoded.served);
        let requests = batch.iter().map(|each| &each.decoded.request);
        let observe = |images, seconds| {
            let before = self.seconds_per_image.get();
            let newest = seconds / images as f64;
            self.seconds_per_image
                .set(before + SMOOTHING * (newest - before));
            self.metrics.observe_run(images, seconds);
        };
        let outcome = served.run(requests, observe);
        let mut responses = match outcome {
            Ok(responses) => responses,
            Err(error) => {
                for Waiting {
                    caller, _admitted, ..
                } in batch.drain(..)
                {
                    drop(_admitted);
                    caller.hand_back();
                }
                return Err(error);
            }
        };
        let ended = Instant::now();
        for each in batch.drain(..) {
            let response = responses.next(&each.decoded.request);
            self.metrics
                .queue_seconds
                .observe((started - each.arrived).as_secs_f64());
            self.count(&each, End::Ok, (ended - each.arrived).as_secs_f64());
            each.caller.answer(response);
        }
        Ok(())
    }

    /// Counts a call; a message of a stream is none, its stream counts itself.
    fn count(&self, request: &Waiting<C>, end: End, seconds: f64) {
        let method = request.decoded.method;
        if method != Method::PredictStream {
            self.metrics.observe_call(method, end, seconds);
        }
    }
}
