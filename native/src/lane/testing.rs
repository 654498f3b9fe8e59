//! A small model, requests for it and callers that remember what they got.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};

use super::admission::Admission;
use super::metrics::{Bounds, End, Metrics};
use super::model::LaneModel;
use super::queue::{Answered, Caller, Queue, Told};
use super::sampling::{Sample, Sampler};
use super::served::{Runner, Served};
use crate::wire::{put_bytes, put_header, put_varint};

pub const MAX_BATCH_IMAGES: usize = 8;
pub const MAX_QUEUE_IMAGES: i64 = 12;
/// Of the response to one image, framed; its first logit begins there.
pub const LOGITS_AT: usize = 5 + 2 + 2 + 2 + 2 + 2;

pub fn model(version: i64) -> LaneModel {
    LaneModel {
        name: "tiny".into(),
        version,
        version_text: version.to_string(),
        identity: vec![0x10, version as u8],
        input_shape: vec![1, 2],
        classes: 2,
        max_batch_images: MAX_BATCH_IMAGES,
        max_float_bits: Some(1.0f32.to_bits()),
        logits_names: vec!["tiny".into()],
        stages_names: vec![],
    }
}

/// A request of so many images, all of whose pixels are a byte.
pub fn request(images: usize, byte: u8) -> Bytes {
    request_of(&vec![byte; images * 2])
}

/// A request of the images of 2 pixels that those bytes are.
pub fn request_of(data: &[u8]) -> Bytes {
    let mut shape = BytesMut::new();
    [data.len() as u64 / 2, 1, 2]
        .iter()
        .for_each(|&each| put_varint(&mut shape, each));
    let mut tensor = BytesMut::from(&b"\x08\x02"[..]);
    put_bytes(&mut tensor, 2, &shape);
    put_bytes(&mut tensor, 3, data);
    let mut message = BytesMut::new();
    put_header(&mut message, 1, tensor.len());
    message.extend_from_slice(&tensor);
    message.freeze()
}

/// Returns the byte of the pixels that a response to one image was computed from.
pub fn byte_of(response: &[u8]) -> u8 {
    let logit = response[LOGITS_AT..].first_chunk().unwrap();
    (f32::from_le_bytes(*logit) * 255.0).round() as u8
}

/// A runner that copies pixels; what the runs were, in images, and whether they fail.
#[derive(Clone, Default)]
pub struct Runs(Arc<Mutex<(Vec<usize>, bool)>>);

impl Runs {
    pub fn images(&self) -> Vec<usize> {
        self.0.lock().unwrap().0.clone()
    }

    pub fn forget(&self) {
        self.0.lock().unwrap().0.clear();
    }

    pub fn set_failing(&self, fail: bool) {
        self.0.lock().unwrap().1 = fail;
    }

    /// Returns how many there are, of which one is the lane's until it goes.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl Runner for Runs {
    fn run(&mut self, pixels: &[f32], images: usize, logits: &mut [f32]) -> Result<(), String> {
        assert_eq!(pixels.len(), images * 2);
        assert_eq!(logits.len(), images * 2);
        let (ran, fail) = &mut *self.0.lock().unwrap();
        ran.push(images);
        logits.copy_from_slice(pixels);
        if *fail {
            return Err("no memory".into());
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    Answer(Bytes),
    HandedBack,
    Lost(End),
}

/// A caller; what it got, and in which order, is kept.
pub struct Remembering {
    pub name: u8,
    pub got: Rc<RefCell<Vec<(u8, Got)>>>,
    pub is_waiting: bool,
}

impl Caller for Remembering {
    fn is_waiting(&mut self) -> bool {
        self.is_waiting
    }

    fn answer(self, response: Bytes, answered: &Answered) {
        assert!(answered.images > 0 && answered.queue_seconds >= 0.0);
        self.got
            .borrow_mut()
            .push((self.name, Got::Answer(response)));
    }

    fn lose(self, end: End) {
        self.got.borrow_mut().push((self.name, Got::Lost(end)));
    }

    fn hand_back(self) {
        self.got.borrow_mut().push((self.name, Got::HandedBack));
    }
}

/// A lane with its surroundings.
pub struct Laned<C> {
    pub queue: Rc<Queue<C>>,
    pub runs: Runs,
    pub admission: Arc<Admission>,
    pub metrics: Arc<Metrics>,
    pub log: Rc<RefCell<Vec<String>>>,
    pub wants_samples: Arc<AtomicBool>,
    pub samples: Rc<RefCell<Vec<Sample>>>,
}

impl<C: Caller + 'static> Laned<C> {
    pub fn new() -> Self {
        let bounds = Bounds {
            seconds: vec![1.0],
            images: vec![1.0, 2.0, 4.0, 8.0],
        };
        let (admission, runs) = (Admission::new(MAX_QUEUE_IMAGES), Runs::default());
        let metrics = Arc::new(Metrics::new(&bounds));
        let wants_samples = Arc::<AtomicBool>::default();
        let sampler = Sampler::new(Arc::clone(&wants_samples));
        let queue = Queue::new(Arc::clone(&admission), Arc::clone(&metrics), sampler);
        let queue = Rc::new(queue);
        queue.serve(Some(Served::new(model(1), Box::new(runs.clone()))));
        Self {
            queue,
            runs,
            admission,
            metrics,
            log: Rc::default(),
            wants_samples,
            samples: Rc::default(),
        }
    }

    /// Runs a test in a loop where the lane runs beside it.
    pub fn test(&self, test: impl std::future::Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let local = tokio::task::LocalSet::new();
        let (queue, log) = (Rc::clone(&self.queue), Rc::clone(&self.log));
        let samples = Rc::clone(&self.samples);
        local.spawn_local(async move {
            let tell = |told| match told {
                Told::Failed(error) => log.borrow_mut().push(error),
                Told::Sampled(sample) => samples.borrow_mut().push(sample),
            };
            queue.keep_running(tell).await;
        });
        local.block_on(&runtime, test);
    }
}

/// Lets everything run that can.
pub async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}
