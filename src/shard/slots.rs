//! A stock of boxed futures, so that a connection holds the room for an exchange only while it has one.
//!
//! An exchange's state is some kilobytes. In the connection's own task it would be held by every idle client; in a box of its own it would
//! be allocated for every exchange. So the boxes are kept here and used again: `Pin::set` puts the next future where the last one was.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// The room for one future of type `F`.
type Slot<F> = Pin<Box<Option<F>>>;

/// A shard's unused slots. All futures that run in them are of one type; the type cannot be named, hence `Any`.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    kept: Rc<RefCell<Vec<Box<dyn Any>>>>,
}

/// The most slots that are kept; more exchanges at once allocate.
const KEPT_MAX: usize = 4096;

impl Slots {
    /// No slots yet.
    pub(crate) fn new() -> Self {
        Self {
            kept: Rc::new(RefCell::new(Vec::with_capacity(KEPT_MAX))),
        }
    }

    /// Runs `future` in a slot.
    pub(crate) fn run<F: Future + 'static>(&self, future: F) -> Running<F> {
        let kept = self.kept.borrow_mut().pop();
        // Only until the stock has seen the shard's usual load.
        let fresh = || Box::new(Box::pin(None));
        let mut slot: Box<Slot<F>> = kept
            .and_then(|slot| slot.downcast().ok())
            .unwrap_or_else(fresh);
        Pin::as_mut(&mut slot).set(Some(future));
        Running {
            slot: Some(slot),
            home: self.clone(),
        }
    }
}

/// A future in its slot.
pub(crate) struct Running<F: Future + 'static> {
    /// `None` exactly when the future has ended.
    slot: Option<Box<Slot<F>>>,
    home: Slots,
}

impl<F: Future + 'static> Future for Running<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let slot = self
            .slot
            .as_mut()
            .expect("a future that has ended is not polled");
        let future = Pin::as_mut(slot)
            .as_pin_mut()
            .expect("a slot in use holds its future");
        let Poll::Ready(output) = future.poll(context) else {
            return Poll::Pending;
        };
        if let Some(mut slot) = self.slot.take() {
            Pin::as_mut(&mut slot).set(None);
            let mut kept = self.home.kept.borrow_mut();
            if kept.len() < KEPT_MAX {
                kept.push(slot);
            }
        }
        Poll::Ready(output)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_slot_is_used_again_after_its_future_has_ended() {
        let slots = Slots::new();
        let mut context = Context::from_waker(Waker::noop());
        for value in [1, 2] {
            let mut running = slots.run(ready(value));
            assert_eq!(
                Pin::new(&mut running).poll(&mut context),
                Poll::Ready(value)
            );
            assert_eq!(slots.kept.borrow().len(), 1);
        }
    }

    #[test]
    fn a_future_that_is_dropped_takes_its_slot_along() {
        let slots = Slots::new();
        drop(slots.run(pending::<()>()));
        assert_eq!(slots.kept.borrow().len(), 0);
    }
}
