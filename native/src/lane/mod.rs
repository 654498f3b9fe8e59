//! The lane: requests for logits alone, answered without Python.
//!
//! It answers only what it is sure of; every function that decodes returns `None` for all else, and
//! the same bytes go to the Python service, which words every error.

pub mod admission;
pub mod arrivals;
pub mod images;
pub mod infer;
pub mod metrics;
pub mod model;
pub mod predict;
pub mod queue;
pub mod refusal;
pub mod sampling;
pub mod served;
pub mod stream;
pub mod tokens;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod observed_tests;
#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod testing;
