//! The wire format of protobuf: a strict reader of fields, without copies, and a writer.
//!
//! The reader takes only what every implementation reads alike. `None` says that it is not sure:
//! tags of more than one byte, numbers that are not encoded minimally or are negative as an int64,
//! lengths that reach beyond the end. None of these need be wrong: protobuf itself decides then.

use bytes::{BufMut, BytesMut};

/// The wire types of the fields that the lane knows, as the low bits of a tag.
pub const VARINT: u8 = 0;
pub const LENGTH_DELIMITED: u8 = 2;

/// The most bytes of a number that is not negative as an int64.
const MAX_VARINT_BYTES: usize = 9;

/// Returns the tag of a field: 15 is the largest number whose tag is one byte.
pub const fn tag(field: u8, wire_type: u8) -> u8 {
    assert!(field >= 1 && field <= 15);
    field << 3 | wire_type
}

/// Reads the fields of one message, from its start to its end.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Returns what has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Returns the next byte, which is a tag if a field begins here; a longer tag matches none.
    pub fn tag(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// Returns a number that is minimally encoded and below 2^63.
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (at, &byte) in self.rest.iter().take(MAX_VARINT_BYTES).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                if byte == 0 && at > 0 {
                    return None;
                }
                self.rest = &self.rest[at + 1..];
                return Some(value);
            }
        }
        None
    }

    /// Returns the content of a field with a length.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (content, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(content)
    }
}

/// Puts a value where none is yet: what comes twice is merged, or the last counts.
pub fn put_once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    if slot.is_some() {
        return None;
    }
    *slot = Some(value);
    Some(())
}

/// Returns how many bytes a number takes.
pub const fn varint_len(value: u64) -> usize {
    // 7 bits a byte; 0 takes one as well.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Returns how many bytes a field takes whose content has that length.
pub const fn field_len(content: usize) -> usize {
    1 + varint_len(content as u64) + content
}

pub fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Writes what comes before the content of a field with a length.
pub fn put_header(out: &mut BytesMut, field: u8, content: usize) {
    out.put_u8(tag(field, LENGTH_DELIMITED));
    put_varint(out, content as u64);
}

pub fn put_bytes(out: &mut BytesMut, field: u8, content: &[u8]) {
    put_header(out, field, content.len());
    out.put_slice(content);
}

/// Writes a string that is not in the message at all when it is empty, as proto3 says.
pub fn put_string(out: &mut BytesMut, field: u8, text: &[u8]) {
    if !text.is_empty() {
        put_bytes(out, field, text);
    }
}

/// Returns how many bytes `put_string` writes.
pub const fn string_len(text: &[u8]) -> usize {
    if text.is_empty() {
        0
    } else {
        field_len(text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Option<(u64, usize)> {
        let mut reader = Reader::new(bytes);
        let value = reader.varint()?;
        Some((value, reader.rest.len()))
    }

    #[test]
    fn numbers_that_are_not_minimal_negative_or_cut_are_refused() {
        assert_eq!(read(&[0x00]), Some((0, 0)));
        assert_eq!(read(&[0x96, 0x01, 7]), Some((150, 1)));
        assert_eq!(read(&[0x80, 0x00]), None);
        assert_eq!(read(&[0xff, 0x80, 0x00]), None);
        assert_eq!(read(&[0x80]), None);
        assert_eq!(read(&[]), None);
        let mut largest = [0xff; 9];
        largest[8] = 0x7f;
        assert_eq!(read(&largest), Some((i64::MAX as u64, 0)));
        let negative = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(read(&negative), None);
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        assert_eq!(Reader::new(&[3, 1, 2, 3]).bytes(), Some(&[1, 2, 3][..]));
        assert_eq!(Reader::new(&[4, 1, 2, 3]).bytes(), None);
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1];
        assert_eq!(Reader::new(&huge).bytes(), None);
    }

    proptest! {
        #[test]
        fn numbers_come_back(value in 0..=i64::MAX as u64, shift in 0..63) {
            let value = value >> shift;
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(read(&out), Some((value, 0)));
        }

        #[test]
        fn whatever_is_read_is_written_back_alike(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            if let Some((value, left)) = read(&bytes) {
                let mut out = BytesMut::new();
                put_varint(&mut out, value);
                prop_assert_eq!(&out[..], &bytes[..bytes.len() - left]);
            }
        }
    }
}
