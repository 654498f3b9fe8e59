//! The seam: events for Python's event loop, and the commands that it answers with.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::grpc::Value;
use crate::lane::model::LaneModel;
use crate::lane::sampling::Sample;
use crate::observer::Observation;
use crate::onnx::Session;

/// What happens to calls, in order, for Python.
#[derive(Debug)]
pub enum Event {
    /// A call begins; of a unary one the message is there, None if the client sent none.
    Call {
        id: u64,
        method: String,
        peer: Arc<str>,
        metadata: Vec<(String, Value)>,
        /// Seconds of CLOCK_MONOTONIC.
        deadline: Option<f64>,
        began: Instant,
        message: Option<Bytes>,
    },
    Message {
        id: u64,
        message: Bytes,
    },
    /// The client sends no more messages.
    HalfClosed {
        id: u64,
    },
    /// A message that was sent has gone to the connection.
    Sent {
        id: u64,
    },
    /// The call ended before its response: cancelled, lost, or with a code of the transport's own.
    Ended {
        id: u64,
        code: Option<u32>,
    },
    /// All connections are closed, after `stop`.
    Stopped,
    Log {
        level: &'static str,
        text: String,
    },
    /// A call ended that Python is to know of, and did not answer.
    Observed(Box<Observation>),
    Sampled(Vec<Sample>),
}

impl Event {
    pub fn call(&self) -> Option<u64> {
        match self {
            Self::Call { id, .. }
            | Self::Message { id, .. }
            | Self::HalfClosed { id }
            | Self::Sent { id }
            | Self::Ended { id, .. } => Some(*id),
            Self::Stopped | Self::Log { .. } | Self::Observed(_) | Self::Sampled(_) => None,
        }
    }

    pub fn begun(&self) -> Option<u64> {
        matches!(self, Self::Call { .. }).then(|| self.call())?
    }

    /// The call that ended with it, and the code if the transport sent one.
    pub fn ended(&self) -> Option<(u64, Option<u32>)> {
        match self {
            Self::Ended { id, code } => Some((*id, *code)),
            _ => None,
        }
    }
}

/// What Python answers.
pub enum Command {
    /// The response of a unary call, framed.
    Respond {
        id: u64,
        message: Bytes,
    },
    /// A message of a stream, framed.
    Send {
        id: u64,
        message: Bytes,
    },
    /// Python has taken a message of the stream: another may be read.
    Taken {
        id: u64,
    },
    Finish {
        id: u64,
        code: u32,
        text: String,
        trailing: Vec<(String, Value)>,
    },
    /// Let the lane answer by this version; None: not at all.
    Serve(Option<Box<(LaneModel, Session)>>),
    /// Tokens of which a call in the lane needs one.
    SetTokens(Vec<String>),
    /// End as a fault would: a test sees what becomes of the process.
    Panic,
    /// Make no progress for so long; a test sees what becomes of the process.
    Sleep {
        seconds: f64,
    },
    Stop {
        grace_seconds: f64,
    },
}

impl Command {
    pub fn call(&self) -> Option<u64> {
        match self {
            Self::Respond { id, .. }
            | Self::Send { id, .. }
            | Self::Taken { id }
            | Self::Finish { id, .. } => Some(*id),
            Self::Serve(_)
            | Self::SetTokens(_)
            | Self::Panic
            | Self::Sleep { .. }
            | Self::Stop { .. } => None,
        }
    }
}
