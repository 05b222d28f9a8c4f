//! Plans of statements without parameters, kept by their shape: the next statement that differs in constants only
//! is not planned and not printed again.
//!
//! Spooled are plans of routed statements whose way does not depend on the constants. That a shape's way does is kept
//! too, so that it is not tried again each time. Everything is forgotten when the metadata change.

use crate::catalog;
use lru::LruCache;
use pg::path::plan::Plan;
use pg::read::fingerprint::{Fingerprint, FingerprintPlan};
use pg::read::query::Statement;
use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;

/// Fingerprints kept.
const MOST_SHAPES: NonZeroUsize = NonZeroUsize::new(128).expect("is not zero");

/// Fingerprints of one fingerprint kept.
const MOST_ALIKE: usize = 4;

#[derive(Default)]
struct Alike {
    plans: Vec<Rc<FingerprintPlan>>,
    /// Statements of this fingerprint have turned out to depend on their constants.
    depends: bool,
}

struct Fingerprints {
    epoch: u64,
    known: LruCache<(u64, bool), Alike>,
}

thread_local!(static SHAPES: RefCell<Fingerprints> = RefCell::new(Fingerprints {
    epoch: 0,
    known: LruCache::new(MOST_SHAPES),
}));

/// What is known of a statement's shape.
pub(super) enum Known {
    /// Its plan.
    Plan(Plan),
    /// Nothing yet.
    Nothing,
    /// It is not worth trying.
    Hopeless,
}

/// What is known of `statement`, whose shape is `shape`.
pub(super) fn find(statement: Statement, shape: &Fingerprint, scroll: bool) -> Known {
    SHAPES.with_borrow_mut(|shapes| {
        let epoch = catalog::epoch();
        if shapes.epoch != epoch {
            shapes.known.clear();
            shapes.epoch = epoch;
        }
        let Some(alike) = shapes.known.get(&(shape.fingerprint, scroll)) else {
            return Known::Nothing;
        };
        match alike.plans.iter().find_map(|plan| plan.plan_for(statement, shape)) {
            Some(plan) => Known::Plan(plan),
            None if alike.depends => Known::Hopeless,
            None => Known::Nothing,
        }
    })
}

/// Keeps the plan of a shape, or (none) that there is none for all of its statements. Returns the plan for
/// `statement` itself.
pub(super) fn keep(
    statement: Statement,
    shape: &Fingerprint,
    scroll: bool,
    plan: Option<Plan>,
) -> Option<Plan> {
    let kept = plan.map(|plan| FingerprintPlan::keep(statement, plan));
    let own = kept.as_ref().and_then(|kept| kept.plan_for(statement, shape));
    SHAPES.with_borrow_mut(|shapes| {
        let alike = shapes.known.get_or_insert_mut((shape.fingerprint, scroll), Alike::default);
        match kept {
            Some(kept) if own.is_some() => {
                if alike.plans.len() >= MOST_ALIKE {
                    alike.plans.remove(0);
                }
                alike.plans.push(kept);
            }
            _ => alike.depends = true,
        }
    });
    own
}
