//! Transactions over nodes: what was begun where, and how it ends.
//!
//! A remote transaction opens with the first statement that needs it, in the same flight, and follows the local savepoints.
//! How several nodes commit is in [`crate::distributed_commit`].

use crate::activity::{self, Kind, Work};
use crate::catalog::{self, DistributedTable, quote};
use crate::client_decision;
use crate::distributed_commit::{self, Ended};
use crate::execute::nested;
use crate::health;
use crate::naming::tell_as_table;
use crate::session::constraints::{self, Commands};
use crate::session::ending::{
    PATIENCE, patience_to_leave, release_all, roll_back_all, run_all, stop_all,
};
use crate::session::gate;
use crate::session::moment;
use crate::session::pool::{self, SessionRef, Stale};
use crate::session::snapshot;
use crate::session::{Failure, NoSession, Session};
use pg::server::commit;
use pg::server::constraints::SetConstraints;
use pg::server::transaction::{self, Isolation};
use pg::{PgError, SqlState};
use shardmap::{NodeAddress, PlacementId, ShardId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// A placement that the transaction has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Of which shard.
    pub(crate) shard: ShardId,
    /// Its id.
    pub(crate) placement: PlacementId,
    /// Where it is.
    pub(crate) node: NodeAddress,
}

#[derive(Default)]
struct State {
    written: Vec<Written>,
    /// The transaction cannot commit any more.
    doomed: Option<PgError>,
}

thread_local!(static STATE: RefCell<State> = RefCell::default());

/// The transaction depth that a read on this session needs: none if each statement may see its own snapshot
/// and the session has written nothing. A transaction for a snapshot has no savepoints: nothing in it can be undone.
pub(crate) fn level_for_read(session: &Session) -> Option<(u32, Isolation)> {
    if session.snapshot.is_some() {
        return Some((1, Isolation::RepeatableRead));
    }
    let isolation = transaction::isolation_level();
    (session.depth > 0 || isolation != Isolation::ReadCommitted)
        .then(|| (transaction::nest_level(), isolation))
}

/// The transaction depth of whatever must end with the local transaction.
pub(crate) fn level_for_write() -> (u32, Isolation) {
    (transaction::nest_level(), transaction::isolation_level())
}

/// What a node does by itself for a statement of its own, without being told an isolation level, is what is wanted.
pub(crate) fn has_plain_isolation() -> bool {
    transaction::isolation_level() == Isolation::ReadCommitted
}

/// The transaction has opened nothing on any node.
pub(crate) fn is_untouched() -> bool {
    STATE.with_borrow(|state| state.written.is_empty()) && pool::none_in_transaction()
}

/// What is done on nodes from now on can be undone by [`begin_anew`]: the transaction has opened nothing on any node, and no other scan
/// still expects rows, which would be lost.
pub(crate) fn can_begin_anew() -> bool {
    is_untouched() && pool::none_is_read()
}

/// This transaction has written the shard.
pub(crate) fn has_written(shard: ShardId) -> bool {
    STATE.with_borrow(|state| state.written.iter().any(|written| written.shard == shard))
}

/// Notes what was written.
pub(crate) fn note_written(
    table: &DistributedTable,
    index: usize,
    placement: PlacementId,
    node: &NodeAddress,
) {
    let written = Written { shard: table.shard_id(index), placement, node: node.clone() };
    nested::note(written.shard);
    STATE.with_borrow_mut(|state| {
        if !state.written.contains(&written) {
            state.written.push(written);
        }
    });
}

/// A session to this node broke inside the transaction: what it wrote there is gone.
///
/// If every shard concerned has been written on another node too, the broken node's placements are marked and
/// the transaction goes on; otherwise it cannot.
pub(crate) fn lose_node(node: &NodeAddress, cause: &PgError) -> Result<(), PgError> {
    pool::discard_broken();
    let (lost, kept): (Vec<Written>, Vec<Written>) = STATE.with_borrow(|state| {
        state.written.iter().cloned().partition(|written| written.node == *node)
    });
    if lost.is_empty() {
        return Ok(());
    }
    if lost.iter().any(|gone| !kept.iter().any(|other| other.shard == gone.shard)) {
        let error = PgError::new(
            SqlState::CONNECTION_FAILURE,
            format!("connection to node \"{node}\" was lost, and with it what this transaction wrote there"),
        )
        .detail(format!("Remote message: {}", cause.message()))
        .hint("Nothing was committed. Run the transaction again.");
        STATE.with_borrow_mut(|state| state.doomed = Some(error.clone()));
        return Err(error);
    }
    health::mark_inactive(
        &lost.iter().map(|gone| (gone.shard, gone.placement)).collect::<Vec<_>>(),
    )?;
    STATE.with_borrow_mut(|state| state.written = kept);
    Ok(())
}

/// What keeps the transaction from going on, if something does: statements that came after would read what is not all, or
/// is of another moment.
pub(crate) fn doomed() -> Option<PgError> {
    STATE.with_borrow(|state| state.doomed.clone())
}

/// A session that has been read in its remote transaction is gone. Where all of the client's transaction has one snapshot,
/// there is none any more that could be read on.
pub(crate) fn lose_snapshot(node: &NodeAddress, cause: &PgError) {
    if transaction::isolation_level() == Isolation::ReadCommitted {
        return;
    }
    let error = PgError::new(
        SqlState::CONNECTION_FAILURE,
        format!("connection to node \"{node}\" was lost, and with it this transaction's snapshot"),
    )
    .detail(format!("Remote message: {}", cause.message()))
    .hint("Nothing was committed. Run the transaction again.");
    STATE.with(|state| {
        // Who holds the state ends the transaction.
        if let Ok(mut state) = state.try_borrow_mut() {
            state.doomed.get_or_insert(error);
        }
    });
}

/// Before the local commit: the nodes commit, as the last thing that can fail.
pub(crate) fn before_commit() -> Result<(), PgError> {
    // A time-out that has struck meanwhile is this statement's, and not the next one's.
    transaction::serve_interrupts();
    if let Some(doomed) = STATE.with_borrow_mut(|state| state.doomed.take()) {
        return Err(doomed);
    }
    if pool::none_in_transaction() {
        return check_written_nodes(&[]);
    }
    let _told = Work::begin(Kind::Commit, 0);
    let open: Vec<SessionRef> =
        pool::all().into_iter().filter(|session| session.borrow().depth > 0).collect();
    for session in &open {
        check_before_commit(session)?;
    }
    let open: Vec<SessionRef> =
        open.into_iter().filter(|session| session.borrow().is_usable()).collect();
    check_written_nodes(&open)?;
    pool::have_gates_alone()?;
    let wrote_any = open.iter().any(|session| session.borrow().wrote);
    let written = STATE.with_borrow(|state| state.written.clone());
    let drops_extension = wrote_any && !pg::server::decision::can_record();
    let commit = if drops_extension {
        None
    } else {
        Some(distributed_commit::Commit::plan(open.clone(), &written, false)?)
    };
    if wrote_any {
        commit::make_ready()?;
        transaction::serve_interrupts();
        commit::hold_interrupts_until_end();
    }
    let ended = commit
        .map_or_else(|| distributed_commit::commit_each(&open), distributed_commit::Commit::run);
    settle(ended, &written)?;
    STATE.with_borrow_mut(|state| state.written.clear());
    if wrote_any {
        pg::server::activity::note_change();
    }
    Ok(())
}

/// What the end of a commit means to the client.
fn settle(ended: Ended, written: &[Written]) -> Result<(), PgError> {
    match ended {
        Ended::Well => Ok(()),
        Ended::Refused(error, node) => Err(refused_or_stopped(error, &node, written)),
        Ended::Stopped => {
            commit::serve_held_interrupts();
            Err(commit::stopped())
        }
        // Somebody wanted an end, and a node that does not answer could not say so.
        Ended::Lost(..) if commit::should_stop() => {
            commit::serve_held_interrupts();
            Err(commit::stopped())
        }
        Ended::Lost(error, node) => {
            Err(lost_writes(&node).detail(format!("Remote message: {}", error.message())))
        }
        Ended::NotMarked(error) => Err(error),
        Ended::Unknown(cause, node) => Err(unknown(&node, &cause)),
    }
}

fn lost_writes(node: &NodeAddress) -> PgError {
    PgError::new(
        SqlState::CONNECTION_FAILURE,
        format!(
            "connection to node \"{node}\" was lost, and with it what this transaction wrote there"
        ),
    )
    .hint("Nothing was committed. Run the transaction again.")
}

/// The first node has not committed: because it found something, or because the client wanted it to stop.
fn refused_or_stopped(error: PgError, node: &NodeAddress, written: &[Written]) -> PgError {
    if error.sqlstate() == SqlState::QUERY_CANCELED && commit::should_stop() {
        commit::serve_held_interrupts();
        return commit::stopped();
    }
    refused(error, node, written)
}

/// Before anything is committed anywhere: each node that this transaction has written is about to commit.
fn check_written_nodes(open: &[SessionRef]) -> Result<(), PgError> {
    let written = STATE.with_borrow(|state| state.written.clone());
    let gone = |written: &&Written| {
        open.iter().all(|session| {
            let session = session.borrow();
            session.node != written.node || session.is_out_of_step()
        })
    };
    let Some(gone) = written.iter().find(gone) else { return Ok(()) };
    let node = &gone.node;
    for session in open.iter().filter(|session| session.borrow().is_out_of_step()) {
        session.borrow_mut().give_up(PgError::internal("the session is out of step"));
    }
    Err(lost_writes(node))
}

/// Before anything is committed anywhere: a node that has hung up is found out, and so is a remote transaction
/// that failed without anybody noticing (while rows that nobody wanted any more were thrown away).
fn check_before_commit(session: &SessionRef) -> Result<(), PgError> {
    crate::session::stream::claim(session).map_err(fail)?;
    let node = session.borrow().node.clone();
    if session.borrow().transaction_failed() {
        return Err(PgError::new(
            SqlState::IN_FAILED_SQL_TRANSACTION,
            format!("the transaction on node \"{node}\" has failed"),
        )
        .detail("A statement failed there after its cursor or query had got all the rows that it wanted.")
        .hint("Nothing was committed. Run the transaction again."));
    }
    if session.borrow().has_hung_up() {
        let error = PgError::new(SqlState::CONNECTION_FAILURE, "the server closed the connection");
        let wrote = session.borrow().wrote || session.borrow().locked;
        session.borrow_mut().give_up(error.clone());
        let known =
            STATE.with_borrow(|state| state.written.iter().any(|written| written.node == node));
        if wrote && !known {
            return Err(pool::connection_failed(&node, &error)
                .hint("Nothing was committed. Run the transaction again."));
        }
        pg::sys::error::warning(pool::connection_failed(&node, &error));
        lose_node(&node, &error)?;
    }
    Ok(())
}

/// A node says no to its commit, because of a deferred constraint perhaps: nothing is stored there.
fn refused(error: PgError, node: &NodeAddress, written: &[Written]) -> PgError {
    let tables: Vec<(Rc<DistributedTable>, usize)> = written
        .iter()
        .filter(|w| w.node == *node)
        .filter_map(|w| {
            let table = catalog::find(catalog::table_of_shard(w.shard)?)?;
            let index = (0..table.map.len()).find(|index| table.shard_id(*index) == w.shard)?;
            Some((table, index))
        })
        .collect();
    let named: Vec<(&DistributedTable, usize)> =
        tables.iter().map(|(table, index)| (&**table, *index)).collect();
    tell_as_table(error, &named, node)
}

/// SET CONSTRAINTS, which this server has carried out: remote transactions that are open are told at once, and check what has been deferred;
/// others are told as they begin. A shard's constraint has the name of the table's with the shard's number.
pub(crate) fn set_constraints(set: &SetConstraints) -> Result<(), PgError> {
    if !transaction::is_in_block() {
        return Ok(());
    }
    let commands = constraint_commands(set);
    let (level, isolation) = level_for_write();
    constraints::note(level, commands.clone());
    let open = pool::all().into_iter().filter(|session| session.borrow().depth > 0);
    let mut nodes: Vec<NodeAddress> = open.map(|session| session.borrow().node.clone()).collect();
    nodes.sort();
    nodes.dedup();
    for node in nodes {
        let Some(sql) = commands.of(&node) else { continue };
        let session = pool::session(&node, Stale::Matters).map_err(|error| match error {
            NoSession::Unreachable(error) | NoSession::Refused(error) => error,
        })?;
        let done =
            session.borrow_mut().execute_all(std::slice::from_ref(sql), Some((level, isolation)));
        let written = STATE.with_borrow(|state| state.written.clone());
        done.map_err(|failure| match failure {
            Failure::Lost(error) => error,
            Failure::Statement(error) => refused(error, &node, &written),
        })?;
    }
    Ok(())
}

fn constraint_commands(set: &SetConstraints) -> Commands {
    let mode = if set.is_deferred { "DEFERRED" } else { "IMMEDIATE" };
    if set.is_for_all() {
        return Commands::All(format!("SET CONSTRAINTS ALL {mode}"));
    }
    let mut names: HashMap<NodeAddress, Vec<String>> = HashMap::new();
    for table in catalog::distributed_tables().into_iter().filter_map(catalog::find) {
        for constraint in set.of_table(table.oid) {
            for index in 0..table.map.len() {
                let name = quote(&format!("{constraint}_{}", table.shard_id(index).0));
                let name = format!("{}.{name}", quote(&table.schema));
                for placement in table.healthy(index) {
                    names.entry(placement.node.clone()).or_default().push(name.clone());
                }
            }
        }
    }
    let sql = |names: Vec<String>| format!("SET CONSTRAINTS {} {mode}", names.join(", "));
    Commands::Named(names.into_iter().map(|(node, names)| (node, sql(names))).collect())
}

/// A node did not confirm its commit, and nobody knows what became of it.
fn unknown(node: &NodeAddress, cause: &PgError) -> PgError {
    PgError::new(
        SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
        format!("node \"{node}\" did not confirm the commit: what this transaction wrote there may be stored or not"),
    )
    .detail(format!("Remote message: {}", cause.message()))
    .hint("Look whether the rows are there before you run the transaction again.")
}

/// Before the client's PREPARE TRANSACTION: the nodes prepare, and the local transaction decides when the client does.
pub(crate) fn before_prepare() -> Result<(), PgError> {
    if let Some(doomed) = STATE.with_borrow_mut(|state| state.doomed.take()) {
        return Err(doomed);
    }
    let open: Vec<SessionRef> =
        pool::all().into_iter().filter(|session| session.borrow().depth > 0).collect();
    for session in &open {
        check_before_commit(session)?;
    }
    let open: Vec<SessionRef> =
        open.into_iter().filter(|session| session.borrow().is_usable()).collect();
    check_written_nodes(&open)?;
    pool::have_gates_alone()?;
    if open.is_empty() {
        return Ok(());
    }
    let written = STATE.with_borrow(|state| state.written.clone());
    let commit = distributed_commit::Commit::plan(open, &written, true)?;
    settle(commit.run(), &written)?;
    STATE.with_borrow_mut(|state| state.written.clear());
    Ok(())
}

/// After the end of the local transaction: nothing stays open on the nodes, and others may use the sessions. Must not fail.
pub(crate) fn after_transaction(committed: bool) {
    end_transaction(committed);
    pool::give_back();
}

fn end_transaction(committed: bool) {
    crate::execute::modify::forget_waiting(0);
    constraints::forget_of(0);
    crate::ddl::watched::forget();
    activity::forget();
    crate::functions::repartition::forget_sessions();
    moment::forget();
    gate::forget();
    // If it was not said what became of it an error has come between.
    client_decision::end(false);
    distributed_commit::after_transaction(committed);
    forget_writers();
    if pool::all_at_rest() && is_untouched() {
        STATE.with_borrow_mut(|state| state.doomed = None);
        return;
    }
    begin_anew();
    STATE.with_borrow_mut(|state| *state = State::default());
}

/// Undoes what the statement has done on nodes that is about to be done anew: [`can_begin_anew`] was true before it.
pub(crate) fn begin_anew() {
    let sessions = pool::all();
    let mut open: Vec<_> =
        sessions.iter().filter_map(|session| session.try_borrow_mut().ok()).collect();
    for session in &mut open {
        session.reader = None;
    }
    stop_all(&mut open, patience_to_leave());
    roll_back_all(&mut open, patience_to_leave());
    drop(open);
    pool::discard_broken();
    forget_writers();
    STATE.with_borrow_mut(|state| state.written.clear());
}

/// A savepoint was released.
pub(crate) fn before_subtransaction_commit(level: u32) -> Result<(), PgError> {
    constraints::keep_of(level);
    let mut deep = pool::all();
    deep.retain(|session| session.borrow().depth >= level);
    for session in &deep {
        crate::session::stream::claim(session).map_err(fail)?;
    }
    let released = release_all(&deep, &format!("RELEASE SAVEPOINT pg_shard_{level}"));
    for (session, released) in deep.iter().zip(released) {
        if let Err(failure) = released {
            // The node was asked to, for a reason of this server's, or given up.
            let is_stopped = match &failure {
                Failure::Statement(error) => error.sqlstate() == SqlState::QUERY_CANCELED,
                Failure::Lost(_) => true,
            };
            if is_stopped && commit::should_stop() {
                transaction::serve_interrupts();
                return Err(commit::stopped());
            }
            return Err(fail(failure));
        }
        session.borrow_mut().depth = level - 1;
        session.borrow_mut().keep_evidence_of(level);
        session.borrow_mut().keep_gate_of(level);
    }
    Ok(())
}

/// A savepoint was rolled back to. Must not fail: a session that cannot follow dooms the transaction.
pub(crate) fn after_subtransaction_abort(level: u32) {
    crate::execute::modify::forget_waiting(level);
    constraints::forget_of(level);
    let sessions = pool::all();
    let mut open: Vec<_> =
        sessions.iter().filter_map(|session| session.try_borrow_mut().ok()).collect();
    let mut concerned = Vec::new();
    for mut session in open.drain(..) {
        let is_old_snapshot =
            session.snapshot.as_ref().is_some_and(|snapshot| snapshot.level >= level);
        let is_deep = !is_old_snapshot && session.depth >= level;
        if is_old_snapshot {
            session.reader = None;
        } else if is_deep && let Some(reader) = session.reader.take() {
            let mut state = reader.state.borrow_mut();
            state.done = true;
            state.failure = Some(Failure::Statement(PgError::new(
                SqlState::INVALID_CURSOR_STATE,
                "the cursor's rows were lost with the savepoint that was rolled back",
            )));
        }
        let is_idle_reader = session.depth == 0 && session.reader.is_none();
        if is_old_snapshot || is_deep || is_idle_reader {
            concerned.push((session, is_old_snapshot, is_deep));
        }
    }
    let mut all: Vec<&mut Session> =
        concerned.iter_mut().map(|(session, ..)| &mut **session).collect();
    stop_all(&mut all, PATIENCE);
    let mut deep = Vec::new();
    for (mut session, is_old_snapshot, is_deep) in concerned {
        if is_old_snapshot {
            session.roll_back();
        } else if is_deep {
            deep.push(session);
        }
    }
    let commands =
        ["ROLLBACK TO", "RELEASE"].map(|command| format!("{command} SAVEPOINT pg_shard_{level}"));
    let rolled_back = run_all(&mut deep, &commands);
    let mut lost: Vec<NodeAddress> = Vec::new();
    for (session, rolled_back) in deep.iter_mut().zip(rolled_back) {
        session.depth = level - 1;
        session.forget_evidence_of(level);
        session.forget_gate_of(level);
        session.forget_settings();
        if !rolled_back {
            lost.push(session.node.clone());
        }
    }
    drop(deep);
    for node in lost {
        doom(&node);
    }
    pool::discard_broken();
}

/// What was written on the node before the savepoint is gone with its session.
fn doom(node: &NodeAddress) {
    STATE.with_borrow_mut(|state| {
        if state.written.iter().any(|written| written.node == *node) {
            state.doomed = Some(
                PgError::new(
                    SqlState::CONNECTION_FAILURE,
                    format!("connection to node \"{node}\" was lost, and with it what this transaction wrote there"),
                )
                .hint("Nothing was committed. Run the transaction again."),
            );
        }
    });
}

/// A failure as the error it is to the user.
pub(crate) fn fail(failure: Failure) -> PgError {
    match failure {
        Failure::Lost(error) | Failure::Statement(error) => error,
    }
}

/// A node that the transaction has begun to write.
struct Writer {
    node: NodeAddress,
    max_prepared: u32,
}

thread_local! {
    static WRITERS: RefCell<Vec<Writer>> = const { RefCell::new(Vec::new()) };
    /// One of them has been asked for what shows that the transaction has committed.
    static HAS_EVIDENCE: Cell<bool> = const { Cell::new(false) };
}

fn forget_writers() {
    WRITERS.with_borrow_mut(Vec::clear);
    HAS_EVIDENCE.set(false);
}

/// A session is about to be told to write. As soon as there are two nodes one has to be able to decide for both, and the others
/// to prepare: the second is asked for evidence in the flight of its first write.
pub(crate) fn announce_write(session: &SessionRef) -> Result<(), PgError> {
    WRITERS.with_borrow_mut(|writers| {
        let mut session = session.borrow_mut();
        if writers.iter().any(|known| known.node == session.node) {
            return Ok(());
        }
        writers
            .push(Writer { node: session.node.clone(), max_prepared: session.about.max_prepared });
        if writers.len() < 2 {
            return Ok(());
        }
        if let Some(unable) = distributed_commit::who_cannot_prepare(
            writers.iter().map(|known| (&known.node, known.max_prepared)),
        ) {
            let error = distributed_commit::cannot_prepare(unable);
            writers.pop();
            return Err(error);
        }
        if !HAS_EVIDENCE.get() {
            HAS_EVIDENCE.set(session.want_evidence());
        }
        Ok(())
    })
}

/// Something that a session does and that may break.
pub(crate) type Attempt<'a, T> = &'a mut dyn FnMut(&SessionRef) -> Result<T, Failure>;

/// Runs `attempt` on a session to the node, inside the remote transaction. A connection that broke before it
/// proved good (a restart of the node that nobody had noticed) is replaced once.
pub(crate) fn with_session<T>(
    node: &NodeAddress,
    attempt: Attempt<'_, T>,
) -> Result<(SessionRef, T), NodeFailure> {
    let mut retried = false;
    loop {
        let session = pool::session(node, Stale::Matters).map_err(|reason| match reason {
            NoSession::Unreachable(error) => NodeFailure::Unreachable(error),
            NoSession::Refused(error) => NodeFailure::Error(error),
        })?;
        announce_write(&session).map_err(NodeFailure::Error)?;
        let had_transaction = session.borrow().depth > 0;
        match snapshot::share(&session, catalog::nodes).and_then(|()| attempt(&session)) {
            Ok(value) => return Ok((session, value)),
            Err(failure) if failure.is_stale_statement() && !had_transaction && !retried => {
                // Nothing was done, and nothing was begun before: once more from the start.
                session.borrow_mut().roll_back();
                retried = true;
            }
            Err(Failure::Statement(error)) => return Err(NodeFailure::Error(error)),
            Err(Failure::Lost(error)) => {
                pool::discard_broken();
                if had_transaction || retried {
                    return Err(NodeFailure::Unreachable(error));
                }
                retried = true;
            }
        }
    }
}

/// Why a node did not do its part.
#[derive(Clone, Debug)]
pub(crate) enum NodeFailure {
    /// It cannot be reached, or the connection broke: another placement may do.
    Unreachable(PgError),
    /// It answered with an error: the user's.
    Error(PgError),
}
