//! Statements that build, rebuild or drop indexes without changing what a table is.

use crate::server::utility::{TablesOf, UtilityCall, resolve, schema};
use crate::sys::node;
use pgrx::pg_sys::{self, NodeTag, Oid};

/// Which statement it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maintenance {
    /// CREATE INDEX CONCURRENTLY on this table.
    CreateIndex(Oid),
    /// DROP INDEX CONCURRENTLY of an index of this table.
    DropIndex(Oid),
    /// REINDEX INDEX: the table and the index.
    ReindexIndex(Oid, Oid),
    /// REINDEX TABLE.
    ReindexTable(Oid),
    /// REINDEX SCHEMA or DATABASE.
    ReindexMany(TablesOf),
    /// CLUSTER of this table.
    Cluster(Oid),
    /// CLUSTER of all tables that have been clustered.
    ClusterAll,
}

impl UtilityCall {
    /// The statement, if it is one of these; and whether it says CONCURRENTLY.
    pub fn maintenance(&self) -> Option<(Maintenance, bool)> {
        // SAFETY: a live utility statement; each node is cast to the struct of its tag.
        unsafe {
            let n = self.node();
            match node::tag(n) {
                NodeTag::T_IndexStmt => {
                    let index = n.cast::<pg_sys::IndexStmt>();
                    let table = resolve((*index).relation).filter(|_| (*index).concurrent)?;
                    Some((Maintenance::CreateIndex(table), true))
                }
                NodeTag::T_DropStmt => {
                    let drop = n.cast::<pg_sys::DropStmt>();
                    let is_index = (*drop).removeType == pg_sys::ObjectType::OBJECT_INDEX;
                    if !is_index || !(*drop).concurrent {
                        return None;
                    }
                    let names = node::elements::<pg_sys::List>((*drop).objects);
                    let table = names
                        .into_iter()
                        .find_map(|names| resolve(pg_sys::makeRangeVarFromNameList(names)))?;
                    Some((Maintenance::DropIndex(table), true))
                }
                NodeTag::T_ReindexStmt => reindex(n.cast()),
                NodeTag::T_ClusterStmt => {
                    let relation = (*n.cast::<pg_sys::ClusterStmt>()).relation;
                    if relation.is_null() {
                        return Some((Maintenance::ClusterAll, false));
                    }
                    Some((Maintenance::Cluster(resolve(relation)?), false))
                }
                _ => None,
            }
        }
    }
}

unsafe fn reindex(statement: *mut pg_sys::ReindexStmt) -> Option<(Maintenance, bool)> {
    use pg_sys::ReindexObjectType as Kind;
    // SAFETY: the caller passes a live REINDEX.
    unsafe {
        let concurrent =
            node::elements::<pg_sys::DefElem>((*statement).params).into_iter().any(|option| {
                node::text_of((*option).defname) == "concurrently" && pg_sys::defGetBoolean(option)
            });
        let relation = (*statement).relation;
        let what = match (*statement).kind {
            Kind::REINDEX_OBJECT_INDEX => {
                let index = pg_sys::RangeVarGetRelidExtended(
                    relation,
                    pg_sys::NoLock as i32,
                    pg_sys::RVROption::RVR_MISSING_OK,
                    None,
                    std::ptr::null_mut(),
                );
                Maintenance::ReindexIndex(resolve(relation)?, index)
            }
            Kind::REINDEX_OBJECT_TABLE => Maintenance::ReindexTable(resolve(relation)?),
            Kind::REINDEX_OBJECT_SCHEMA => {
                Maintenance::ReindexMany(TablesOf::Schemas(schema((*statement).name)))
            }
            Kind::REINDEX_OBJECT_DATABASE => Maintenance::ReindexMany(TablesOf::Database),
            _ => return None,
        };
        Some((what, concurrent))
    }
}
