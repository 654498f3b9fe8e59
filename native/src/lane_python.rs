//! The lane as Python sees it: the admission that both share, and the version served.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::lane::admission::Admission as Shared;
use crate::lane::model::LaneModel;

/// The images that wait or run, of the lane and of Python's batchers together.
#[pyclass(frozen, module = "forward_native")]
pub struct Admission {
    pub shared: Arc<Shared>,
}

#[pymethods]
impl Admission {
    #[new]
    fn new(max_images: i64) -> Self {
        Self {
            shared: Shared::new(max_images),
        }
    }

    #[getter]
    fn images(&self) -> i64 {
        self.shared.images()
    }

    /// Count images in if there is room for all of them; tell if there was.
    fn acquire(&self, images: i64) -> bool {
        self.shared.acquire(images)
    }

    fn release(&self, images: i64) {
        self.shared.release(images);
    }
}

/// A version, by the fields of server/api/lane.py.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct GivenModel {
    name: String,
    version: i64,
    identity: Vec<u8>,
    input_shape: Vec<u64>,
    classes: usize,
    max_batch_images: usize,
    max_float_bits: Option<u32>,
    logits_names: Vec<String>,
    stages_names: Vec<String>,
}

impl From<GivenModel> for LaneModel {
    fn from(given: GivenModel) -> Self {
        Self {
            name: given.name,
            version: given.version,
            version_text: given.version.to_string(),
            identity: given.identity,
            input_shape: given.input_shape,
            classes: given.classes,
            max_batch_images: given.max_batch_images,
            max_float_bits: given.max_float_bits,
            logits_names: given.logits_names,
            stages_names: given.stages_names,
        }
    }
}
