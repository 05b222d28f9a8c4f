//! A large table becomes distributed while clients read and write it; only the end keeps them away, for a moment.
//!
//! One transaction does all of it, so whoever dies at whichever moment leaves the table local, or distributed. Only capture is
//! committed before, by a background worker; a visitor ([`undo`]) drops what a failure leaves of it.
//!
//! 1. *Capture* ([`capture`]): a trigger of the table notes the keys of the rows that change.
//! 2. *Staging* ([`staging`]): a distributed table of another name gets the shards, and the rows that the table has now.
//! 3. *Catch up* in rounds: rows whose keys were noted are replaced by what the table has of them now.
//! 4. *Switch*: everybody else is kept away, and after the last round the shards become those of the table, whose own rows go.
//!
//! Small tables, those without a key, those with foreign keys, and whatever is done inside a larger transaction take the way that keeps
//! others away from the beginning.

mod capture;
mod staging;

pub(crate) use capture::{after_capture, capture, undo};

use super::distribute::{
    Layout, Rows, check_is_preloaded, check_new, check_relation, warn_of_loose_indexes,
};
use crate::activity::{Kind as Phase, Work};
use crate::catalog;
use crate::fault;
use crate::mark::{self, Mark};
use crate::relocation::{Leftovers, Round, lock_out_briefly, when_nobody_is_in_the_way};
use capture::Capture;
use pg::PgError;
use pg::catalog::privileged;
use pg::catalog::table::{self, RelationLock};
use pg::print::template::qualified_name;
use pg::server::background;
use pg::server::lock::{Mode, lock_shard};
use pg::server::transaction::{Isolation, is_in_block, isolation_level};
use pgrx::pg_sys::Oid;
use staging::Staging;

/// A smaller table, in bytes, is copied in less time than it takes to come to terms with its writers.
const LARGE: u64 = 8 << 20;

/// Distributes the table with its rows; false if that cannot be done beside its users, and nothing has been done.
pub(super) fn distribute(oid: Oid, column: &str, layout: &Layout) -> Result<bool, PgError> {
    if !is_possible(oid)? {
        return Ok(false);
    }
    check_is_preloaded()?;
    check_relation(oid, &qualified_name(oid), Rows::Any)?;
    check_new(oid, column, b'h')?;
    lock_shard(capture::under_way(oid), Mode::Exclusive);
    let mut leftovers = Leftovers::default();
    let phase = Work::begin(Phase::RelocationCapture, 0);
    leftovers.are_there();
    // Without room for a worker others are kept away from the beginning.
    if background::run("pg_shard capture", &capture::argument(oid)).is_err() {
        return Ok(false);
    }
    table::lock_relation(oid, RelationLock::ShareUpdateExclusive);
    catalog::forget(Some(oid));
    // Definitions may have changed until now.
    if !is_possible(oid)? {
        return Ok(false);
    }
    let Some(capture) = Capture::find(oid)? else { return Ok(false) };
    fault::point("online_captured");
    let phase = phase.followed_by(Phase::RelocationFill);
    let staging = Staging::create(oid, column, layout)?;
    staging.fill()?;
    fault::point("online_filled");
    let _phase = phase.followed_by(Phase::RelocationCatchUp);
    let round = || {
        let rows = staging.catch_up(&capture)?;
        fault::point("online_round");
        Ok(Round { rows })
    };
    let switch = || {
        lock_out_briefly(&[oid]);
        table::check_not_in_use(oid, c"distribute");
        staging.catch_up(&capture)?;
        capture.end(&qualified_name(oid))?;
        staging.take_place(column)
    };
    when_nobody_is_in_the_way(&[oid], &round, &switch)?;
    fault::point("online_switched");
    leftovers.are_gone();
    warn_of_loose_indexes(oid)?;
    Ok(true)
}

/// What can be seen beforehand.
fn is_possible(oid: Oid) -> Result<bool, PgError> {
    if is_in_block() || isolation_level() != Isolation::ReadCommitted {
        return Ok(false);
    }
    table::lock_relation(oid, RelationLock::AccessShare);
    if mark::read(oid) != Mark::None || table::row_identities(oid).is_empty() {
        return Ok(false);
    }
    // Others' functions would run in the caller's name.
    if table::owner_of(oid)? != table::current_role() && privileged::has_code_of_users(oid) {
        return Ok(false);
    }
    let sql = format!(
        "SELECT c.relkind = 'r' AND c.relpersistence = 'p' AND NOT c.relispartition AND NOT c.relhassubclass AND c.relam = 2 \
            AND NOT (c.relrowsecurity AND c.relforcerowsecurity) AND has_schema_privilege('{}'::oid, c.relnamespace, 'CREATE') AND pg_relation_size(c.oid) >= {LARGE} \
            AND NOT EXISTS (SELECT FROM pg_class AS o WHERE o.relnamespace = c.relnamespace AND o.relname = 'pgs_staging_of_' || c.oid) \
            AND NOT EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = c.oid) \
            AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.contype = 'f' AND c.oid IN (k.conrelid, k.confrelid)) \
            AND NOT EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' \
                              AND l.relation = c.oid AND l.mode NOT IN ('AccessShareLock', 'ShareUpdateExclusiveLock') \
                              AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())) \
           FROM pg_class AS c WHERE c.oid = '{}'::oid",
        table::current_role().to_u32(),
        oid.to_u32()
    );
    let found = privileged::read_as_superuser(|client| {
        client.select(&sql, Some(1), &[])?.first().get_one::<bool>()
    });
    found.map(|found| found == Some(true)).map_err(|error| PgError::internal(error.to_string()))
}
