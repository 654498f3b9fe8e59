//! The bytes of requests that the server holds: of one connection, and of all together.
//!
//! A connection's windows bound what it may send ahead. They are given back as bytes come, for
//! messages that come interleaved all need to go on until one of them is whole; and they are kept while
//! more than enough whole messages wait for their answers. What is held beyond the limits is refused.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use h2::FlowControl;

use crate::grpc::{Status, RESOURCE_EXHAUSTED};

const MIN_MAX_BYTES: usize = 512 << 20;
/// Of one connection, so that it leaves room for others.
const CONNECTION_PART: usize = 2;
/// Whole messages of one connection for which its windows are given back.
const AMPLE_BYTES: usize = 8 << 20;

/// A number of bytes, and the most that it may be.
struct Count {
    bytes: Cell<usize>,
    max: usize,
    of: &'static str,
}

impl Count {
    fn add(&self, bytes: usize) -> Result<(), Status> {
        self.bytes.set(self.bytes.get() + bytes);
        let (bytes, max) = (self.bytes.get(), self.max);
        if bytes <= max {
            return Ok(());
        }
        let text = format!(
            "the server holds {bytes} bytes of requests {} that are not answered, more than {max}; \
             send it again later",
            self.of
        );
        Err(Status::new(RESOURCE_EXHAUSTED, text))
    }

    fn remove(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() - bytes);
    }
}

/// What is held of all connections.
pub struct Held(Count);

impl Held {
    /// Hold as much as some of the largest messages have, and not less than is usual.
    pub fn new(max_message_bytes: usize) -> Rc<Self> {
        Rc::new(Self(Count {
            bytes: Cell::new(0),
            max: max_message_bytes.saturating_mul(4).max(MIN_MAX_BYTES),
            of: "of all connections",
        }))
    }
}

/// What is held of one connection.
pub struct Inflow {
    all: Rc<Held>,
    own: Count,
    whole: Cell<usize>, // bytes of messages that wait for their answers
    kept: RefCell<Vec<(FlowControl, usize)>>,
}

impl Inflow {
    pub fn new(all: &Rc<Held>) -> Rc<Self> {
        Rc::new(Self {
            own: Count {
                bytes: Cell::new(0),
                max: all.0.max / CONNECTION_PART,
                of: "of this connection",
            },
            all: Rc::clone(all),
            whole: Cell::new(0),
            kept: RefCell::default(),
        })
    }

    fn remove_whole(&self, bytes: usize) {
        self.whole.set(self.whole.get() - bytes);
        if self.whole.get() <= AMPLE_BYTES {
            for (mut flow, bytes) in self.kept.take() {
                // An error says that the stream has ended: it has given all back.
                let _ = flow.release_capacity(bytes);
            }
        }
    }
}

/// What is held of one call, until it is dropped.
pub struct Share {
    inflow: Rc<Inflow>,
    bytes: usize,
    whole: usize,
}

impl Share {
    pub fn new(inflow: &Rc<Inflow>) -> Self {
        Self {
            inflow: Rc::clone(inflow),
            bytes: 0,
            whole: 0,
        }
    }

    /// Count bytes in that came on a stream; an error says that they are too many.
    pub fn receive(&mut self, bytes: usize, flow: &mut FlowControl) -> Result<(), Status> {
        self.add(bytes)?;
        if self.inflow.whole.get() <= AMPLE_BYTES {
            let _ = flow.release_capacity(bytes); // as above
        } else {
            self.inflow.kept.borrow_mut().push((flow.clone(), bytes));
        }
        Ok(())
    }

    pub fn add(&mut self, bytes: usize) -> Result<(), Status> {
        self.bytes += bytes;
        let own = self.inflow.own.add(bytes);
        self.inflow.all.0.add(bytes).and(own)
    }

    /// Note that a message of so many of the bytes is whole.
    pub fn complete(&mut self, bytes: usize) {
        self.whole += bytes;
        self.inflow.whole.set(self.inflow.whole.get() + bytes);
    }

    /// Count a whole message out.
    pub fn remove(&mut self, bytes: usize) {
        self.whole -= bytes;
        self.inflow.remove_whole(bytes);
        self.remove_bytes(bytes);
    }

    fn remove_bytes(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.inflow.own.remove(bytes);
        self.inflow.all.0.remove(bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.inflow.remove_whole(self.whole);
        self.remove_bytes(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_beyond_a_limit_are_refused_until_others_end() {
        let held = Held::new(0);
        let inflows = [Inflow::new(&held), Inflow::new(&held), Inflow::new(&held)];
        let mut first = Share::new(&inflows[0]);
        assert_eq!(first.add(MIN_MAX_BYTES / 2), Ok(()));
        let mut second = Share::new(&inflows[0]);
        let refused = second.add(1).unwrap_err();
        assert_eq!(refused.code, RESOURCE_EXHAUSTED);
        assert!(refused.text.contains("of this connection"));
        drop(second);
        let mut third = Share::new(&inflows[1]);
        assert_eq!(third.add(MIN_MAX_BYTES / 2), Ok(()));
        let mut fourth = Share::new(&inflows[2]);
        assert!(fourth.add(1).unwrap_err().text.contains("of all"));
        third.complete(100);
        third.remove(100);
        assert_eq!(fourth.add(1), Ok(()));
        drop((first, third, fourth));
        assert_eq!(held.0.bytes.get(), 0);
        assert!(inflows.iter().all(|inflow| inflow.whole.get() == 0));
    }
}
