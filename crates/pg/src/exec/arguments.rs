//! The values that a statement for the nodes is sent with, and those that decide its shard.

use crate::exec::rows::Codecs;
use crate::exec::scan_io::{CopyBatch, ScanIo, Seal};
use crate::exec::sent_rows::array_elements;
use crate::read::tid;
use crate::sys::node;
use crate::sys::plan::Key;
use crate::sys::unguarded::copy_datum;
use crate::sys::value::{Encoder, Hasher};
use pgrx::pg_sys::{self, Datum, NodeTag};
use protocol::{Arguments, Elements};
use shardmap::KeyValue;
use shardmap::tid::TidLayout;
use std::rc::Rc;

/// Values of a plan's expressions, encoded.
pub struct FixedArguments {
    values: Vec<Option<Vec<u8>>>,
    codecs: Rc<Codecs>,
}

impl FixedArguments {
    /// Which of them are binary.
    pub fn formats(&self) -> impl Iterator<Item = bool> {
        self.codecs.encoders().iter().map(Encoder::is_binary)
    }

    /// Appends them.
    pub fn append(&self, arguments: &mut Arguments) {
        for value in &self.values {
            match value {
                Some(bytes) => arguments.value(bytes),
                None => arguments.null(),
            }
        }
    }
}

/// The expression is neither a constant nor a parameter, and has a volatile function in it.
///
/// # Safety
///
/// A live expression of a plan.
pub(super) unsafe fn is_volatile(expression: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller vouches for the expression.
    unsafe {
        !matches!(node::tag(expression), NodeTag::T_Const | NodeTag::T_Param)
            && pg_sys::contain_volatile_functions(expression)
    }
}

/// The value of a constant or of the client's parameter, which need no expression machinery.
///
/// # Safety
///
/// A live expression of a plan that runs in `estate`.
unsafe fn known_value(
    expression: *mut pg_sys::Node,
    estate: *mut pg_sys::EState,
) -> Option<Option<Datum>> {
    // SAFETY: each node is cast to the struct of its tag. Parameters are found as ExecEvalParamExtern does
    // (`src/backend/executor/execExprInterp.c`); what is not plainly there is left to it, errors included.
    unsafe {
        match node::tag(expression) {
            NodeTag::T_Const => {
                let constant = &*expression.cast::<pg_sys::Const>();
                Some((!constant.constisnull).then_some(constant.constvalue))
            }
            NodeTag::T_Param => {
                let param = &*expression.cast::<pg_sys::Param>();
                let list = (*estate).es_param_list_info;
                if param.paramkind != pg_sys::ParamKind::PARAM_EXTERN
                    || list.is_null()
                    || (*list).paramFetch.is_some()
                    || param.paramid < 1
                    || param.paramid > (*list).numParams
                {
                    return None;
                }
                let given = &*(*list).params.as_ptr().add(param.paramid as usize - 1);
                (given.ptype == param.paramtype).then(|| (!given.isnull).then_some(given.value))
            }
            _ => None,
        }
    }
}

impl ScanIo {
    /// All values needed can be computed: false for EXPLAIN of a generic plan, which has no parameters of the client, and if that
    /// would do something (a sequence's next value) that only executing may.
    pub fn has_parameters(&self) -> bool {
        // SAFETY: the executor's state is live; only tags are read.
        unsafe {
            let list = (*(*self.node).ss.ps.state).es_param_list_info;
            if self.expressions.iter().any(|known| known.is_volatile && known.computed.is_none()) {
                return false;
            }
            !list.is_null()
                || self.expressions.iter().all(|expression| {
                    !node::walk(expression.node, &mut |n| match node::cast::<pg_sys::Param, _>(
                        n,
                        NodeTag::T_Param,
                    ) {
                        Some(param) if (*param).paramkind == pg_sys::ParamKind::PARAM_EXTERN => {
                            node::Visit::Stop
                        }
                        _ => node::Visit::Into,
                    })
                })
        }
    }

    /// Values are those of sub-queries that have not been executed.
    pub fn awaits_subqueries(&self) -> bool {
        // SAFETY: the plan's expressions are live, each node is cast to the struct of its tag; the executor has a place for
        // each parameter of its own.
        unsafe {
            let values = (*(*self.node).ss.ps.state).es_param_exec_vals;
            let awaits = |param: *mut pg_sys::Param| {
                (*param).paramkind == pg_sys::ParamKind::PARAM_EXEC
                    && !(*values.add((*param).paramid as usize)).execPlan.is_null()
            };
            self.expressions.iter().any(|expression| {
                node::walk(expression.node, &mut |n| match node::cast::<pg_sys::Param, _>(
                    n,
                    NodeTag::T_Param,
                ) {
                    Some(param) if awaits(param) => node::Visit::Stop,
                    _ => node::Visit::Into,
                })
            })
        }
    }

    /// The value of an expression, in the per-row memory context.
    pub(crate) fn evaluate(&mut self, index: usize) -> Option<Datum> {
        // SAFETY: the expression belongs to the plan, its state to the query's context; ExecInitExpr and the
        // evaluation are PostgreSQL's own, through the guard.
        unsafe {
            let node = self.node;
            let expression = &mut self.expressions[index];
            if let Some(value) = known_value(expression.node, (*node).ss.ps.state) {
                return value;
            }
            if let Some(value) = expression.computed {
                return value;
            }
            if expression.state.is_null() {
                let estate = (*node).ss.ps.state;
                let before = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
                expression.state =
                    pg_sys::ExecInitExpr(expression.node.cast(), &raw mut (*node).ss.ps);
                pg_sys::MemoryContextSwitchTo(before);
            }
            let context = (*node).ss.ps.ps_ExprContext;
            let before = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
            let state = expression.state;
            let mut is_null = false;
            let value = pg_sys::ffi::pg_guard_ffi_boundary(|| {
                ((*state).evalfunc.unwrap_unchecked())(state, context, &raw mut is_null)
            });
            let value = (!is_null).then_some(value);
            let value = if expression.is_volatile {
                // The row's memory is reset long before the query ends.
                pg_sys::MemoryContextSwitchTo((*(*node).ss.ps.state).es_query_cxt);
                let (mut length, mut by_value) = (0i16, false);
                pg_sys::get_typlenbyval(expression.type_oid, &raw mut length, &raw mut by_value);
                let kept = value.map(|value| copy_datum(value, by_value, length));
                expression.computed = Some(kept);
                kept
            } else {
                value
            };
            pg_sys::MemoryContextSwitchTo(before);
            value
        }
    }

    /// The values of the expressions that are sent, as a statement's arguments, each computed once; before them the
    /// children's rows that concern these shards.
    pub fn arguments(&mut self, shards: &[usize]) -> Arguments {
        self.sealed_arguments(shards, &|text| text.to_owned())
    }

    /// The same for a node that does not believe where moved rows are without a proof.
    pub fn sealed_arguments(&mut self, shards: &[usize], seal: Seal<'_>) -> Arguments {
        let codecs = self.codecs();
        self.arguments_for(shards, codecs.binary_columns(), seal)
    }

    /// The same for a statement whose result has other columns.
    pub fn arguments_for(
        &mut self,
        shards: &[usize],
        binary_columns: &[bool],
        seal: Seal<'_>,
    ) -> Arguments {
        let codecs = self.codecs();
        let mut arguments = Arguments::start(codecs.encoders().iter().map(Encoder::is_binary));
        if let Some(children) = self.arrays.clone().or_else(|| self.unread_arrays()) {
            for child in &*children {
                let concerns =
                    |batch: &&CopyBatch| batch.shard.is_none_or(|shard| shards.contains(&shard));
                for (column, element) in child.types.iter().enumerate() {
                    let parts: Vec<&Elements> = child
                        .batches
                        .iter()
                        .filter(concerns)
                        .map(|batch| &batch.columns[column])
                        .collect();
                    Elements::append_to(&parts, *element, &mut arguments);
                }
            }
        }
        self.append_moved(shards, seal, &mut arguments);
        let first = self.array_count + self.moves;
        for (index, encoder) in codecs.encoders().iter().skip(first).enumerate() {
            let value = self.evaluate(index);
            // SAFETY: the encoder was made for the expression's type.
            self.in_tuple_context(|_| unsafe { encoder.append(value, &mut arguments) });
        }
        arguments.finish(binary_columns);
        arguments
    }

    /// The same values as a person would write them: `$1 = '5', $2 = NULL`. Empty if there are none.
    pub fn describe_arguments(&mut self) -> String {
        if self.awaits_subqueries() {
            return String::new();
        }
        let codecs = self.codecs();
        let mut described = Vec::new();
        let arrays = self.array_count + self.moves;
        for index in 0..codecs.encoders().len() - arrays {
            let value = self.evaluate(index);
            let type_oid = self.expressions[index].type_oid;
            let text = self.in_tuple_context(|_| {
                // SAFETY: the value is of the expression's type; the look-up lives as long as the row's memory.
                value.map(|value| unsafe {
                    Encoder::text(type_oid)
                        .with_bytes(value, |text| String::from_utf8_lossy(text).into_owned())
                })
            });
            described.push(match text {
                Some(text) => format!("${} = '{}'", arrays + index + 1, text.replace('\'', "''")),
                None => format!("${} = NULL", arrays + index + 1),
            });
        }
        described.join(", ")
    }

    /// The same values apart, to stand behind the values of each of many rows.
    pub fn fixed_arguments(&mut self) -> FixedArguments {
        let codecs = self.codecs();
        let values = codecs
            .encoders()
            .iter()
            .enumerate()
            .map(|(index, encoder)| {
                let value = self.evaluate(index)?;
                // SAFETY: the encoder was made for the expression's type.
                Some(
                    self.in_tuple_context(|_| unsafe { encoder.with_bytes(value, <[u8]>::to_vec) }),
                )
            })
            .collect();
        FixedArguments { values, codecs }
    }

    /// The hash function of a key.
    pub fn hasher(&self, key: &Key) -> Option<Rc<Hasher>> {
        self.codecs().hasher(key.family, key.hash_type, key.collation)
    }

    /// The hashes of a key.
    pub fn key_value(&mut self, key: &Key, hasher: &Hasher) -> KeyValue {
        let Some(value) = self.evaluate(key.expression) else { return KeyValue::Null };
        self.in_tuple_context(|io| {
            // SAFETY: the datum is of the key's type, or an array of it; `Key` was made for this expression.
            unsafe {
                if !key.is_array {
                    return KeyValue::Hashes(vec![hasher.hash(value)]);
                }
                let values = array_elements(value, io.expressions[key.expression].type_oid);
                let hashes = values.into_iter().flatten().map(|value| hasher.hash(value));
                KeyValue::Hashes(hashes.collect())
            }
        })
    }

    /// The shards of the `ctid`s that a key yields, which is none of the distribution column.
    pub fn tid_shards(&mut self, key: &Key, layout: TidLayout) -> KeyValue {
        let Some(value) = self.evaluate(key.expression) else { return KeyValue::Null };
        self.in_tuple_context(|_| {
            // SAFETY: the datum is a tid, or an array of them; `Key` was made for this expression.
            unsafe {
                let shard = |tid: Datum| {
                    let tid = tid::read(*tid.cast_mut_ptr::<pg_sys::ItemPointerData>());
                    layout.decode(tid).0
                };
                if !key.is_array {
                    return KeyValue::Shards(vec![shard(value)]);
                }
                let values = array_elements(value, pg_sys::TIDARRAYOID);
                KeyValue::Shards(values.into_iter().flatten().map(shard).collect())
            }
        })
    }
}
