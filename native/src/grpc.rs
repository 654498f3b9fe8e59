//! gRPC over HTTP/2: the framing of messages, timeouts, metadata and status.
//! Source: "gRPC over HTTP2", the protocol's description in grpc/grpc.

use std::time::Duration;

use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::DecodePaddingMode;
use base64::Engine;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue, CONTENT_TYPE};
use http::Response;

use crate::request_id::NAME as REQUEST_ID;

pub const DETAILS_KEY: &str = "grpc-status-details-bin";
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
pub const PREFIX_BYTES: usize = 5; // one of the compression, four of the length

pub const OK: u32 = 0;
pub const CANCELLED: u32 = 1;
pub const UNKNOWN: u32 = 2;
pub const DEADLINE_EXCEEDED: u32 = 4;
pub const RESOURCE_EXHAUSTED: u32 = 8;
pub const UNIMPLEMENTED: u32 = 12;
pub const INTERNAL: u32 = 13;
pub const UNAVAILABLE: u32 = 14;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What ends a call that never reached a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    pub code: u32,
    pub text: String,
}

impl Status {
    pub fn new(code: u32, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// A value of metadata: bytes of a key that ends with `-bin`, else text.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Binary(Vec<u8>),
}

/// gRPC's own words for a key of the metadata that cannot be read.
pub fn unreadable_key(key: &str) -> Status {
    Status::new(INTERNAL, format!("Error parsing '{key}' metadata"))
}

/// gRPC's own words for a message that is larger than the server takes.
pub fn too_large(size: usize, max: usize) -> Status {
    let text = format!("SERVER: Received message larger than max ({size} vs. {max})");
    Status::new(RESOURCE_EXHAUSTED, text)
}

/// Return a message with its prefix.
pub fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    out.put_u8(0);
    out.put_u32(message.len() as u32);
    out.put_slice(message);
    out.freeze()
}

/// Return the time of `grpc-timeout`, None: for ever. It is read as gRPC itself reads it, which
/// takes more than its specification: more digits, spaces, the last value of several.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    const KEY: &str = "grpc-timeout";
    let Some(value) = headers.get_all(KEY).iter().next_back() else {
        return Ok(None);
    };
    parsed_timeout(value.as_bytes()).ok_or_else(|| unreadable_key(KEY))
}

/// None: it is malformed.
fn parsed_timeout(value: &[u8]) -> Option<Option<Duration>> {
    const MOST: u64 = 1_000_000_000; // above, it is for ever
    let spaces = |bytes: &[u8]| bytes.iter().take_while(|byte| **byte == b' ').count();
    let value = &value[spaces(value)..];
    let digits = value
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if digits == 0 {
        return None;
    }
    let number = value[..digits].iter().try_fold(0u64, |sum, digit| {
        let number = sum * 10 + u64::from(digit - b'0');
        (number <= MOST).then_some(number)
    });
    let Some(number) = number else {
        return Some(None);
    };
    let rest = &value[digits..];
    let (unit, end) = rest[spaces(rest)..].split_first()?;
    if spaces(end) < end.len() {
        return None;
    }
    let milliseconds = match unit {
        b'H' => number * 3_600_000,
        b'M' => number * 60_000,
        b'S' => number * 1000,
        b'm' => number,
        b'u' => number.div_ceil(1000),
        b'n' => number.div_ceil(1_000_000),
        _ => return None,
    };
    Some(Some(Duration::from_millis(milliseconds)))
}

const TRANSPORT_KEYS: [&str; 6] = [
    "content-type",
    "te",
    "host",
    "grpc-timeout",
    "grpc-encoding",
    "grpc-accept-encoding",
];

/// Return the metadata of a call, as its handler gets them: the id is the one that goes back.
pub fn metadata(headers: &HeaderMap, request_id: &HeaderValue) -> Vec<(String, Value)> {
    let mut found = Vec::with_capacity(headers.len() + 1);
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    found.push((REQUEST_ID.to_string(), Value::Text(text(request_id))));
    for (name, value) in headers {
        let key = name.as_str();
        if TRANSPORT_KEYS.contains(&key) || name == REQUEST_ID {
            continue;
        }
        if key.ends_with("-bin") {
            for part in value.as_bytes().split(|byte| *byte == b',') {
                let bytes = BASE64.decode(part).unwrap_or_else(|_| part.to_vec());
                found.push((key.to_owned(), Value::Binary(bytes)));
            }
        } else {
            found.push((key.to_owned(), Value::Text(text(value))));
        }
    }
    found
}

/// Refuse binary metadata that are not base64, in gRPC's own words.
pub fn check_metadata(headers: &HeaderMap) -> Result<(), Status> {
    for (name, value) in headers {
        let key = name.as_str();
        let mut parts = value.as_bytes().split(|byte| *byte == b',');
        if key.ends_with("-bin") && parts.any(|part| BASE64.decode(part).is_err()) {
            let text = format!("Error parsing '{key}' metadata: illegal base64 encoding");
            return Err(Status::new(INTERNAL, text));
        }
    }
    Ok(())
}

/// Return the bytes of a call's headers as HTTP/2 counts them: 32 more for each.
pub fn metadata_bytes(headers: &HeaderMap, path: &str, authority: &str) -> usize {
    const PSEUDO: usize = 4 * 32 + ":method".len() + "POST".len() + ":scheme".len() + "http".len();
    let fields: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 32)
        .sum();
    let pseudo = PSEUDO + ":path".len() + path.len() + ":authority".len() + authority.len();
    fields + pseudo
}

/// gRPC's own words for metadata that are larger than the server takes.
pub fn metadata_too_large(size: usize, max: usize) -> Status {
    let text = format!("received metadata size exceeds hard limit ({size} vs. {max})");
    Status::new(RESOURCE_EXHAUSTED, text)
}

/// Return the headers of a response with messages.
pub fn response() -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.reserve(2);
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(
        HeaderName::from_static("grpc-accept-encoding"),
        HeaderValue::from_static("identity, deflate, gzip"),
    );
    response
}

/// Return the trailers of a call that went well.
pub fn ok_trailers(request_id: HeaderValue) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert(REQUEST_ID, request_id);
    trailers
}

/// Return the trailers of a status.
pub fn trailers(
    code: u32,
    text: &str,
    trailing: &[(String, Value)],
    request_id: HeaderValue,
) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3 + trailing.len());
    trailers.insert("grpc-status", HeaderValue::from(code));
    if !text.is_empty() {
        if let Ok(value) = HeaderValue::from_str(&percent_encoded(text)) {
            trailers.insert("grpc-message", value);
        }
    }
    for (key, value) in trailing {
        let value = match value {
            Value::Text(text) => HeaderValue::from_str(text),
            Value::Binary(bytes) => HeaderValue::from_str(&BASE64.encode(bytes)),
        };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(key.as_bytes()), value) {
            trailers.append(name, value);
        }
    }
    trailers.insert(REQUEST_ID, request_id); // Python may have given it as well
    trailers
}

/// Return a response that is its status alone.
pub fn trailers_only(mut trailers: HeaderMap) -> Response<()> {
    trailers.insert(CONTENT_TYPE, GRPC);
    let mut response = Response::new(());
    *response.headers_mut() = trailers;
    response
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests;
