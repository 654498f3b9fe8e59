//! Follows the frames of HTTP/2 in bytes that come in pieces; nothing is copied or kept.

/// The client's first bytes, before its first frame.
pub const PREFACE_BYTES: usize = 24;
pub const HEAD_BYTES: usize = 9;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1; // of SETTINGS and PING
pub const END_STREAM: u8 = 1; // of DATA and HEADERS
pub const END_HEADERS: u8 = 4; // of HEADERS and CONTINUATION
pub const PADDED: u8 = 8; // of HEADERS
pub const PRIORITY: u8 = 0x20; // of HEADERS

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    pub length: u32,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Head {
    fn parse(bytes: [u8; HEAD_BYTES]) -> Self {
        let [a, b, c, kind, flags, w, x, y, z] = bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes([w & 0x7f, x, y, z]), // the first bit is reserved
        }
    }

    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Where in the frames one direction of a connection is.
pub struct Frames {
    /// Bytes to come before the next header.
    skip: usize,
    /// The bytes of a header that has come in part.
    part: [u8; HEAD_BYTES],
    have: usize,
}

impl Frames {
    /// The first frame comes after so many bytes.
    pub fn after(skip: usize) -> Self {
        Self {
            skip,
            part: [0; HEAD_BYTES],
            have: 0,
        }
    }

    /// Whether a frame has ended and the next not begun.
    pub fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.have == 0
    }

    /// Go over the next bytes and call `each` with the header of each frame that begins in them.
    #[inline]
    pub fn follow(&mut self, mut bytes: &[u8], mut each: impl FnMut(Head)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let header = match bytes.split_first_chunk() {
                Some((header, rest)) if self.have == 0 => {
                    bytes = rest;
                    *header
                }
                _ => match self.complete(&mut bytes) {
                    Some(header) => header,
                    None => return,
                },
            };
            let head = Head::parse(header);
            self.skip = head.length as usize;
            each(head);
        }
    }

    /// Like `follow`; call `payload` with the bytes of frames, in pieces as they come.
    #[inline]
    pub fn follow_payload<W>(
        &mut self,
        mut bytes: &mut [u8],
        watcher: &mut W,
        mut each: impl FnMut(&mut W, Head),
        mut payload: impl FnMut(&mut W, &mut [u8]),
    ) {
        loop {
            let (skipped, rest) = bytes.split_at_mut(self.skip.min(bytes.len()));
            self.skip -= skipped.len();
            if !skipped.is_empty() {
                payload(watcher, skipped);
            }
            let mut left = &*rest;
            let Some(header) = self.complete(&mut left) else {
                return;
            };
            let taken = rest.len() - left.len();
            bytes = &mut rest[taken..];
            let head = Head::parse(header);
            self.skip = head.length as usize;
            each(watcher, head);
        }
    }

    /// Add bytes to a header that has come in part, and return it when it is whole.
    fn complete(&mut self, bytes: &mut &[u8]) -> Option<[u8; HEAD_BYTES]> {
        let (taken, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - self.have));
        self.part[self.have..self.have + taken.len()].copy_from_slice(taken);
        self.have += taken.len();
        *bytes = rest;
        if self.have < HEAD_BYTES {
            return None;
        }
        self.have = 0;
        Some(self.part)
    }
}
