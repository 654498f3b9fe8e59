//! The native gRPC transport: sockets, HTTP/2 and the lane of `Predict`, without the interpreter lock.
//!
//! One thread, `forward-io`, owns the sockets; it never takes the lock and never calls Python.
//! Python's event loop takes events and answers through `Server`, the one class here.

mod body;
mod call;
mod clock;
mod connection;
mod events;
mod grpc;
mod guard;
mod io;
mod lane_python;
mod laned;
mod onnx;
mod onnx_python;
mod python;
mod responder;
mod server;
mod stream;
mod tls;

use pyo3::prelude::*;

pub mod lane;
pub mod wire;

/// Changes with what Python may call; the server refuses an extension of another number.
const CONTRACT: u32 = 1;

#[pymodule]
fn forward_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("CONTRACT", CONTRACT)?;
    module.add_class::<lane_python::Admission>()?;
    module.add_class::<onnx_python::OnnxSession>()?;
    module.add_class::<python::Server>()
}
