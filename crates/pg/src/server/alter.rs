//! What a definition statement says that the catalogs do not show when it has run.

use crate::print::template::with_portable_output;
use crate::server::utility::{UtilityCall, resolve};
use crate::sys::node;
use crate::sys::version;
use pgrx::pg_sys::{self, AlterTableType as Kind, NodeTag, Oid};

/// A partition comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionChange {
    /// How.
    pub kind: PartitionChangeKind,
    /// The partitioned table.
    pub parent: Oid,
    /// The partition, if it is there.
    pub child: Option<Oid>,
}

/// How a partition comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionChangeKind {
    /// CREATE TABLE ... PARTITION OF.
    Create,
    /// ATTACH PARTITION.
    Attach,
    /// DETACH PARTITION, not CONCURRENTLY.
    Detach,
}

impl UtilityCall {
    /// What tells this statement from others while it runs.
    pub fn id(&self) -> usize {
        self.statement() as usize
    }

    /// It makes a partition of a table, or a table of a partition.
    pub fn partition_change(&self) -> Option<PartitionChange> {
        // SAFETY: a live utility statement, cast to the structs of its tags.
        unsafe {
            let n = self.node();
            if let Some(create) = node::cast::<pg_sys::CreateStmt, _>(n, NodeTag::T_CreateStmt) {
                let parents = (*create).inhRelations;
                if (*create).partbound.is_null() || node::length(parents) != 1 {
                    return None;
                }
                let parent = resolve(node::nth(parents, 0))?;
                let child = resolve((*create).relation);
                return Some(PartitionChange { kind: PartitionChangeKind::Create, parent, child });
            }
            let alter = node::cast::<pg_sys::AlterTableStmt, _>(n, NodeTag::T_AlterTableStmt)?;
            if (*alter).objtype != pg_sys::ObjectType::OBJECT_TABLE {
                return None;
            }
            let command = *self.subcommands().first()?;
            let kind = match (*command).subtype {
                Kind::AT_AttachPartition => PartitionChangeKind::Attach,
                Kind::AT_DetachPartition => {
                    let named = (*command).def.cast::<pg_sys::PartitionCmd>();
                    if (*named).concurrent {
                        return None;
                    }
                    PartitionChangeKind::Detach
                }
                _ => return None,
            };
            let child = resolve((*(*command).def.cast::<pg_sys::PartitionCmd>()).name);
            Some(PartitionChange { kind, parent: resolve((*alter).relation)?, child })
        }
    }

    /// It creates a trigger of this type (`pg_trigger.tgtype`).
    pub fn trigger_type(&self) -> Option<i16> {
        // SAFETY: a live utility statement, cast to the struct of its tag.
        unsafe {
            let create =
                node::cast::<pg_sys::CreateTrigStmt, _>(self.node(), NodeTag::T_CreateTrigStmt)?;
            Some((*create).timing | (*create).events | i16::from((*create).row))
        }
    }

    /// The first subcommand of an ALTER TABLE that shards cannot follow, as SQL spells it.
    pub fn local_subcommand(&self) -> Option<&'static str> {
        self.subcommands().into_iter().find_map(|command| {
            // SAFETY: a live subcommand of the statement.
            unsafe {
                Some(match (*command).subtype {
                    Kind::AT_AddInherit => "ALTER TABLE ... INHERIT",
                    Kind::AT_DropInherit => "ALTER TABLE ... NO INHERIT",
                    Kind::AT_AttachPartition => "ALTER TABLE ... ATTACH PARTITION",
                    Kind::AT_DetachPartition | Kind::AT_DetachPartitionFinalize => {
                        "ALTER TABLE ... DETACH PARTITION"
                    }
                    Kind::AT_AddOf => "ALTER TABLE ... OF",
                    Kind::AT_DropOf => "ALTER TABLE ... NOT OF",
                    Kind::AT_SetAccessMethod => "ALTER TABLE ... SET ACCESS METHOD",
                    Kind::AT_SetTableSpace => "ALTER TABLE ... SET TABLESPACE",
                    _ => return None,
                })
            }
        })
    }

    /// It is an ALTER TABLE or CLUSTER of this table.
    pub fn is_about(&self, table: Oid) -> bool {
        // SAFETY: a live utility statement, cast to the struct of its tag.
        unsafe {
            let n = self.node();
            let relation = match node::tag(n) {
                NodeTag::T_AlterTableStmt => (*n.cast::<pg_sys::AlterTableStmt>()).relation,
                NodeTag::T_ClusterStmt => (*n.cast::<pg_sys::ClusterStmt>()).relation,
                _ => return false,
            };
            resolve(relation) == Some(table)
        }
    }

    /// It is an ALTER TABLE or CLUSTER that may write the table anew.
    pub fn may_rewrite(&self) -> bool {
        let rewrites = [
            Kind::AT_AddColumn,
            Kind::AT_AlterColumnType,
            Kind::AT_SetLogged,
            Kind::AT_SetUnLogged,
        ];
        // SAFETY: a live statement and its subcommands.
        unsafe {
            node::tag(self.node()) == NodeTag::T_ClusterStmt
                || self
                    .subcommands()
                    .into_iter()
                    .map(|command| (*command).subtype)
                    .any(|kind| rewrites.contains(&kind) || version::sets_expression(kind))
        }
    }

    /// The columns whose type an ALTER TABLE changes by an expression of USING, and this expression, printed for any session.
    /// An error in it is PostgreSQL's own.
    pub fn conversions(&self, table: Oid) -> Vec<(i16, String)> {
        let mut conversions = Vec::new();
        for command in self.subcommands() {
            // SAFETY: a live subcommand; ALTER COLUMN TYPE has a ColumnDef, whose `raw_default` is USING (gram.y).
            unsafe {
                if (*command).subtype != Kind::AT_AlterColumnType {
                    continue;
                }
                let column = (*command).def.cast::<pg_sys::ColumnDef>();
                let number = pg_sys::get_attnum(table, (*command).name);
                if (*column).raw_default.is_null() || number <= 0 {
                    continue;
                }
                conversions.push((number, using(table, column)));
            }
        }
        conversions
    }

    /// The columns that an ALTER TABLE has generated by another expression.
    pub fn regenerated(&self, table: Oid) -> Vec<i16> {
        let sets = |command: &*mut pg_sys::AlterTableCmd| {
            // SAFETY: a live subcommand.
            unsafe { version::sets_expression((**command).subtype) }
        };
        let commands = self.subcommands().into_iter().filter(sets);
        // SAFETY: as above; this one has the column's name.
        commands.map(|command| unsafe { pg_sys::get_attnum(table, (*command).name) }).collect()
    }

    fn subcommands(&self) -> Vec<*mut pg_sys::AlterTableCmd> {
        // SAFETY: a live utility statement, cast to the struct of its tag.
        unsafe {
            node::cast::<pg_sys::AlterTableStmt, _>(self.node(), NodeTag::T_AlterTableStmt)
                .map_or_else(Vec::new, |alter| node::elements((*alter).cmds))
        }
    }
}

/// The expression of USING, analysed as ATPrepAlterColumnType does it (`src/backend/commands/tablecmds.c`), and printed.
unsafe fn using(table: Oid, column: *mut pg_sys::ColumnDef) -> String {
    // SAFETY: the table is locked by the caller and closed behind the analysis; the raw expression is copied, since the
    // analysis may change it.
    unsafe {
        let relation = pg_sys::relation_open(table, pg_sys::NoLock as i32);
        let state = pg_sys::make_parsestate(std::ptr::null_mut());
        let item = pg_sys::addRangeTableEntryForRelation(
            state,
            relation,
            pg_sys::AccessShareLock as i32,
            std::ptr::null_mut(),
            false,
            true,
        );
        pg_sys::addNSItemToQuery(state, item, false, true, true);
        let kind = pg_sys::ParseExprKind::EXPR_KIND_ALTER_COL_TRANSFORM;
        let expression = pg_sys::transformExpr(state, node::copy((*column).raw_default), kind);
        pg_sys::assign_expr_collations(state, expression);
        let context = pg_sys::deparse_context_for(
            (*relation).rd_rel.as_ref().map_or(std::ptr::null(), |row| row.relname.data.as_ptr()),
            table,
        );
        let text = with_portable_output(|| {
            node::text_of(pg_sys::deparse_expression(expression, context, false, false))
        });
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        pg_sys::free_parsestate(state);
        text
    }
}

/// Lets what follows see what the statement has changed.
pub fn show_changes() {
    // SAFETY: in a transaction, as every utility statement is that comes here.
    unsafe { pg_sys::CommandCounterIncrement() };
}
