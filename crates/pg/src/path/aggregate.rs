//! Partial aggregates: what a worker is asked for instead of an aggregate, so that PostgreSQL's own combine and final
//! functions can finish it here.
//!
//! [`planner::partial_aggregate`] has the SQL of the states; here is read which form an aggregate's state has, by its transition
//! function. All aggregates of the server that have a combine function have one, of internal states those that [`StateKind`] makes.
//!
//! For the state of a user's aggregate a worker is asked by an aggregate of ours (`partial_state.rs`), if all nodes of the tables have
//! the extension and the same aggregate (`definition.rs`). The nodes are asked for that while planning; what they
//! answered may be out of date, so a node looks again when it executes.

use crate::catalog::definition::{self, Aggregate};
use crate::extension::extension;
use crate::path::remote::Remote;
use crate::sys::node;
use crate::sys::plan::{Source, StateKind};
use crate::sys::value::FIRST_USER_OID;
use crate::sys::version::{self, SearchPath};
use pgrx::pg_sys::{self, Datum, NodeTag, Oid};
use planner::partial_aggregate::{self, Call, ColumnType, UserAggregate};
use std::ffi::c_int;
use std::rc::Rc;

/// How an aggregate's transition state is computed by a query.
#[derive(Clone, Debug)]
enum Form {
    /// It is the aggregate's result.
    Itself,
    /// An array of sums.
    Sums(partial_aggregate::Form<'static>),
    /// Internal.
    Internal(StateKind),
    /// That of a user's aggregate, whose functions look names up in these schemas.
    OfUser(Rc<Aggregate>, String),
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
    pub(crate) unsafe fn of(aggregate: *mut pg_sys::Aggref, remote: &Remote) -> Option<Self> {
        // SAFETY: the caller vouches for the node.
        unsafe {
            let function = (*aggregate).aggfnoid;
            let is_of_user = function.to_u32() >= FIRST_USER_OID;
            if (*aggregate).aggkind as u8 != b'n'
                || !(*aggregate).aggdistinct.is_null()
                || !(*aggregate).aggorder.is_null()
                || (*aggregate).aggvariadic && !is_of_user
            {
                return None;
            }
            let form = if is_of_user {
                let known = on_all_nodes(aggregate, remote)?;
                let has_names = !known.functions.is_empty();
                Form::OfUser(known, if has_names { schemas() } else { String::new() })
            } else {
                form_of(function, (*aggregate).aggtranstype, (*aggregate).aggtype)?
            };
            if let Form::Internal(kind) = form
                && kind.has_squares()
                && !squares_fit((*aggregate).args)
            {
                return None;
            }
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
        let call = Call { arguments, filter };
        let literals;
        let (form, source) = match &self.form {
            Form::OfUser(aggregate, schemas) => {
                let identity =
                    [&aggregate.signature, &aggregate.inputs, &aggregate.digest, schemas];
                literals =
                    (identity.map(|text| literal(text)), aggregate.initial.as_deref().map(literal));
                let (identity, initial) = &literals;
                let is_serial = aggregate.serial.is_some();
                let form = UserAggregate {
                    identity: identity.each_ref().map(String::as_str),
                    initial: initial.as_deref(),
                    is_serial,
                };
                let source = if is_serial {
                    Source::Remote(first)
                } else {
                    Source::Input(aggregate.state, first)
                };
                (partial_aggregate::Form::OfUser(form), source)
            }
            Form::Itself => (partial_aggregate::Form::Itself(&self.name), Source::Remote(first)),
            Form::Sums(form) => (*form, Source::Remote(first)),
            Form::Internal(kind) => {
                let squares = kind.has_squares();
                (partial_aggregate::Form::Internal { squares }, Source::State(*kind, first))
            }
        };
        let columns = form.columns(call).into_iter().map(|(text, column_type)| {
            let (type_oid, typmod) = self.type_of(column_type);
            (text, type_oid, typmod)
        });
        (columns.collect(), source)
    }

    fn type_of(&self, column_type: ColumnType) -> (Oid, i32) {
        let type_oid = match column_type {
            ColumnType::Result => return self.result,
            ColumnType::Int8 => pg_sys::INT8OID,
            ColumnType::Numeric => pg_sys::NUMERICOID,
            ColumnType::Int8Array => pg_sys::INT8ARRAYOID,
            ColumnType::Float8Array => pg_sys::FLOAT8ARRAYOID,
            ColumnType::IntervalArray => pg_sys::INTERVALARRAYOID,
            ColumnType::Bytea => pg_sys::BYTEAOID,
            ColumnType::Text => pg_sys::TEXTOID,
        };
        (type_oid, -1)
    }
}

/// The square of the argument is a numeric, with all its digits. PostgreSQL's own states have no such limit.
unsafe fn squares_fit(arguments: *mut pg_sys::List) -> bool {
    /// `NUMERIC_MAX_DISPLAY_SCALE`, and digits before the point that a numeric can have (`src/backend/utils/adt/numeric.c`).
    const MOST_DIGITS: i32 = 1000;
    // SAFETY: the caller passes the live list of an aggregate's arguments.
    unsafe {
        node::elements::<pg_sys::TargetEntry>(arguments).into_iter().all(|entry| {
            let argument = (*entry).expr.cast::<pg_sys::Node>();
            if pg_sys::exprType(argument) != pg_sys::NUMERICOID {
                return true;
            }
            let typmod = pg_sys::exprTypmod(argument);
            // `numeric(precision, scale)`, of which neither can be more.
            typmod >= 0 && (typmod - 4) >> 16 <= MOST_DIGITS
        })
    }
}

/// A worker can compute the states of this user's aggregate, from what it has of `remote`.
///
/// # Safety
///
/// `expression` is a live node of the planner.
pub(crate) unsafe fn has_parts(expression: *mut pg_sys::Node, remote: &Remote) -> bool {
    // SAFETY: the caller vouches for the node.
    unsafe {
        let Some(aggregate) = node::cast::<pg_sys::Aggref, _>(expression, NodeTag::T_Aggref) else {
            return false;
        };
        (*aggregate).aggfnoid.to_u32() >= FIRST_USER_OID
            && PartialAggregate::of(aggregate, remote).is_some_and(|it| {
                it.arguments.iter().all(|argument| remote.can_compute(*argument, false))
                    && (it.filter.is_null() || remote.can_compute(it.filter, false))
            })
    }
}

/// The user's aggregate, if all nodes of the tables have the same.
unsafe fn on_all_nodes(aggregate: *mut pg_sys::Aggref, remote: &Remote) -> Option<Rc<Aggregate>> {
    // SAFETY: the caller vouches for the node.
    unsafe {
        // Behind a view the nodes know the view's owner, who is not the one to execute what others have written.
        if remote.user != Oid::INVALID {
            return None;
        }
        let function = (*aggregate).aggfnoid;
        let inputs: Vec<Oid> = (0..node::length((*aggregate).aggargtypes))
            .map(|index| (*(*(*aggregate).aggargtypes).elements.add(index)).oid_value)
            .collect();
        let known = definition::of(function, &inputs)?;
        if known.state != (*aggregate).aggtranstype
            || !takes_one_collation(aggregate)
            || !definition::begins_neutral(function, &known)
        {
            return None;
        }
        let planner = extension();
        // Asked first, so that a node without the extension has no error to log.
        let has_extension = "SELECT pg_catalog.to_regprocedure(\
             'pgs_catalog.aggregate_definition(pg_catalog.text, pg_catalog.text)') IS NOT NULL";
        let answers = planner.ask_nodes(&remote.tables, has_extension)?;
        if !answers.iter().all(|answer| answer == "t") {
            return None;
        }
        let question = format!(
            "SELECT pgs_catalog.aggregate_definition({}, {})",
            literal(&known.signature),
            literal(&known.inputs)
        );
        let answers = planner.ask_nodes(&remote.tables, &question)?;
        if !answers.iter().all(|answer| *answer == known.digest) {
            return None;
        }
        // PostgreSQL notes the aggregate itself. The plan holds for what it is made of now.
        for function in &known.functions {
            pg_sys::record_plan_function_dependency(remote.root, *function);
        }
        for type_oid in &known.types {
            pg_sys::record_plan_type_dependency(remote.root, *type_oid);
        }
        Some(known)
    }
}

/// The worker derives the same collation from the arguments, in which explicit ones are no longer told from others.
unsafe fn takes_one_collation(aggregate: *mut pg_sys::Aggref) -> bool {
    // SAFETY: the caller vouches for the node.
    unsafe {
        node::elements::<pg_sys::TargetEntry>((*aggregate).args).into_iter().all(|entry| {
            let own = pg_sys::exprCollation((*entry).expr.cast());
            own == Oid::INVALID || own == (*aggregate).inputcollid
        })
    }
}

/// The schemas of the search path, quoted, with commas between them.
unsafe fn schemas() -> String {
    // SAFETY: reads the backend's search path; names are palloced.
    unsafe {
        let names = SearchPath::schemas().into_iter().filter_map(|schema| {
            let name = pg_sys::get_namespace_name(schema);
            (!name.is_null()).then(|| node::text_of(pg_sys::quote_identifier(name)))
        });
        names.collect::<Vec<_>>().join(", ")
    }
}

/// A text as an SQL literal.
fn literal(text: &str) -> String {
    // SAFETY: both texts are palloced.
    unsafe { node::text_of(pg_sys::quote_literal_cstr(node::c_text(text))) }
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
        pg_sys::F_INT2_AVG_ACCUM | pg_sys::F_INT4_AVG_ACCUM => {
            Some(Form::Sums(partial_aggregate::Form::CountAndSum))
        }
        pg_sys::F_FLOAT4_ACCUM | pg_sys::F_FLOAT8_ACCUM => {
            Some(Form::Sums(partial_aggregate::Form::Moments))
        }
        pg_sys::F_FLOAT8_REGR_ACCUM => Some(Form::Sums(partial_aggregate::Form::Pairs)),
        function if version::is_interval_array(function) => {
            Some(Form::Sums(partial_aggregate::Form::IntervalSum))
        }
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
