//! A served version in the lane: what decodes its requests, runs them and encodes the answers.

use std::cell::RefCell;

use bytes::{BufMut, Bytes, BytesMut};

use super::images::{Images, Pixels};
use super::metrics::Method;
use super::model::LaneModel;
use super::{infer, predict};
use crate::onnx::Session;

/// Bytes before a message in gRPC: a flag of its compression and its length.
const PREFIX_BYTES: usize = 5;

/// Computes the logits of images.
pub trait Runner {
    /// Writes `images` rows of logits for as many images, one after the other.
    fn run(&mut self, pixels: &[f32], images: usize, logits: &mut [f32]) -> Result<(), String>;
}

impl Runner for Session {
    fn run(&mut self, pixels: &[f32], images: usize, logits: &mut [f32]) -> Result<(), String> {
        Session::run(self, pixels, images, logits)
    }
}

/// A version with its runner.
pub struct Served {
    pub model: LaneModel,
    work: RefCell<Work>,
}

/// The runner, and memory of a run, which is used again: fresh pages cost more than a copy.
struct Work {
    runner: Box<dyn Runner + Send>,
    pixels: Vec<f32>,
    logits: Vec<f32>,
}

/// A request that was decoded; the pixels stay in its own bytes.
#[derive(Debug)]
pub struct Request {
    pub images: usize,
    data: Bytes,
    is_uint8: bool,
    repeated: Option<Repeated>,
}

/// What a response of ModelInfer repeats of its request.
#[derive(Debug)]
struct Repeated {
    model_name: Bytes,
    id: Bytes,
}

impl Served {
    pub fn new(model: LaneModel, runner: Box<dyn Runner + Send>) -> Self {
        let work = Work {
            runner,
            pixels: Vec::new(),
            logits: Vec::new(),
        };
        Self {
            model,
            work: RefCell::new(work),
        }
    }

    /// Returns a request of that method, or `None` if Python is to read it.
    pub fn decode(&self, method: Method, message: &Bytes) -> Option<Request> {
        let (images, repeated) = match method {
            Method::Predict | Method::PredictStream => {
                (predict::decode(message, &self.model)?, None)
            }
            Method::ModelInfer => {
                let request = infer::decode(message, &self.model)?;
                let model_name = part_of(message, request.model_name);
                let id = part_of(message, request.id);
                (request.images, Some(Repeated { model_name, id }))
            }
        };
        let (data, is_uint8) = match images.pixels {
            Pixels::Uint8(data) => (data, true),
            Pixels::Float32(data) => (data, false),
        };
        let data = part_of(message, data);
        Some(Request {
            images: images.count,
            data,
            is_uint8,
            repeated,
        })
    }

    /// Runs requests together; gives each its response, framed, in their order.
    pub fn run<'a>(
        &self,
        requests: impl Iterator<Item = &'a Request> + Clone,
    ) -> Result<Responses<'_>, String> {
        let images = requests.clone().map(|request| request.images).sum();
        let (image_pixels, classes) = (self.model.image_pixels(), self.model.classes);
        let work = &mut *self.work.borrow_mut();
        let pixels = grown(&mut work.pixels, images * image_pixels);
        let mut rest = &mut *pixels;
        for request in requests {
            let (own, others) = rest.split_at_mut(request.images * image_pixels);
            request.as_images().write_pixels(own);
            rest = others;
        }
        let logits = grown(&mut work.logits, images * classes);
        work.runner.run(pixels, images, logits)?;
        Ok(Responses {
            served: self,
            next: 0,
        })
    }

    fn frame(&self, request: &Request, logits: &[f32]) -> Bytes {
        let (model, count) = (&self.model, request.images);
        let length = match &request.repeated {
            None => predict::response_len(model, count),
            Some(Repeated { model_name, id }) => infer::response_len(model, model_name, id, count),
        };
        let mut out = BytesMut::with_capacity(PREFIX_BYTES + length);
        out.put_u8(0); // not compressed
        out.put_u32(length as u32); // a response of so many images is far smaller
        match &request.repeated {
            None => predict::encode(model, logits, count, &mut out),
            Some(Repeated { model_name, id }) => {
                infer::encode(model, model_name, id, logits, count, &mut out);
            }
        }
        debug_assert_eq!(out.len(), PREFIX_BYTES + length);
        out.freeze()
    }
}

impl Request {
    fn as_images(&self) -> Images<'_> {
        let pixels = if self.is_uint8 {
            Pixels::Uint8(&self.data)
        } else {
            Pixels::Float32(&self.data)
        };
        Images {
            count: self.images,
            pixels,
        }
    }
}

/// The logits of a run, until the next.
pub struct Responses<'a> {
    served: &'a Served,
    next: usize, // row
}

impl Responses<'_> {
    /// Returns the response to the next request of the run, framed.
    pub fn next(&mut self, request: &Request) -> Bytes {
        let classes = self.served.model.classes;
        let start = self.next * classes;
        self.next += request.images;
        let work = self.served.work.borrow();
        self.served
            .frame(request, &work.logits[start..self.next * classes])
    }
}

/// Returns that part of a message without a copy; nothing keeps no message.
fn part_of(message: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() {
        return Bytes::new();
    }
    message.slice_ref(part)
}

fn grown(memory: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if memory.len() < length {
        memory.resize(length, 0.0);
    }
    &mut memory[..length]
}
