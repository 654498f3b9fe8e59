//! A served version in the lane: what decodes its requests, runs them and encodes the answers.

use std::cell::RefCell;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use super::images::{Images, Pixels, FLOAT32_BYTES};
use super::metrics::{Method, Run};
use super::model::LaneModel;
use super::sampling::Sample;
use super::{infer, predict};
use crate::onnx::Session;

/// Bytes before a message in gRPC: a flag of its compression and its length.
const PREFIX_BYTES: usize = 5;

/// The most images that the runner gets at once: the pixels of more leave the processor's cache, and
/// each image costs more.
pub const RUN_IMAGES: usize = 256;

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

    /// Returns how many images a request of so many bytes has, by its begin.
    pub fn announced(&self, method: Method, begin: &[u8], bytes: usize) -> usize {
        match method {
            Method::Predict | Method::PredictStream => {
                predict::announced(begin, bytes, &self.model)
            }
            Method::ModelInfer => infer::announced(begin, bytes, &self.model),
        }
    }

    /// Runs requests together, in runs of up to RUN_IMAGES each; tells of each.
    ///
    /// Then the responses can be asked for. An image's logits don't depend on the run it is in.
    pub fn run<'a>(
        &self,
        requests: impl Iterator<Item = &'a Request> + Clone,
        mut observe: impl FnMut(&Run),
    ) -> Result<Responses<'_>, String> {
        let images = requests
            .clone()
            .map(|request| request.images)
            .sum::<usize>();
        let (image_pixels, classes) = (self.model.image_pixels(), self.model.classes);
        let Work {
            runner,
            pixels,
            logits,
        } = &mut *self.work.borrow_mut();
        let pixels = grown(pixels, images.min(RUN_IMAGES) * image_pixels);
        let mut rows = grown(logits, images * classes);
        let mut ready = 0; // images whose pixels are there
        let mut sharing = 0; // requests that they are of
        let mut left = images;
        for request in requests {
            let mut done = 0;
            while done < request.images {
                let count = (request.images - done).min(RUN_IMAGES - ready);
                let part = request.part(done, count, image_pixels);
                part.write_pixels(&mut pixels[ready * image_pixels..][..count * image_pixels]);
                (done, ready, left) = (done + count, ready + count, left - count);
                sharing += 1;
                if ready < RUN_IMAGES && left > 0 {
                    continue;
                }
                let (own, others) = rows.split_at_mut(ready * classes);
                let started = Instant::now();
                runner.run(&pixels[..ready * image_pixels], ready, own)?;
                observe(&Run {
                    requests: sharing,
                    images: ready,
                    seconds: started.elapsed().as_secs_f64(),
                });
                (rows, ready, sharing) = (others, 0, 0);
            }
        }
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
    /// Returns the first image as a sample, with its logits.
    fn sample(&self, version: i64, logits: &[f32]) -> Sample {
        let pixels = self.data.len() / self.images;
        Sample {
            version,
            pixels: Bytes::copy_from_slice(&self.data[..pixels]),
            is_uint8: self.is_uint8,
            logits: logits.iter().flat_map(|each| each.to_le_bytes()).collect(),
        }
    }

    /// Returns `count` of the images, from that one on.
    fn part(&self, first: usize, count: usize, image_pixels: usize) -> Images<'_> {
        let size = if self.is_uint8 { 1 } else { FLOAT32_BYTES };
        let bytes = &self.data[first * image_pixels * size..][..count * image_pixels * size];
        let pixels = if self.is_uint8 {
            Pixels::Uint8(bytes)
        } else {
            Pixels::Float32(bytes)
        };
        Images { count, pixels }
    }
}

/// The logits of a run, until the next.
pub struct Responses<'a> {
    served: &'a Served,
    next: usize, // row
}

impl Responses<'_> {
    /// Returns the first image of a request, which is that row of the run, as a sample.
    pub fn sample(&self, request: &Request, row: usize) -> Sample {
        let LaneModel {
            version, classes, ..
        } = self.served.model;
        let work = self.served.work.borrow();
        request.sample(version, &work.logits[row * classes..][..classes])
    }

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

#[cfg(test)]
mod tests {
    use super::super::testing::{model, request_of, Runs};
    use super::*;

    #[test]
    fn large_batches_are_run_in_parts_and_each_image_gets_its_own_logits() {
        let (runs, mut model) = (Runs::default(), model(1));
        model.max_batch_images = 1000;
        let served = Served::new(model, Box::new(runs.clone()));
        for sizes in [
            &[255, 1, 1][..],
            &[256],
            &[257],
            &[100, 300, 256, 1],
            &[1000],
        ] {
            runs.forget();
            let mut bytes = (0..=255u8).cycle();
            let data: Vec<Vec<u8>> = sizes
                .iter()
                .map(|&size| bytes.by_ref().take(size * 2).collect())
                .collect();
            let decode =
                |data: &Vec<u8>| served.decode(Method::Predict, &request_of(data)).unwrap();
            let requests: Vec<Request> = data.iter().map(decode).collect();
            let mut observed = Vec::new();
            let observe = |run: &Run| observed.push((run.requests, run.images));
            let mut responses = served.run(requests.iter(), observe).unwrap();
            for (request, data) in requests.iter().zip(&data) {
                let logits: Vec<f32> = data.iter().map(|&byte| f32::from(byte) / 255.0).collect();
                assert_eq!(responses.next(request), served.frame(request, &logits));
            }
            let (requests, observed): (Vec<_>, Vec<_>) = observed.into_iter().unzip();
            assert_eq!(observed, runs.images());
            assert_eq!(requests, sharing(sizes));
            let (last, full) = observed.split_last().unwrap();
            assert!(full.iter().all(|&images| images == RUN_IMAGES));
            assert_eq!(full.len() * RUN_IMAGES + last, sizes.iter().sum::<usize>());
            assert!((1..=RUN_IMAGES).contains(last));
        }
    }

    /// Of how many requests each run has images: each image is of one, a run has RUN_IMAGES.
    fn sharing(sizes: &[usize]) -> Vec<usize> {
        let owners: Vec<usize> = (0..).zip(sizes).flat_map(|(of, &n)| vec![of; n]).collect();
        let of_run = |run: &[usize]| run[run.len() - 1] - run[0] + 1;
        owners.chunks(RUN_IMAGES).map(of_run).collect()
    }
}
