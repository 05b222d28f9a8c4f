//! What ends transactions that were left in doubt: a prepared transaction whose coordinator, or whose connection, is gone.
//!
//! A visitor ([`pg::server::resolver`]) asks the nodes what is prepared there, asks the anchor of each what became of its
//! transaction, and ends it likewise. What is decided follows from what the anchor has stored, so that it does not matter
//! how many look at once, nor whose transaction it was. A transaction that somebody is just about to end is left to him: its
//! anchor's is under way, or it is young.
//!
//! The visitor asks again until nothing is left that can be decided and every node has answered. Then it removes the rows by
//! which anchors have shown that they had committed, of transactions of this coordinator that nobody can ask about any more.

use crate::catalog;
use crate::client_decision;
use crate::health;
use crate::nodes;
use crate::repair;
use crate::session::pool;
use crate::session::{Failure, NoSession, Session, two_phase};
use ::commit::{Evidence, Gid, State, Verdict, verdict};
use pg::catalog::{privileged, table};
use pg::server::rounds::Visit;
use pg::server::{decision, resolver};
use pg::time::{Time, When};
use pg::{PgError, SqlState};
use shardmap::NodeAddress;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// How often it looks at what others may still end.
const LOOKS: u32 = 6;

/// What a node knows: whether it has an identity, a horizon below which no transaction is under way, and what is prepared. A
/// transaction that is younger than half a second is told apart: somebody is about to end it.
const QUESTION: &str = "SELECT pg_catalog.concat_ws(' ', pg_catalog.to_regclass('pgs_catalog.identity') IS NOT NULL, \
         pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())) \
     UNION ALL \
     SELECT pg_catalog.concat_ws(' ', gid, pg_catalog.clock_timestamp() - prepared >= '0.5s'::pg_catalog.interval, prepared) \
       FROM pg_catalog.pg_prepared_xacts \
      WHERE database = pg_catalog.current_database() AND gid LIKE 'pg\\_shard:1:%'";

/// A node as the visitor knows it.
struct Node {
    address: NodeAddress,
    session: Option<Session>,
    /// None while it is not known; 0 if the node cannot be an anchor.
    identity: Option<u64>,
    horizon: u64,
    prepared: Vec<Prepared>,
}

/// A prepared transaction, as its node tells it.
struct Prepared {
    gid: Gid,
    /// Nobody is about to end it.
    is_old: bool,
    /// When it was prepared, as text.
    since: String,
}

/// A prepared transaction, for whoever looks.
pub(crate) struct InDoubt {
    pub(crate) node: NodeAddress,
    pub(crate) gid: String,
    /// When it was prepared, as text.
    pub(crate) since: String,
    /// What has been decided; none if no known node is the one that decides.
    pub(crate) verdict: Option<Verdict>,
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Nothing that can be decided.
    Nothing,
    /// Something young, or something that is being decided.
    Young,
    /// A node that does not answer, or one that could not end something.
    Something,
}

#[derive(Default)]
struct Round {
    nodes: Vec<Node>,
    /// Also what is young is ended.
    is_urgent: bool,
    /// When what is decided has committed, if that is known.
    at: Option<Time>,
    /// What was prepared when something had been left in doubt so many times; what is left of it.
    suspects: Option<(u64, HashSet<Gid>)>,
    /// What was said about failures.
    told: HashSet<String>,
    /// The horizons of the nodes, and this server's own, at the first look.
    horizons: Option<(HashMap<NodeAddress, u64>, u64)>,
}

/// Removes what else a failure has left on a node.
pub(crate) type Undo = fn(&mut Session) -> Result<(), Failure>;

/// The visit of a database.
pub(crate) fn visit(visit: &Visit, undo: Undo) {
    if let Err(error) = health::mark_leftovers(visit) {
        // They stay as they are until the next visit.
        pg::sys::error::log(error);
    }
    let mut round = Round::default();
    let mut looks = 0;
    loop {
        let left_before = pg::time::left_in_doubt();
        let looked = visit.in_transaction(|| {
            let left = round.look()?;
            Ok((left, left != Left::Something && round.has_suspects(left_before)))
        });
        let (left, has_suspects) = match looked {
            Ok(found) => found,
            Err(error) => {
                pg::sys::error::log(error);
                return;
            }
        };
        looks += 1;
        if left == Left::Nothing && !has_suspects || left != Left::Something && looks > LOOKS {
            break;
        }
        visit.tell("pg_shard: ending transactions that are in doubt");
        visit.rest(PAUSE);
    }
    let ended = visit
        .in_transaction(|| round.clean())
        .and_then(|()| visit.in_transaction(|| round.undo(undo)))
        .and_then(|()| visit.in_transaction(repair::send_if_stale));
    if let Err(error) = ended {
        pg::sys::error::log(error);
    }
}

/// The client has ended a transaction that it had prepared: what nodes have prepared of it is ended too, if they can be reached.
pub(crate) fn end_now() -> Result<(), PgError> {
    let at = client_decision::time();
    let mut round = Round { is_urgent: true, at, ..Round::default() };
    let left = round.look()?;
    if left == Left::Something {
        resolver::wake();
    }
    client_decision::end(left == Left::Nothing);
    Ok(())
}

/// What is prepared on the nodes, and what has been decided about it. A node that cannot be asked is warned of.
pub(crate) fn in_doubt() -> Result<Vec<InDoubt>, PgError> {
    let mut round = Round::default();
    round.find_nodes();
    for node in &mut round.nodes {
        if let Err(error) = node.ask() {
            node.session = None;
            pg::sys::error::warning(pool::connection_failed(&node.address, &error));
        }
    }
    let mut found = Vec::new();
    for at in 0..round.nodes.len() {
        for prepared in std::mem::take(&mut round.nodes[at].prepared) {
            let verdict = round.state(&prepared.gid.evidence).map(|(state, _)| verdict(state));
            found.push(InDoubt {
                node: round.nodes[at].address.clone(),
                gid: prepared.gid.to_string(),
                since: prepared.since,
                verdict,
            });
        }
    }
    Ok(found)
}

impl Round {
    fn look(&mut self) -> Result<Left, PgError> {
        let Some(owner) = table::relation_oid("pgs_catalog", "decision").and_then(table::owner)
        else {
            return Ok(Left::Nothing);
        };
        // A node that is silent must not keep the others waiting.
        if !self.is_urgent {
            privileged::set_for_transaction(c"pg_shard.connect_timeout", c"1s");
            privileged::set_for_transaction(c"pg_shard.silence_timeout", c"1s");
        }
        self.find_nodes();
        if self.nodes.is_empty() {
            return Ok(Left::Nothing);
        }
        if !catalog::nodes_of_placements().is_empty() {
            resolver::note_used();
        }
        pool::logged_in_as(owner, || {
            let mut left = Left::Nothing;
            for at in 0..self.nodes.len() {
                if let Err(error) = self.nodes[at].ask() {
                    self.nodes[at].session = None;
                    self.tell(&pool::connection_failed(&self.nodes[at].address, &error));
                    left = Left::Something;
                }
            }
            if left == Left::Nothing && self.horizons.is_none() {
                let nodes = self.nodes.iter().map(|node| (node.address.clone(), node.horizon));
                self.horizons = Some((nodes.collect(), decision::horizon()));
            }
            for at in 0..self.nodes.len() {
                for prepared in std::mem::take(&mut self.nodes[at].prepared) {
                    let is_due = prepared.is_old || self.is_urgent;
                    let of_it = if is_due { self.end(at, &prepared.gid) } else { Left::Young };
                    if of_it != Left::Nothing && left != Left::Something {
                        left = of_it;
                    }
                    self.nodes[at].prepared.push(prepared);
                }
            }
            Ok(left)
        })
    }

    /// Something of what this coordinator has left in doubt may not be ended. All nodes have answered. What is prepared now and decided
    /// later is known to whoever decides it; what somebody may have decided before was prepared when this was first asked.
    fn has_suspects(&mut self, left: u64) -> bool {
        let here = decision::identity();
        let is_ours = |gid: &&Gid| {
            gid.coordinator == here && !(gid.evidence.node == here && is_under_way(&gid.evidence))
        };
        let prepared = self.nodes.iter().flat_map(|node| node.prepared.iter().map(|it| &it.gid));
        let now: HashSet<Gid> = prepared.filter(is_ours).copied().collect();
        let suspects = match self.suspects.take() {
            Some((known, suspects)) if known == left => {
                suspects.intersection(&now).copied().collect()
            }
            _ => now,
        };
        let has_some = !suspects.is_empty();
        self.suspects = Some((left, suspects));
        if !has_some {
            pg::time::nothing_in_doubt(left);
        }
        has_some
    }

    /// The nodes of the metadata and of the list; those that are known keep their sessions.
    fn find_nodes(&mut self) {
        // What has failed may have been the first table's creation: then no placement is known.
        let found = nodes::all();
        self.nodes.retain(|node| found.contains(&node.address));
        for address in found {
            if !self.nodes.iter().any(|known| known.address == address) {
                self.nodes.push(Node {
                    address,
                    session: None,
                    identity: None,
                    horizon: 0,
                    prepared: Vec::new(),
                });
            }
        }
    }

    /// Ends a prepared transaction, if its anchor's has ended.
    fn end(&mut self, at: usize, gid: &Gid) -> Left {
        let (verdict, when) = match self.state(&gid.evidence) {
            Some((state, when)) => (verdict(state), when),
            None => {
                self.tell(
                    &PgError::new(
                        SqlState::WARNING,
                        format!(
                            "prepared transaction \"{gid}\" on node \"{}\" is in doubt",
                            self.nodes[at].address
                        ),
                    )
                    .detail("No node of this server's list is the one that has decided."),
                );
                return Left::Nothing;
            }
        };
        let command = match verdict {
            Verdict::Commit => "COMMIT",
            Verdict::RollBack => "ROLLBACK",
            Verdict::Wait => return Left::Young,
        };
        // The decision was seen before: whoever has decided did so no later than by any clock that has heard of it.
        let when = when.or_else(pg::time::by_now).map(When::comment);
        let node = &mut self.nodes[at];
        let Some(session) = &mut node.session else { return Left::Something };
        let when = match verdict {
            Verdict::Commit => {
                self.at.map(|at| pg::time::comment(Some(at))).or(when).unwrap_or_default()
            }
            _ => String::new(),
        };
        let command = format!("{command} PREPARED '{gid}'{when}");
        let ended = session.run(&command, None, &mut |_| Ok(()));
        pg::server::resolver::note_ended();
        match ended {
            Ok(_) => Left::Nothing,
            Err(Failure::Statement(error)) if two_phase::is_ended(&error) => Left::Nothing,
            Err(Failure::Statement(error)) if two_phase::is_busy(&error) => Left::Young,
            Err(Failure::Statement(error)) => {
                let error = error.context(format!("while executing on node \"{}\"", node.address));
                self.tell(&error);
                Left::Nothing
            }
            Err(Failure::Lost(_)) => Left::Something,
        }
    }

    /// What the anchor says; none if it is no server that is known.
    ///
    /// A node that was copied has the identity of the other one. The row is on one of them only, by its random number; that
    /// it is nowhere is known when all have been asked.
    fn state(&mut self, evidence: &Evidence) -> Option<(State, Option<When>)> {
        let mut said = Vec::new();
        if evidence.node == decision::identity() {
            said.push(match decision::look(evidence.transaction, evidence.nonce) {
                decision::Known::UnderWay => (State::UnderWay, None),
                decision::Known::Ended { has_row } => {
                    let when = pg::time::when_committed(evidence.transaction);
                    (State::Ended { has_row }, when.filter(|_| has_row))
                }
            });
        }
        for node in &mut self.nodes {
            // Not asked yet: it may be one of them.
            if node.identity.is_none() {
                said.push((State::Unknown, None));
            } else if node.identity == Some(evidence.node) {
                let asked = node.session.as_mut().map(|session| session.state_of(evidence));
                said.push(match asked {
                    Some(Ok(told)) => told,
                    _ => (State::Unknown, None),
                });
            }
        }
        let committed = State::Ended { has_row: true };
        said.iter()
            .find(|(state, _)| *state == committed)
            .or_else(|| {
                said.iter()
                    .find(|(state, _)| *state != State::Ended { has_row: false })
                    .or(said.first())
            })
            .copied()
    }

    /// Removes rows of this coordinator's transactions that had committed before the first look, and of which nothing is prepared
    /// now: all their participants had prepared before they committed, and have been ended since.
    fn clean(&mut self) -> Result<(), PgError> {
        let Some((horizons, horizon_here)) = self.horizons.take() else { return Ok(()) };
        let Some(owner) = table::relation_oid("pgs_catalog", "decision").and_then(table::owner)
        else {
            return Ok(());
        };
        let asked = pool::logged_in_as(owner, || self.nodes.iter_mut().try_for_each(Node::ask));
        if asked.is_err() {
            return Ok(());
        }
        let here = decision::identity();
        let kept: HashSet<Evidence> = self
            .nodes
            .iter()
            .flat_map(|node| node.prepared.iter().map(|prepared| prepared.gid.evidence))
            .collect();
        let spared: Vec<String> =
            kept.iter().map(|evidence| format!("'{}'", evidence.nonce)).collect();
        let condition = match spared.is_empty() {
            true => String::new(),
            false => format!(" AND nonce NOT IN ({})", spared.join(", ")),
        };
        let delete = |horizon: u64| {
            format!(
                "DELETE FROM pgs_catalog.decision WHERE coordinator = '{}' AND transaction < '{horizon}'{condition}",
                here.cast_signed()
            )
        };
        pool::logged_in_as(owner, || {
            for node in &mut self.nodes {
                let horizon = horizons.get(&node.address);
                if let (Some(session), Some(horizon)) = (&mut node.session, horizon) {
                    // What cannot be removed now is removed on the next visit.
                    let _ = session.run(&delete(*horizon), None, &mut |_| Ok(()));
                }
            }
        });
        privileged::run(&delete(horizon_here))
    }

    /// Removes what else failures have left on nodes. A node that does not answer keeps it until the next visit.
    fn undo(&mut self, undo: Undo) -> Result<(), PgError> {
        let Some(owner) = table::relation_oid("pgs_catalog", "decision").and_then(table::owner)
        else {
            return Ok(());
        };
        pool::logged_in_as(owner, || {
            for session in self.nodes.iter_mut().filter_map(|node| node.session.as_mut()) {
                if let Err(Failure::Statement(error)) = undo(session) {
                    pg::sys::error::log(error);
                }
            }
        });
        Ok(())
    }

    /// Says it in the server's log, once in a visit.
    fn tell(&mut self, error: &PgError) {
        if self.told.insert(error.message().to_owned()) {
            pg::sys::error::log(error.clone());
        }
    }
}

impl Node {
    /// Asks the node what it knows.
    fn ask(&mut self) -> Result<(), PgError> {
        let session = match &mut self.session {
            Some(session) if session.is_usable() && !session.has_hung_up() => session,
            place => {
                let opened = Session::open(&self.address).map_err(|reason| match reason {
                    NoSession::Unreachable(error) | NoSession::Refused(error) => error,
                })?;
                place.insert(opened)
            }
        };
        let mut lines = Vec::new();
        session
            .run(QUESTION, None, &mut |row| {
                lines.extend(row.first_text());
                Ok(())
            })
            .map_err(crate::transaction::fail)?;
        self.prepared.clear();
        let mut lines = lines.iter().map(|line| line.split_once(' ').unwrap_or((line, "")));
        let mut has_identity = false;
        if let Some((has, horizon)) = lines.next() {
            has_identity = has == "t";
            self.horizon = horizon.parse().unwrap_or(0);
        }
        for (gid, rest) in lines {
            let (is_old, since) = rest.split_once(' ').unwrap_or((rest, ""));
            self.prepared.extend(gid.parse().ok().map(|gid: Gid| Prepared {
                gid,
                is_old: is_old == "t",
                since: since.to_owned(),
            }));
        }
        let mut identity = 0;
        if has_identity {
            session
                .run("SELECT identity FROM pgs_catalog.identity", None, &mut |row| {
                    let text = row.first_text().unwrap_or_default();
                    identity = text.parse::<i64>().map_or(0, i64::cast_unsigned);
                    Ok(())
                })
                .map_err(crate::transaction::fail)?;
        }
        self.identity = Some(identity);
        Ok(())
    }
}

/// A transaction of this server that has not ended, nor been decided.
fn is_under_way(evidence: &Evidence) -> bool {
    decision::look(evidence.transaction, evidence.nonce) == decision::Known::UnderWay
}
