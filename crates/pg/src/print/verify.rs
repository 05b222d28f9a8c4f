//! Whether a printed statement says what was meant: it is parsed and analysed once more, and compared.
//!
//! Compared are, for each query that writes, the columns that it assigns in their order, and of each value the operators,
//! functions, parameters, columns and sub-queries in it; and the types of the statement's outputs. Not compared are
//! constants (casts print in several ways), FROM, WHERE and the clauses behind it: the rewriter's range tables are not
//! those of the parser, so that the trees as a whole are never equal.

use crate::print::template::{Piece, qualified_name, with_portable_output};
use crate::read::query::{Prepared, writing_queries};
use crate::sys::error::PgError;
use crate::sys::node::{self, Visit};
use pgrx::pg_sys::{self, NodeTag, Oid};

/// What a query assigns, and the types of what it yields.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    assigned: Vec<(i16, Vec<String>)>,
    outputs: Vec<u32>,
}

impl Prepared {
    /// Compares the statement with its template.
    ///
    /// # Errors
    ///
    /// Where they differ, or the text is no valid statement here.
    pub fn verify(&self, template: &[Piece]) -> Result<(), PgError> {
        let text: String = template
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Table(table) => qualified_name(*table),
                Piece::Object(_, name) => format!("\"{}\"", name.replace('"', "\"\"")),
                Piece::Index => "0".to_owned(),
            })
            .collect();
        // SAFETY: the prepared copy is live; parser and analyser make nodes of their own.
        let (meant, said) = unsafe {
            let analysed = with_portable_output(|| analyse(&text, &parameter_types(self.query)));
            (read(self.query), read(analysed))
        };
        if meant == said {
            return Ok(());
        }
        Err(PgError::internal("a statement for the workers does not say what was meant")
            .detail(format!("Statement: {text}\nMeant: {meant:?}\nSaid: {said:?}")))
    }
}

/// The types of a statement's parameters, by their numbers.
unsafe fn parameter_types(query: *mut pg_sys::Query) -> Vec<Oid> {
    let mut types: Vec<Oid> = Vec::new();
    // SAFETY: the caller passes a live Query.
    unsafe {
        node::walk(query, &mut |n| {
            if let Some(param) = node::cast::<pg_sys::Param, _>(n, NodeTag::T_Param)
                && (*param).paramkind == pg_sys::ParamKind::PARAM_EXTERN
            {
                let index = (*param).paramid as usize - 1;
                if types.len() <= index {
                    types.resize(index + 1, pg_sys::TEXTOID);
                }
                types[index] = (*param).paramtype;
            }
            Visit::Into
        });
    }
    types
}

unsafe fn analyse(text: &str, types: &[Oid]) -> *mut pg_sys::Query {
    let text = node::c_text(text);
    // SAFETY: a zero-terminated text; the types are an array of the length that is told.
    unsafe {
        let statements = pg_sys::raw_parser(text, pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        let count = types.len() as i32;
        pg_sys::parse_analyze_fixedparams(
            node::nth(statements, 0),
            text,
            types.as_ptr(),
            count,
            std::ptr::null_mut(),
        )
    }
}

unsafe fn read(query: *mut pg_sys::Query) -> Said {
    let mut said = Said { assigned: Vec::new(), outputs: Vec::new() };
    // SAFETY: the caller passes a live Query.
    unsafe {
        for writing in writing_queries(query) {
            let mut lists = vec![(*writing).targetList];
            if !(*writing).onConflict.is_null() {
                lists.push((*(*writing).onConflict).onConflictSet);
            }
            for action in node::elements::<pg_sys::MergeAction>((*writing).mergeActionList) {
                lists.push((*action).targetList);
            }
            for entry in lists.into_iter().flat_map(|list| visible(list)) {
                said.assigned.push(((*entry).resno, parts((*entry).expr.cast())));
            }
        }
        let outputs = if (*query).commandType == pg_sys::CmdType::CMD_SELECT {
            (*query).targetList
        } else {
            (*query).returningList
        };
        said.outputs = visible(outputs)
            .into_iter()
            .map(|entry| pg_sys::exprType((*entry).expr.cast()).to_u32())
            .collect();
    }
    said
}

unsafe fn visible(list: *mut pg_sys::List) -> Vec<*mut pg_sys::TargetEntry> {
    // SAFETY: the caller passes a live target list.
    unsafe {
        let entries = node::elements::<pg_sys::TargetEntry>(list).into_iter();
        entries.filter(|entry| !(**entry).resjunk).collect()
    }
}

/// What an expression is made of, sorted.
unsafe fn parts(n: *mut pg_sys::Node) -> Vec<String> {
    let mut found = Vec::new();
    // SAFETY: the caller passes a live expression; each node is cast to the struct of its tag.
    unsafe {
        node::walk(n, &mut |n| {
            match node::tag(n) {
                NodeTag::T_OpExpr => {
                    found.push(format!("operator {}", (*n.cast::<pg_sys::OpExpr>()).opno.to_u32()));
                }
                NodeTag::T_FuncExpr => {
                    let call = n.cast::<pg_sys::FuncExpr>();
                    if (*call).funcformat == pg_sys::CoercionForm::COERCE_EXPLICIT_CALL {
                        found.push(format!("function {}", (*call).funcid.to_u32()));
                    }
                }
                NodeTag::T_Aggref => {
                    let call = n.cast::<pg_sys::Aggref>();
                    found.push(format!("aggregate {}", (*call).aggfnoid.to_u32()));
                }
                NodeTag::T_Param => {
                    let param = n.cast::<pg_sys::Param>();
                    found.push(format!("parameter {} {}", (*param).paramkind, (*param).paramid));
                }
                NodeTag::T_Var => {
                    found.push(format!("column {}", (*n.cast::<pg_sys::Var>()).varattno));
                }
                NodeTag::T_SubLink => found.push("sub-query".to_owned()),
                NodeTag::T_FieldStore => found.push("field".to_owned()),
                NodeTag::T_SubscriptingRef => found.push("element".to_owned()),
                // Its range table is not the parser's.
                NodeTag::T_Query => return Visit::Skip,
                _ => {}
            }
            Visit::Into
        });
    }
    found.sort();
    found
}
