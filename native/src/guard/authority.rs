//! Makes the `:authority` of some clients one that h2 takes.
//!
//! gRPC's core has the percent-encoded path of a Unix domain socket there (`%2Ftmp%2Fsocket`), or a list
//! of addresses (`127.0.0.1:1,127.0.0.1:2`). h2 resets such calls, as no URL can have that host, and has
//! no setting for it. Nothing here reads the authority, so what h2 refuses becomes a `-` where it stands.
//! Only as plain text, which is how gRPC's core sends it; a value in HPACK's Huffman code stays.

use super::frames::{Head, CONTINUATION, END_HEADERS, HEADERS, PADDED, PRIORITY};

const NAME: &[u8] = b":authority";
const NAME_INDEX: u8 = 1; // in HPACK's static table

/// Where in a header block the next byte is: RFC 7541, section 6.
#[derive(Clone, Copy)]
enum At {
    Representation,
    /// A number goes on until a byte below 128.
    Number(After),
    NameLength,
    ValueLength {
        is_authority: bool,
    },
    /// The length goes on: what it is so far, and the place of its next 7 bits.
    Length {
        so_far: usize,
        shift: u32,
        of: Text,
    },
    Text {
        left: usize,
        of: Text,
    },
}

#[derive(Clone, Copy)]
enum After {
    Representation,
    Value,
}

#[derive(Clone, Copy, PartialEq)]
enum Text {
    Name,
    Value,
    Authority,
}

pub struct Authority {
    at: At,
    /// How much of this name is that of the authority; None: it has another.
    name: Option<usize>,
    /// Whether this value is no host of a URL, by what it has had so far.
    is_no_host: bool,
    /// Bytes of this frame: before its part of the block, of the part, and whether its length is
    /// still to be read from the padding.
    before: usize,
    block: usize,
    reads_padding: bool,
    ends_block: bool,
}

impl Default for Authority {
    fn default() -> Self {
        Self {
            at: At::Representation,
            name: None,
            is_no_host: false,
            before: 0,
            block: 0,
            reads_padding: false,
            ends_block: false,
        }
    }
}

impl Authority {
    /// Note the header of the next frame.
    pub fn begin(&mut self, head: Head) {
        let length = head.length as usize;
        (self.before, self.block, self.reads_padding) = (0, 0, false);
        self.ends_block = head.has(END_HEADERS);
        match head.kind {
            HEADERS => {
                self.before = if head.has(PRIORITY) { 5 } else { 0 };
                self.reads_padding = head.has(PADDED);
                let own = self.before + usize::from(self.reads_padding);
                self.block = length.saturating_sub(own);
            }
            CONTINUATION => self.block = length,
            _ => {}
        }
    }

    /// Go over the next bytes of the frame's payload.
    pub fn payload(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.reads_padding {
                self.reads_padding = false;
                self.block = self.block.saturating_sub(usize::from(*byte));
            } else if self.before > 0 {
                self.before -= 1;
            } else if self.block > 0 {
                self.block -= 1;
                self.follow(byte);
                if self.block == 0 && self.ends_block {
                    self.at = At::Representation;
                }
            } else {
                return; // padding
            }
        }
    }

    fn follow(&mut self, byte: &mut u8) {
        self.at = match self.at {
            At::Representation => representation(*byte),
            At::Number(after) => match (*byte < 0x80, after) {
                (false, after) => At::Number(after),
                (true, After::Representation) => At::Representation,
                (true, After::Value) => At::ValueLength {
                    is_authority: false,
                },
            },
            At::NameLength => {
                self.name = (usize::from(*byte) == NAME.len()).then_some(0); // so not in Huffman code
                length(*byte, Text::Name)
            }
            At::ValueLength { is_authority } => {
                let is_plain = *byte & 0x80 == 0;
                self.is_no_host = false;
                let of = if is_authority && is_plain {
                    Text::Authority
                } else {
                    Text::Value
                };
                length(*byte, of)
            }
            At::Length { so_far, shift, of } => {
                let part = usize::from(*byte & 0x7f) << shift.min(28); // h2 refuses longer ones
                let so_far = so_far.saturating_add(part);
                if *byte < 0x80 {
                    text(so_far, of)
                } else {
                    let shift = shift + 7;
                    At::Length { so_far, shift, of }
                }
            }
            At::Text { left, of } => {
                match of {
                    Text::Name => self.compare(*byte),
                    Text::Authority => self.mend(byte),
                    Text::Value => {}
                }
                if (left, of) == (1, Text::Name) {
                    let is_authority = self.name == Some(NAME.len());
                    At::ValueLength { is_authority }
                } else {
                    text(left - 1, of)
                }
            }
        };
    }

    fn compare(&mut self, byte: u8) {
        self.name = self
            .name
            .and_then(|at| (NAME.get(at) == Some(&byte)).then_some(at + 1));
    }

    fn mend(&mut self, byte: &mut u8) {
        self.is_no_host |= matches!(byte, b'%' | b',');
        // A list has more than the one colon of a host and its port.
        if *byte == b'%' || (self.is_no_host && *byte == b':') {
            *byte = b'-';
        }
    }
}

fn representation(byte: u8) -> At {
    const INDEXED: u8 = 0x80;
    const WITH_INDEXING: u8 = 0x40;
    const SIZE_UPDATE: u8 = 0x20;
    let (max, after) = if byte & INDEXED != 0 {
        (0x7f, After::Representation)
    } else if byte & WITH_INDEXING != 0 {
        (0x3f, After::Value)
    } else if byte & SIZE_UPDATE != 0 {
        (0x1f, After::Representation)
    } else {
        (0x0f, After::Value)
    };
    match (byte & max, after) {
        (number, after) if number == max => At::Number(after),
        (_, After::Representation) => At::Representation,
        (0, After::Value) => At::NameLength,
        (index, After::Value) => At::ValueLength {
            is_authority: index == NAME_INDEX,
        },
    }
}

fn length(byte: u8, of: Text) -> At {
    match usize::from(byte & 0x7f) {
        0x7f => At::Length {
            so_far: 0x7f,
            shift: 0,
            of,
        },
        length => text(length, of),
    }
}

fn text(left: usize, of: Text) -> At {
    match (left, of) {
        (0, Text::Name) => At::ValueLength {
            is_authority: false,
        },
        (0, _) => At::Representation,
        (left, of) => At::Text { left, of },
    }
}

#[cfg(test)]
mod tests;
