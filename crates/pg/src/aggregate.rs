//! Partial aggregates: what a worker is asked for instead of an aggregate, so that PostgreSQL's own combine and final
//! functions can finish it here.
//!
//! PostgreSQL finishes an aggregate from transition states. Where the state is the aggregate's result (count, sum,
//! min, max, bool_and, ...) a worker is asked for the aggregate itself; where it is an array of sums, for these; where it
//! is internal, for its parts, of which [`StateKind`] makes the serialised form. So workers need nothing but
//! PostgreSQL. All aggregates of the server that have a combine function have such a form. One of a user has none that
//! SQL could ask for, unless it has no final function; and nobody here knows what a worker's function of its name does.
//!
//! The states are those of `src/backend/utils/adt/numeric.c` and `float.c`, told by the transition function.

use crate::node;
use crate::rows::{Source, StateKind};
use crate::value::FIRST_USER_OID;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

/// How an aggregate's transition state is computed by a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// It is the aggregate's result.
    Itself,
    /// `int8[]`: number and sum.
    CountAndSum,
    /// `float8[]`: number, sum, and sum of squared deviations from the mean.
    Moments,
    /// `float8[]`: of pairs, number, sum and sum of squared deviations of the second ones, the same of the first ones, and
    /// sum of the deviations' products.
    Pairs,
    /// `interval[]`: sum, and number as microseconds.
    IntervalSum,
    /// Internal.
    Internal(StateKind),
}

/// An aggregate to be computed in parts.
#[derive(Clone, Debug)]
pub(crate) struct PartialAggregate {
    name: String,
    form: Form,
    result: (Oid, i32),
    /// Its arguments; none for `count(*)`.
    pub(crate) arguments: Vec<*mut pg_sys::Node>,
    /// Its FILTER, or null.
    pub(crate) filter: *mut pg_sys::Node,
}

impl PartialAggregate {
    /// The partial form of an aggregate, if it has one.
    ///
    /// # Safety
    ///
    /// `aggregate` is a live node of the planner.
    pub(crate) unsafe fn of(aggregate: *mut pg_sys::Aggref) -> Option<Self> {
        // SAFETY: the caller vouches for the node.
        unsafe {
            let function = (*aggregate).aggfnoid;
            if (*aggregate).aggkind as u8 != b'n'
                || !(*aggregate).aggdistinct.is_null()
                || !(*aggregate).aggorder.is_null()
                || (*aggregate).aggvariadic
                || function.to_u32() >= FIRST_USER_OID
            {
                return None;
            }
            let form = form_of(function, (*aggregate).aggtranstype, (*aggregate).aggtype)?;
            let arguments = node::elements::<pg_sys::TargetEntry>((*aggregate).args)
                .into_iter()
                .map(|entry| (*entry).expr.cast())
                .collect();
            Some(Self {
                name: format!(
                    "{}.{}",
                    node::text_of(pg_sys::get_namespace_name(pg_sys::get_func_namespace(function))),
                    node::text_of(pg_sys::quote_identifier(pg_sys::get_func_name(function)))
                ),
                form,
                result: ((*aggregate).aggtype, -1),
                arguments,
                filter: (*aggregate).aggfilter.cast(),
            })
        }
    }

    /// What to ask for, in terms of the arguments' and the filter's names, with types and typmods; and how the state
    /// is made of that, numbered from `first`.
    pub(crate) fn columns(
        &self,
        arguments: &[String],
        filter: Option<&str>,
        first: usize,
    ) -> (Vec<(String, Oid, i32)>, Source) {
        let filter_condition = filter;
        let filter = filter.map_or_else(String::new, |name| format!(" FILTER (WHERE {name})"));
        let list = if arguments.is_empty() { "*".to_owned() } else { arguments.join(", ") };
        let only = arguments.first().map_or("*", String::as_str);
        let call = |function: &str, argument: &str| format!("{function}({argument}){filter}");
        let column = |text: String, type_oid| (text, type_oid, -1);
        match self.form {
            Form::Itself => {
                let name = self.name.strip_prefix("pg_catalog.").unwrap_or(&self.name);
                let (type_oid, typmod) = self.result;
                (vec![(call(name, &list), type_oid, typmod)], Source::Remote(first))
            }
            Form::CountAndSum => {
                let text =
                    format!("ARRAY[{}, coalesce({}, 0)]", call("count", only), call("sum", only));
                (vec![column(text, pg_sys::INT8ARRAYOID)], Source::Remote(first))
            }
            Form::Moments => {
                // PostgreSQL adds to zero, which makes -0 of nothing but -0 positive.
                let text = format!(
                    "ARRAY[{count}::float8, coalesce({sum}, 0) + 0, coalesce({var} * {count}, 0)]",
                    count = call("count", only),
                    sum = call("sum", &format!("{only}::float8")),
                    var = call("var_pop", &format!("{only}::float8")),
                );
                (vec![column(text, pg_sys::FLOAT8ARRAYOID)], Source::Remote(first))
            }
            Form::Pairs => {
                let call = |function: &str| format!("{function}({list}){filter}");
                let both = |of: usize, other: usize| {
                    let (of, other) = (&arguments[of], &arguments[other]);
                    let and =
                        filter_condition.map_or_else(String::new, |it| format!(" AND ({it})"));
                    format!("sum({of}) FILTER (WHERE ({other}) IS NOT NULL{and})")
                };
                let text = format!(
                    "ARRAY[{}::float8, coalesce({}, 0) + 0, coalesce({}, 0), coalesce({}, 0) + 0, coalesce({}, 0), coalesce({}, 0)]",
                    call("regr_count"),
                    both(1, 0),
                    call("regr_sxx"),
                    both(0, 1),
                    call("regr_syy"),
                    call("regr_sxy"),
                );
                (vec![column(text, pg_sys::FLOAT8ARRAYOID)], Source::Remote(first))
            }
            Form::IntervalSum => {
                let text = format!(
                    "ARRAY[coalesce({}, interval '0'), {} * interval '1 microsecond']",
                    call("sum", only),
                    call("count", only),
                );
                (vec![column(text, pg_sys::INTERVALARRAYOID)], Source::Remote(first))
            }
            Form::Internal(kind) => {
                // A sum of int8 or numeric is numeric, one of smaller numbers int8.
                let sum = format!("({})::numeric", call("sum", only));
                let mut columns = vec![
                    column(call("count", only), pg_sys::INT8OID),
                    column(sum, pg_sys::NUMERICOID),
                ];
                if kind.has_squares() {
                    let square = format!("{only}::numeric * {only}::numeric");
                    columns.push(column(call("sum", &square), pg_sys::NUMERICOID));
                }
                (columns, Source::State(kind, first))
            }
        }
    }
}

/// How the state of an aggregate of the server can be asked for.
fn form_of(function: Oid, state: Oid, result: Oid) -> Option<Form> {
    /// `src/include/catalog/pg_aggregate.h`.
    const TRANSITION_FUNCTION: c_int = 4;
    const FINAL_FUNCTION: c_int = 5;
    const COMBINE_FUNCTION: c_int = 6;
    let column = |number| {
        // SAFETY: a syscache look-up by value; columns of pg_aggregate up to the combine function are never NULL, and
        // functions' OIDs there are passed by value.
        unsafe {
            let tuple = pg_sys::SearchSysCache1(
                pg_sys::SysCacheIdentifier::AGGFNOID as c_int,
                Datum::from(function),
            );
            if tuple.is_null() {
                return 0;
            }
            let mut is_null = false;
            let value = pg_sys::SysCacheGetAttr(
                pg_sys::SysCacheIdentifier::AGGFNOID as c_int,
                tuple,
                number as pg_sys::AttrNumber,
                &raw mut is_null,
            );
            pg_sys::ReleaseSysCache(tuple);
            if is_null { 0 } else { value.value() as u32 }
        }
    };
    if column(COMBINE_FUNCTION) == 0 {
        return None;
    }
    match column(TRANSITION_FUNCTION) {
        pg_sys::F_INT2_AVG_ACCUM | pg_sys::F_INT4_AVG_ACCUM => Some(Form::CountAndSum),
        pg_sys::F_FLOAT4_ACCUM | pg_sys::F_FLOAT8_ACCUM => Some(Form::Moments),
        pg_sys::F_FLOAT8_REGR_ACCUM => Some(Form::Pairs),
        pg_sys::F_INTERVAL_ACCUM => Some(Form::IntervalSum),
        pg_sys::F_INT8_AVG_ACCUM => Some(Form::Internal(StateKind::Sum)),
        pg_sys::F_NUMERIC_AVG_ACCUM => Some(Form::Internal(StateKind::NumericSum)),
        pg_sys::F_INT2_ACCUM | pg_sys::F_INT4_ACCUM => Some(Form::Internal(StateKind::Squares)),
        pg_sys::F_INT8_ACCUM | pg_sys::F_NUMERIC_ACCUM => {
            Some(Form::Internal(StateKind::NumericSquares))
        }
        _ if column(FINAL_FUNCTION) == 0 && state == result && state != pg_sys::INTERNALOID => {
            Some(Form::Itself)
        }
        _ => None,
    }
}
