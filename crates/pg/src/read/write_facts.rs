//! What a statement that writes says of its target: the key of the rows, and where they come from.

use crate::exec::triggers;
use crate::print::assigned::is_assignment;
use crate::print::insert_source::values_of;
use crate::print::prepare::has_subquery_source;
use crate::read::changes::RowsChanged;
use crate::read::facts::{Reader, strip_relabel};
use crate::read::query::{Column, DistributionKey, InsertSource, Unshippable, Write, write_of};
use crate::read::shippable::is_plain_value;
use crate::sys::node::{self, Visit};
use crate::sys::plan::{Command, Key};
use pgrx::pg_sys::{self, NodeTag};

/// The expression assigned to a column.
unsafe fn target_of(list: *mut pg_sys::List, column: i16) -> Option<*mut pg_sys::Node> {
    // SAFETY: the caller passes a live target list.
    unsafe {
        node::elements::<pg_sys::TargetEntry>(list)
            .into_iter()
            .find(|entry| !(**entry).resjunk && (**entry).resno == column)
            .map(|entry| (*entry).expr.cast())
    }
}

impl Reader<'_> {
    /// What the statement writes, and the key of the rows an INSERT brings.
    pub(super) unsafe fn read_target(&mut self, query: *mut pg_sys::Query, command: Command) {
        // SAFETY: the live Query of the current level, which writes.
        unsafe {
            let index = (*query).resultRelation as u32;
            let rte: *mut pg_sys::RangeTblEntry = node::nth((*query).rtable, index as usize - 1);
            let Some(key) = (self.distribution)((*rte).relid) else {
                // A view with INSTEAD OF triggers: as a table, it is here only.
                self.facts.unshippable.push(Unshippable::LocalTable((*rte).relid));
                return;
            };
            let target = Column { level: query.addr(), relation: index, number: key.column };
            let is_nested = self.levels.len() > 1;
            let brings_row =
                matches!(command, Command::Insert | Command::Upsert) && !has_subquery_source(query);
            let table = (*rte).relid;
            self.facts.writes.push(Write { table, command, column: target, is_nested, brings_row });
            let changed = RowsChanged::of(query);
            self.facts
                .unshippable
                .extend(changed.and_then(|changed| triggers::unshippable(command, &changed)));
            if is_nested {
                self.facts.unshippable.push(Unshippable::NestedWrite);
            } else {
                self.facts.target = Some((*rte).relid);
            }
            match (*query).commandType {
                pg_sys::CmdType::CMD_INSERT if is_nested => {
                    self.read_nested_insert(query, target, &key);
                }
                pg_sys::CmdType::CMD_INSERT => self.read_insert(query, target, &key),
                pg_sys::CmdType::CMD_UPDATE => self.read_assignments((*query).targetList, &key),
                pg_sys::CmdType::CMD_MERGE => {
                    for action in node::elements::<pg_sys::MergeAction>((*query).mergeActionList) {
                        match (*action).commandType {
                            pg_sys::CmdType::CMD_UPDATE => {
                                self.read_assignments((*action).targetList, &key)
                            }
                            pg_sys::CmdType::CMD_INSERT => {
                                // A row that MERGE inserts must land in the shard it is inserted on.
                                let value = target_of((*action).targetList, key.column);
                                let same = value
                                    .and_then(|value| self.column_of(value))
                                    .is_some_and(|column| {
                                        self.facts.equalities.routes(&[target]).is_empty()
                                            || self.facts.equalities.keys_of(column)
                                                == self.facts.equalities.keys_of(target)
                                    });
                                if !same {
                                    self.facts.unshippable.push(Unshippable::KeyChange);
                                }
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
            if !(*query).onConflict.is_null() {
                self.read_assignments((*(*query).onConflict).onConflictSet, &key);
            }
        }
    }

    pub(super) unsafe fn read_assignments(
        &mut self,
        list: *mut pg_sys::List,
        key: &DistributionKey,
    ) {
        // SAFETY: a live target list.
        if unsafe { target_of(list, key.column) }.is_some() {
            self.facts.unshippable.push(Unshippable::KeyChange);
        }
    }

    pub(super) unsafe fn read_insert(
        &mut self,
        query: *mut pg_sys::Query,
        target: Column,
        key: &DistributionKey,
    ) {
        // SAFETY: the live top Query, an INSERT.
        unsafe {
            let value = target_of((*query).targetList, key.column);
            let values = values_of(query).map(|(_, values)| values);
            if has_subquery_source(query) {
                self.facts.insert_source = InsertSource::Query;
                self.read_source_key(query, value, target);
                self.facts.keeps_key = value.is_some_and(|value| self.is_stored_key(query, value))
                    && !has_outer_join(query);
                return;
            }
            let Some(value) = value else {
                self.facts.null_key = true;
                let null = pg_sys::makeNullConst(key.type_oid, -1, key.collation);
                let key = self.own_key(null.cast(), key);
                self.facts.equalities.key(target, key);
                return;
            };
            if let Some(values) = values {
                let column = node::cast::<pg_sys::Var, _>(value, NodeTag::T_Var)
                    .map(|var| (*var).varattno as usize);
                let mut keys = Vec::new();
                for row in node::elements::<pg_sys::List>((*values).values_lists) {
                    let Some(number) = column else { break };
                    let own: *mut pg_sys::Node = node::nth(row, number - 1);
                    if !is_plain_value(own) {
                        break;
                    }
                    keys.push(self.own_key(own, key));
                }
                let complete = keys.len() == node::length((*values).values_lists);
                self.facts.insert_source =
                    InsertSource::Values(if complete { keys } else { Vec::new() });
                return;
            }
            if !is_plain_value(value) || is_assignment(value) {
                // A sub-query as the key, or parts of it: computed here, as any INSERT ... SELECT.
                self.facts.insert_source = InsertSource::Query;
                return;
            }
            let key = self.own_key(value, key);
            self.facts.null_key = self.prepared.hash_now(&key) == Some(None);
            self.facts.equalities.key(target, key);
        }
    }

    /// The key of the rows that a query brings equals the column it comes from, if no outer join may have made it
    /// NULL on the way.
    pub(super) unsafe fn read_source_key(
        &mut self,
        query: *mut pg_sys::Query,
        value: Option<*mut pg_sys::Node>,
        target: Column,
    ) {
        // SAFETY: the live Query of the current level, an INSERT with a query as its source.
        unsafe {
            if let Some(column) = value.and_then(|value| self.column_of(value))
                && !has_outer_join(query)
            {
                self.facts.equalities.equal(column, target);
            }
        }
    }

    /// A column of a query is the distribution column of a table in its FROM, or below in that of a sub-query: each row
    /// stands for stored ones.
    pub(super) unsafe fn is_stored_key(
        &self,
        mut query: *mut pg_sys::Query,
        mut value: *mut pg_sys::Node,
    ) -> bool {
        // SAFETY: a live Query and an expression of it; range table indexes and columns are those of the analyser.
        unsafe {
            loop {
                let Some(var) = node::cast::<pg_sys::Var, _>(strip_relabel(value), NodeTag::T_Var)
                else {
                    return false;
                };
                if (*var).varlevelsup != 0 || (*var).varattno <= 0 {
                    return false;
                }
                let rte: *mut pg_sys::RangeTblEntry =
                    node::nth((*query).rtable, (*var).varno as usize - 1);
                match (*rte).rtekind {
                    pg_sys::RTEKind::RTE_RELATION => {
                        return (self.distribution)((*rte).relid)
                            .is_some_and(|key| key.column == (*var).varattno);
                    }
                    pg_sys::RTEKind::RTE_JOIN => {
                        value = node::nth((*rte).joinaliasvars, (*var).varattno as usize - 1);
                    }
                    pg_sys::RTEKind::RTE_SUBQUERY => {
                        query = (*rte).subquery;
                        let outputs = node::elements::<pg_sys::TargetEntry>((*query).targetList);
                        let Some(output) =
                            outputs.into_iter().find(|it| (**it).resno == (*var).varattno)
                        else {
                            return false;
                        };
                        let is_grouped = !(*query).groupClause.is_null() || (*query).hasAggs;
                        let is_group_column =
                            node::elements::<pg_sys::SortGroupClause>((*query).groupClause)
                                .iter()
                                .any(|it| (**it).tleSortGroupRef == (*output).ressortgroupref);
                        if write_of(query).is_some()
                            || !(*query).setOperations.is_null()
                            || !(*query).groupingSets.is_null()
                            || is_grouped && !is_group_column
                        {
                            return false;
                        }
                        value = (*output).expr.cast();
                    }
                    _ => return false,
                }
            }
        }
    }

    /// The key of the rows of an INSERT in a WITH clause: one value for all of them, or a column of its source.
    pub(super) unsafe fn read_nested_insert(
        &mut self,
        query: *mut pg_sys::Query,
        target: Column,
        key: &DistributionKey,
    ) {
        // SAFETY: the live Query of the current level, an INSERT.
        unsafe {
            let value = target_of((*query).targetList, key.column);
            if has_subquery_source(query) {
                return self.read_source_key(query, value, target);
            }
            let Some(mut value) = value else { return };
            if let Some((_, values)) = values_of(query) {
                let Some(var) = node::cast::<pg_sys::Var, _>(value, NodeTag::T_Var) else { return };
                let number = (*var).varattno as usize;
                let rows = node::elements::<pg_sys::List>((*values).values_lists);
                let Some(first) = rows.first() else { return };
                value = node::nth(*first, number - 1);
                let is_same = |row: &*mut pg_sys::List| {
                    pg_sys::equal(node::nth::<pg_sys::Node>(*row, number - 1).cast(), value.cast())
                };
                if !rows.iter().all(is_same) {
                    return;
                }
            }
            if is_plain_value(value) && !is_assignment(value) {
                let key = self.own_key(value, key);
                self.facts.equalities.key(target, key);
            }
        }
    }

    /// A key whose value has the column's own type.
    pub(super) unsafe fn own_key(
        &mut self,
        value: *mut pg_sys::Node,
        key: &DistributionKey,
    ) -> Key {
        // SAFETY: a live expression without columns.
        let expression = unsafe { self.intern(value) };
        Key {
            expression,
            hash_type: key.type_oid,
            family: key.family,
            collation: key.collation,
            is_array: false,
        }
    }
}

/// An outer join somewhere in it, which may put NULL in the place of a column.
unsafe fn has_outer_join(query: *mut pg_sys::Query) -> bool {
    // SAFETY: the caller passes a live Query.
    unsafe {
        node::walk(query, &mut |n| {
            let join = node::cast::<pg_sys::JoinExpr, _>(n, NodeTag::T_JoinExpr);
            match join {
                Some(join) if (*join).jointype != pg_sys::JoinType::JOIN_INNER => Visit::Stop,
                _ => Visit::Into,
            }
        })
    }
}
