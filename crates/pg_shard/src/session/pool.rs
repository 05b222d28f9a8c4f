//! Which sessions there are: one for each node and role that logs in, opened when first needed, kept until the backend ends. In whose
//! name a session acts is in `identity.rs`.

use super::gate;
use super::identity::{self, Wanted};
pub(crate) use super::identity::{acting_as, logged_in_as, user};
use super::known_secrets;
use super::sharing::{self, Offer, Room};
use super::{Failure, NoSession, Session};
use crate::nodes;
use crate::transaction;
use pg::catalog::table;
use pg::net::wait::clock;
use pg::server::down;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::NodeAddress;
use shardmap::instruction::Secret;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// A session that several may hold.
pub(crate) type SessionRef = Rc<RefCell<Session>>;

/// An attempt to connect that took this long is not repeated by reads for a while.
const SLOW: Duration = Duration::from_millis(300);

/// How long reads leave a node alone that did not answer.
const AVOIDANCE: Duration = Duration::from_secs(10);

thread_local! {
    static AVOIDED: RefCell<HashMap<NodeAddress, Duration>> = RefCell::new(HashMap::new());
    /// Nodes that writes could not reach, and when the client's statement had begun.
    static MISSED: RefCell<Vec<(i64, NodeAddress, PgError)>> = const { RefCell::new(Vec::new()) };
    /// Nodes to which no session could be opened ahead, for whom, and when the client's statement had begun.
    static FAILED: RefCell<Vec<(i64, Oid, NodeAddress, NoSession)>> = const { RefCell::new(Vec::new()) };
    /// Few: one for each node, and for each role that the backend has been.
    static SESSIONS: RefCell<Vec<Pooled>> = const { RefCell::new(Vec::new()) };
}

struct Pooled {
    /// The role of the log-in.
    role: Oid,
    node: NodeAddress,
    session: SessionRef,
    /// By which addresses of nodes it was opened; see [`nodes::version`].
    addresses: u64,
}

impl Pooled {
    /// Others do not see what the transaction has written on it.
    fn has_written(&self) -> bool {
        // Whoever holds it is under way.
        self.session.try_borrow().map_or(true, |session| session.depth > 0 && session.wrote)
    }
}

/// What a connection that was closed meanwhile means to whoever wants to use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// It is noticed before anything is sent, which costs a system call: after sending nobody would know whether
    /// the node has done it.
    Matters,
    /// The statement can simply be sent again.
    IsHarmless,
}

/// A session to a node, ready for a statement.
///
/// A kept connection that the server has closed meanwhile (a restart) is replaced before it is used, so that
/// it never counts against the node. Rows that somebody else still expects on the session are spilled first.
pub(crate) fn session(node: &NodeAddress, stale: Stale) -> Result<SessionRef, NoSession> {
    session_of(node, stale, None)
}

/// The same for a statement that may read by snapshots of its own: those of others end.
pub(crate) fn session_of(
    node: &NodeAddress,
    stale: Stale,
    statement: Option<u64>,
) -> Result<SessionRef, NoSession> {
    let wanted = identity::wanted();
    let Some(acting) = wanted.acting else { return session_in(node, stale, statement, wanted) };
    if let Some(secret) = secret_of(node) {
        let session = session_in(node, stale, statement, wanted)?;
        let can_be_lent = session.borrow_mut().can_be_lent();
        if can_be_lent.map_err(no_session)? {
            session.borrow_mut().standing.lend(acting, secret);
            return Ok(session);
        }
    }
    session_in(node, stale, statement, acting.apart())
}

pub(super) fn no_session(failure: Failure) -> NoSession {
    match failure {
        Failure::Lost(error) => NoSession::Unreachable(error),
        Failure::Statement(error) => NoSession::Refused(error),
    }
}

/// The session of the role that logs in.
fn session_in(
    node: &NodeAddress,
    stale: Stale,
    statement: Option<u64>,
    wanted: Wanted,
) -> Result<SessionRef, NoSession> {
    let refuse = || transaction::doomed().map_or(Ok(()), |error| Err(NoSession::Refused(error)));
    refuse()?;
    let role = wanted.login;
    let is_wanted = |pooled: &Pooled| pooled.role == role && pooled.node == *node;
    let known = SESSIONS.with_borrow(|sessions| {
        let mut found = None;
        for pooled in sessions.iter().filter(|pooled| pooled.node == *node) {
            if pooled.role == role {
                found = Some((Rc::clone(&pooled.session), pooled.addresses));
            } else if pooled.has_written() {
                return Err(NoSession::Refused(written_by_another(node, pooled.role, role)));
            }
        }
        Ok(found)
    })?;
    if let Some((session, addresses)) = known {
        let has_moved = addresses != nodes::version();
        let good = {
            let mut session = session.borrow_mut();
            session.settle_end();
            session.need()
                && session.is_usable()
                && !(session.depth == 0 && (session.is_out_of_step() || has_moved))
                && (stale == Stale::IsHarmless || !session.is_stale())
        };
        if good {
            super::stream::claim(&session).map_err(no_session)?;
            session.borrow_mut().leave_other_snapshot(statement);
            session.borrow_mut().settle_copies();
            session.borrow_mut().standing.stand_in(wanted);
            if session.borrow().is_usable() {
                enter(&session)?;
                return Ok(session);
            }
        }
        if session.borrow().is_usable() {
            let error =
                PgError::new(SqlState::CONNECTION_FAILURE, "the server closed the connection");
            session.borrow_mut().give_up(error);
        }
        SESSIONS.with_borrow_mut(|sessions| sessions.retain(|pooled| !is_wanted(pooled)));
        refuse()?;
    }
    let session = match take_failed(role, node) {
        Some(reason) => Err(reason),
        None => claim_or_open(wanted, node, stale),
    }?;
    enter(&session)?;
    Ok(session)
}

/// A session that nobody uses, or a new one.
fn claim_or_open(
    wanted: Wanted,
    node: &NodeAddress,
    stale: Stale,
) -> Result<SessionRef, NoSession> {
    let room = match claim(wanted, node, stale)? {
        Offer::Session(session) => return Ok(session),
        Offer::Room(room) => Some(room),
        Offer::Private => None,
    };
    let opened = open_all(wanted, std::slice::from_ref(node), room.is_some()).remove(0);
    add(wanted, node, opened, room)
}

/// A session that nobody uses and that this backend has from now on, or what there is instead.
fn claim(wanted: Wanted, node: &NodeAddress, stale: Stale) -> Result<Offer, NoSession> {
    loop {
        let holds_one = SESSIONS
            .with_borrow(|sessions| sessions.iter().any(|it| sharing::is_shared(&it.session)));
        let offer = sharing::offer(wanted, node, holds_one)?;
        let Offer::Session(session) = &offer else { return Ok(offer) };
        if stale == Stale::Matters && session.borrow().is_stale() {
            let error =
                PgError::new(SqlState::CONNECTION_FAILURE, "the server closed the connection");
            session.borrow_mut().give_up(error);
            continue;
        }
        session.borrow_mut().standing.stand_in(wanted);
        keep(wanted, node, session);
        return Ok(offer);
    }
}

fn keep(wanted: Wanted, node: &NodeAddress, session: &SessionRef) {
    let addresses = nodes::version();
    SESSIONS.with_borrow_mut(|sessions| {
        let (role, session) = (wanted.login, Rc::clone(session));
        sessions.push(Pooled { role, node: node.clone(), session, addresses });
    });
}

/// The transaction has ended: others may use its sessions.
pub(crate) fn give_back() {
    let is_any =
        SESSIONS.with_borrow(|sessions| sessions.iter().any(|it| sharing::is_shared(&it.session)));
    if !is_any {
        return;
    }
    for pooled in SESSIONS.take() {
        let Pooled { role, node, session, addresses } = pooled;
        if let Some(session) = sharing::give_back(session) {
            SESSIONS.with_borrow_mut(|sessions| {
                sessions.push(Pooled { role, node, session, addresses });
            });
        }
    }
}

/// A session of this backend is in a remote transaction; one that is being used just now does not count.
pub(super) fn any_in_transaction() -> bool {
    SESSIONS.with_borrow(|sessions| {
        sessions.iter().any(|it| it.session.try_borrow().is_ok_and(|session| session.depth > 0))
    })
}

/// The sessions that have gone through their nodes' gates, besides this one.
fn others_inside(session: Option<&SessionRef>) -> Vec<SessionRef> {
    let mut sessions = all();
    sessions.retain(|other| {
        session.is_none_or(|it| !Rc::ptr_eq(it, other))
            && other.try_borrow().is_ok_and(|other| other.is_inside())
    });
    sessions
}

/// A statement is about to use these nodes at once: the first session need not share its node's gate.
fn expect_several(nodes: &[&NodeAddress]) {
    if !gate::is_wanted() || gate::uses_several() {
        return;
    }
    let mut nodes: Vec<NodeAddress> = nodes.iter().map(|node| (*node).clone()).collect();
    nodes.extend(others_inside(None).iter().map(|session| session.borrow().node.clone()));
    nodes.sort();
    nodes.dedup();
    if nodes.len() > 1 {
        gate::note_several();
    }
}

/// A SERIALIZABLE transaction is about to use a node.
fn enter(session: &SessionRef) -> Result<(), NoSession> {
    if !gate::is_wanted() {
        return Ok(());
    }
    let node = session.borrow().node.clone();
    let others = others_inside(Some(session));
    if others.iter().any(|other| other.borrow().node == node) {
        return Err(NoSession::Refused(gate::two_on_one_node(&node)));
    }
    let is_new = session.borrow().depth == 0;
    if is_new && !session.borrow_mut().has_gate().map_err(no_session)? {
        return Err(NoSession::Refused(gate::no_gate(&node)));
    }
    if others.is_empty() && !gate::uses_several() {
        return Ok(());
    }
    gate::note_several();
    gate::take_turn(!others.is_empty() || !is_new).map_err(NoSession::Refused)?;
    for other in others {
        let Ok(mut other) = other.try_borrow_mut() else { continue };
        // One that has something under way does so before COMMIT.
        if !other.is_busy() && other.reader.is_none() && !other.transaction_failed() {
            other.have_gate_alone().map_err(no_session)?;
        }
    }
    Ok(())
}

/// Before a SERIALIZABLE transaction prepares or commits anything: if it has used several nodes it has all their gates alone.
pub(crate) fn have_gates_alone() -> Result<(), PgError> {
    if !gate::is_wanted() {
        return Ok(());
    }
    let sessions = others_inside(None);
    if sessions.is_empty() {
        return Ok(());
    }
    gate::check_local_tables()?;
    if sessions.len() > 1 {
        gate::take_turn(true)?;
        for session in sessions {
            session.borrow_mut().have_gate_alone().map_err(transaction::fail)?;
        }
    }
    Ok(())
}

fn open_all(
    wanted: Wanted,
    nodes: &[NodeAddress],
    is_for_all: bool,
) -> Vec<(Result<Session, NoSession>, Duration)> {
    identity::opening_for_all(is_for_all, || {
        logged_in_as(wanted.login, || Session::open_all(nodes))
    })
}

/// The secret of a node, if it tells it. It is asked by the owner of this server's own, a superuser.
pub(super) fn secret_of(node: &NodeAddress) -> Option<Secret> {
    known_secrets::of(node, || {
        if seems_silent(node) {
            return None;
        }
        let owner = table::owner(table_of_secret()?)?;
        let mut session = logged_in_as(owner, || Session::open(node)).ok()?;
        let mut secret = None;
        let read = session.run("SELECT secret FROM pgs_catalog.secret", None, &mut |row| {
            secret = row.first_text().as_deref().and_then(Secret::from_hex);
            Ok(())
        });
        read.ok().and(secret)
    })
}

/// This server's own.
pub(super) fn table_of_secret() -> Option<Oid> {
    table::relation_oid("pgs_catalog", "secret")
}

/// What a session to the node is to be as which the role logs in whose rights count.
fn wanted_at(node: &NodeAddress) -> Wanted {
    let wanted = identity::wanted();
    match wanted.acting {
        Some(acting) if secret_of(node).is_none() => acting.apart(),
        _ => wanted,
    }
}

/// The error for a session that would not see what the transaction has written on another.
fn written_by_another(node: &NodeAddress, writer: Oid, role: Oid) -> PgError {
    PgError::unsupported(
        format!(
            "cannot use node \"{node}\" as role \"{}\": the transaction has written there as role \"{}\"",
            table::role_name(role),
            table::role_name(writer)
        ),
        "Run what the two roles do in transactions of their own. A view or function of another owner has a session of its own to each node, \
         which does not see what the transaction has written on the other.",
    )
}

/// A session that was asked for before has the role and the settings that whoever asks it now wants.
pub(crate) fn is_told(session: &SessionRef) -> bool {
    let session = session.borrow();
    session.standing.is(identity::wanted()) && session.standing.is_told()
}

/// Keeps a session that was opened.
fn add(
    wanted: Wanted,
    node: &NodeAddress,
    (opened, took): (Result<Session, NoSession>, Duration),
    room: Option<Room>,
) -> Result<SessionRef, NoSession> {
    if matches!(opened, Err(NoSession::Unreachable(_))) && took >= SLOW {
        avoid(node);
    }
    let mut opened = opened?;
    opened.standing.stand_in(wanted);
    crate::distributed_commit::end_what_was_left(&mut opened);
    if let Some(room) = room {
        room.fill(&mut opened);
    }
    let session = Rc::new(RefCell::new(opened));
    keep(wanted, node, &session);
    Ok(session)
}

/// Opens those sessions to the nodes that are missing, all at once: for a statement that is about to ask for them one by one. Where
/// that fails, whoever asks for the session next in the same statement is told so.
pub(crate) fn open_missing<'a>(nodes: impl Iterator<Item = &'a NodeAddress>) {
    // One alone may as well be opened when it is asked for.
    open_if_missing(nodes, 2);
}

/// The same, also if one is missing: nodes tell their clocks when sessions are opened.
pub(crate) fn open_each_missing<'a>(nodes: impl Iterator<Item = &'a NodeAddress>) {
    open_if_missing(nodes, 1);
}

fn open_if_missing<'a>(nodes: impl Iterator<Item = &'a NodeAddress>, least: usize) {
    let nodes: Vec<&NodeAddress> = nodes.collect();
    expect_several(&nodes);
    FAILED.with_borrow_mut(Vec::clear);
    let mut missing: Vec<NodeAddress> = Vec::new();
    let mut wanted = identity::wanted();
    let is_known = |wanted: Wanted, node: &NodeAddress| {
        SESSIONS.with_borrow(|sessions| {
            sessions.iter().any(|it| it.role == wanted.login && it.node == *node)
        })
    };
    for node in nodes {
        let here = if wanted.acting.is_some() { wanted_at(node) } else { wanted };
        // Nodes of which some can be lent rights and others not are rare.
        if missing.is_empty() {
            wanted = here;
        }
        if here == wanted && !is_known(wanted, node) && !missing.contains(node) {
            missing.push(node.clone());
        }
    }
    if missing.len() < least || transaction::doomed().is_some() {
        return;
    }
    let now = pg::server::transaction::statement_start();
    let fail = |node: &NodeAddress, reason: NoSession| {
        FAILED.with_borrow_mut(|failed| failed.push((now, wanted.login, node.clone(), reason)));
    };
    let mut rooms: Vec<Option<Room>> = Vec::new();
    missing.retain(|node| match claim(wanted, node, Stale::Matters) {
        Ok(Offer::Session(_)) => false,
        Ok(Offer::Room(room)) => {
            rooms.push(Some(room));
            true
        }
        Ok(Offer::Private) => {
            rooms.push(None);
            true
        }
        Err(reason) => {
            fail(node, reason);
            false
        }
    });
    let is_for_all = rooms.iter().any(Option::is_some);
    let opened = open_all(wanted, &missing, is_for_all);
    for ((node, opened), room) in missing.into_iter().zip(opened).zip(rooms) {
        if let Err(reason) = add(wanted, &node, opened, room) {
            fail(&node, reason);
        }
    }
}

/// What [`open_missing`] has found out about the node for this statement; once.
fn take_failed(role: Oid, node: &NodeAddress) -> Option<NoSession> {
    FAILED.with_borrow_mut(|failed| {
        let at = failed.iter().position(|(_, of, known, _)| *of == role && known == node)?;
        let (statement, _, _, reason) = failed.swap_remove(at);
        (statement == pg::server::transaction::statement_start()).then_some(reason)
    })
}

/// The node's session is in a remote transaction or has something under way.
pub(crate) fn is_occupied(node: &NodeAddress) -> bool {
    let role = wanted_at(node).login;
    SESSIONS.with_borrow(|sessions| {
        sessions.iter().any(|pooled| {
            pooled.role == role
                && pooled.node == *node
                && pooled.session.try_borrow().map_or(true, |session| {
                    session.is_busy() || session.depth > 0 || session.reader.is_some()
                })
        })
    })
}

/// Nodes that did not answer a moment ago, or are known to be down: reads use other placements if there are any, so that a node behind
/// a dead network costs its time-out once and not once a statement.
pub(crate) fn avoided() -> Vec<NodeAddress> {
    if !avoids_any() {
        return Vec::new();
    }
    let mut found = nodes::down();
    AVOIDED.with_borrow_mut(|avoided| {
        if !avoided.is_empty() {
            avoided.retain(|_, until| *until > clock());
            found.extend(avoided.keys().cloned());
        }
    });
    found
}

/// The node did not answer a moment ago: whoever need not ask it just now leaves it alone.
pub(crate) fn seems_silent(node: &NodeAddress) -> bool {
    avoids_any() && avoided().contains(node)
}

/// Notes that a write of this client's statement has tried to reach the node in vain.
pub(crate) fn note_missed(node: &NodeAddress, error: &PgError) {
    MISSED.with_borrow_mut(|missed| {
        let now = pg::server::transaction::statement_start();
        missed.retain(|(statement, known, _)| *statement == now && known != node);
        missed.push((now, node.clone(), error.clone()));
    });
}

/// A write of the same statement has tried the node and found it unreachable: another need not wait for it again.
pub(crate) fn missed(node: &NodeAddress) -> Option<PgError> {
    MISSED.with_borrow(|missed| {
        if missed.is_empty() {
            return None;
        }
        let now = pg::server::transaction::statement_start();
        let found = missed.iter().find(|(statement, known, _)| *statement == now && known == node);
        found.map(|(_, _, error)| error.clone())
    })
}

/// There may be nodes that reads leave alone.
pub(crate) fn avoids_any() -> bool {
    down::is_any() || AVOIDED.with_borrow(|avoided| !avoided.is_empty())
}

/// Notes that a node has fallen silent.
pub(crate) fn avoid(node: &NodeAddress) {
    AVOIDED.with_borrow_mut(|avoided| avoided.insert(node.clone(), clock() + AVOIDANCE));
}

/// This server has refused to connect, or could not: see `connect.rs`, `classify`.
pub(crate) fn is_own_refusal(error: &PgError) -> bool {
    error.sqlstate() == SqlState::CANNOT_CONNECT
}

/// All sessions of this backend.
pub(crate) fn all() -> Vec<SessionRef> {
    SESSIONS
        .with_borrow(|sessions| sessions.iter().map(|pooled| Rc::clone(&pooled.session)).collect())
}

/// The nodes to which this backend has sessions, or where it has something under way.
pub(crate) fn nodes(busy: bool) -> Vec<NodeAddress> {
    let mut nodes: Vec<NodeAddress> = SESSIONS.with_borrow(|sessions| {
        let counts = |pooled: &&Pooled| {
            !busy || pooled.session.try_borrow().map_or(true, |session| session.is_busy())
        };
        sessions.iter().filter(counts).map(|pooled| pooled.node.clone()).collect()
    });
    nodes.sort();
    nodes.dedup();
    nodes
}

/// No session of this backend is in a remote transaction.
pub(crate) fn none_in_transaction() -> bool {
    SESSIONS
        .with_borrow(|sessions| sessions.iter().all(|pooled| pooled.session.borrow().depth == 0))
}

/// No scan of this backend expects rows of a session.
pub(crate) fn none_is_read() -> bool {
    SESSIONS.with_borrow(|sessions| {
        sessions.iter().all(|pooled| pooled.session.borrow().reader.is_none())
    })
}

/// Nothing has to be done about any session at the end of a transaction.
pub(crate) fn all_at_rest() -> bool {
    SESSIONS.with_borrow(|sessions| {
        sessions
            .iter()
            .all(|pooled| pooled.session.try_borrow().is_ok_and(|session| session.is_at_rest()))
    })
}

/// Forgets sessions that are broken.
pub(crate) fn discard_broken() {
    SESSIONS.with_borrow_mut(|sessions| {
        sessions.retain(|pooled| {
            pooled.session.try_borrow().map_or(true, |session| session.is_usable())
        });
    });
}

/// The warning of pg_shard 1.2 for a node that cannot be reached.
pub(crate) fn connection_failed(node: &NodeAddress, error: &PgError) -> PgError {
    PgError::new(SqlState::CONNECTION_FAILURE, format!("Connection failed to {node}"))
        .detail(format!("Remote message: {}", error.message()))
}
