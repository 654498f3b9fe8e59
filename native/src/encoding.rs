//! The compression of messages, with gRPC's own words for what is wrong with one.

use std::io::{ErrorKind, Read};

use bytes::Bytes;
use flate2::bufread::{GzDecoder, ZlibDecoder};
use http::header::{HeaderMap, HeaderValue};

use crate::grpc::{unreadable_key, Status, INTERNAL, RESOURCE_EXHAUSTED};

const KEY: &str = "grpc-encoding";

/// How the messages of a call are compressed, where their flag is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

impl Encoding {
    pub fn of(headers: &HeaderMap) -> Result<Self, Status> {
        match headers.get(KEY).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Ok(Self::Identity),
            Some(b"gzip") => Ok(Self::Gzip),
            Some(b"deflate") => Ok(Self::Deflate),
            Some(_) => Err(unreadable_key(KEY)),
        }
    }

    /// Return a message as it was before its compression, of at most `max` bytes.
    pub fn decompress(self, message: &[u8], max: usize) -> Result<Bytes, Status> {
        match self {
            Self::Identity => {
                let text = "Compression bit set but no encoding configured";
                Err(Status::new(INTERNAL, text))
            }
            _ if message.is_empty() => Ok(Bytes::new()),
            Self::Gzip => plain(GzDecoder::new(message), max, |decoder| decoder.into_inner()),
            Self::Deflate => plain(ZlibDecoder::new(message), max, |decoder| {
                decoder.into_inner()
            }),
        }
    }
}

fn plain<'a, D: Read>(
    mut decoder: D,
    max: usize,
    rest: impl FnOnce(D) -> &'a [u8],
) -> Result<Bytes, Status> {
    let mut plain = Vec::new();
    let limit = max as u64 + 1;
    if let Err(error) = decoder.by_ref().take(limit).read_to_end(&mut plain) {
        return Err(failed(match error.kind() {
            ErrorKind::UnexpectedEof => "data error",
            _ => "zlib error",
        }));
    }
    if plain.len() > max {
        let text = "Decompressed message larger than max";
        return Err(Status::new(RESOURCE_EXHAUSTED, text));
    }
    if !rest(decoder).is_empty() {
        return Err(failed("not all input consumed"));
    }
    Ok(plain.into())
}

fn failed(cause: &str) -> Status {
    let text = format!("Decompression failed due to {cause}");
    Status::new(INTERNAL, text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{write::GzEncoder, Compression};

    use super::*;

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn text(message: &[u8]) -> String {
        Encoding::Gzip.decompress(message, 1000).unwrap_err().text
    }

    #[test]
    fn bombs_are_refused_at_the_limit() {
        let message = gzipped(&[0; 1000]);
        assert_eq!(
            Encoding::Gzip.decompress(&message, 1000).unwrap().len(),
            1000
        );
        let refused = Encoding::Gzip.decompress(&message, 999).unwrap_err();
        assert_eq!(refused.code, RESOURCE_EXHAUSTED);
    }

    #[test]
    fn what_is_wrong_is_said_in_grpcs_words() {
        let message = gzipped(b"a message");
        let cut = &message[..message.len() - 9];
        assert_eq!(text(cut), "Decompression failed due to data error");
        assert_eq!(
            text(b"no gzip at all"),
            "Decompression failed due to zlib error"
        );
        let twice = [message.clone(), message].concat();
        assert_eq!(
            text(&twice),
            "Decompression failed due to not all input consumed"
        );
        assert_eq!(Encoding::Gzip.decompress(b"", 9), Ok(Bytes::new()));
    }
}
