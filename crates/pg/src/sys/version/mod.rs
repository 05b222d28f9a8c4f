//! What differs between PostgreSQL's versions, each as one function with a body for each way that it is done.
//!
//! Callers do not know which version they are compiled for: outside of this folder no `cfg` names a version. A function has
//! the meaning that PostgreSQL 15 gives it, or that of the later version where 15 does not know the thing.

mod tuples;

pub(crate) use tuples::attribute;
