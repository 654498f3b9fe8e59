//! The refusal of a request that the queue has no room for, as server/errors.py words it.

use bytes::BytesMut;

use crate::grpc::RESOURCE_EXHAUSTED;
use crate::wire::{field_len, put_bytes, put_header, put_varint, tag, VARINT};

const MIN_RETRY_SECONDS: f64 = 0.01;
const RETRY_INFO: &[u8] = b"type.googleapis.com/google.rpc.RetryInfo";
const REQUEST_INFO: &[u8] = b"type.googleapis.com/google.rpc.RequestInfo";
const DETAILS: u8 = 3; // of google.rpc.Status, each a google.protobuf.Any

/// What the queue holds, in images, and how long a run of one takes.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    pub queued: i64,
    pub max: i64,
    pub seconds_per_image: f64,
}

impl Fill {
    /// Returns the text for a request of so many images, and a google.rpc.Status with it, which has
    /// the request's id too.
    pub fn refusal(&self, images: usize, request_id: &[u8]) -> (String, Vec<u8>) {
        let Self { queued, max, .. } = self;
        let seconds = (self.seconds_per_image * *queued as f64).max(MIN_RETRY_SECONDS);
        let text = format!(
            "the queue holds {queued} of at most {max} images and has no room for {images} more; \
             retry in {seconds:.3} s"
        );
        let mut details = status(&text, seconds);
        put_request_info(&mut details, request_id);
        (text, details.to_vec())
    }
}

/// Returns a google.rpc.Status with a RetryInfo.
fn status(text: &str, seconds: f64) -> BytesMut {
    let nanoseconds = (seconds * 1e9).round_ties_even() as u64;
    let delay = [nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000];
    let mut duration = BytesMut::new();
    for (field, value) in [1, 2].into_iter().zip(delay) {
        put_number(&mut duration, field, value);
    }
    let mut out = BytesMut::new();
    put_number(&mut out, 1, RESOURCE_EXHAUSTED.into());
    put_bytes(&mut out, 2, text.as_bytes());
    put_detail(&mut out, RETRY_INFO, &duration);
    out
}

/// Appends the id of a request to the details of a google.rpc.Status.
pub fn put_request_info(status: &mut BytesMut, request_id: &[u8]) {
    put_detail(status, REQUEST_INFO, request_id);
}

/// Appends a message that has that one field, by the number 1.
fn put_detail(status: &mut BytesMut, type_url: &[u8], field: &[u8]) {
    let length = field_len(type_url.len()) + field_len(field_len(field.len()));
    put_header(status, DETAILS, length);
    put_bytes(status, 1, type_url);
    put_header(status, 2, field_len(field.len()));
    put_bytes(status, 1, field);
}

/// Writes a number that is not in the message at all when it is 0, as proto3 says.
fn put_number(out: &mut BytesMut, field: u8, value: u64) {
    if value > 0 {
        out.extend_from_slice(&[tag(field, VARINT)]);
        put_varint(out, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of server/errors.py: `rich_status(QueueFullError(5, 8192, 8192, 1.0625))`, with a request's id,
    /// serialized.
    const STATUS: &[u8] = b"\x08\x08\x12Xthe queue holds 8192 of at most 8192 images and has no room for 5 more; retry in 1.062 s\x1a5\x0a(type.googleapis.com/google.rpc.RetryInfo\x12\x09\x0a\x07\x08\x01\x10\xa0\xd9\xe6\x1d\x1a4\x0a*type.googleapis.com/google.rpc.RequestInfo\x12\x06\x0a\x04an-1";

    #[test]
    fn a_refusal_is_that_of_python() {
        let fill = Fill {
            queued: 8192,
            max: 8192,
            seconds_per_image: 1.0625 / 8192.0,
        };
        let (text, details) = fill.refusal(5, b"an-1");
        let expected = "the queue holds 8192 of at most 8192 images and has no room for 5 more; \
                        retry in 1.062 s";
        assert_eq!(text, expected);
        assert_eq!(details, STATUS);
    }
}
