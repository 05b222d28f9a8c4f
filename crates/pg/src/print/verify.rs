//! Whether a printed statement says what was meant: it is parsed and analysed once more, and compared.
//!
//! Compared is everything that counts, by PostgreSQL's own `equal` over both trees in the form of [`crate::print::canonical`].

use crate::print::canonical::canonical;
use crate::print::template::{qualified_name, with_portable_output};
use crate::read::query::Prepared;
use crate::sys::error::PgError;
use crate::sys::node::{self, Visit};
use crate::sys::plan::Piece;
use crate::sys::version;
use pgrx::pg_sys::{self, NodeTag, Oid};

impl Prepared {
    /// Compares the statement with its template.
    ///
    /// # Errors
    ///
    /// Where they differ, or the text is no valid statement here.
    pub fn verify(&self, template: &[Piece]) -> Result<(), PgError> {
        let text = text_of(template);
        // SAFETY: the prepared copy is live; parser and analyser make nodes of their own.
        unsafe {
            let types = parameter_types(self.query);
            let said = with_portable_output(|| analyse(&text, &types));
            if is_same(self.query, said, false) || is_same(self.query, said, true) {
                return Ok(());
            }
            let [meant, said] =
                [self.query, said].map(|query| words(canonical(query, true).cast()));
            Err(PgError::internal("a statement for the workers does not say what was meant")
                .detail(format!("Statement: {text}\n{}", difference(&meant, &said))))
        }
    }
}

/// The text with the names of the tables here.
pub(crate) fn text_of(template: &[Piece]) -> String {
    let text = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Table(table) => qualified_name(*table),
        Piece::Object(_, name) => format!("\"{}\"", name.replace('"', "\"\"")),
        Piece::Index => "0".to_owned(),
    };
    template.iter().map(text).collect()
}

/// Both mean the same.
unsafe fn is_same(meant: *mut pg_sys::Query, said: *mut pg_sys::Query, folded: bool) -> bool {
    // SAFETY: the caller passes live Queries.
    unsafe { pg_sys::equal(canonical(meant, folded).cast(), canonical(said, folded).cast()) }
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
        let said = pg_sys::parse_analyze_fixedparams(
            node::nth(statements, 0),
            text,
            types.as_ptr(),
            count,
            std::ptr::null_mut(),
        );
        version::flatten_groups(said, true);
        said
    }
}

/// What of a node's fields `equal` does not look at.
const IGNORED: [&str; 11] = [
    ":location",
    ":funcformat",
    ":relabelformat",
    ":coerceformat",
    ":coercionform",
    ":convertformat",
    ":row_format",
    ":varnosyn",
    ":varattnosyn",
    ":opfuncid",
    ":aggtranstype",
];

/// A tree in PostgreSQL's own notation, word by word, without what does not count.
pub(crate) unsafe fn words(tree: *mut pg_sys::Node) -> Vec<String> {
    // SAFETY: the caller passes a live tree.
    let text = unsafe { node::text_of(pg_sys::nodeToString(tree.cast())) };
    let mut words = Vec::new();
    let mut all = text.split_ascii_whitespace();
    while let Some(word) = all.next() {
        if IGNORED.contains(&word) {
            // What follows the number closes nodes and lists.
            let number = |c: char| c == '-' || c.is_ascii_alphanumeric();
            let closing = all.next().map_or("", |value| value.trim_start_matches(number));
            words.extend((!closing.is_empty()).then(|| closing.to_owned()));
        } else {
            words.push(word.to_owned());
        }
    }
    words
}

/// Where two trees part.
fn difference(meant: &[String], said: &[String]) -> String {
    /// So many words before it and behind it tell enough.
    const AROUND: usize = 40;
    let same = meant.iter().zip(said).take_while(|(meant, said)| meant == said).count();
    let shown = |words: &[String]| {
        words[same.saturating_sub(AROUND)..words.len().min(same + AROUND)].join(" ")
    };
    format!("Meant: {}\nSaid: {}", shown(meant), shown(said))
}
