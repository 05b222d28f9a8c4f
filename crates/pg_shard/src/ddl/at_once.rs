//! A statement for each of several nodes, all at once, in or outside of the client's transaction.

use crate::activity::{Kind, Work};
use crate::catalog::DistributedTable;
use crate::naming::tell_as_table;
use crate::session::pool::{self, SessionRef, Stale};
use crate::session::{Failure, NoSession, Request, Sql};
use crate::transaction;
use pg::PgError;
use protocol::Arguments;
use shardmap::NodeAddress;
use std::rc::Rc;

/// Runs a statement on each node, all at once; `each` gets the first field of every row. The result is which nodes could
/// not be reached.
///
/// In a transaction block the statements run in the remote transactions: ANALYZE then sees what the transaction has written.
pub(super) fn everywhere(
    table: &Rc<DistributedTable>,
    statements: Vec<(NodeAddress, usize, String)>,
    each: &mut dyn FnMut(&str),
) -> Result<Vec<(NodeAddress, PgError)>, PgError> {
    run_on_nodes(table, statements, each, true)
}

/// The same for statements that only read: they join a remote transaction, and begin none that must be committed.
pub(crate) fn ask_nodes(
    table: &Rc<DistributedTable>,
    statements: Vec<(NodeAddress, usize, String)>,
    each: &mut dyn FnMut(&str),
) -> Result<Vec<(NodeAddress, PgError)>, PgError> {
    run_on_nodes(table, statements, each, false)
}

fn run_on_nodes(
    table: &Rc<DistributedTable>,
    statements: Vec<(NodeAddress, usize, String)>,
    each: &mut dyn FnMut(&str),
    writes: bool,
) -> Result<Vec<(NodeAddress, PgError)>, PgError> {
    let _told = Work::begin(Kind::Maintenance, 0);
    let in_block =
        (writes && pg::server::transaction::is_in_block()).then(transaction::level_for_write);
    let mut unreachable = Vec::new();
    let mut asked: Vec<(NodeAddress, usize, SessionRef)> = Vec::new();
    for (node, shard, sql) in statements {
        let session = match pool::session(&node, Stale::Matters) {
            Ok(session) => session,
            Err(NoSession::Unreachable(error)) => {
                unreachable.push((node, error));
                continue;
            }
            Err(NoSession::Refused(error)) => return Err(error),
        };
        let arguments = Arguments::none();
        let request = Request::new(Sql::Once(&sql), &[], &arguments);
        // VACUUM may stand in no flight with other statements: settings that have changed go first, in their own.
        let level = if writes { in_block } else { transaction::level_for_read(&session.borrow()) };
        let ready = match level {
            None if writes => session.borrow_mut().run("SELECT", None, &mut |_| Ok(())).map(drop),
            _ => Ok(()),
        };
        let sent = ready.and_then(|()| session.borrow_mut().send(&request, level));
        match sent {
            Ok(()) => asked.push((node, shard, session)),
            Err(Failure::Statement(error)) => return Err(error),
            Err(Failure::Lost(error)) => {
                transaction::lose_node(&node, &error)?;
                unreachable.push((node, error));
            }
        }
    }
    for (node, shard, session) in asked {
        let outcome = session.borrow_mut().finish(&mut |row| {
            if let Some(text) = row.first_text() {
                each(&text);
            }
            Ok(())
        });
        match outcome {
            Ok(_) => {
                if in_block.is_some() {
                    session.borrow_mut().wrote = true;
                }
            }
            Err(Failure::Statement(error)) => {
                return Err(tell_as_table(error, &[(&**table, shard)], &node));
            }
            Err(Failure::Lost(error)) => {
                pool::discard_broken();
                transaction::lose_node(&node, &error)?;
                unreachable.push((node, error));
            }
        }
    }
    Ok(unreachable)
}
