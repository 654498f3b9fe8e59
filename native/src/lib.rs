//! The native gRPC transport: sockets, HTTP/2 and the lane of `Predict`, without the interpreter lock.

use pyo3::prelude::*;

/// Changes with what Python may call; the server refuses an extension of another number.
const CONTRACT: u32 = 1;

#[pymodule]
fn forward_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("CONTRACT", CONTRACT)?;
    Ok(())
}
