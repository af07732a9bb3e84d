//! How many connections each endpoint has, and who waits for one.
//!
//! A connection has a [`Seat`] at its endpoint from before it is made until it is closed, in use or
//! idle. Where `connections_max` leaves an exchange none at any endpoint that it may use, it stands
//! in its service's [`Queue`]. A seat that becomes free, with its connection where that can be used
//! again, is given to the first in the queue who may use it, before anybody else can take it. The
//! tick ends the waits that are over: no wait has a timer.
//!
//! Invariant: while somebody waits who may use an endpoint, that endpoint has nothing to give. So
//! whoever comes later may take what is free, and overtakes nobody. Whether an exchange would use
//! an endpoint now (it may be ejected, or not in the plan that the exchange began under) only the
//! exchange knows: it is given the seat, and passes it on to those behind it ([`Given::pass_on`]).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::io::Stream;
use crate::fault::Fault;
use crate::plan::Slot;
use crate::plan::service::ATTEMPTS_MAX;

/// The most tries that any configuration allows, the first included.
pub(crate) const TRIES_MAX: usize = ATTEMPTS_MAX as usize + 1;
/// Exchanges that a queue keeps room for when nobody waits any more.
const KEPT_MAX: usize = 256;

/// An endpoint, as far as its connections are counted.
#[derive(Debug)]
pub(crate) struct Place {
    /// The endpoint's slot.
    slot: Slot,
    /// Its seats that are taken.
    open: Cell<u32>,
    /// Where exchanges of its service wait.
    queue: RefCell<Rc<Queue>>,
}

/// One connection's seat at an endpoint, free again when it is dropped: after its connection.
#[derive(Debug)]
pub(crate) struct Seat {
    place: Rc<Place>,
    /// True exactly when nobody who waits has a use for it.
    was_refused: bool,
}

/// What an exchange has waited for.
#[derive(Debug)]
pub(crate) struct Given {
    /// An open connection; `None` when one is to be made.
    pub(crate) kept: Option<Stream>,
    /// Its seat.
    pub(crate) seat: Seat,
}

/// The exchanges of one service that wait, in the order in which they are served.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// By their tickets, which ascend.
    waiting: RefCell<VecDeque<Waiting>>,
}

/// What an exchange waits for, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Its turn: no other exchange of the shard has the same, and a later one has a greater one.
    pub(crate) ticket: u64,
    /// The indices of the slots of endpoints that it can't use; `u32::MAX` where there are fewer.
    pub(crate) barred: [u32; TRIES_MAX],
    /// The seats that its endpoints have.
    pub(crate) limit: NonZeroU32,
    /// The tick at which it has waited long enough.
    pub(crate) deadline: u32,
    /// The entry of its client in the wheel.
    pub(crate) client: u32,
}

impl Wish {
    /// For nothing but time to pass, where nobody has anything to give.
    pub(crate) const fn time(ticket: u64, deadline: u32, client: u32) -> Self {
        Self {
            ticket,
            barred: [u32::MAX; TRIES_MAX],
            limit: NonZeroU32::MIN,
            deadline,
            client,
        }
    }
}

/// An exchange in the queue.
#[derive(Debug)]
struct Waiting {
    wish: Wish,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing has become free for it.
    Waits(Waker),
    /// It was woken and has not yet left the queue.
    Ended(Result<Given, Fault>),
}

/// A wait in a queue; dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Wait {
    queue: Rc<Queue>,
    ticket: u64,
}

impl Place {
    /// Of the endpoint with `slot`, whose service's exchanges wait in `queue`.
    pub(crate) fn new(slot: Slot, queue: &Rc<Queue>) -> Rc<Self> {
        Rc::new(Self {
            slot,
            open: Cell::new(0),
            queue: RefCell::new(Rc::clone(queue)),
        })
    }

    /// Where exchanges of its service wait.
    pub(crate) fn queue(&self) -> Rc<Queue> {
        Rc::clone(&self.queue.borrow())
    }

    /// From now on they wait in `queue`.
    pub(crate) fn set_queue(&self, queue: &Rc<Queue>) {
        *self.queue.borrow_mut() = Rc::clone(queue);
    }

    /// Gives the seats that are free to those who wait: the endpoint can be used again.
    pub(crate) fn offer(self: &Rc<Self>) {
        let queue = self.queue();
        while queue.offer(self) {}
    }

    /// True exactly when fewer than `limit` seats are taken.
    pub(crate) fn has_seat(&self, limit: NonZeroU32) -> bool {
        self.open.get() < limit.get()
    }
}

impl Seat {
    /// Takes a seat; that there is one is for the caller to know.
    pub(crate) fn take(place: &Rc<Place>) -> Self {
        place.open.set(place.open.get() + 1);
        Self {
            place: Rc::clone(place),
            was_refused: false,
        }
    }

    /// The slot of its endpoint.
    pub(crate) fn slot(&self) -> Slot {
        self.place.slot
    }

    /// True exactly when somebody waits for this very seat.
    pub(crate) fn is_awaited(&self) -> bool {
        let queue = self.place.queue.borrow();
        let waiting = queue.waiting.borrow();
        waiting.iter().any(|waiting| waiting.may_use(self.slot()))
    }

    /// Gives the seat and its connection to the first who waits for it; nobody: both are dropped.
    pub(crate) fn hand_on(self, kept: Stream) {
        let queue = self.place.queue();
        let slot = self.slot();
        let mut waiting = queue.waiting.borrow_mut();
        let first = waiting.iter_mut().find(|waiting| waiting.may_use(slot));
        let given = Given {
            kept: Some(kept),
            seat: self,
        };
        match first {
            Some(first) => first.end(Ok(given)),
            None => drop((waiting, given)),
        }
    }
}

impl Given {
    /// Gives it to the first who may use it of those whose tickets are behind `ticket`; nobody: it
    /// is dropped, and offered to nobody. Each has then had it once. From the front again it would
    /// go round among those who do not use it, and nothing else would have its turn.
    pub(crate) fn pass_on(mut self, ticket: u64) {
        let queue = self.seat.place.queue();
        let (slot, open) = (self.seat.slot(), self.seat.place.open.get());
        let mut waiting = queue.waiting.borrow_mut();
        let next = waiting.iter_mut().find(|waiting| {
            let Wish { limit, .. } = waiting.wish;
            ticket < waiting.wish.ticket && waiting.may_use(slot) && open <= limit.get()
        });
        match next {
            Some(next) => next.end(Ok(self)),
            None => self.seat.was_refused = true,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let place = &self.place;
        place.open.set(place.open.get() - 1);
        if self.was_refused {
            return;
        }
        let queue = place.queue.borrow();
        if !queue.is_empty() {
            queue.offer(place);
        }
    }
}

impl Queue {
    /// Waits for a seat at one of the service's endpoints.
    ///
    /// # Errors
    /// `ConnectionLimitReached` at its deadline, `ClientGone`, `DrainTimeout`.
    pub(crate) fn wait(self: Rc<Self>, wish: Wish) -> Wait {
        let ticket = wish.ticket;
        let waiting = Waiting {
            wish,
            // Its first poll says whom to wake.
            state: State::Waits(Waker::noop().clone()),
        };
        let mut all = self.waiting.borrow_mut();
        // As a rule the end. Who has lost a connection comes back to where it would have been.
        let at = all.partition_point(|other| other.wish.ticket < ticket);
        all.insert(at, waiting);
        drop(all);
        Wait {
            queue: self,
            ticket,
        }
    }

    /// True exactly when nobody is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// Ends the waits that are over at tick `now`, and those of clients that are `gone`, by their
    /// entries in the wheel, which ascend.
    pub(crate) fn end_late(&self, now: u32, gone: &[u32]) {
        self.end_where(|wish| {
            if gone.binary_search(&wish.client).is_ok() {
                Some(Fault::ClientGone)
            } else {
                (wish.deadline <= now).then_some(Fault::ConnectionLimitReached)
            }
        });
    }

    /// Gives back the room that a crowd has needed, once nobody waits.
    pub(crate) fn sweep(&self) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            waiting.shrink_to(KEPT_MAX);
        }
    }

    /// Ends every wait: the drain is over.
    pub(crate) fn end_all(&self) {
        self.end_where(|_| Some(Fault::DrainTimeout));
    }

    fn end_where(&self, end: impl Fn(&Wish) -> Option<Fault>) {
        for waiting in self.waiting.borrow_mut().iter_mut() {
            if let State::Waits(_) = waiting.state
                && let Some(fault) = end(&waiting.wish)
            {
                waiting.end(Err(fault));
            }
        }
    }

    /// Gives a seat at `place` to the first who may use one; false when nobody does.
    fn offer(&self, place: &Rc<Place>) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let mut waiting = waiting.iter_mut();
        let first = waiting
            .find(|waiting| waiting.may_use(place.slot) && place.has_seat(waiting.wish.limit));
        let Some(first) = first else { return false };
        let seat = Seat::take(place);
        first.end(Ok(Given { kept: None, seat }));
        true
    }

    /// Where the exchange with `ticket` stands; `None` when it has left.
    fn find(waiting: &VecDeque<Waiting>, ticket: u64) -> Option<usize> {
        let found = waiting.binary_search_by_key(&ticket, |waiting| waiting.wish.ticket);
        found.ok()
    }
}

impl Waiting {
    fn may_use(&self, slot: Slot) -> bool {
        matches!(self.state, State::Waits(_)) && !self.wish.barred.contains(&slot.index)
    }

    fn end(&mut self, end: Result<Given, Fault>) {
        if let State::Waits(waker) = std::mem::replace(&mut self.state, State::Ended(end)) {
            waker.wake();
        }
    }
}

impl Future for Wait {
    type Output = Result<Given, Fault>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut all = self.queue.waiting.borrow_mut();
        let at = Queue::find(&all, self.ticket).expect("a wait that has ended is not polled");
        if let State::Waits(waker) = &mut all[at].state {
            waker.clone_from(context.waker());
            return Poll::Pending;
        }
        match all.remove(at).map(|waiting| waiting.state) {
            Some(State::Ended(end)) => Poll::Ready(end),
            _ => unreachable!("it was found there, and it has ended"),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut all = self.queue.waiting.borrow_mut();
        let left = Queue::find(&all, self.ticket).and_then(|at| all.remove(at));
        drop(all);
        // What it was given and did not use goes to the next one, which looks into the queue.
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: NonZeroU32 = NonZeroU32::new(2).unwrap();

    fn wish(client: u32) -> Wish {
        Wish {
            ticket: u64::from(client),
            barred: [u32::MAX; TRIES_MAX],
            limit: LIMIT,
            deadline: 10,
            client,
        }
    }

    fn barred(client: u32, slot: u32) -> Wish {
        let mut wish = wish(client);
        wish.barred[0] = slot;
        wish
    }

    /// What has come of a wait: the slot where it has a seat now, or why it has none.
    fn end_of(wait: &mut Wait) -> Option<Result<Seat, Fault>> {
        end_of_given(wait).map(|end| end.map(|given| given.seat))
    }

    fn end_of_given(wait: &mut Wait) -> Option<Result<Given, Fault>> {
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(wait).poll(&mut context) {
            Poll::Ready(end) => Some(end),
            Poll::Pending => None,
        }
    }

    #[track_caller]
    fn seat_of(wait: &mut Wait) -> Seat {
        let end = end_of(wait).expect("the wait is over");
        end.expect("it has a seat")
    }

    fn places<const N: usize>() -> (Rc<Queue>, [Rc<Place>; N]) {
        let queue = Rc::default();
        let places = std::array::from_fn(|index| {
            let index = index as u32;
            Place::new(Slot { index, tenant: 1 }, &queue)
        });
        (queue, places)
    }

    #[test]
    fn a_seat_is_given_to_the_first_who_waits_and_to_nobody_else() {
        let (queue, [place]) = places();
        let mut seats = vec![Seat::take(&place), Seat::take(&place)];
        let mut waits = [0, 1, 2].map(|client| Rc::clone(&queue).wait(wish(client)));
        for wait in &mut waits {
            assert!(end_of(wait).is_none());
        }
        for wait in &mut waits {
            assert!(!place.has_seat(LIMIT));
            seats.pop();
            assert!(!place.has_seat(LIMIT), "whoever comes now overtakes nobody");
            seats.push(seat_of(wait));
        }
        assert!(queue.is_empty());
        seats.clear();
        assert_eq!(place.open.get(), 0);
    }

    #[test]
    fn who_cannot_use_an_endpoint_lets_the_next_one_have_it() {
        let (queue, [a, b]) = places();
        let mut seats = [&a, &a, &b, &b].map(|place| Some(Seat::take(place)));
        let mut first = Rc::clone(&queue).wait(barred(0, 0));
        let mut second = Rc::clone(&queue).wait(wish(1));
        seats[0] = None;
        assert!(end_of(&mut first).is_none());
        assert_eq!(seat_of(&mut second).place.slot.index, 0);
        seats[2] = None;
        assert_eq!(seat_of(&mut first).place.slot.index, 1);
    }

    #[test]
    fn who_comes_back_has_its_turn_before_those_who_came_later() {
        let (queue, [place]) = places();
        let seats = vec![Seat::take(&place), Seat::take(&place)];
        let [mut third, _fourth, mut second, mut first] =
            [3, 4, 2, 1].map(|client| Rc::clone(&queue).wait(wish(client)));
        for seat in seats {
            drop(seat);
        }
        assert!(end_of(&mut third).is_none());
        let seats = [&mut first, &mut second].map(seat_of);
        drop(seats);
        drop(seat_of(&mut third));
    }

    #[test]
    fn a_given_seat_that_is_not_used_goes_to_the_next() {
        let (queue, [place]) = places();
        let mut seats = vec![Seat::take(&place), Seat::take(&place)];
        let first = Rc::clone(&queue).wait(wish(0));
        let mut second = Rc::clone(&queue).wait(wish(1));
        seats.pop();
        assert!(end_of(&mut second).is_none());
        drop(first);
        drop(seat_of(&mut second));
        assert_eq!(place.open.get(), 1);
    }

    #[test]
    fn what_nobody_uses_goes_through_the_queue_once() {
        let (queue, [place]) = places();
        let mut seats = vec![Seat::take(&place), Seat::take(&place)];
        let enter = |client| Some(Rc::clone(&queue).wait(wish(client)));
        let mut waits = [1, 2, 3].map(enter);
        seats.pop();
        for (client, wait) in (1..).zip(&mut waits) {
            let end = wait.take().and_then(|mut wait| end_of_given(&mut wait));
            // It waits again before the next one has had a look.
            *wait = enter(client);
            let given = end.expect("it is its turn").expect("it has a seat");
            given.pass_on(client.into());
        }
        assert_eq!(place.open.get(), 1);
        let mut waits = waits.map(|wait| wait.expect("it waits again"));
        for wait in &mut waits {
            assert!(end_of(wait).is_none(), "it goes round");
        }
        seats.pop();
        drop(seat_of(&mut waits[0]));
    }

    #[test]
    fn a_seat_beyond_a_limit_that_was_lowered_is_not_given() {
        let (queue, [place]) = places();
        let mut seats = Vec::from([(); 3].map(|()| Seat::take(&place)));
        let mut wait = Rc::clone(&queue).wait(wish(0));
        seats.pop();
        assert!(end_of(&mut wait).is_none());
        seats.pop();
        drop(seat_of(&mut wait));
    }

    #[test]
    fn waits_end_at_their_deadline_and_with_their_client() {
        let (queue, [place]) = places();
        let seats = [(); 2].map(|()| Seat::take(&place));
        let mut waits = [7, 8, 9].map(|client| Rc::clone(&queue).wait(wish(client)));
        queue.end_late(9, &[8]);
        let ends = waits.each_mut().map(|wait| end_of(wait).map(Result::err));
        assert_eq!(ends, [None, Some(Some(Fault::ClientGone)), None]);
        // One leaves without having been polled, which takes no seat along.
        let [mut first, _gone, last] = waits;
        drop(last);
        queue.end_late(10, &[]);
        let end = end_of(&mut first).map(Result::err);
        assert_eq!(end, Some(Some(Fault::ConnectionLimitReached)));
        let mut wait = Rc::clone(&queue).wait(wish(0));
        queue.end_all();
        let end = end_of(&mut wait).map(Result::err);
        assert_eq!(end, Some(Some(Fault::DrainTimeout)));
        drop(seats);
        assert_eq!(place.open.get(), 0);
        assert!(queue.is_empty());
    }
}
