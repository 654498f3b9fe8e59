//! The head of a call: whether it is gRPC's, and what its headers say.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use tokio::time::Instant;

use crate::clock::monotonic_seconds;
use crate::encoding::Encoding;
use crate::grpc::{self, Status, DEADLINE_EXCEEDED};
use crate::io::Io;

/// When a call is late, in both clocks.
#[derive(Clone, Copy)]
pub struct Deadline {
    pub at: Instant,
    pub seconds: f64, // of CLOCK_MONOTONIC
}

impl Deadline {
    pub fn after(timeout: Duration) -> Option<Self> {
        let at = Instant::now().checked_add(timeout)?;
        Some(Self {
            at,
            seconds: monotonic_seconds() + timeout.as_secs_f64(),
        })
    }
}

pub fn not_grpc(parts: &Parts) -> Option<Response<()>> {
    let status = if parts.method != Method::POST {
        StatusCode::METHOD_NOT_ALLOWED
    } else if !is_grpc(
        parts
            .headers
            .get(CONTENT_TYPE)
            .map_or(b"", |value| value.as_bytes()),
    ) {
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    } else {
        return None;
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    Some(response)
}

fn is_grpc(content_type: &[u8]) -> bool {
    match content_type.strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';')),
        None => false,
    }
}

/// The name of the method. gRPC has no queries: one would be a part of it.
pub fn path(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("", |path| path.as_str())
}

/// gRPC's own words for a call that was late before its service could say so.
pub fn late() -> Status {
    Status::new(DEADLINE_EXCEEDED, "Deadline Exceeded")
}

pub fn admitted(io: &Io, parts: &Parts) -> Result<(Encoding, Option<Deadline>), Status> {
    let authority = parts
        .uri
        .authority()
        .map_or("", |authority| authority.as_str());
    let size = grpc::metadata_bytes(&parts.headers, path(parts), authority);
    if size > io.options.max_metadata_bytes {
        return Err(grpc::metadata_too_large(
            size,
            io.options.max_metadata_bytes,
        ));
    }
    let encoding = Encoding::of(&parts.headers)?;
    grpc::check_metadata(&parts.headers)?;
    let timeout = grpc::timeout(&parts.headers)?;
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        return Err(late());
    }
    Ok((encoding, timeout.and_then(Deadline::after)))
}
