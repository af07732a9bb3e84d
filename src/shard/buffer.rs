//! Buffers that the kernel fills and empties, and the shard's stock of them.
//!
//! ```text
//!   0 ......... begin ......... send_end ......... bytes.len() ......... capacity
//!   | consumed  | what a write sends | what is also here | what a read may fill |
//! ```
//!
//! A buffer is moved into the operation that uses it and comes back with its completion, so that
//! nobody can touch it meanwhile.

#![expect(
    unsafe_code,
    reason = "the kernel fills and empties buffers by pointer"
)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use monoio::buf::{IoBuf, IoBufMut};

/// The class that a rewritten request usually fits, which is kept until its answer comes.
pub(crate) const TINY: usize = 1024;
/// The class of buffer that a client's head is read into. It grows up to the listener's
/// `head_bytes_max`.
pub(crate) const SMALL: usize = 4 * 1024;
/// The class that responses are read into.
pub(crate) const MEDIUM: usize = 16 * 1024;
/// The class that long bodies are relayed through.
pub(crate) const LARGE: usize = 64 * 1024;

/// Bytes of one direction of one connection.
///
/// Invariant: `begin <= send_end <= bytes.len() <= bytes.capacity()`.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    begin: usize,
    send_end: usize,
}

impl Buffer {
    fn with_capacity(capacity: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(capacity),
            begin: 0,
            send_end: 0,
        }
    }

    /// What was read and is not consumed.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }

    /// As [`Buffer::filled`], to change in place.
    pub(crate) fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.begin..]
    }

    /// True exactly when nothing is left to consume.
    pub(crate) fn is_empty(&self) -> bool {
        self.begin == self.bytes.len()
    }

    /// Takes `count` bytes off the front.
    ///
    /// # Panics
    /// When there are fewer.
    pub(crate) fn consume(&mut self, count: usize) {
        self.begin += count;
        assert!(
            self.begin <= self.bytes.len(),
            "more was consumed than was read"
        );
        self.send_end = self.send_end.max(self.begin);
        if self.is_empty() {
            self.clear();
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.begin = 0;
        self.send_end = 0;
    }

    /// Where bytes are appended; what is appended is also sent by the next [`Buffer::send_all`].
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The next write sends the first `count` bytes of what is filled.
    pub(crate) fn send_first(&mut self, count: usize) {
        self.send_end = self.begin + count;
        assert!(
            self.send_end <= self.bytes.len(),
            "more was to be sent than was read"
        );
    }

    /// The next write sends all that is filled.
    pub(crate) fn send_all(&mut self) {
        self.send_end = self.bytes.len();
    }

    /// What the next write still sends.
    pub(crate) fn unsent(&self) -> usize {
        self.send_end - self.begin
    }

    /// How many more bytes fit without an allocation.
    pub(crate) fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// How many bytes there is room for in all.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Takes off what was to be sent and was not.
    pub(crate) fn discard_unsent(&mut self) {
        self.consume(self.unsent());
    }

    /// After a write: the first `count` bytes are sent. They stay, so that the same bytes can be
    /// sent once more.
    pub(crate) fn sent(&mut self, count: usize) {
        self.begin += count;
        debug_assert!(self.begin <= self.send_end);
    }

    /// Back to the first byte ever put in, to send all of it once more.
    pub(crate) fn rewind(&mut self) {
        self.begin = 0;
        self.send_all();
    }

    /// Makes room behind what is filled: moves it to the front, and grows up to `capacity_max`
    /// bytes in all where that is not enough. False when there is no room to be had.
    pub(crate) fn make_room(&mut self, capacity_max: usize) -> bool {
        if self.bytes.len() < self.bytes.capacity() {
            return true;
        }
        if 0 < self.begin {
            let filled = self.bytes.len() - self.begin;
            self.bytes.copy_within(self.begin.., 0);
            self.bytes.truncate(filled);
            self.begin = 0;
            self.send_end = 0;
            return true;
        }
        if capacity_max <= self.bytes.capacity() {
            return false;
        }
        // A head over the class is rare: this allocates, and the stock does not keep what has
        // grown.
        let target = (self.bytes.capacity() * 2).min(capacity_max);
        self.bytes.reserve_exact(target - self.bytes.len());
        true
    }
}

// SAFETY: `bytes` keeps its address while the buffer is owned by an operation, for nothing but the
// operation can reach it. The pointer is to the first byte not yet sent, and `bytes_init` bytes
// from there are initialised, for `send_end <= bytes.len()`.
unsafe impl IoBuf for Buffer {
    fn read_ptr(&self) -> *const u8 {
        self.bytes[self.begin..].as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.send_end - self.begin
    }
}

// SAFETY: as above; the pointer is to the first byte after what is initialised, with `bytes_total`
// bytes of capacity from there, and `set_init` is called with how many of those a completed read
// has written.
unsafe impl IoBufMut for Buffer {
    fn write_ptr(&mut self) -> *mut u8 {
        self.bytes.spare_capacity_mut().as_mut_ptr().cast()
    }

    fn bytes_total(&mut self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    unsafe fn set_init(&mut self, count: usize) {
        debug_assert!(count <= self.bytes.capacity() - self.bytes.len());
        // SAFETY: the caller's read has written `count` bytes from `write_ptr` on, within the
        // capacity.
        unsafe { self.bytes.set_len(self.bytes.len() + count) };
    }
}

/// What a write sends from, which knows how much of it is still to be sent.
pub(crate) trait Sending: IoBuf {
    /// What the next write still sends.
    fn unsent(&self) -> usize;

    /// After a write: the first `count` bytes are sent.
    fn sent(&mut self, count: usize);
}

impl Sending for Buffer {
    fn unsent(&self) -> usize {
        Self::unsent(self)
    }

    fn sent(&mut self, count: usize) {
        Self::sent(self, count);
    }
}

/// Bytes that many writes send, each from where it is; nobody changes them.
///
/// Invariant: `begin <= bytes.len()`.
#[derive(Debug)]
pub(crate) struct Shared {
    bytes: Rc<[u8]>,
    begin: usize,
}

impl Shared {
    /// All of `bytes`, from the first on.
    pub(crate) fn new(bytes: &Rc<[u8]>) -> Self {
        Self {
            bytes: Rc::clone(bytes),
            begin: 0,
        }
    }
}

impl Sending for Shared {
    fn unsent(&self) -> usize {
        self.bytes.len() - self.begin
    }

    fn sent(&mut self, count: usize) {
        self.begin += count;
        debug_assert!(self.begin <= self.bytes.len());
    }
}

// SAFETY: the bytes behind an `Rc` keep their address as long as one of its holders lives, which
// the operation that owns this is; they are never written again, for there is no way to them but a
// shared reference. All of them are initialised.
unsafe impl IoBuf for Shared {
    fn read_ptr(&self) -> *const u8 {
        self.bytes[self.begin..].as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.bytes.len() - self.begin
    }
}

/// A shard's unused buffers, by class.
///
/// A buffer is taken when there are bytes to put into it and put back when they are gone: while a
/// peer is awaited as few as can be are held, and the last one put back, whose lines are still in
/// the cache, is the next one taken. (With every buffer held through the whole exchange, 1,000
/// exchanges at once cost 1.3 times the user time; bench/README.md.) In the steady state every
/// exchange finds its buffers here and puts them back, so that it allocates nothing.
#[derive(Debug)]
pub(crate) struct Stock {
    tiny: Shelf,
    small: Shelf,
    medium: Shelf,
    large: Shelf,
    /// Bytes of all [`Share`]s.
    shared: Rc<Cell<usize>>,
}

/// What slow clients and endpoints may hold of a shard's memory beyond the least: larger buffers
/// while a body is relayed, and what is kept of one for another try. 10,000 of them would otherwise
/// hold 640 MiB; so the first some have what is fast, and the others what is enough.
const SHARED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// So much more there is for what is kept of requests alone.
const KEPT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Up to here parts may be as large as a `LARGE` buffer; beyond, `MEDIUM` ones.
const LARGE_BYTES_MAX: usize = 3 * 1024 * 1024;

/// A part of the memory for slow peers, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    of: Rc<Cell<usize>>,
    bytes: usize,
}

impl Share {
    /// Takes this part to `bytes`, more or fewer. False when there is no room for more: then it
    /// stays as it is.
    pub(crate) fn resize(&mut self, bytes: usize) -> bool {
        self.resize_within(
            bytes,
            if MEDIUM < bytes {
                LARGE_BYTES_MAX
            } else {
                SHARED_BYTES_MAX
            },
        )
    }

    /// As [`Share::resize`], for what is kept of requests: buffers can't take all of the room.
    pub(crate) fn resize_kept(&mut self, bytes: usize) -> bool {
        self.resize_within(bytes, SHARED_BYTES_MAX + KEPT_BYTES_MAX)
    }

    fn resize_within(&mut self, bytes: usize, limit: usize) -> bool {
        let others = self.of.get() - self.bytes;
        if self.bytes < bytes && limit < others + bytes {
            return false;
        }
        self.of.set(others + bytes);
        self.bytes = bytes;
        true
    }

    /// How large this part is.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.set(self.of.get() - self.bytes);
    }
}

#[derive(Debug)]
struct Shelf {
    class: usize,
    kept_max: usize,
    buffers: RefCell<Vec<Buffer>>,
}

impl Stock {
    /// An empty stock that keeps at most 4 MiB of each class.
    pub(crate) fn new() -> Self {
        const STOCK_BYTES_MAX: usize = 4 * 1024 * 1024;
        let shelf = |class| Shelf {
            class,
            kept_max: STOCK_BYTES_MAX / class,
            buffers: RefCell::new(Vec::with_capacity(STOCK_BYTES_MAX / class)),
        };
        Self {
            tiny: shelf(TINY),
            small: shelf(SMALL),
            medium: shelf(MEDIUM),
            large: shelf(LARGE),
            shared: Rc::default(),
        }
    }

    /// An empty buffer with room for `bytes`: of the least class that has it, or, beyond `MEDIUM`,
    /// one of just that size, which the stock will not keep.
    pub(crate) fn sized(&self, bytes: usize) -> Buffer {
        let class = [TINY, SMALL, MEDIUM]
            .into_iter()
            .find(|class| bytes <= *class);
        class.map_or_else(|| Buffer::with_capacity(bytes), |class| self.take(class))
    }

    /// A part of the memory for slow peers, of no bytes yet.
    pub(crate) fn share(&self) -> Share {
        Share {
            of: Rc::clone(&self.shared),
            bytes: 0,
        }
    }

    /// Exchanges an empty buffer for one of class `wanted` if it is smaller and there is room for
    /// that in its `share`; for a `SMALL` one there always is.
    pub(crate) fn enlarge(&self, buffer: &mut Buffer, share: &mut Share, wanted: usize) {
        if !buffer.is_empty() || wanted <= buffer.capacity() {
            return;
        }
        let larger = [wanted, MEDIUM];
        let fits = |class: &usize| *class <= wanted && SMALL < *class && share.resize(*class);
        let class = larger.into_iter().find(fits).unwrap_or(SMALL.min(wanted));
        if buffer.capacity() < class {
            self.put(std::mem::replace(buffer, self.take(class)));
        }
    }

    /// An empty buffer of a class.
    pub(crate) fn take(&self, class: usize) -> Buffer {
        let shelf = self.shelf(class);
        let kept = shelf.buffers.borrow_mut().pop();
        // Only until the stock has seen the shard's usual load.
        kept.unwrap_or_else(|| Buffer::with_capacity(class))
    }

    /// Exchanges a full buffer of the least class for one of the next, with what it holds.
    pub(crate) fn promote(&self, buffer: &mut Buffer) {
        if buffer.room() == 0 && buffer.capacity() < SMALL {
            let mut larger = self.take(SMALL);
            larger.tail().extend_from_slice(buffer.filled());
            self.put(std::mem::replace(buffer, larger));
        }
    }

    /// Takes a buffer back; one that has grown out of its class, or is one too many, is freed.
    pub(crate) fn put(&self, mut buffer: Buffer) {
        let capacity = buffer.bytes.capacity();
        if !matches!(capacity, TINY | SMALL | MEDIUM | LARGE) {
            return;
        }
        let mut kept = self.shelf(capacity).buffers.borrow_mut();
        if kept.len() < self.shelf(capacity).kept_max {
            buffer.clear();
            kept.push(buffer);
        }
    }

    fn shelf(&self, class: usize) -> &Shelf {
        let shelf = match class {
            TINY => &self.tiny,
            SMALL => &self.small,
            MEDIUM => &self.medium,
            _ => &self.large,
        };
        debug_assert_eq!(shelf.class, class);
        shelf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(bytes: &[u8]) -> Buffer {
        let mut buffer = Stock::new().take(SMALL);
        buffer.tail().extend_from_slice(bytes);
        buffer
    }

    #[test]
    fn what_was_sent_can_be_sent_once_more() {
        let mut buffer = filled(b"GET / HTTP/1.1\r\n");
        buffer.send_all();
        buffer.sent(5);
        assert_eq!(buffer.unsent(), 11);
        buffer.rewind();
        assert_eq!(buffer.unsent(), 16);
        assert_eq!(buffer.filled(), b"GET / HTTP/1.1\r\n");
    }

    #[test]
    fn a_part_may_be_sent_while_the_rest_waits() {
        let mut buffer = filled(b"bodynext");
        buffer.send_first(4);
        assert_eq!(buffer.unsent(), 4);
        buffer.sent(4);
        assert_eq!(buffer.filled(), b"next");
        buffer.consume(4);
        assert!(buffer.is_empty());
    }

    #[test]
    fn shared_bytes_are_sent_by_each_from_where_it_is() {
        let bytes: Rc<[u8]> = Rc::from(&b"request"[..]);
        let (mut one, other) = (Shared::new(&bytes), Shared::new(&bytes));
        one.sent(4);
        assert_eq!((one.unsent(), one.bytes_init()), (3, 3));
        assert_eq!(one.read_ptr(), bytes[4..].as_ptr());
        assert_eq!((other.unsent(), other.read_ptr()), (7, bytes.as_ptr()));
        one.sent(3);
        assert_eq!(one.unsent(), 0);
    }

    #[test]
    fn room_comes_from_the_front_first_and_then_from_growth_up_to_the_limit() {
        let mut buffer = filled(&[7; SMALL]);
        buffer.consume(1000);
        assert!(buffer.make_room(SMALL));
        assert_eq!(buffer.filled(), &[7; SMALL - 1000]);
        buffer.tail().extend_from_slice(&[8; 1000]);
        assert!(!buffer.make_room(SMALL));
        assert!(buffer.make_room(6000));
        assert_eq!(buffer.bytes.capacity(), 6000);
    }

    #[test]
    fn a_crowd_shares_what_there_is_for_slow_peers() {
        let stock = Stock::new();
        let mut shares = Vec::new();
        let capacities = [MEDIUM, LARGE].map(|wanted| {
            let mut last = 0;
            for _ in 0..1000 {
                let (mut buffer, mut share) = (stock.take(TINY), stock.share());
                stock.enlarge(&mut buffer, &mut share, wanted);
                shares.push(share);
                last = buffer.capacity();
            }
            last
        });
        assert_eq!(capacities, [SMALL; 2]);
        assert!(stock.shared.get() <= SHARED_BYTES_MAX);
        shares.clear();
        assert_eq!(stock.shared.get(), 0);
        let (mut buffer, mut share) = (stock.take(TINY), stock.share());
        stock.enlarge(&mut buffer, &mut share, LARGE);
        assert_eq!((buffer.capacity(), share.bytes()), (LARGE, LARGE));
    }

    #[test]
    fn the_stock_keeps_its_classes_and_nothing_else() {
        let stock = Stock::new();
        let mut grown = stock.take(SMALL);
        grown.tail().reserve(LARGE * 2);
        stock.put(grown);
        assert_eq!(stock.small.buffers.borrow().len(), 0);
        let mut buffer = stock.take(MEDIUM);
        buffer.tail().push(1);
        stock.put(buffer);
        assert!(stock.take(MEDIUM).is_empty());
    }
}
