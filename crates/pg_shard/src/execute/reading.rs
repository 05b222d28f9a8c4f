//! A reading statement on its way to the nodes that together hold some shards, and to others when nodes are lost.
//!
//! The crate `dispatch` decides what is done in which case; its tests are the failure table.

use super::assignment::{assign, check_leaders, named, sharers};
use super::first_free::Claimed;
use super::node_read::{NodeRead, is_afresh, lost_in_the_middle};
use super::read::Read;
use super::render;
use super::repartition;
use crate::catalog::DistributedTable;
use crate::naming::tell_as_table;
use crate::plan::compiled;
use crate::session::age;
use crate::session::capabilities;
use crate::session::pool::{self, SessionRef, Stale};
use crate::session::snapshot::Shared;
use crate::session::stream::Stream;
use crate::session::{Failure, NoSession, Request, Sql, StatementKey};
use crate::transaction;
use dispatch::read::{
    Attempts, Interruption, Opening, Progress, Recovery, Retry, SendFailure, Unopened,
};
use pg::PgError;
use pg::exec::rows::Codecs;
use pg::exec::scan_io::ScanIo;
use pg::server::transaction::Isolation;
use pg::sys::plan::Plan;
use protocol::Arguments;
use shardmap::NodeAddress;
use std::rc::Rc;

/// Why a statement is not under way on a node.
struct Unsent {
    event: SendFailure,
    cause: Option<PgError>,
}

impl Read {
    /// Starts the statement on nodes that together hold the shards; `avoid` are nodes known to be gone.
    pub(super) fn open(
        &self,
        io: &mut ScanIo,
        tables: &[Rc<DistributedTable>],
        shards: &[usize],
        avoid: Vec<NodeAddress>,
    ) -> Result<Vec<NodeRead>, PgError> {
        let mut reads = Vec::new();
        let mut opening = Opening::new(shards, avoid);
        let mut refusal: Option<PgError> = None;
        loop {
            let parts = match opening
                .next(|shards, avoid| assign(tables, shards, avoid, &pool::avoided()))
            {
                Ok(Some(parts)) => parts,
                Ok(None) => return Ok(reads),
                Err(Unopened::Unreadable(error)) => return Err(error),
                Err(Unopened::RefusedHere) => {
                    return Err(refusal.unwrap_or_else(|| PgError::internal("nothing was refused")));
                }
            };
            if self.reads_ctids() {
                check_leaders(&tables[0], &parts)?;
            }
            if parts.len() > 1 {
                pool::acting_as(self.user(), || pool::open_missing(parts.iter().map(|it| &it.0)));
            }
            for (node, group) in &parts {
                match self.open_node(io, tables, node, group, sharers(&parts, node))? {
                    Ok(read) => reads.push(read),
                    Err(error) => {
                        pg::sys::error::warning(pool::connection_failed(node, &error));
                        transaction::lose_node(node, &error)?;
                        let is_own = pool::is_own_refusal(&error);
                        opening.on_unreachable(node.clone(), group, is_own);
                        if is_own {
                            refusal = Some(error);
                        }
                    }
                }
            }
        }
    }

    /// A write compares the rows' `ctid`s with those of another scan: placements have different ones.
    fn reads_ctids(&self) -> bool {
        matches!(&self.compiled.plan, Plan::ShardScan(plan) if plan.by_ctid)
    }

    /// Starts the statement on one node. The inner error says that the node cannot be reached.
    fn open_node(
        &self,
        io: &mut ScanIo,
        tables: &[Rc<DistributedTable>],
        node: &NodeAddress,
        shards: &[usize],
        sharers: u16,
    ) -> Result<Result<NodeRead, PgError>, PgError> {
        let arguments = io.sealed_arguments(shards, &|text| self.sealed(node, text));
        let mut attempts = Attempts::default();
        loop {
            let unsent = match self.try_node(io, tables, node, shards, sharers, &arguments)? {
                Ok(read) => return Ok(Ok(read)),
                Err(unsent) => unsent,
            };
            let cause = unsent.cause;
            let error = || PgError::internal("a statement is not sent for no reason");
            match attempts.on(unsent.event) {
                Retry::SendAgain => pool::discard_broken(),
                Retry::AskOthers => return Ok(Err(cause.unwrap_or_else(error))),
                Retry::FailTorn => return Err(lost_in_the_middle(node, cause.as_ref())),
                Retry::Fail => return Err(cause.unwrap_or_else(error)),
            }
        }
    }

    /// Sends the statement to one node, once.
    fn try_node(
        &self,
        io: &mut ScanIo,
        tables: &[Rc<DistributedTable>],
        node: &NodeAddress,
        shards: &[usize],
        sharers: u16,
        arguments: &Arguments,
    ) -> Result<Result<NodeRead, Unsent>, PgError> {
        let unsent = |event, cause| Ok(Err(Unsent { event, cause }));
        let table = &*tables[0];
        let shared = self.shared();
        let statement = shared.map(Shared::number);
        let found =
            pool::acting_as(self.user(), || pool::session_of(node, Stale::IsHarmless, statement));
        // A session that is found to be broken may have had the snapshot.
        if shared.is_some_and(Shared::is_torn) {
            return unsent(SendFailure::Torn, None);
        }
        let session = match found {
            Ok(session) => session,
            Err(NoSession::Unreachable(error)) => {
                return unsent(SendFailure::Unreachable, Some(error));
            }
            // Another node may be reached; a read marks nothing.
            Err(NoSession::Refused(error)) if pool::is_own_refusal(&error) => {
                return unsent(SendFailure::RefusedHere, Some(error));
            }
            Err(NoSession::Refused(error)) => return unsent(SendFailure::Rejected, Some(error)),
        };
        let had_transaction = session.borrow().depth > 0;
        let ready =
            self.take_snapshot(&session).and_then(|()| age::must_show(&session, tables, shards));
        match ready {
            Ok(()) => {}
            Err(Failure::Lost(error)) => {
                return unsent(SendFailure::LostInPreparation, Some(error));
            }
            Err(Failure::Statement(error)) => return unsent(SendFailure::Rejected, Some(error)),
        }
        let level = self.level(io, &session);
        // Parallel workers lock no rows.
        if !self.locks() {
            session.borrow_mut().sharers = sharers;
        }
        let portal = self.is_held().then(|| session.borrow_mut().hold_next());
        session.borrow_mut().announces = self.waits_for_all() && portal.is_none();
        self.read_at_time(&session);
        match self.send(&session, level, table, shards, &io.codecs(), arguments)? {
            Ok(()) => {
                if self.locks() && !self.holds_locks_here(table, shards) {
                    session.borrow_mut().locked = true;
                }
                let head = (!self.merge_keys().is_empty()).then(|| io.new_head());
                let rows = head.as_ref().map_or_else(|| io.rows(), |it| Rc::clone(it.store()));
                let stream = Stream::attach(&session, rows);
                let (node, shards) = (node.clone(), shards.to_vec());
                Ok(Ok(NodeRead { node, shards, session, stream, head, portal }))
            }
            Err(Failure::Lost(error)) if shared.is_some_and(Shared::is_torn) => {
                unsent(SendFailure::Torn, Some(error))
            }
            Err(Failure::Lost(error)) => unsent(SendFailure::Lost { had_transaction }, Some(error)),
            Err(Failure::Statement(error)) => unsent(SendFailure::Rejected, Some(error)),
        }
    }

    /// Sends the statement: one that the node keeps prepared if it concerns one shard, else one that unites the node's shards.
    fn send(
        &self,
        session: &SessionRef,
        level: Option<(u32, Isolation)>,
        table: &DistributedTable,
        shards: &[usize],
        codecs: &Codecs,
        arguments: &Arguments,
    ) -> Result<Result<(), Failure>, PgError> {
        let (types, is_plain) = (codecs.argument_types(), self.compiled.plan.is_plain());
        let template = self.template();
        let (opening, closing) = self.around();
        if let Some(claimed) = &self.claimed {
            let sql = self.claim_sql(claimed, shards)?;
            let again = || Ok(sql.clone());
            let text = match claimed {
                Claimed::Places(_) => Sql::Once(&sql),
                // The same for every claim.
                Claimed::First { .. } => {
                    let template = compiled::text_number(&sql, types);
                    Sql::Spooled(StatementKey { template, part: 0 }, &again)
                }
            };
            let request = Request::new(text, types, arguments).plain_if(is_plain);
            return Ok(session.borrow_mut().send(&request, level));
        }
        if let [only] = shards[..] {
            let key = StatementKey {
                template: self.compiled.template_number(self.around(), template, types)?,
                part: table.shard_id(only).0,
            };
            let render = || Ok(format!("{opening}{}{closing}", render(template, only)?));
            let request =
                Request::new(Sql::Spooled(key, &render), types, arguments).plain_if(is_plain);
            return Ok(session.borrow_mut().send(&request, level));
        }
        let sql: Result<Vec<String>, PgError> =
            shards.iter().map(|index| render(template, *index)).collect();
        let sql = format!("{opening}{}{closing}", sql?.join(" UNION ALL "));
        let request = Request::new(Sql::Once(&sql), types, arguments).plain_if(is_plain);
        Ok(session.borrow_mut().send(&request, level))
    }

    fn level(&self, io: &ScanIo, session: &SessionRef) -> Option<(u32, Isolation)> {
        if self.locks() && (self.is_held() || !io.is_whole_transaction()) {
            let (level, isolation) = transaction::level_for_write();
            return Some((level + self.savepoints(session), isolation));
        }
        transaction::level_for_read(&session.borrow())
    }

    /// Another placement takes over, if the node was lost before it delivered anything.
    pub(super) fn replace(
        &self,
        io: &mut ScanIo,
        read: &NodeRead,
        failure: Failure,
    ) -> Result<Vec<NodeRead>, PgError> {
        let tables = self.tables()?;
        let has_rows = read.stream.state.borrow().started;
        let interruption = match &failure {
            Failure::Lost(_) => Interruption::Lost,
            Failure::Statement(_) if failure.is_stale_statement() => Interruption::StaleStatement,
            Failure::Statement(_) => Interruption::Error,
        };
        let is_lost = interruption == Interruption::Lost;
        let is_stale = interruption == Interruption::StaleStatement;
        if is_lost {
            pool::discard_broken();
        }
        let progress = Progress {
            has_rows,
            is_settled: self.is_settled(),
            is_torn: self.shared().is_some_and(Shared::is_torn),
            is_afresh: is_stale && !has_rows && is_afresh(&read.session),
        };
        let (Failure::Lost(error) | Failure::Statement(error)) = failure;
        let recovery = progress.recovery(interruption);
        match recovery {
            Recovery::Fail => return Err(node_error(error, &tables, read)),
            Recovery::FailInTheMiddle => return Err(lost_in_the_middle(&read.node, Some(&error))),
            Recovery::AskAgain | Recovery::AskAgainUnlessSilent => {}
        }
        if is_lost {
            transaction::lose_node(&read.node, &error)?;
        }
        if recovery.asks_again(|| pool::avoided().contains(&read.node))
            && let Ok(again) = self.open_node(io, &tables, &read.node, &read.shards, 1)?
        {
            return Ok(vec![again]);
        }
        if is_lost {
            pg::sys::error::warning(pool::connection_failed(&read.node, &error));
        }
        self.open(io, &tables, &read.shards, vec![read.node.clone()])
    }
}

/// An error of a node, in the tables' own names.
fn node_error(error: PgError, tables: &[Rc<DistributedTable>], read: &NodeRead) -> PgError {
    if pg::exec::partial_state::is_surprise(&error) {
        capabilities::forget();
    }
    repartition::learn_from(&error);
    tell_as_table(error, &named(tables, &read.shards), &read.node)
}
