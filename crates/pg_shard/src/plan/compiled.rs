//! Plans as executions use them: read once from PostgreSQL's plan tree, and kept with everything that takes
//! look-ups.
//!
//! A plan carries a number that no other plan of this backend has had, however often PostgreSQL copies it. What
//! is kept under the number is a cache: the plan tree itself says everything.

use crate::catalog;
use crate::session::next_template;
use lru::LruCache;
use pg::PgError;
use pg::exec::rows::Codecs;
use pg::sys::plan::{Piece, Plan, PlanReader};
use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::num::NonZeroUsize;
use std::rc::Rc;

/// Plans kept.
const MOST_PLANS: NonZeroUsize = NonZeroUsize::new(256).expect("is not zero");

/// Templates whose numbers are kept.
const MOST_TEMPLATES: NonZeroUsize = NonZeroUsize::new(1024).expect("is not zero");

thread_local! {
    static PLANS: RefCell<LruCache<u64, Rc<Compiled>>> = RefCell::new(LruCache::new(MOST_PLANS));
    static TEMPLATES: RefCell<LruCache<String, u64>> = RefCell::new(LruCache::new(MOST_TEMPLATES));
}

/// A plan, ready to be executed.
pub(crate) struct Compiled {
    /// What it says.
    pub(crate) plan: Plan,
    codecs: RefCell<Option<Rc<Codecs>>>,
    /// The number of its template, and the epoch of the metadata for which it was found.
    template: Cell<Option<(u64, u64)>>,
}

/// The plan that `reader` reads.
pub(crate) fn find(mut reader: PlanReader) -> Rc<Compiled> {
    let serial = super::data::read_serial(&mut reader);
    if let Some(known) = PLANS.with_borrow_mut(|plans| plans.get(&serial).cloned()) {
        return known;
    }
    let compiled = Rc::new(Compiled {
        plan: super::data::read(&mut reader),
        codecs: RefCell::default(),
        template: Cell::default(),
    });
    PLANS.with_borrow_mut(|plans| plans.put(serial, Rc::clone(&compiled)));
    compiled
}

/// The number under which nodes keep a statement of this text.
pub(crate) fn text_number(sql: &str, argument_types: &[u32]) -> u64 {
    let text = format!("\0whole\0{sql}\0{argument_types:?}");
    TEMPLATES.with_borrow_mut(|templates| *templates.get_or_insert(text, next_template))
}

impl Compiled {
    /// The look-ups for its values, made by `make` if there are none that hold.
    pub(crate) fn codecs(&self, make: impl FnOnce() -> Codecs) -> Rc<Codecs> {
        if let Some(known) = self.codecs.borrow().as_ref()
            && known.is_current()
        {
            return Rc::clone(known);
        }
        let made = Rc::new(make());
        *self.codecs.borrow_mut() = Some(Rc::clone(&made));
        made
    }

    /// The number under which nodes keep statements made from `template` and what stands around it, which are this plan's.
    ///
    /// Two plans with the same text and the same types of arguments have the same number. A statement is known to a node by
    /// this number and the first table's shard; which shards of other tables go with it only the metadata say, so
    /// with several tables the number holds for one state of them.
    pub(crate) fn template_number(
        &self,
        (opening, closing): (&str, &str),
        template: &[Piece],
        argument_types: &[u32],
    ) -> Result<u64, PgError> {
        let epoch = catalog::epoch();
        if let Some((known, number)) = self.template.get()
            && known == epoch
        {
            return Ok(number);
        }
        let mut text = String::with_capacity(256);
        text.push_str(opening);
        let (mut tables, mut names_index) = (0, false);
        for piece in template {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Index => {
                    names_index = true;
                    text.push_str("\0index\0");
                }
                Piece::Object(_, name) => {
                    let _ = write!(text, "\0object\0{name}\0");
                }
                Piece::Table(oid) => {
                    tables += 1;
                    let table = catalog::get(*oid)?;
                    // Zero bytes are in no SQL text and no name: this cannot be taken for something else.
                    let _ = write!(text, "\0{}\0{}\0", table.schema, table.name);
                }
            }
        }
        let _ = write!(text, "{closing}\0{argument_types:?}");
        // A shard's index holds for one state of the metadata as well.
        if tables > 1 || names_index {
            let _ = write!(text, "\0{epoch}");
        }
        let number =
            TEMPLATES.with_borrow_mut(|templates| *templates.get_or_insert(text, next_template));
        self.template.set(Some((epoch, number)));
        Ok(number)
    }
}
