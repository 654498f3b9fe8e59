//! The native gRPC transport: sockets, HTTP/2 and the lane of `Predict`, without the interpreter lock.
//!
//! One thread, `forward-io`, owns the sockets; it never takes the lock and never calls Python.
//! Python's event loop takes events and answers through `Server`, the one class here.

// Without the classes for Python nothing calls most of it, but for its tests.
#![cfg_attr(not(feature = "python"), allow(dead_code))]

mod body;
mod call;
mod clock;
mod connection;
mod connections;
mod counts;
mod encoding;
mod events;
mod grpc;
mod guard;
mod held;
mod io;
#[cfg(feature = "python")]
mod lane_python;
mod laned;
mod listen;
mod methods;
mod observer;
mod onnx;
#[cfg(feature = "python")]
mod onnx_python;
mod outbox;
#[cfg(feature = "python")]
mod python;
mod random;
mod request_id;
mod responder;
mod server;
mod shared;
mod stream;
mod tls;
mod unheard;

#[cfg(feature = "python")]
use pyo3::prelude::*;

pub mod lane;
pub mod wire;

/// Changes with what Python may call; the server refuses an extension of another number.
#[cfg(feature = "python")]
const CONTRACT: u32 = 3;

#[cfg(feature = "python")]
#[pymodule]
fn forward_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("CONTRACT", CONTRACT)?;
    module.add_class::<lane_python::Admission>()?;
    module.add_class::<onnx_python::OnnxSession>()?;
    module.add_class::<python::Server>()
}
