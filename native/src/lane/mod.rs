//! The lane: requests for logits alone, answered without Python.
//!
//! It answers only what it is sure of; every function that decodes returns `None` for all else, and
//! the same bytes go to the Python service, which words every error.

pub mod images;
pub mod infer;
pub mod model;
pub mod predict;

#[cfg(test)]
mod golden;
