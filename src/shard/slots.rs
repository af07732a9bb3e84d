//! A stock of running conversations, so that a connection holds the room for an exchange only while
//! it has one.
//!
//! An exchange's state is some kilobytes. In the connection's own task it would be held by every
//! idle client; in a box of its own it would be allocated, and copied into, for every exchange. So
//! a slot holds a future that never ends: it waits for a client in its mailbox, converses with it,
//! puts it back, and waits for the next one. Whoever has a client lends it to a slot and polls that
//! until the client is back.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Shard;
use super::client::{After, Client, converse};

/// A shard's unused slots.
#[derive(Debug, Default)]
pub(super) struct Slots {
    kept: RefCell<Vec<Slot>>,
    /// How many clients are lent.
    lent: Cell<usize>,
}

/// From so many conversations under way on, the next ones await their peers with the least buffer,
/// so that what is held meanwhile stays in the cache; a longer message then takes a read more. At
/// 1,000 connections that costs less than full buffers, and less than waiting for readability
/// without one (bench/README.md).
const CROWD: usize = 128;

/// The most slots that are kept; more exchanges at once allocate.
const KEPT_MAX: usize = 4096;

/// Room for one conversation.
struct Slot {
    mailbox: Rc<Mailbox>,
    conversation: Pin<Box<dyn Future<Output = ()>>>,
}

/// Where a client is handed to a conversation and back. At most one of the two is there.
#[derive(Default)]
struct Mailbox {
    lent: Cell<Option<Box<Client>>>,
    returned: Cell<Option<(Box<Client>, After)>>,
}

impl Slots {
    /// Lends `client` to a conversation, until it is idle or to be closed.
    pub(super) fn converse(shard: &Rc<Shard>, client: Box<Client>) -> Conversing<'_> {
        let slots = &shard.slots;
        slots.lent.set(slots.lent.get() + 1);
        let kept = slots.kept.borrow_mut().pop();
        // Only until the stock has seen the shard's usual load.
        let slot = kept.unwrap_or_else(|| Slot::new(shard));
        slot.mailbox.lent.set(Some(client));
        Conversing {
            slot: Some(slot),
            home: slots,
        }
    }

    /// True exactly when so many conversations are under way that each is to hold little.
    pub(super) fn is_crowded(&self) -> bool {
        CROWD <= self.lent.get()
    }

    /// Frees every slot: each holds its shard.
    pub(super) fn clear(&self) {
        self.kept.borrow_mut().clear();
    }
}

impl Slot {
    fn new(shard: &Rc<Shard>) -> Self {
        let mailbox = Rc::new(Mailbox::default());
        let conversation = Box::pin(converse_forever(Rc::clone(shard), Rc::clone(&mailbox)));
        Self {
            mailbox,
            conversation,
        }
    }
}

async fn converse_forever(shard: Rc<Shard>, mailbox: Rc<Mailbox>) {
    loop {
        let mut client = poll_fn(|_| match mailbox.lent.take() {
            Some(client) => Poll::Ready(client),
            // Nobody polls a slot that has no client, so nobody needs to be woken.
            None => Poll::Pending,
        })
        .await;
        let after = converse(&shard, &mut client).await;
        mailbox.returned.set(Some((client, after)));
    }
}

/// A client in a slot.
#[derive(Debug)]
pub(super) struct Conversing<'a> {
    /// `None` exactly when the client is back.
    slot: Option<Slot>,
    home: &'a Slots,
}

impl Future for Conversing<'_> {
    type Output = (Box<Client>, After);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let slot = self
            .slot
            .as_mut()
            .expect("a conversation that has ended is not polled");
        let _pending = slot.conversation.as_mut().poll(context);
        let Some(returned) = slot.mailbox.returned.take() else {
            return Poll::Pending;
        };
        let mut kept = self.home.kept.borrow_mut();
        if let Some(slot) = self.slot.take().filter(|_| kept.len() < KEPT_MAX) {
            kept.push(slot);
        }
        Poll::Ready(returned)
    }
}

impl Drop for Conversing<'_> {
    fn drop(&mut self) {
        self.home.lent.set(self.home.lent.get() - 1);
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Slot").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_small() {
        // What every exchange under way holds, besides its buffers.
        fn size<F>(_conversation: fn(Rc<Shard>, Rc<Mailbox>) -> F) -> usize {
            size_of::<F>()
        }
        let slot = size(converse_forever);
        assert!(slot <= 2048, "{slot}");
    }
}
