//! The class with which Python compares a session with its own before the lane has it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::onnx::{library, Session};

const NUMBER: usize = size_of::<f32>();

/// A session that Python runs until the lane takes it.
#[pyclass(frozen, module = "forward_native")]
pub struct OnnxSession {
    session: Mutex<Option<Session>>,
}

#[pymethods]
impl OnnxSession {
    #[new]
    fn new(
        py: Python<'_>,
        model: &[u8],
        threads: usize,
        input: &str,
        output: &str,
    ) -> PyResult<Self> {
        // `bytes` don't change while they are borrowed, so the model is not copied.
        let session = py
            .detach(|| Session::open(library::registered()?, model, threads, input, output))
            .map_err(PyRuntimeError::new_err)?;
        Ok(Self {
            session: Mutex::new(Some(session)),
        })
    }

    /// Return the logits of some images, as bytes of float32 like the pixels.
    fn run<'py>(
        &self,
        py: Python<'py>,
        pixels: &[u8],
        images: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let numbers: Vec<f32> = pixels
            .chunks_exact(NUMBER)
            .map(|bytes| f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect();
        if numbers.len() * NUMBER != pixels.len() {
            let text = format!("{} bytes of pixels are no float32", pixels.len());
            return Err(PyValueError::new_err(text));
        }
        let logits = py
            .detach(|| self.answers(&numbers, images))
            .map_err(PyRuntimeError::new_err)?;
        let bytes: Vec<u8> = logits
            .iter()
            .flat_map(|number| number.to_ne_bytes())
            .collect();
        Ok(PyBytes::new(py, &bytes))
    }
}

impl OnnxSession {
    /// Give the session to the lane; Python can't run it any more.
    pub fn take(&self) -> Option<Session> {
        self.lock().take()
    }

    fn answers(&self, pixels: &[f32], images: usize) -> Result<Vec<f32>, String> {
        let mut held = self.lock();
        let session = held.as_mut().ok_or("the lane has this session")?;
        // Checked before memory is taken for the answers.
        if session.image_len().checked_mul(images) != Some(pixels.len()) {
            let (given, each) = (pixels.len(), session.image_len());
            return Err(format!("{given} numbers for {images} images of {each}"));
        }
        let mut logits = vec![0.0; session.answer_len() * images];
        session.run(pixels, images, &mut logits)?;
        Ok(logits)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Session>> {
        // A panic ends the process, so no thread leaves the lock poisoned.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
