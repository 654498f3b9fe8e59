//! gRPC over HTTP/2: the framing of messages, timeouts, metadata and status.
//! Source: "gRPC over HTTP2", the protocol's description in grpc/grpc.

use std::io::Read;
use std::time::Duration;

use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::DecodePaddingMode;
use base64::Engine;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::header::{HeaderMap, HeaderName, HeaderValue, CONTENT_TYPE};
use http::Response;

pub const PREFIX_BYTES: usize = 5; // one of the compression, four of the length

pub const OK: u32 = 0;
pub const DEADLINE_EXCEEDED: u32 = 4;
pub const RESOURCE_EXHAUSTED: u32 = 8;
pub const UNIMPLEMENTED: u32 = 12;
pub const INTERNAL: u32 = 13;

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

/// How the messages of a call are compressed, where their flag is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

impl Encoding {
    pub fn of(headers: &HeaderMap) -> Result<Self, Status> {
        match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Ok(Self::Identity),
            Some(b"gzip") => Ok(Self::Gzip),
            Some(b"deflate") => Ok(Self::Deflate),
            Some(other) => Err(Status::new(
                UNIMPLEMENTED,
                format!(
                    "grpc-encoding: expected identity, deflate or gzip, got {:?}",
                    String::from_utf8_lossy(&other[..other.len().min(80)])
                ),
            )),
        }
    }

    /// Return a message as it was before its compression, of at most `max` bytes.
    pub fn decompress(self, message: &[u8], max: usize) -> Result<Bytes, Status> {
        let mut plain = Vec::new();
        let limit = max as u64 + 1;
        let read = match self {
            Self::Identity => {
                return Err(Status::new(
                    INTERNAL,
                    "a message is marked as compressed, and grpc-encoding is identity",
                ))
            }
            Self::Gzip => MultiGzDecoder::new(message)
                .take(limit)
                .read_to_end(&mut plain),
            Self::Deflate => ZlibDecoder::new(message)
                .take(limit)
                .read_to_end(&mut plain),
        };
        if read.is_err() {
            return Err(Status::new(INTERNAL, "a message could not be decompressed"));
        }
        if plain.len() > max {
            return Err(too_large(plain.len(), max));
        }
        Ok(plain.into())
    }
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

/// Return the time of `grpc-timeout`: at most 8 digits and a unit. Err: it is malformed.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, ()> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let (unit, digits) = value.as_bytes().split_last().ok_or(())?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(());
    }
    let number = digits
        .iter()
        .fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let duration = match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return Err(()),
    };
    Ok(Some(duration))
}

const TRANSPORT_KEYS: [&str; 6] = [
    "content-type",
    "te",
    "host",
    "grpc-timeout",
    "grpc-encoding",
    "grpc-accept-encoding",
];

/// Return the metadata of a call, as its handler gets them.
pub fn metadata(headers: &HeaderMap) -> Vec<(String, Value)> {
    let mut found = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let key = name.as_str();
        if TRANSPORT_KEYS.contains(&key) {
            continue;
        }
        if key.ends_with("-bin") {
            for part in value.as_bytes().split(|byte| *byte == b',') {
                let bytes = BASE64.decode(part).unwrap_or_else(|_| part.to_vec());
                found.push((key.to_owned(), Value::Binary(bytes)));
            }
        } else {
            let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            found.push((key.to_owned(), Value::Text(text)));
        }
    }
    found
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

fn base_headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(
        HeaderName::from_static("grpc-accept-encoding"),
        HeaderValue::from_static("identity, deflate, gzip"),
    );
    headers
}

/// Return the headers of a response with messages.
pub fn response() -> Response<()> {
    let mut response = Response::new(());
    *response.headers_mut() = base_headers();
    response
}

/// Return the trailers of a call that went well.
pub fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

/// Return the trailers of a status.
pub fn trailers(code: u32, text: &str, trailing: &[(String, Value)]) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2 + trailing.len());
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
    trailers
}

/// Return a response that is its status alone.
pub fn trailers_only(trailers: HeaderMap) -> Response<()> {
    let mut response = response();
    for (name, value) in &trailers {
        response.headers_mut().append(name, value.clone());
    }
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
