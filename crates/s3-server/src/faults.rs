//! Faults on order: what a server, or what lies between, may do to a request.

use std::sync::{Arc, Mutex, PoisonError};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 500 `InternalError`; nothing is done.
    InternalError,
    /// 503 `SlowDown`; nothing is done.
    SlowDown,
    /// It is done, and the connection cut before the reply.
    ReplyLost,
    /// The request is taken and nothing comes back, for ever.
    BlackHole,
    /// The connection is cut in the middle of the request's body, or of the reply's where the request has none.
    Cut,
}

/// Which requests a fault strikes, and how often.
#[derive(Clone, Debug)]
pub struct Order {
    /// The request's method.
    pub method: &'static str,
    /// What its path or query contains; empty: whatever it contains.
    pub contains: String,
    /// So many such requests are let through first.
    pub after: usize,
    /// So many are struck then.
    pub times: usize,
    /// By what.
    pub fault: Fault,
}

/// The faults that are ordered. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Vec<Order>>>);

impl Faults {
    /// Orders one.
    pub fn order(&self, order: Order) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(order);
    }

    /// Takes all orders back.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The fault that strikes this request.
    pub(crate) fn strike(&self, method: &str, target: &str) -> Option<Fault> {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for order in orders.iter_mut() {
            if order.method != method || !target.contains(&order.contains) || order.times == 0 {
                continue;
            }
            if order.after > 0 {
                order.after -= 1;
                continue;
            }
            order.times -= 1;
            return Some(order.fault);
        }
        None
    }
}
