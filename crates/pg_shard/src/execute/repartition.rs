//! Rows that move from worker to worker, as the coordinator sees it: each node that has some is asked to split them, in its
//! own session, and tells how many of each part it keeps. Where they are is then told to the nodes that join them.
//!
//! A node keeps rows until it is told to drop them: at the end of the scan, and at the latest at the end of the
//! transaction (`Session::keeps`). If its session ends before, it drops them by itself. No row has been delivered yet
//! while rows are split, so a node that is lost is replaced as in any read.

use super::assignment::{assign, sharers};
use super::node_read::lost_in_the_middle;
use super::read::Read;
use super::render;
use crate::activity::{Kind, Work};
use crate::catalog::{self, DistributedTable};
use crate::functions::literal;
use crate::functions::repartition::NOT_FETCHED;
use crate::naming::tell_as_table;
use crate::nodes;
use crate::session::age;
use crate::session::capabilities;
use crate::session::pool::{self, SessionRef, Stale};
use crate::session::secrets;
use crate::session::snapshot::Shared;
use crate::session::{Event, Failure, NoSession, Request, Sql, wait_for_any};
use crate::transaction;
use pg::exec::scan_io::ScanIo;
use pg::net::wait::clock;
use pg::{PgError, SqlState};
use pgrx::pg_sys::Oid;
use shardmap::instruction::Purpose;
use shardmap::repartition::{PartitionSpec, RepartitionSource, RepartitionedRows, parse_sizes};
use shardmap::{NodeAddress, Shard, ShardId};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// How long rows go by the coordinator after nodes could not fetch them from each other.
const GIVING_UP: Duration = Duration::from_secs(60);

thread_local!(static GIVEN_UP_UNTIL: Cell<Duration> = const { Cell::new(Duration::ZERO) });

/// Rows that a node keeps.
pub(crate) struct Spooled {
    session: SessionRef,
    name: String,
}

/// The parts that are to be read beside these shards: each shard's own.
pub(super) fn parts_of(table: &DistributedTable, shards: &[usize]) -> Vec<Shard> {
    let part = |index: &usize| Shard {
        id: ShardId(*index as i64),
        range: table.map.shards()[*index].range,
    };
    shards.iter().map(part).collect()
}

/// A node that has been asked to split its rows.
struct Asked {
    node: NodeAddress,
    group: Vec<usize>,
    session: SessionRef,
    name: String,
    sizes: Option<String>,
}

impl Read {
    /// Has the nodes split the rows that this would read.
    pub(super) fn split_on_nodes(
        &mut self,
        io: &mut ScanIo,
        parts: &[Shard],
    ) -> Result<RepartitionedRows, PgError> {
        self.drop_kept();
        self.join_snapshots(io);
        let tables = self.tables()?;
        let mut left = self.shards(io, &tables[0])?;
        let mut moved = RepartitionedRows::default();
        if left.is_empty() || parts.is_empty() {
            return Ok(moved);
        }
        if let Some(plan) = self.scan() {
            let owner = |hash| tables[0].map.owner(hash);
            io.read_arrays(&plan.broadcasts, &owner)?;
            io.move_rows(&parts_of(&tables[0], &left))?;
        }
        let told = Work::begin(Kind::Read, left.len());
        let mut avoid: Vec<NodeAddress> = Vec::new();
        while !left.is_empty() {
            let groups = assign(&tables, &left, &avoid, &pool::avoided())?;
            left.clear();
            let mut asked = Vec::new();
            pool::acting_as(self.user(), || {
                pool::open_missing(groups.iter().map(|(node, _)| node))
            });
            for (node, group) in &groups {
                match self.ask(io, node, group, sharers(&groups, node), parts)? {
                    Ok(one) => asked.push(one),
                    Err(error) => {
                        self.lose(node, &error)?;
                        avoid.push(node.clone());
                        left.extend(group);
                    }
                }
            }
            while !asked.is_empty() {
                let (at, outcome) = next_answer(&mut asked);
                let Asked { node, group, session, name, sizes } = asked.swap_remove(at);
                match outcome {
                    Ok(()) => {
                        told.done(group.len());
                        let parts = parse_sizes(&sizes.unwrap_or_default());
                        let parts = parts.ok_or_else(|| {
                            PgError::internal("a node does not tell how it has split rows")
                        })?;
                        if !parts.is_empty() {
                            let named = name.clone();
                            // Workers find each other as this server finds them.
                            let reach = nodes::reach(&node);
                            let node = NodeAddress { host: reach.host.into(), port: reach.port };
                            moved.sources.push(RepartitionSource { name: named, node, parts });
                        }
                        self.kept.push(Spooled { session, name });
                    }
                    Err(Failure::Lost(error)) => {
                        self.lose(&node, &error)?;
                        avoid.push(node);
                        left.extend(group);
                    }
                    Err(Failure::Statement(error)) => {
                        learn_from(&error);
                        let named: Vec<(&DistributedTable, usize)> = tables
                            .iter()
                            .flat_map(|table| group.iter().map(move |index| (&**table, *index)))
                            .collect();
                        return Err(tell_as_table(error, &named, &node));
                    }
                }
            }
        }
        Ok(moved)
    }

    /// A node is gone; others may have its shards.
    fn lose(&self, node: &NodeAddress, error: &PgError) -> Result<(), PgError> {
        if self.shared().is_some_and(Shared::is_torn) {
            return Err(lost_in_the_middle(node, Some(error)));
        }
        pg::sys::error::warning(pool::connection_failed(node, error));
        transaction::lose_node(node, error)
    }

    /// Sends the statement that splits a node's rows. The inner error says that the node cannot be reached.
    fn ask(
        &self,
        io: &mut ScanIo,
        node: &NodeAddress,
        group: &[usize],
        sharers: u16,
        parts: &[Shard],
    ) -> Result<Result<Asked, PgError>, PgError> {
        let split = self.scan().and_then(|plan| plan.split.as_ref());
        let (Some(plan), Some(split)) = (self.scan(), split) else {
            return Err(PgError::internal("rows that are not split were to be"));
        };
        let columns: Vec<String> = (1..=plan.remote.len()).map(|n| format!("c{n}")).collect();
        let columns = columns.join(", ");
        let rows: Result<Vec<String>, PgError> =
            group.iter().map(|index| render(self.template(), *index)).collect();
        let rows = rows?.join(" UNION ALL ");
        let (opening, closing) = self.around();
        let codecs = io.codecs();
        let arguments = io.arguments_for(group, &[], &|text| self.sealed(node, text));
        for attempt in 0..2 {
            let found = pool::acting_as(self.user(), || {
                pool::session_of(node, Stale::Matters, self.shared().map(Shared::number))
            });
            if self.shared().is_some_and(Shared::is_torn) {
                return Err(lost_in_the_middle(node, None));
            }
            let session = match found {
                Ok(session) => session,
                Err(NoSession::Unreachable(error)) => return Ok(Err(error)),
                Err(NoSession::Refused(error)) => return Err(error),
            };
            let tables = super::tables(&plan.tables)?;
            let ready = self
                .take_snapshot(&session)
                .and_then(|()| age::must_show(&session, &tables, group));
            match ready {
                Ok(()) => {}
                Err(Failure::Lost(error)) => return Ok(Err(error)),
                Err(Failure::Statement(error)) => return Err(error),
            }
            // A new one each time: whoever kept rows under the last may still be about to drop them.
            let name = pg::exec::partitions::new_name();
            let spec = PartitionSpec {
                name: name.clone(),
                column: split.by.column,
                family: split.by.family.to_u32(),
                type_oid: split.by.type_oid.to_u32(),
                keeps_nulls: split.keeps_nulls,
                parts: parts.to_vec(),
            };
            let sql = format!(
                "SELECT pgs_catalog.split_rows({}, {columns}) FROM ({opening}{rows}{closing}) AS u({columns})",
                literal(&secrets::seal(node, Purpose::Split, &self.role(), &spec.to_text()))
            );
            let types = codecs.argument_types();
            let request = Request::new(Sql::Once(&sql), types, &arguments);
            let level = transaction::level_for_read(&session.borrow());
            let had_transaction = session.borrow().depth > 0;
            session.borrow_mut().sharers = sharers;
            session.borrow_mut().keeps.push(name.clone());
            self.read_at_time(&session);
            let sent = session.borrow_mut().send(&request, level);
            match sent {
                Ok(()) => {
                    let (node, group) = (node.clone(), group.to_vec());
                    return Ok(Ok(Asked { node, group, session, name, sizes: None }));
                }
                Err(Failure::Statement(error)) => return Err(error),
                Err(Failure::Lost(error)) if self.shared().is_some_and(Shared::is_torn) => {
                    return Err(lost_in_the_middle(node, Some(&error)));
                }
                Err(Failure::Lost(error)) if had_transaction || attempt > 0 => {
                    return Ok(Err(error));
                }
                Err(Failure::Lost(_)) => pool::discard_broken(),
            }
        }
        Ok(Err(PgError::new(SqlState::CONNECTION_FAILURE, "the connection breaks again and again")))
    }

    /// In whose name the nodes are asked.
    fn role(&self) -> String {
        pool::acting_as(self.user(), pool::user)
    }

    /// Where moved rows are, for a node that believes a coordinator only.
    pub(super) fn sealed(&self, node: &NodeAddress, text: &str) -> String {
        secrets::seal(node, Purpose::Fetch, &self.role(), text)
    }

    /// Nobody will fetch these rows any more.
    pub(super) fn drop_kept(&mut self) {
        for Spooled { session, name } in self.kept.drain(..) {
            if let Ok(mut session) = session.try_borrow_mut() {
                session.drop_kept(&name);
            }
        }
    }
}

/// Waits until some node has split its rows, or failed to: its place.
fn next_answer(asked: &mut [Asked]) -> (usize, Result<(), Failure>) {
    loop {
        for (at, asked) in asked.iter_mut().enumerate() {
            let mut session = asked.session.borrow_mut();
            loop {
                match session.poll() {
                    Ok(Event::Wait) => break,
                    Ok(Event::Row(message)) => asked.sizes = session.row(&message).first_text(),
                    Ok(Event::Done(_)) => return (at, Ok(())),
                    Err(failure) => return (at, Err(failure)),
                }
            }
        }
        let sessions: Vec<&SessionRef> = asked.iter().map(|asked| &asked.session).collect();
        if let Err((at, failure)) = wait_for_any(&sessions) {
            return (at, Err(failure));
        }
    }
}

/// Answered by a node that can split rows and fetch them.
const QUESTION: &str =
    "SELECT pg_catalog.to_regprocedure('pgs_catalog.split_rows(text, \"any\")') IS NOT NULL";

/// Rows can move between all nodes of these tables: each hash has a shard, and all nodes have what it takes.
pub(crate) fn can_repartition(tables: &[Oid]) -> bool {
    if GIVEN_UP_UNTIL.get() > clock() {
        return false;
    }
    let tables: Vec<Rc<DistributedTable>> =
        tables.iter().filter_map(|table| catalog::find(*table)).collect();
    let mut nodes: Vec<NodeAddress> = Vec::new();
    for placement in tables.iter().flat_map(|table| table.placements.iter().flatten()) {
        if !nodes.contains(&placement.node) {
            nodes.push(placement.node.clone());
        }
    }
    tables.iter().all(|table| table.map.covers_all())
        && capabilities::of_nodes(&nodes, QUESTION)
            .is_some_and(|answers| answers.iter().all(|answer| answer == "t"))
        && nodes.iter().all(|node| secrets::of(node).is_some())
}

/// A node may have said that it does not get at the rows of another, or does not believe what it is told: this backend
/// makes no such plans for a while, and forgets those it has.
pub(super) fn learn_from(error: &PgError) {
    let is_not_proven = secrets::is_not_proven(error);
    if is_not_proven {
        secrets::forget();
    }
    if is_not_proven || error.message().starts_with(NOT_FETCHED) {
        GIVEN_UP_UNTIL.set(clock() + GIVING_UP);
        pg::path::plan::forget_cached();
    }
}
