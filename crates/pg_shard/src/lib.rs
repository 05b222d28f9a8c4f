//! pg_shard 2: a table cut over many PostgreSQL servers.
//!
//! The modules stand in the order in which a statement travels. Everything that touches PostgreSQL's C is in
//! the crate `pg`, everything that can be decided without PostgreSQL in `shardmap`.

/// What the metadata say.
mod catalog;

/// COMMIT PREPARED by the client.
mod client_decision;

/// What a distributed table carries itself.
mod mark;

/// Security labels, which carry it.
mod security_label;

/// Which script made the extension's objects.
mod script;

/// The nodes, and where they are reached.
mod nodes;

/// The settings `pg_shard.*`.
mod settings;

/// Which way a statement takes.
mod plan;

/// From a plan to rows.
mod execute;

/// Connections to nodes.
mod session;

/// What other sessions see of this one.
mod activity;

/// What was begun on which node, and how it ends.
mod transaction;

/// How several nodes commit.
mod distributed_commit;

/// What ends transactions that were left in doubt.
mod resolver;

/// Faults that tests ask for.
mod fault;

/// Placements that missed a write.
mod health;

/// Placements that become healthy again.
mod repair;

/// Workers' errors in the table's own names.
mod naming;

/// COPY.
mod copy;

/// Changing tables' definitions.
mod ddl;

/// Tables that foreign keys link.
mod links;

/// Shards that change their place.
mod relocation;

/// Nodes that act as a table's owner.
mod owner;

/// The functions that users call.
mod functions;

use functions::partitions;
use pg::PgError;
use pg::catalog::table;
use pg::exec::execution::Execution;
use pg::extension::Extension;
use pg::hooks::{self, Planner, Verdict};
use pg::path::modify::ModifyTarget;
use pg::path::plan::BoundParameters;
use pg::read::query::{DistributionKey, Statement};
use pg::server::alter::PartitionChangeKind;
use pg::server::background::{self, Job};
use pg::server::resolver::Visits;
use pg::server::rounds::{self, Rounds, Visit};
use pg::server::utility::{Outcome, UtilityCall};
use pg::sys::plan::{PlanWriter, ShardScan};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use shardmap::instruction::Purpose;
use shardmap::repartition::RepartitionedRows;
use std::time::Duration;

::pgrx::pg_module_magic!();

struct PgShard;

static PG_SHARD: PgShard = PgShard;

#[pg_guard]
extern "C-unwind" fn _PG_init() {
    pg::catalog::mark::register(security_label::check);
    settings::define();
    settings::define_sharing();
    // Our workers would keep databases open that pg_upgrade drops, and locks that pg_dump takes would be taken on the nodes.
    if pg::server::is_being_upgraded() {
        return;
    }
    pg::server::prepared::make_room();
    pg::server::activity::reserve();
    pg::server::in_flight::register(fault::room_for_leftovers);
    if settings::shared_sessions() {
        pg::server::shared::register();
    }
    pg::time::reserve();
    rounds::register(Rounds { rest: settings::autoanalyze_naptime, visit: ddl::keep_fresh });
    pg::server::resolver::register(Visits {
        resolve,
        repair: repair::visit,
        watch: nodes::visit,
        watches: || settings::health_interval().is_some(),
    });
    background::set_job(Job { run: in_background, afterwards: functions::online::after_capture });
    hooks::install(&PG_SHARD, execute::begin);
}

/// What is committed by itself, beside the transaction of whoever wants it.
fn in_background(task: &str) {
    if !functions::online::capture(task) {
        health::mark_in_background(task);
    }
}

/// The visit that ends what failures have left in a database.
fn resolve(visit: &Visit) {
    if let Err(error) = visit.in_transaction(functions::online::undo) {
        pg::sys::error::log(error);
    }
    resolver::visit(visit, relocation::undo);
}

impl Planner for PgShard {
    fn plan(
        &self,
        statement: Statement,
        parameters: BoundParameters,
        scroll: bool,
    ) -> Result<Verdict, PgError> {
        plan::plan(statement, parameters, scroll)
    }

    fn plan_scan(&self, scan: &ShardScan) -> PlanWriter {
        plan::data::write(&pg::sys::plan::Plan::ShardScan(Box::new(scan.clone())))
    }

    fn plan_modify(&self, target: &ModifyTarget) -> PlanWriter {
        plan::modify::private(target)
    }

    fn finish(&self, execution: Execution) -> Result<(), PgError> {
        execute::modify::finish(execution)
    }

    fn utility(&self, call: &mut UtilityCall) -> Result<Outcome, PgError> {
        let Some(change) = call.partition_change() else { return ddl::utility(call) };
        if !partitions::concerns(&change)? {
            return ddl::utility(call);
        }
        if change.kind == PartitionChangeKind::Create {
            ddl::utility(call)?;
        }
        Ok(Outcome::ThenFinish)
    }

    fn finish_utility(&self, call: &mut UtilityCall) -> Result<(), PgError> {
        if let Some(change) = call.partition_change()
            && partitions::concerns(&change)?
        {
            pg::server::alter::show_changes();
            return partitions::follow(&change);
        }
        ddl::finish_utility(call)
    }
}

/// The table as the planner is to see it.
fn planned(table: pgrx::pg_sys::Oid) -> Option<std::rc::Rc<catalog::DistributedTable>> {
    catalog::find(table).filter(|table| !ddl::restoring::is_local(table))
}

impl Extension for PgShard {
    fn distribution(&self, table: Oid) -> Option<DistributionKey> {
        planned(table).map(|table| table.key)
    }

    fn estimated_rows(&self, table: Oid) -> Option<f64> {
        let distributed = planned(table)?;
        // Nobody has counted: a guess that makes PostgreSQL neither hash millions nor loop over shards.
        let counted = table::describe(table).map_or(0.0, |relation| f64::from(relation.rows));
        Some(if counted > 0.0 { counted } else { 1000.0 * distributed.map.len() as f64 })
    }

    fn estimated_pages(&self, table: Oid) -> Option<f64> {
        planned(table)?;
        let counted = table::describe(table).map_or(0, |relation| relation.pages);
        (counted > 0).then_some(f64::from(counted))
    }

    fn shard_count(&self, table: Oid) -> usize {
        catalog::find(table).map_or(0, |table| table.map.len())
    }

    fn hides_places(&self, table: Oid) -> bool {
        catalog::find(table).is_some_and(|table| table.hides_places())
    }

    fn node_count(&self, table: Oid) -> usize {
        catalog::find(table).map_or(0, |table| table.node_count())
    }

    fn lie_together(&self, tables: &[Oid]) -> bool {
        let tables: Vec<_> = tables.iter().filter_map(|table| catalog::find(*table)).collect();
        plan::lie_together(&tables)
    }

    fn ask_nodes(&self, tables: &[Oid], question: &str) -> Option<Vec<String>> {
        let mut nodes = Vec::new();
        for table in tables {
            nodes.extend(catalog::find(*table)?.nodes());
        }
        nodes.sort();
        nodes.dedup();
        session::capabilities::of_nodes(&nodes, question)
    }

    fn pushes_down(&self) -> bool {
        settings::enable_pushdown()
    }

    fn verifies_sql(&self) -> bool {
        settings::verify_sql()
    }

    fn can_repartition(&self, tables: &[Oid]) -> bool {
        execute::repartition::can_repartition(tables)
    }

    fn open_instruction<'a>(&self, purpose: Purpose, sealed: &'a str) -> Result<&'a str, PgError> {
        session::secrets::open(purpose, sealed)
    }

    fn fetch_part(
        &self,
        moved: &RepartitionedRows,
        part: usize,
        each: &mut dyn FnMut(usize, Vec<u8>) -> Result<(), PgError>,
    ) -> Result<(), PgError> {
        functions::repartition::fetch_part(moved, part, each)
    }

    fn on_drop(&self, table: Oid) -> Result<(), PgError> {
        ddl::on_drop(table)
    }

    fn on_drop_column(&self, table: Oid) -> Result<(), PgError> {
        ddl::on_drop_column(table)
    }

    fn on_drop_object(&self, class: Oid, object: Oid) -> Result<(), PgError> {
        ddl::placed::on_drop(class, object)
    }

    fn lock_patience(&self) -> Option<Duration> {
        session::deadlock::patience()
    }

    fn has_waited_long(&self, goes_on: &dyn Fn() -> bool) -> Result<bool, PgError> {
        session::deadlock::look(goes_on)
    }

    fn before_commit(&self) -> Result<(), PgError> {
        transaction::before_commit()
    }

    fn before_prepare(&self) -> Result<(), PgError> {
        transaction::before_prepare()
    }

    fn after_transaction(&self, committed: bool) {
        transaction::after_transaction(committed);
    }

    fn after_subtransaction_abort(&self, level: u32) {
        transaction::after_subtransaction_abort(level);
    }

    fn before_subtransaction_commit(&self, level: u32) -> Result<(), PgError> {
        transaction::before_subtransaction_commit(level)
    }

    fn forget(&self, table: Option<Oid>) {
        catalog::forget(table);
    }

    fn forget_plans(&self) {
        catalog::forget_plans();
    }
}
