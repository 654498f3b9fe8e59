//! The bytes of requests that the server holds, over all connections: each has its windows, but
//! all of them together would take too much, and so would small messages that decompress to large.

use std::cell::Cell;
use std::rc::Rc;

use crate::grpc::{Status, RESOURCE_EXHAUSTED};

const MIN_MAX_BYTES: usize = 512 << 20;

pub struct Held {
    bytes: Cell<usize>,
    max: usize,
}

impl Held {
    /// Hold as much as some of the largest messages have, and not less than is usual.
    pub fn new(max_message_bytes: usize) -> Rc<Self> {
        Rc::new(Self {
            bytes: Cell::new(0),
            max: max_message_bytes.saturating_mul(4).max(MIN_MAX_BYTES),
        })
    }

    /// Refuse what would be held beyond the limit.
    pub fn check(&self) -> Result<(), Status> {
        let (bytes, max) = (self.bytes.get(), self.max);
        if bytes <= max {
            return Ok(());
        }
        let text = format!(
            "the server holds {bytes} bytes of requests that are not answered, more than {max}; \
             send it again later"
        );
        Err(Status::new(RESOURCE_EXHAUSTED, text))
    }
}

/// What is held of one call, until it is dropped.
pub struct Share {
    all: Rc<Held>,
    bytes: usize,
}

impl Share {
    pub fn new(all: &Rc<Held>) -> Self {
        Self {
            all: Rc::clone(all),
            bytes: 0,
        }
    }

    /// Count bytes in; an error says that they are too many.
    pub fn add(&mut self, bytes: usize) -> Result<(), Status> {
        self.bytes += bytes;
        self.all.bytes.set(self.all.bytes.get() + bytes);
        self.all.check()
    }

    pub fn remove(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.all.bytes.set(self.all.bytes.get() - bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.remove(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_beyond_the_limit_are_refused_until_others_end() {
        let held = Held::new(0);
        let mut first = Share::new(&held);
        assert_eq!(first.add(MIN_MAX_BYTES), Ok(()));
        let mut second = Share::new(&held);
        assert_eq!(second.add(1).unwrap_err().code, RESOURCE_EXHAUSTED);
        drop(first);
        assert_eq!(held.check(), Ok(()));
        drop(second);
        assert_eq!(held.bytes.get(), 0);
    }
}
