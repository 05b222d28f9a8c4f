//! `shared_sessions`: the sessions that all backends share.

use pg::server::{activity, shared};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use sharing::State;

fn name_of(state: State) -> &'static str {
    match state {
        State::Unused | State::Closing => "closing",
        State::Opening => "opening",
        State::Free => "free",
        State::Lent => "in use",
        State::Kept => "kept",
    }
}

/// A row for each of them.
#[allow(clippy::type_complexity, reason = "the columns stand where SQL's function has them")]
#[pg_extern]
fn shared_sessions() -> TableIterator<
    'static,
    (
        name!(node, Option<String>),
        name!(database, Oid),
        name!(role, Oid),
        name!(state, &'static str),
        name!(pid, Option<i32>),
        name!(node_pid, i32),
        name!(statements, i32),
        name!(opened, Option<TimestampWithTimeZone>),
        name!(changed, Option<TimestampWithTimeZone>),
    ),
> {
    let all = shared::table().map(sharing::Table::all).unwrap_or_default();
    let rows = all.into_iter().map(|seen| {
        let moment = |moment| TimestampWithTimeZone::try_from(moment).ok();
        (
            activity::node_name(seen.node as usize),
            Oid::from(seen.database),
            Oid::from(seen.role),
            name_of(seen.state),
            Some(seen.owner).filter(|owner| *owner > 0),
            seen.backend,
            i32::try_from(seen.statements).unwrap_or(i32::MAX),
            moment(seen.opened),
            moment(seen.changed),
        )
    });
    TableIterator::new(rows.collect::<Vec<_>>())
}
