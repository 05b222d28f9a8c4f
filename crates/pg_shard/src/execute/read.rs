//! Rows from one or many shards.
//!
//! One statement per node unites the node's shards there; all nodes work at once and rows are taken from
//! whichever has some. Reads use healthy placements only; a node that cannot be reached, or is lost before it
//! delivered a row, is replaced by other placements of its shards. After that a lost node is an error, never a
//! short result.

use super::explain::{explain_shards, render_generic};
use super::first_free::Claimed;
use super::merge::Merge;
use super::node_read::{NodeRead, Taken, abandon, take, tell_done, wait_any};
use super::read_time::{ReadTime, explained};
use super::repartition::{Spooled, parts_of};
use super::write::lock_rows_of;
use super::{prune, tables};
use crate::activity::{Kind, Work};
use crate::catalog::{self, DistributedTable};
use crate::plan::compiled::Compiled;
use crate::session::Failure;
use crate::session::pool::SessionRef;
use crate::session::snapshot::{self, Shared};
use crate::session::stream::stop_together;
use dispatch::read::Times;
use pg::PgError;
use pg::exec::explain::Explain;
use pg::exec::merge::MergeOrder;
use pg::exec::scan_io::{Scan, ScanIo};
use pg::sys::plan::{Command, Key, Piece, Plan, ShardScan, SortKey};
use pgrx::pg_sys::Oid;
use protocol::Arguments;
use shardmap::{Prune, Shard, repartition::RepartitionedRows};
use std::cell::RefCell;
use std::rc::Rc;

/// A scan that reads.
pub(crate) struct Read {
    pub(super) compiled: Rc<Compiled>,
    pub(super) state: State,
    /// Rows are kept while they are read, because the executor asks for them again.
    pub(super) keeping: bool,
    /// What the kept rows are the answer to.
    kept_for: Option<(Vec<usize>, Arguments)>,
    /// What compares rows of sorted streams, once it is needed.
    order: Option<Rc<MergeOrder>>,
    pub(super) told: Option<Work>,
    /// The shards that were asked, the last time.
    asked: Option<Vec<usize>>,
    /// Part in the statement's snapshots, if it has some.
    shared: Option<Shared>,
    /// What the nodes keep for others, if the rows are split.
    pub(super) kept: Vec<Spooled>,
    /// Which rows are to be locked, if not all.
    pub(super) claimed: Option<Claimed>,
    /// It asked before rows were wanted: what it yields is of that moment.
    pub(super) is_early: bool,
    /// When it reads, on all nodes, if the statement has no snapshots and asks several.
    pub(super) time: ReadTime,
    /// The transaction had done nothing on any node before.
    pub(super) is_first: bool,
    /// Something of what has come was handed on: it cannot be read at another time any more.
    pub(super) has_yielded: bool,
    /// Its attempts to read at a time that all nodes accept.
    pub(super) times: Times,
}

pub(super) enum State {
    Ready,
    /// The nodes have bound the statement: see [`super::held`].
    Held(Vec<NodeRead>),
    Reading(Vec<NodeRead>),
    Merging(Merge),
    /// All rows have come; those kept are all of them if `keeping`.
    Finished,
}

impl Read {
    /// The scan of a plan.
    pub(crate) fn new(compiled: Rc<Compiled>) -> Self {
        Self {
            compiled,
            state: State::Ready,
            keeping: false,
            kept_for: None,
            order: None,
            told: None,
            asked: None,
            shared: None,
            kept: Vec::new(),
            claimed: None,
            is_early: false,
            time: None,
            is_first: false,
            has_yielded: false,
            times: Times::default(),
        }
    }

    /// What the plan says, if it is a scan over shards.
    pub(super) fn scan(&self) -> Option<&ShardScan> {
        match &self.compiled.plan {
            Plan::ShardScan(plan) => Some(plan),
            Plan::Routed(_) | Plan::InsertedRows(_) | Plan::ComputedModify(_) => None,
        }
    }

    pub(super) fn tables(&self) -> Result<Vec<Rc<DistributedTable>>, PgError> {
        match &self.compiled.plan {
            Plan::Routed(plan) => tables(&plan.tables),
            Plan::ShardScan(plan) => tables(&plan.tables),
            Plan::InsertedRows(_) | Plan::ComputedModify(_) => Ok(Vec::new()),
        }
    }

    pub(super) fn template(&self) -> &[Piece] {
        match &self.compiled.plan {
            Plan::Routed(plan) => &plan.template,
            Plan::ShardScan(plan) => &plan.template,
            Plan::InsertedRows(_) | Plan::ComputedModify(_) => &[],
        }
    }

    /// What stands around the union of a node's shards.
    pub(super) fn around(&self) -> (&str, &str) {
        match &self.compiled.plan {
            Plan::ShardScan(plan) => (&plan.around.0, &plan.around.1),
            Plan::Routed(_) | Plan::InsertedRows(_) | Plan::ComputedModify(_) => ("", ""),
        }
    }

    fn prune(&self) -> &Prune<Key> {
        match &self.compiled.plan {
            Plan::Routed(plan) => &plan.prune,
            Plan::ShardScan(plan) => &plan.prune,
            Plan::InsertedRows(_) | Plan::ComputedModify(_) => &Prune::All,
        }
    }

    /// The role whose rights count, as in the plan.
    pub(super) fn user(&self) -> Oid {
        match &self.compiled.plan {
            Plan::Routed(plan) => plan.user,
            Plan::ShardScan(plan) => plan.user,
            Plan::InsertedRows(plan) => plan.user,
            Plan::ComputedModify(plan) => plan.user,
        }
    }

    pub(super) fn locks(&self) -> bool {
        match &self.compiled.plan {
            Plan::Routed(plan) => plan.command == Command::SelectForUpdate,
            Plan::ShardScan(plan) => plan.locks,
            Plan::InsertedRows(_) | Plan::ComputedModify(_) => false,
        }
    }

    /// The rows that are locked on the nodes are kept from others by locks of this server too, as those of replicated shards are
    /// that are going to be written: to lose a node's locks with the node is no harm.
    pub(super) fn holds_locks_here(&self, table: &DistributedTable, shards: &[usize]) -> bool {
        matches!(&self.compiled.plan, Plan::ShardScan(plan) if plan.is_target)
            && shards.iter().all(|index| table.placements[*index].len() > 1)
    }

    pub(super) fn shards(
        &self,
        io: &mut ScanIo,
        table: &DistributedTable,
    ) -> Result<Vec<usize>, PgError> {
        let mut shards = prune(io, self.prune(), table)?.shards;
        if matches!(self.compiled.plan, Plan::Routed(_)) {
            // A whole statement must run somewhere: if no shard can hold a matching row, any of them gives the
            // right answer (a count of zero, say).
            if shards.is_empty() {
                shards.push(0);
            }
            shards.truncate(1);
        } else if shards.is_empty() && table.map.len() == 1 {
            // Here too the shard may be asked for a count.
            shards.push(0);
        }
        Ok(shards)
    }

    pub(super) fn start(&mut self, io: &mut ScanIo) -> Result<(), PgError> {
        self.join_snapshots(io);
        let mut tables = self.tables()?;
        let mut shards = self.shards(io, &tables[0])?;
        if self.needs_order(&tables[0], &shards) {
            // What is read is going to be written: the order of writers is settled before.
            loop {
                lock_rows_of(&tables[0], &shards);
                let now = self.tables()?;
                if Rc::ptr_eq(&now[0], &tables[0]) {
                    break;
                }
                tables = now;
                shards = self.shards(io, &tables[0])?;
            }
        }
        // With no shard to ask, nothing is read for them either.
        if !shards.is_empty()
            && let Plan::ShardScan(plan) = &self.compiled.plan
        {
            let owner = |hash| tables[0].map.owner(hash);
            io.read_arrays(&plan.broadcasts, &owner)?;
            self.leave_out_unneeded(io, &tables[0], &mut shards);
            if !shards.is_empty() {
                io.move_rows(&parts_of(&tables[0], &shards))?;
            }
        }
        if io.is_explained() {
            self.asked = Some(shards.clone());
        }
        if self.keeping {
            self.kept_for = Some((shards.clone(), io.arguments(&shards)));
        }
        self.choose_time(io, &tables, &shards)?;
        self.told = Some(Work::begin(Kind::Read, shards.len()));
        let mut reads = self.open(io, &tables, &shards, Vec::new())?;
        if self.waits_for_all() {
            reads = self.await_snapshots(io, reads)?;
        }
        self.state = match self.is_held() {
            true => State::Held(reads),
            false => self.reading(io, reads),
        };
        Ok(())
    }

    /// What the nodes are going to deliver.
    pub(super) fn reading(&mut self, io: &ScanIo, reads: Vec<NodeRead>) -> State {
        match self.merge_order(io) {
            None => State::Reading(reads),
            Some(order) => {
                let mut merge = Merge::new(order);
                merge.add(reads);
                State::Merging(merge)
            }
        }
    }

    /// The rows are going to be changed, and the order of writers is settled by locks of this server. There is no need to if
    /// the statement holds the rows already, because it has locked them with SKIP LOCKED, and no placement has to follow.
    fn needs_order(&self, table: &DistributedTable, shards: &[usize]) -> bool {
        matches!(&self.compiled.plan, Plan::ShardScan(plan) if plan.is_target
            && !(plan.is_claimed && shards.iter().all(|index| table.placements[*index].len() == 1)))
    }

    /// Has the nodes lock these rows, as far as they pass the filters, and keeps those that they have locked; `each` is called with
    /// each of them in the scan's slot. Tells how many they are.
    pub(super) fn lock_rows(
        &mut self,
        io: &mut ScanIo,
        shards: &[usize],
        claimed: Claimed,
        each: &mut dyn FnMut(&mut ScanIo),
    ) -> Result<u64, PgError> {
        let tables = self.tables()?;
        (self.claimed, self.keeping) = (Some(claimed), true);
        self.told = Some(Work::begin(Kind::Read, shards.len()));
        let reads = self.open(io, &tables, shards, Vec::new())?;
        self.state = State::Reading(reads);
        let mut count = 0;
        while self.read(io)? {
            count += 1;
            each(io);
            io.pass_over();
        }
        Ok(count)
    }

    /// No row is given out before all nodes have accepted the time: one may refuse it.
    pub(super) fn waits_for_all(&self) -> bool {
        let at = self.shared().map_or_else(|| self.own_time(), Shared::time);
        self.is_early || self.times.refused() > 0 || at.is_some_and(|at| at.is_unclean)
    }

    /// Waits until all nodes have taken their snapshots.
    fn await_snapshots(
        &self,
        io: &mut ScanIo,
        mut opened: Vec<NodeRead>,
    ) -> Result<Vec<NodeRead>, PgError> {
        let mut reads = Vec::new();
        while let Some(read) = opened.pop() {
            // One that was spilled has been answered.
            let outcome = match read.stream.state.borrow().done {
                true => Ok(()),
                false if read.portal.is_some() => read.session.borrow_mut().wait_until_bound(),
                false => read.session.borrow_mut().wait_for_snapshot(),
            };
            match outcome {
                Ok(()) => reads.push(read),
                Err(failure) => opened.extend(self.replace(io, &read, failure)?),
            }
        }
        Ok(reads)
    }

    /// Leaves out shards in which nothing can match what is sent along.
    fn leave_out_unneeded(&self, io: &ScanIo, table: &DistributedTable, shards: &mut Vec<usize>) {
        // What is all in one shard may be a count of nothing.
        if let Plan::ShardScan(plan) = &self.compiled.plan
            && table.map.len() > 1
        {
            shards.retain(|shard| io.has_needed_rows(&plan.needed, *shard));
        }
    }

    /// It is read anew whenever it is asked for again.
    pub(super) fn is_read_anew(&self) -> bool {
        matches!(&self.compiled.plan, Plan::ShardScan(plan) if plan.is_candidates)
    }

    /// Takes part in the statement's snapshots, if it is one that has some.
    pub(super) fn join_snapshots(&mut self, io: &ScanIo) {
        if self.shared.is_none() && !self.locks() && !self.is_read_anew() {
            let is_scan = matches!(self.compiled.plan, Plan::ShardScan(_));
            self.shared = Shared::join(io, || is_scan && io.may_read_again());
        }
    }

    pub(super) fn shared(&self) -> Option<&Shared> {
        self.shared.as_ref()
    }

    /// Has a session see with the next statement what the others of this statement, or of the transaction, see.
    pub(super) fn take_snapshot(&self, session: &SessionRef) -> Result<(), Failure> {
        self.shared()
            .map_or_else(|| snapshot::share(session, catalog::nodes), |it| it.prepare(session))
    }

    fn next_row(&mut self, io: &mut ScanIo) -> Result<bool, PgError> {
        if matches!(self.state, State::Ready) {
            self.start(io)?;
        }
        self.run_held(io)?;
        if matches!(self.state, State::Merging(_)) { self.read_merged(io) } else { self.read(io) }
    }

    /// The order by which the nodes' streams are merged, if they are.
    pub(super) fn merge_order(&mut self, io: &ScanIo) -> Option<Rc<MergeOrder>> {
        let keys = self.merge_keys();
        if keys.is_empty() {
            return None;
        }
        let order = self.order.take().unwrap_or_else(|| Rc::new(io.merge_order(self.merge_keys())));
        self.order = Some(Rc::clone(&order));
        Some(order)
    }

    pub(super) fn merge_keys(&self) -> &[SortKey] {
        if let Some(first_free) = self.first_free() {
            return &first_free.merge;
        }
        match &self.compiled.plan {
            Plan::ShardScan(plan) => &plan.merge,
            Plan::Routed(_) | Plan::InsertedRows(_) | Plan::ComputedModify(_) => &[],
        }
    }

    /// Takes the next row from whichever node has one.
    fn read(&mut self, io: &mut ScanIo) -> Result<bool, PgError> {
        loop {
            if io.emit_kept()? {
                return Ok(true);
            }
            let State::Reading(reads) = &mut self.state else { return Ok(false) };
            if reads.is_empty() {
                self.state = State::Finished;
                return io.emit_kept();
            }
            let mut turn = 0;
            while turn < reads.len() {
                match take(&mut reads[turn]) {
                    Taken::Row(message) => {
                        let session = Rc::clone(&reads[turn].session);
                        let mut session = session.borrow_mut();
                        if self.keeping {
                            io.rows().borrow_mut().keep(session.row(&message))?;
                            break;
                        }
                        // Nodes take turns, so that none waits long with a full socket.
                        if reads.len() > 1 {
                            reads.rotate_left(turn);
                        }
                        if io.decoding_runs_code() {
                            let mut row = session.row(&message).to_owned();
                            drop(session);
                            io.emit(row.as_row())?;
                        } else {
                            io.emit(session.row(&message))?;
                        }
                        return Ok(true);
                    }
                    Taken::Nothing => turn += 1,
                    Taken::End => {
                        let read = reads.remove(turn);
                        tell_done(self.told.as_ref(), &read);
                    }
                    Taken::Spilled => {
                        // Its rows are in the store now.
                        let read = reads.remove(turn);
                        tell_done(self.told.as_ref(), &read);
                        break;
                    }
                    Taken::Failed(failure) => {
                        let read = reads.remove(turn);
                        let replaced = self.replace(io, &read, failure)?;
                        if let State::Reading(reads) = &mut self.state {
                            reads.extend(replaced);
                        }
                        break;
                    }
                }
            }
            if let State::Reading(reads) = &mut self.state
                && !reads.is_empty()
                && turn >= reads.len()
            {
                if self.told.as_ref().is_some_and(Work::goes_on) {
                    for read in &*reads {
                        read.session.borrow().tell_again();
                    }
                }
                wait_any(reads)?;
            }
        }
    }

    /// Takes the row that comes first of those that the nodes have next.
    fn read_merged(&mut self, io: &mut ScanIo) -> Result<bool, PgError> {
        loop {
            if io.emit_kept()? {
                return Ok(true);
            }
            let State::Merging(merge) = &mut self.state else { return Ok(false) };
            if let Some((failure, read)) = merge.advance(self.told.as_ref())? {
                let replaced = self.replace(io, &read, failure)?;
                if let State::Merging(merge) = &mut self.state {
                    merge.add(replaced);
                }
                continue;
            }
            if !merge.emit(io) {
                self.state = State::Finished;
                return io.emit_kept();
            }
            if !self.keeping {
                return Ok(true);
            }
            io.keep_emitted();
        }
    }

    /// The rows are those of a moment that has passed.
    pub(super) fn is_settled(&self) -> bool {
        self.is_early && !matches!(self.state, State::Ready)
    }

    /// The kept rows answer what would be asked now: a sub-query for each row of another asks the nodes twice at most.
    fn would_ask_the_same(&self, io: &mut ScanIo) -> Result<bool, PgError> {
        let Some((shards, arguments)) = &self.kept_for else { return Ok(false) };
        // Rows that are sent along would have to be read again to know.
        if !io.has_sent_rows() {
            return Ok(false);
        }
        let table = &self.tables()?[0];
        let mut now = self.shards(io, table)?;
        self.leave_out_unneeded(io, table, &mut now);
        Ok(now == *shards && io.arguments(shards) == *arguments)
    }

    /// The rows that have come so far are had from where they are kept, the others from the nodes.
    fn start_over(&mut self, io: &mut ScanIo) -> Result<(), PgError> {
        if io.looks_up() {
            io.look_up_again();
            return Ok(());
        }
        io.rows().borrow_mut().rewind();
        // Sorted rows must stay so.
        if self.merge_keys().is_empty() && io.can_look_up() {
            while self.next(io)? {}
            io.sort_kept()?;
        }
        Ok(())
    }

    /// Gives up what has not come yet. `is_over` says that the execution reads no more.
    pub(super) fn stop(&mut self, is_over: bool) {
        self.told = None;
        let keeps_snapshot = !(is_over && self.shared.as_ref().is_none_or(|shared| shared.is_own));
        let busy = RefCell::new(Vec::new());
        let abandon = |read: &NodeRead| {
            let is_busy = abandon(read, keeps_snapshot);
            busy.borrow_mut().extend(is_busy.then(|| Rc::clone(&read.session)));
        };
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Reading(reads) => reads.iter().for_each(abandon),
            State::Merging(merge) => merge.give_up(&abandon),
            State::Held(reads) => reads.iter().for_each(NodeRead::close_portal),
            unbegun => self.state = unbegun,
        }
        stop_together(&busy.into_inner());
    }
}

impl Scan for Read {
    fn asks_later(&self, io: &ScanIo) -> bool {
        !self.locks() && (self.is_read_anew() || io.looks_up())
    }

    fn ask_early(&mut self, io: &mut ScanIo) -> Result<(), PgError> {
        // Candidates are asked for by the scan that locks them.
        if self.is_read_anew() || self.is_for_a_write() {
            return Ok(());
        }
        self.ask_at_once(io)
    }

    fn ask_at_once(&mut self, io: &mut ScanIo) -> Result<(), PgError> {
        if !matches!(self.state, State::Ready) || io.looks_up() {
            return Ok(());
        }
        self.is_early = true;
        // Asked once more, the nodes would answer with what is there by then.
        self.keeping |= io.may_read_again() && !self.is_read_anew();
        self.start(io)
    }

    fn next(&mut self, io: &mut ScanIo) -> Result<bool, PgError> {
        if io.looks_up() {
            return io.emit_found();
        }
        loop {
            let outcome = self.next_row(io);
            match outcome {
                Ok(has_row) => {
                    self.has_yielded |= has_row;
                    return Ok(has_row);
                }
                Err(error) if self.may_begin_anew(&error) => {
                    self.begin_anew(io);
                }
                Err(error) => return Err(explained(error)),
            }
        }
    }

    fn rescan(&mut self, io: &mut ScanIo, changed: bool) -> Result<(), PgError> {
        if matches!(self.state, State::Ready) || self.is_held_still(changed) {
            return Ok(());
        }
        if self.keeping && !self.is_read_anew() && (!changed || self.would_ask_the_same(io)?) {
            return self.start_over(io);
        }
        // Asked for again: from now on the rows are kept, so that the nodes are asked twice at most.
        self.stop(false);
        io.rows().borrow_mut().clear();
        io.forget_found();
        self.keeping = !self.is_read_anew();
        self.state = State::Ready;
        Ok(())
    }

    fn end(&mut self, _io: &mut ScanIo) {
        self.stop(true);
        self.drop_kept();
        if let Some(shared) = self.shared.take() {
            snapshot::leave(shared);
        }
    }

    fn split(&mut self, io: &mut ScanIo, parts: &[Shard]) -> Result<RepartitionedRows, PgError> {
        self.split_on_nodes(io, parts)
    }

    fn explain(&mut self, io: &mut ScanIo, explain: &mut Explain) -> Result<(), PgError> {
        let tables = self.tables()?;
        let total = tables[0].map.len();
        if let Plan::ShardScan(plan) = &self.compiled.plan {
            if !plan.merge.is_empty() {
                explain.text("Merge Key", &plan.merge_text);
            }
            if let Some(split) = &plan.split {
                explain.text("Moved", &split.text);
            }
        }
        // What has been executed is told; otherwise nothing is executed to know more.
        if (io.awaits_subqueries() || !io.has_parameters()) && !self.prune().is_all() {
            explain.text("Shards", &format!("decided at execution, of {total}"));
            let (opening, closing) = self.around();
            let sql = render_generic(self.template())?;
            explain.text("Remote SQL", &format!("{opening}{sql}{closing}"));
            return Ok(());
        }
        let cut_by_rows = matches!(&self.compiled.plan, Plan::ShardScan(plan)
            if plan.broadcasts.iter().zip(&plan.needed).any(|(rows, needed)| *needed && rows.is_some()));
        let (shards, most) = match self.asked.take() {
            Some(asked) => (asked, ""),
            None if cut_by_rows => (self.shards(io, &tables[0])?, "decided at execution, at most "),
            None => (self.shards(io, &tables[0])?, ""),
        };
        explain.text("Shards", &format!("{most}{} of {total}", shards.len()));
        explain_shards(explain, io, &tables, &shards, self.around(), self.template())?;
        if explain.is_verbose() && !shards.is_empty() {
            self.explain_worker(io, explain, &tables, &shards)?;
        }
        Ok(())
    }
}
