//! One batch: which requests it has, its runs, and the answers.

use std::rc::Rc;

use tokio::time::Instant;

use super::{end_of_lost, Answered, Batch, Caller, Queue, Waiting};
use crate::lane::metrics::{End, Method, Run};
use crate::lane::served::{Responses, Served};

/// Weight of the newest run in the mean time of an image, as in server/engine/admission.py.
const SMOOTHING: f64 = 0.1;

/// A batch that was run.
struct RunBatch {
    version: i64,
    started: Instant,
    images: usize,
    run_seconds: f64,
}

impl<C: Caller> Queue<C> {
    /// Runs one batch; the error is that of the run, whose requests were handed back.
    pub(super) fn run_batch(&self) -> Result<(), String> {
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
                let end = end_of_lost(next.deadline, now);
                self.count(&next, end, seconds);
                next.caller.lose(end);
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
        let oldest = self.waiting.borrow().front().map(|next| next.arrived);
        self.metrics.set_oldest(oldest);
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
        let (mut images, mut run_seconds) = (0, 0.0);
        let observe = |run: &Run| {
            images += run.images;
            run_seconds += run.seconds;
            self.observe(run);
        };
        match served.run(requests, observe) {
            Ok(responses) => {
                let run = RunBatch {
                    version: served.model.version,
                    started,
                    images,
                    run_seconds,
                };
                self.answer(batch, responses, &run);
                Ok(())
            }
            Err(error) => {
                for Waiting {
                    caller, _admitted, ..
                } in batch.drain(..)
                {
                    drop(_admitted);
                    caller.hand_back();
                }
                Err(error)
            }
        }
    }

    fn observe(&self, run: &Run) {
        let before = self.seconds_per_image.get();
        let newest = run.seconds / run.images as f64;
        self.seconds_per_image
            .set(before + SMOOTHING * (newest - before));
        self.metrics.observe_run(run);
    }

    /// Answers the requests of a batch that was run.
    fn answer(&self, batch: &mut Vec<Waiting<C>>, mut responses: Responses<'_>, run: &RunBatch) {
        let ended = Instant::now();
        if let Some(chosen) = self.sampler.choose(ended, batch.len()) {
            let before = batch[..chosen].iter().map(|each| each.decoded.images());
            let sample = responses.sample(&batch[chosen].decoded.request, before.sum());
            self.sampled.set(Some(sample));
        }
        // All are encoded before one leaves, so that two readings of the clock tell how long it took.
        let mut encoded = self.responses.take();
        encoded.extend(
            batch
                .iter()
                .map(|each| responses.next(&each.decoded.request)),
        );
        let now = Instant::now();
        let encode_seconds = (now - ended).as_secs_f64() / batch.len() as f64;
        let metrics = &self.metrics;
        metrics
            .encode_seconds
            .observe_alike(encode_seconds, batch.len());
        self.batches.set(self.batches.get() + 1);
        let shared = Batch {
            number: self.batches.get(),
            requests: batch.len(),
            images: run.images,
            started: Some(run.started),
            seconds: run.run_seconds,
        };
        for (each, response) in batch.drain(..).zip(encoded.drain(..)) {
            let queue_seconds = (run.started - each.arrived).as_secs_f64();
            metrics.queue_seconds.observe(queue_seconds);
            self.count(&each, End::Ok, (now - each.arrived).as_secs_f64());
            let answered = Answered {
                images: each.decoded.images(),
                version: run.version,
                queue_seconds,
                run_seconds: run.run_seconds,
                encode_seconds,
                batch: shared,
            };
            each.caller.answer(response, &answered);
        }
        self.responses.replace(encoded);
    }

    /// Counts a call; a message of a stream is none, its stream counts itself.
    fn count(&self, request: &Waiting<C>, end: End, seconds: f64) {
        let method = request.decoded.method;
        if method != Method::PredictStream {
            self.metrics.observe_call(method, end, seconds);
        }
    }
}
