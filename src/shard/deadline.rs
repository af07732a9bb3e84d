//! Deadlines without timers: a coarse wheel that cuts connections whose peer took too long.
//!
//! No exchange starts a timer. A direction of a connection has a [`Watch`]; arming it writes a tick
//! and a cause into the wheel's entry. When the shard's tick finds an entry due, it records the
//! cause there and calls shutdown(2) on the connection: the pending operation ends by itself, its
//! task asks the watch what happened.
//!
//! Moving a deadline later, which every exchange does, is two stores: the entry stays where it is
//! parked, and the tick parks it anew when it comes by and finds the deadline in the future. Only a
//! deadline earlier than the parked one relinks.
//!
//! Invariant: an entry's descriptor is open. A watch dies before the stream whose descriptor it
//! names, and takes its entry along.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::RawFd;
use std::rc::Rc;

use crate::fd::{self, Cut, Glance};
use crate::plan::{ListenerId, Ticks};

/// What a connection was late with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// The client, with the rest of a request head or of its first one, or with its PROXY header.
    Head,
    /// The client, with the next part of a request body.
    RequestBody,
    /// The client, with its next request.
    KeepAlive,
    /// The client, with taking its answer.
    ClientSend,
    /// The client, with closing after we did.
    Linger,
    /// The endpoint, with taking the request.
    UpstreamSend,
    /// The endpoint, with the response head.
    Response,
    /// The endpoint, with the next part of the response.
    ResponseBody,
    /// The endpoint, with the try as far as the response head.
    Attempt,
    /// Either side, with the whole of the exchange.
    Exchange,
    /// Both sides of a tunnel, with sending anything; or one of them, with taking anything.
    Tunnel,
    /// The client is gone: it reset the connection while an answer was awaited for it.
    Gone,
    /// Nobody: the drain's time is over.
    Drain,
}

impl Late {
    /// A client that is still owed an answer (408) keeps its way back.
    const fn cut(self) -> Cut {
        match self {
            Self::Head | Self::RequestBody => Cut::Reading,
            _ => Cut::Both,
        }
    }
}

/// The slots of the wheel: 102.4 seconds of ticks. A later deadline is parked in the farthest slot
/// and again from there.
const SLOTS: u32 = 1024;
const NONE: u32 = u32::MAX;
/// Stands for the entry behind a client whose exchange waits in a queue.
const QUEUE: u32 = NONE - 1;
/// How long an idle client has to close when we have ended our side: half a second, which is more
/// than what it has sent by then takes.
const PARTING: Ticks = Ticks(5);
/// Clients that are usually looked at in one tick; more allocate, once.
const GLANCE: usize = 1024;

/// A shard's deadlines.
#[derive(Debug)]
pub(crate) struct Wheel {
    inner: RefCell<Inner>,
    /// Operations in a row that were ready at once, of whatever connection: see `Shard::give_way`.
    turns: Cell<u32>,
}

#[derive(Debug)]
struct Inner {
    /// The tick that was last looked at.
    now: u32,
    /// The first entry of each slot, or `NONE`.
    slots: Box<[u32]>,
    entries: Vec<Entry>,
    /// The first free entry, chained by `next`, or `NONE`.
    free: u32,
    /// For `look_for_gone`.
    glance: Glance,
}

#[derive(Debug)]
struct Entry {
    /// `NONE as RawFd` exactly when the entry is free.
    fd: RawFd,
    /// The tick at which the connection is cut, or `NONE`.
    deadline: u32,
    late: Late,
    /// The tick that no deadline is later than, or `NONE`, and what is late then.
    bound: (u32, Late),
    expired: Option<Late>,
    /// The entry of the connection to cut when this one is found gone; `QUEUE` where there is none
    /// yet, `NONE` where nobody asks.
    behind: u32,
    /// The tick at which `behind` was set.
    guarded: u32,
    /// Whose client this is, or what its tunnel leads to; `NOBODY` for the others.
    listener: ListenerId,
    /// The tick whose slot the entry is linked in, or `NONE`: `parked <= deadline` where both are,
    /// unless the deadline has passed.
    parked: u32,
    next: u32,
    previous: u32,
}

const FREE: RawFd = -1;
const NOBODY: ListenerId = ListenerId(NONE);

impl Wheel {
    /// A wheel without entries, at tick 0.
    pub(crate) fn new() -> Rc<Self> {
        let slots = vec![NONE; SLOTS as usize].into_boxed_slice();
        let inner = Inner {
            now: 0,
            slots,
            entries: Vec::new(),
            free: NONE,
            glance: Glance::with_capacity(GLANCE),
        };
        Rc::new(Self {
            inner: RefCell::new(inner),
            turns: Cell::new(0),
        })
    }

    /// Watches a direction of the connection `fd`.
    pub(crate) fn watch(self: &Rc<Self>, fd: RawFd) -> Watch {
        let entry = self.inner.borrow_mut().insert(fd);
        Watch {
            wheel: Rc::clone(self),
            entry,
        }
    }

    /// Moves on to tick `now` and cuts every connection that is due by then.
    pub(crate) fn advance(&self, now: u32) {
        self.inner.borrow_mut().advance(now);
    }

    /// Brings the deadline of every client of `listeners`, which ascend, that is late with `late`
    /// down to `ticks` from now, where it is later.
    pub(crate) fn hasten(&self, listeners: &[ListenerId], late: Late, ticks: Ticks) {
        let mut inner = self.inner.borrow_mut();
        let deadline = inner.now.saturating_add(ticks.0 + 1);
        for index in 0..inner.entries.len() {
            let entry = &inner.entries[index];
            if entry.fd != FREE
                && entry.late == late
                && deadline < entry.deadline
                && entry.deadline != NONE
                && listeners.binary_search(&entry.listener).is_ok()
            {
                inner.arm(index as u32, ticks, late);
            }
        }
    }

    /// Looks whether the clients for whom an answer has been awaited for a whole tick are still
    /// there, and cuts the connection behind each that is not. Gives the entries of those whose
    /// exchange waits in a queue; they ascend. Walks over all entries, flat in memory, ten times a
    /// second; an exchange pays two stores for it.
    pub(crate) fn look_for_gone(&self) -> Vec<u32> {
        let mut queued = Vec::new();
        let Inner {
            now,
            entries,
            glance,
            ..
        } = &mut *self.inner.borrow_mut();
        let is_due = |entry: &&Entry| entry.behind != NONE && entry.guarded < *now;
        if !entries.iter().any(|entry| is_due(&entry)) {
            return queued;
        }
        let guarded = entries.iter().filter(is_due).map(|entry| entry.fd);
        let mut gone: Vec<_> = glance.gone(guarded).collect();
        gone.sort_unstable();
        for index in 0..entries.len() {
            let Entry { fd, behind, .. } = entries[index];
            if behind != NONE && gone.binary_search(&fd).is_ok() {
                // What was cut by us looks gone as well; its cause stays.
                entries[index].expired.get_or_insert(Late::Gone);
                if behind == QUEUE {
                    queued.push(index as u32);
                    continue;
                }
                let behind = &mut entries[behind as usize];
                behind.expired.get_or_insert(Late::Gone);
                fd::cut(behind.fd, Cut::Both);
            }
        }
        queued
    }

    /// Cuts the connection of `entry`, which is alive, for `late`.
    pub(crate) fn cut(&self, entry: u32, late: Late) {
        let entry = &mut self.inner.borrow_mut().entries[entry as usize];
        debug_assert!(entry.fd != FREE, "nobody is there to be cut");
        entry.expired.get_or_insert(late);
        fd::cut(entry.fd, Cut::Both);
    }

    /// Cuts every upstream connection for whose answer a client waits, be it of `listener` or, with
    /// `None`, of any: the drain is over, and that is what these clients are told.
    pub(crate) fn cut_behind(&self, listener: Option<ListenerId>) {
        let entries = &mut self.inner.borrow_mut().entries;
        for index in 0..entries.len() {
            let behind = entries[index].behind;
            if behind < QUEUE && entries[index].is_of(listener) {
                let behind = &mut entries[behind as usize];
                behind.expired = Some(Late::Drain);
                fd::cut(behind.fd, Cut::Both);
            }
        }
    }

    /// Cuts up to `count` clients that are idle between two requests, as if their time were over,
    /// those first for whom it would be first. One that has just sent something is not idle. Walks
    /// over all entries. Returns how many were cut.
    pub(crate) fn give_up_idle(&self, count: usize) -> usize {
        if count == 0 {
            return 0;
        }
        let entries = &mut self.inner.borrow_mut().entries;
        let idle = |entry: &Entry| {
            entry.fd != FREE && entry.late == Late::KeepAlive && entry.deadline != NONE
        };
        let clients = (0..).zip(&*entries).filter(|(_, entry)| idle(entry));
        let clients = clients.map(|(index, entry)| Reverse((entry.deadline, index)));
        let mut clients: BinaryHeap<Reverse<(u32, usize)>> = clients.collect();
        let mut cut = 0;
        while cut < count
            && let Some(Reverse((_, index))) = clients.pop()
        {
            let entry = &mut entries[index];
            if fd::is_quiet(entry.fd) {
                entry.expire();
                cut += 1;
            }
        }
        cut
    }

    /// The shard's count of operations that were ready at once.
    pub(crate) fn turns(&self) -> &Cell<u32> {
        &self.turns
    }

    /// Cuts every connection at once, or those of `listener`: the drain is over.
    pub(crate) fn cut_all(&self, listener: Option<ListenerId>) {
        let mut inner = self.inner.borrow_mut();
        let is_cut = |entry: &&mut Entry| entry.fd != FREE && entry.is_of(listener);
        for entry in inner.entries.iter_mut().filter(is_cut) {
            entry.expired = Some(Late::Drain);
            fd::cut(entry.fd, Cut::Both);
        }
    }

    /// The descriptors of every connection, each once: what a shard that died leaves behind.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let inner = self.inner.borrow();
        let mut open: Vec<_> = inner
            .entries
            .iter()
            .map(|entry| entry.fd)
            .filter(|fd| *fd != FREE)
            .collect();
        open.sort_unstable();
        open.dedup();
        open
    }
}

impl Inner {
    fn insert(&mut self, fd: RawFd) -> u32 {
        let entry = Entry {
            fd,
            deadline: NONE,
            late: Late::Head,
            bound: (NONE, Late::Head),
            expired: None,
            behind: NONE,
            guarded: 0,
            listener: NOBODY,
            parked: NONE,
            next: NONE,
            previous: NONE,
        };
        if self.free == NONE {
            self.entries.push(entry);
            return self.entries.len() as u32 - 1;
        }
        let index = self.free;
        self.free = self.entries[index as usize].next;
        self.entries[index as usize] = entry;
        index
    }

    fn remove(&mut self, index: u32) {
        self.unpark(index);
        let entry = &mut self.entries[index as usize];
        entry.fd = FREE;
        entry.behind = NONE;
        entry.next = self.free;
        self.free = index;
    }

    fn arm(&mut self, index: u32, ticks: Ticks, late: Late) {
        // One more than asked for: the running tick is already partly over.
        let deadline = if ticks.0 == 0 {
            NONE
        } else {
            self.now.saturating_add(ticks.0 + 1)
        };
        let entry = &mut self.entries[index as usize];
        (entry.deadline, entry.late) = if entry.bound.0 < deadline {
            entry.bound
        } else {
            (deadline, late)
        };
        if entry.deadline < entry.parked {
            self.unpark(index);
            self.park(index);
        }
    }

    fn bound(&mut self, index: u32, bound: (u32, Late)) {
        let entry = &mut self.entries[index as usize];
        let was_armed = entry.is_armed();
        entry.bound = bound;
        if !was_armed || bound.0 < entry.deadline {
            (entry.deadline, entry.late) = bound;
        }
        if entry.deadline < entry.parked {
            self.unpark(index);
            self.park(index);
        }
    }

    fn advance(&mut self, now: u32) {
        // After a long stall every slot is looked at once, not once a missed turn.
        let first = (self.now + 1).max(now.saturating_sub(SLOTS - 1));
        for tick in first..=now {
            self.now = tick;
            let mut index = self.slots[(tick % SLOTS) as usize];
            while index != NONE {
                let next = self.entries[index as usize].next;
                self.visit(index, now);
                index = next;
            }
        }
        self.now = self.now.max(now);
    }

    fn visit(&mut self, index: u32, now: u32) {
        self.unpark(index);
        let entry = &mut self.entries[index as usize];
        if entry.deadline <= now && entry.late == Late::KeepAlive {
            self.part(index);
        } else if entry.deadline <= now {
            entry.expire();
        } else if entry.deadline != NONE {
            self.park(index);
        }
    }

    /// Ends our side of a client that was idle for too long. One that has just sent something is
    /// not idle: its task is about to read that. What crosses the end on its way is read away for
    /// a while and not answered by a reset, from which a client could not tell that nothing has
    /// come of its request (RFC 9112 section 9.6).
    fn part(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.deadline = NONE;
        if fd::is_quiet(entry.fd) {
            entry.expired = Some(Late::KeepAlive);
            fd::cut(entry.fd, Cut::Writing);
            self.arm(index, PARTING, Late::Linger);
        }
    }

    fn park(&mut self, index: u32) {
        // What is due already, as a bound may be, is due at the next tick; in a slot that has been
        // looked at it would be so a whole turn of the wheel later.
        let tick = self.entries[index as usize]
            .deadline
            .clamp(self.now + 1, self.now + SLOTS - 1);
        let slot = (tick % SLOTS) as usize;
        let head = self.slots[slot];
        let entry = &mut self.entries[index as usize];
        entry.parked = tick;
        entry.next = head;
        entry.previous = NONE;
        if head != NONE {
            self.entries[head as usize].previous = index;
        }
        self.slots[slot] = index;
    }

    fn unpark(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        if entry.parked == NONE {
            return;
        }
        let (slot, next, previous) = ((entry.parked % SLOTS) as usize, entry.next, entry.previous);
        entry.parked = NONE;
        match previous {
            NONE => self.slots[slot] = next,
            previous => self.entries[previous as usize].next = next,
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
    }
}

impl Entry {
    /// True exactly when it is of `listener`, where that is asked.
    fn is_of(&self, listener: Option<ListenerId>) -> bool {
        listener.is_none_or(|listener| self.listener == listener)
    }

    /// True exactly while it has a deadline of its own, before its bound.
    fn is_armed(&self) -> bool {
        self.deadline < self.bound.0
    }

    /// Its time is over.
    fn expire(&mut self) {
        self.deadline = NONE;
        self.bound.0 = NONE;
        self.expired = Some(self.late);
        fd::cut(self.fd, self.late.cut());
    }
}

/// The deadline of one direction of one connection; it is gone with its watch.
#[derive(Debug)]
pub(crate) struct Watch {
    wheel: Rc<Wheel>,
    entry: u32,
}

impl Watch {
    /// From now on the connection is cut when `ticks` have passed without another call, for being
    /// late with `late`. No ticks: no deadline.
    pub(crate) fn arm(&self, ticks: Ticks, late: Late) {
        self.wheel.inner.borrow_mut().arm(self.entry, ticks, late);
    }

    /// It is a client of `listener`, or what its tunnel leads to: it is cut with that.
    pub(crate) fn belongs_to(&self, listener: ListenerId) {
        self.wheel.inner.borrow_mut().entries[self.entry as usize].listener = listener;
    }

    /// Takes the deadline away.
    pub(crate) fn disarm(&self) {
        self.arm(Ticks(0), Late::Head);
    }

    /// True exactly while there is a deadline, apart from a bound.
    pub(crate) fn is_armed(&self) -> bool {
        self.wheel.inner.borrow().entries[self.entry as usize].is_armed()
    }

    /// From now on no deadline of this connection is later than tick `at`, and without one that is
    /// its deadline, for being late with `late`. It takes the place of an earlier bound.
    pub(crate) fn bound(&self, at: u32, late: Late) {
        self.wheel.inner.borrow_mut().bound(self.entry, (at, late));
    }

    /// Takes the bound away, and the deadline where it is that.
    pub(crate) fn unbound(&self) {
        self.bound(NONE, Late::Head);
    }

    /// From now on this connection is looked at: when it is gone, the one that `behind` watches is
    /// cut.
    pub(crate) fn guard(&self, behind: &Self) {
        self.guard_entry(behind.entry);
    }

    fn guard_entry(&self, behind: u32) {
        let mut inner = self.wheel.inner.borrow_mut();
        let now = inner.now;
        let entry = &mut inner.entries[self.entry as usize];
        entry.behind = behind;
        entry.guarded = now;
    }

    /// As [`Watch::guard`], while there is no connection behind: the exchange waits in a queue.
    pub(crate) fn guard_waiting(&self) {
        self.guard_entry(QUEUE);
    }

    /// Ends what [`Watch::guard`] began; to be called before the watch behind dies.
    pub(crate) fn unguard(&self) {
        self.wheel.inner.borrow_mut().entries[self.entry as usize].behind = NONE;
    }

    /// Its entry in the wheel: no other watch has it while this one lives.
    pub(crate) fn entry(&self) -> u32 {
        self.entry
    }

    /// The shard's count of operations that were ready at once.
    pub(crate) fn turns(&self) -> &Cell<u32> {
        &self.wheel.turns
    }

    /// Why the connection was cut, if it was.
    pub(crate) fn expired(&self) -> Option<Late> {
        self.wheel.inner.borrow().entries[self.entry as usize].expired
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.wheel.inner.borrow_mut().remove(self.entry);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use proptest::prelude::*;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn a_bound_that_has_passed_already_is_due_at_the_next_tick() {
        let (mut client, _peer) = pair();
        let wheel = Wheel::new();
        wheel.advance(5);
        let watch = wheel.watch(client.as_raw_fd());
        watch.bound(5, Late::Exchange);
        watch.arm(Ticks(3), Late::Response);
        wheel.advance(6);
        assert_eq!(watch.expired(), Some(Late::Exchange));
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_connection_that_is_late_is_cut_and_told_why() {
        let (mut client, _peer) = pair();
        let wheel = Wheel::new();
        let watch = wheel.watch(client.as_raw_fd());
        watch.arm(Ticks(3), Late::Head);
        wheel.advance(3);
        assert_eq!(watch.expired(), None);
        wheel.advance(4);
        assert_eq!(watch.expired(), Some(Late::Head));
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_deadline_that_moves_or_goes_does_not_cut() {
        let (client, _peer) = pair();
        let wheel = Wheel::new();
        let watch = wheel.watch(client.as_raw_fd());
        watch.arm(Ticks(2), Late::Head);
        wheel.advance(2);
        watch.arm(Ticks(10), Late::KeepAlive);
        wheel.advance(12);
        assert_eq!(watch.expired(), None);
        watch.disarm();
        wheel.advance(100);
        assert_eq!(watch.expired(), None);
        watch.arm(Ticks(5000), Late::Linger);
        wheel.advance(5100);
        assert_eq!(watch.expired(), None);
        wheel.advance(5101);
        assert_eq!(watch.expired(), Some(Late::Linger));
    }

    #[test]
    fn an_idle_client_is_parted_from_by_a_fin_unless_it_has_just_sent_something() {
        let (mut client, mut peer) = pair();
        let wheel = Wheel::new();
        let watch = wheel.watch(client.as_raw_fd());
        watch.arm(Ticks(5), Late::KeepAlive);
        peer.write_all(b"x").unwrap();
        wheel.advance(6);
        assert_eq!(watch.expired(), None, "it is about to be read");
        client.read_exact(&mut [0]).unwrap();
        watch.arm(Ticks(5), Late::KeepAlive);
        wheel.advance(12);
        assert_eq!(watch.expired(), Some(Late::KeepAlive));
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        // What crosses the end can still be read.
        peer.write_all(b"y").unwrap();
        client.read_exact(&mut [0]).unwrap();
        wheel.advance(12 + PARTING.0 + 1);
        assert_eq!(watch.expired(), Some(Late::Linger));
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_bound_holds_whatever_deadlines_come_and_go() {
        let (client, _peer) = pair();
        // Moves before tick 10, the bound at tick 20 being there, and when it expires for what.
        type Moves = fn(&Watch);
        let cases: [(Moves, u32, Late); 5] = [
            (|_| {}, 20, Late::Exchange),
            (
                |watch| watch.arm(Ticks(500), Late::Response),
                20,
                Late::Exchange,
            ),
            (
                |watch| watch.arm(Ticks(5), Late::Response),
                16,
                Late::Response,
            ),
            (
                |watch| {
                    watch.arm(Ticks(5), Late::Response);
                    watch.disarm();
                },
                20,
                Late::Exchange,
            ),
            (|watch| watch.bound(15, Late::Attempt), 15, Late::Attempt),
        ];
        for (place, (moves, due, late)) in cases.into_iter().enumerate() {
            let wheel = Wheel::new();
            let watch = wheel.watch(client.as_raw_fd());
            watch.bound(20, Late::Exchange);
            wheel.advance(10);
            assert!(!watch.is_armed());
            moves(&watch);
            wheel.advance(due - 1);
            assert_eq!(watch.expired(), None, "{place}");
            wheel.advance(due);
            assert_eq!(watch.expired(), Some(late), "{place}");
        }
        let wheel = Wheel::new();
        let watch = wheel.watch(client.as_raw_fd());
        watch.bound(20, Late::Exchange);
        watch.arm(Ticks(30), Late::Response);
        watch.unbound();
        wheel.advance(100);
        assert_eq!(watch.expired(), None, "its deadline was the bound");
    }

    #[test]
    fn an_earlier_deadline_takes_the_place_of_a_later_one() {
        let (client, _peer) = pair();
        let wheel = Wheel::new();
        let watch = wheel.watch(client.as_raw_fd());
        watch.arm(Ticks(750), Late::KeepAlive);
        watch.arm(Ticks(5), Late::Response);
        wheel.advance(6);
        assert_eq!(watch.expired(), Some(Late::Response));
    }

    #[test]
    fn the_idle_clients_that_were_quiet_for_longest_are_given_up_first() {
        let wheel = Wheel::new();
        let mut clients: Vec<_> = (0..5).map(|_| pair()).collect();
        let watches: Vec<_> = clients
            .iter()
            .map(|(_, stream)| wheel.watch(stream.as_raw_fd()))
            .collect();
        // The last one is served, and the one before it has just sent its next request.
        for (now, place) in (1..).zip([2, 0, 3, 1]) {
            watches[place].arm(Ticks(100), Late::KeepAlive);
            wheel.advance(now);
        }
        watches[4].arm(Ticks(1), Late::Response);
        clients[3].0.write_all(b"GET").unwrap();
        let given_up = |count| {
            let cut = wheel.give_up_idle(count);
            let is_cut = |place: &usize| watches[*place].expired() == Some(Late::KeepAlive);
            (cut, (0..5).filter(is_cut).collect::<Vec<_>>())
        };
        assert_eq!(given_up(0), (0, vec![]));
        assert_eq!(given_up(1), (1, vec![2]));
        assert_eq!(given_up(9), (2, vec![0, 1, 2]));
        assert_eq!(given_up(9), (0, vec![0, 1, 2]));
        assert_eq!(clients[2].0.read(&mut [0]).unwrap(), 0);
    }

    proptest! {
        #[test]
        fn every_entry_expires_at_its_last_deadline_and_not_before(
            moves in prop::collection::vec((0usize..8, 0u32..3000, 1u32..400), 1..200),
        ) {
            let (client, _peer) = pair();
            let wheel = Wheel::new();
            let watches: Vec<_> = (0..8).map(|_| wheel.watch(client.as_raw_fd())).collect();
            let mut expected = [None; 8];
            let mut now = 0;
            for (entry, ticks, step) in moves {
                watches[entry].arm(Ticks(ticks), Late::Response);
                if watches[entry].expired().is_none() {
                    expected[entry] = (ticks != 0).then(|| now + ticks + 1);
                }
                now += step;
                wheel.advance(now);
                for (watch, expected) in watches.iter().zip(expected) {
                    let due = expected.is_some_and(|deadline| deadline <= now);
                    prop_assert_eq!(watch.expired().is_some(), due);
                }
            }
        }
    }
}
