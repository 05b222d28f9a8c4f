//! A statement as SQL for any shard: text with holes where the tables' names go.
//!
//! PostgreSQL's own ruleutils prints the statement once. Each distributed table gets an alias that cannot
//! occur anywhere else (a random nonce of this backend), so the place of its name in the text is found by
//! searching for `name alias`; literals cannot fake it. Printing happens under `search_path = pg_catalog`, so
//! everything but the server's own objects is schema-qualified.

use crate::read::partitioned::give_partitions_back;
use crate::read::query::{Prepared, writing_queries};
use crate::sys::error::PgError;
use crate::sys::node::{self, Visit};
use crate::sys::plan::Piece;
use pgrx::pg_sys::{self, NodeTag, Oid};
use std::ffi::c_int;

/// Runs `body` with only `pg_catalog` in the search path and dates and numbers printed for any reader.
///
/// Borrowed from postgres_fdw's `set_transmission_modes` and `reset_transmission_modes`
/// (`contrib/postgres_fdw/postgres_fdw.c`): a literal must mean the same to a session with other settings.
pub fn with_portable_output<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: settings changed at a new GUC nest level are put back by AtEOXact_GUC, here or, after an ERROR,
    // when the transaction aborts.
    unsafe {
        let nest = pg_sys::NewGUCNestLevel();
        // Seldom on, and then names would not look as we look for them.
        let quoted = pg_sys::quote_all_identifiers.then_some((c"quote_all_identifiers", c"off"));
        for (name, value) in quoted.into_iter().chain([
            (c"search_path", c"pg_catalog, pg_temp"),
            (c"standard_conforming_strings", c"on"),
            (c"datestyle", c"ISO"),
            (c"intervalstyle", c"postgres"),
            (c"extra_float_digits", c"3"),
        ]) {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
        let value = body();
        pg_sys::AtEOXact_GUC(true, nest);
        value
    }
}

fn nonce() -> u64 {
    thread_local!(static NONCE: u64 = {
        let mut bytes = [0u8; 8];
        // SAFETY: fills the local array.
        unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
        u64::from_le_bytes(bytes)
    });
    NONCE.with(|nonce| *nonce)
}

/// The qualified, quoted name of a table.
pub fn qualified_name(table: Oid) -> String {
    // SAFETY: syscache look-ups by value; null if the table is gone, which prints as nothing.
    unsafe {
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(table));
        let name = pg_sys::get_rel_name(table);
        if schema.is_null() || name.is_null() {
            return String::new();
        }
        node::text_of(pg_sys::quote_qualified_identifier(schema, name))
    }
}

impl Prepared {
    /// Prints the statement; `is_distributed` tells which tables become holes.
    ///
    /// # Errors
    ///
    /// Only if ruleutils printed something that this module does not expect.
    pub fn template(&self, is_distributed: &dyn Fn(Oid) -> bool) -> Result<Vec<Piece>, PgError> {
        // SAFETY: the prepared copy is live; it is copied once more, since printing scribbles on its input.
        unsafe {
            let query = node::copy(self.query);
            let marked = mark_tables(query, is_distributed);
            let arbiters = mark_arbiters(query);
            qualify_columns(query);
            compute_negative_keys(query);
            with_portable_output(|| {
                cut(&node::text_of(pg_sys::pg_get_querydef(query, false)), &marked, &arbiters)
            })
        }
    }
}

/// Gives every distributed table its alias; returns table and alias.
unsafe fn mark_tables(
    query: *mut pg_sys::Query,
    is_distributed: &dyn Fn(Oid) -> bool,
) -> Vec<(Oid, String)> {
    let mut marked = Vec::new();
    // SAFETY: the caller passes a private, live copy.
    unsafe {
        node::walk(query, &mut |n| {
            if node::tag(n) == NodeTag::T_Query {
                let query = n.cast::<pg_sys::Query>();
                let excluded = if (*query).onConflict.is_null() {
                    0
                } else {
                    (*(*query).onConflict).exclRelIndex
                };
                for (index, rte) in
                    node::elements::<pg_sys::RangeTblEntry>((*query).rtable).into_iter().enumerate()
                {
                    if (*rte).rtekind != pg_sys::RTEKind::RTE_RELATION
                        || index as c_int + 1 == excluded
                        || !is_distributed((*rte).relid)
                    {
                        continue;
                    }
                    let alias = format!("zq{:016x}_{}_", nonce(), marked.len());
                    let columns = if (*rte).alias.is_null() {
                        std::ptr::null_mut()
                    } else {
                        (*(*rte).alias).colnames
                    };
                    (*rte).alias = pg_sys::makeAlias(node::c_text(&alias), columns);
                    give_partitions_back(rte);
                    marked.push(((*rte).relid, alias));
                }
            }
            Visit::Into
        });
    }
    marked
}

/// Puts a text that cannot occur anywhere else in the place of a constraint that ON CONFLICT names; returns table,
/// constraint and text. An exclusion constraint can be named only.
unsafe fn mark_arbiters(query: *mut pg_sys::Query) -> Vec<(Oid, String, String)> {
    let mut marked = Vec::new();
    // SAFETY: the caller passes a private, live copy.
    unsafe {
        for writing in writing_queries(query) {
            let conflict = (*writing).onConflict;
            if conflict.is_null() || (*conflict).constraint == Oid::INVALID {
                continue;
            }
            let name = pg_sys::get_constraint_name((*conflict).constraint);
            if name.is_null() {
                continue;
            }
            let target: *mut pg_sys::RangeTblEntry =
                node::nth((*writing).rtable, (*writing).resultRelation as usize - 1);
            let mark = format!("zq{:016x}_c{}_", nonce(), marked.len());
            let text = pg_sys::cstring_to_text(node::c_text(&mark));
            let text = pg_sys::makeConst(
                pg_sys::TEXTOID,
                -1,
                pg_sys::DEFAULT_COLLATION_OID,
                -1,
                pg_sys::Datum::from(text),
                false,
                false,
            );
            (*conflict).arbiterElems = node::list_of(&[text]);
            marked.push(((*target).relid, node::text_of(name), format!("('{mark}'::text)")));
        }
    }
    marked
}

/// Has columns printed with their tables' names. Ruleutils leaves the names out where there is one table only, and a bare
/// name in ORDER BY would be taken for a column of the result, if one is called so.
unsafe fn qualify_columns(query: *mut pg_sys::Query) {
    // SAFETY: the caller passes a private, live copy; nothing refers to the new entry.
    unsafe {
        let entries = node::elements::<pg_sys::RangeTblEntry>((*query).rtable);
        let [only] = entries[..] else { return };
        let sorts = !(*query).sortClause.is_null() || !(*query).distinctClause.is_null();
        // VALUES is known by being alone.
        if !sorts || (*only).rtekind == pg_sys::RTEKind::RTE_VALUES {
            return;
        }
        let filler: *mut pg_sys::RangeTblEntry = node::make(NodeTag::T_RangeTblEntry);
        (*filler).rtekind = pg_sys::RTEKind::RTE_RESULT;
        (*filler).eref = pg_sys::makeAlias(c"unused".as_ptr(), std::ptr::null_mut());
        (*query).rtable = pg_sys::lappend((*query).rtable, filler.cast());
    }
}

/// A key of ORDER BY or GROUP BY that is a number with a minus before it would be read as the number of an output; computed,
/// it is printed with its type.
unsafe fn compute_negative_keys(query: *mut pg_sys::Query) {
    // SAFETY: the caller passes a private, live copy.
    unsafe {
        node::walk(query, &mut |n| {
            if let Some(query) = node::cast::<pg_sys::Query, _>(n, NodeTag::T_Query) {
                for entry in node::elements::<pg_sys::TargetEntry>((*query).targetList) {
                    let is_negative = (*entry).ressortgroupref != 0
                        && node::cast::<pg_sys::OpExpr, _>((*entry).expr, NodeTag::T_OpExpr)
                            .is_some_and(|sign| {
                                let arguments = node::elements::<pg_sys::Node>((*sign).args);
                                matches!(arguments[..], [only] if node::tag(only) == NodeTag::T_Const)
                            });
                    if is_negative {
                        let computed = pg_sys::eval_const_expressions(
                            std::ptr::null_mut(),
                            (*entry).expr.cast(),
                        );
                        (*entry).expr = computed.cast();
                    }
                }
            }
            Visit::Into
        });
    }
}

fn cut(
    text: &str,
    marked: &[(Oid, String)],
    arbiters: &[(Oid, String, String)],
) -> Result<Vec<Piece>, PgError> {
    let mut holes = Vec::new();
    for (table, alias) in marked {
        let name = qualified_name(*table);
        // A sub-query is printed once more where ORDER BY or GROUP BY refers to it.
        let patterns = [format!("{name} AS {alias}"), format!("{name} {alias}")];
        let found = patterns.iter().flat_map(|pattern| text.match_indices(pattern.as_str()));
        let before = holes.len();
        holes.extend(found.map(|(start, _)| (start, start + name.len(), Piece::Table(*table))));
        if holes.len() == before {
            return Err(PgError::internal(format!(
                "the name of {name} is not where it should be in the deparsed statement"
            ))
            .detail(format!("Deparsed statement: {text}")));
        }
    }
    for (table, constraint, mark) in arbiters {
        let start = text.find(mark).ok_or_else(|| {
            PgError::internal("a constraint is not where it should be in the deparsed statement")
                .detail(format!("Deparsed statement: {text}"))
        })?;
        holes.push((start, start + mark.len(), Piece::Object(*table, constraint.clone())));
    }
    holes.sort_unstable_by_key(|hole| hole.0);
    let mut pieces = Vec::with_capacity(holes.len() * 2 + 1);
    let mut at = 0;
    let prefix = free_prefix(text, marked.len());
    for (start, end, piece) in holes {
        let mut before = readable(&text[at..start], &prefix);
        if matches!(piece, Piece::Object(..)) {
            before.push_str(" ON CONSTRAINT ");
        }
        pieces.push(Piece::Text(before));
        pieces.push(piece);
        at = end;
    }
    pieces.push(Piece::Text(readable(&text[at..], &prefix)));
    if let Some(Piece::Text(first)) = pieces.first_mut() {
        *first = first.trim_start().to_owned();
    }
    Ok(pieces)
}

/// What short aliases begin with: none of them may be a name of the client's.
fn free_prefix(text: &str, aliases: usize) -> String {
    let mut prefix = "t".to_owned();
    while (0..aliases).any(|number| text.contains(&format!("{prefix}{number}_"))) {
        prefix.push('t');
    }
    prefix
}

/// The nonce has done its work: aliases get short names, and line breaks outside of quotes become blanks.
fn readable(text: &str, prefix: &str) -> String {
    squeeze(&text.replace(&format!("zq{:016x}_", nonce()), prefix))
}

/// Folds white space outside of quotes; ruleutils indents for people, workers need not read it.
fn squeeze(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut quote = None;
    let mut letters = text.chars().peekable();
    let mut escapes = false;
    while let Some(letter) = letters.next() {
        match quote {
            Some(open) => {
                out.push(letter);
                if letter == '\\' && escapes {
                    out.extend(letters.next());
                } else if letter == open {
                    quote = None;
                }
            }
            None if letter.is_ascii_whitespace() => {
                while letters.peek().is_some_and(char::is_ascii_whitespace) {
                    letters.next();
                }
                if !out.ends_with(['(', ' ']) {
                    out.push(' ');
                }
            }
            None => {
                if letter == '\'' || letter == '"' {
                    quote = Some(letter);
                    escapes = letter == '\'' && out.ends_with('E');
                }
                out.push(letter);
            }
        }
    }
    out
}
