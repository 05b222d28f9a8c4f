//! SQL text in which the shard's id is left open.
//!
//! A table's definition is read once; each of its shards repeats it under other names. A [`Template`] is a statement whose
//! names that differ from shard to shard (the table, its indexes, its statistics) are holes. Filling one is concatenation.
//!
//! Literal text arrives quoted; a hole keeps the bare name, for the suffix goes inside the quotes. Nothing here knows
//! PostgreSQL beyond its lexical rules (`src/backend/parser/scan.l`), so it needs no server.

use std::fmt;

use thiserror::Error;

/// The bytes a shard's name must stay below: one less than PostgreSQL would take, as in pg_shard 1.2.
const NAME_LIMIT_BYTES: usize = 63;

/// A name leaves no room for `_<shardid>`. SQLSTATE XX000.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("shard name too long to extend: \"{base}\"")]
pub struct NameTooLong {
    /// The name without the shard's id.
    pub base: String,
}

/// The bare name of `base`'s counterpart in a shard: `orders` in shard 10000 is `orders_10000`.
pub fn shard_name(base: &str, shard_id: i64) -> Result<String, NameTooLong> {
    let name = format!("{base}_{shard_id}");
    if name.len() < NAME_LIMIT_BYTES {
        Ok(name)
    } else {
        Err(NameTooLong { base: base.to_owned() })
    }
}

/// A statement, or a part of one, for any shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// SQL that is the same for every shard.
    Text(String),
    /// The hole: this name, suffixed and quoted.
    Name(String),
    /// A hole for the shard of another table that lies beside this one.
    Peer {
        /// What the caller knows the other table by.
        table: u32,
        /// Its bare name.
        name: String,
    },
}

impl Template {
    /// A template that begins with `sql`.
    pub fn new(sql: impl Into<String>) -> Self {
        Self::default().text(sql)
    }

    /// Goes on with `sql` as it stands.
    pub fn text(mut self, sql: impl Into<String>) -> Self {
        let sql = sql.into();
        match self.pieces.last_mut() {
            Some(Piece::Text(text)) => text.push_str(&sql),
            _ => self.pieces.push(Piece::Text(sql)),
        }
        self
    }

    /// Goes on with the shard's counterpart of the object `base`, a bare name.
    pub fn name(mut self, base: &str) -> Self {
        self.pieces.push(Piece::Name(base.to_owned()));
        self
    }

    /// Goes on with the shard beside this one of another table, which the caller knows as `table`; `name` is bare.
    pub fn peer(mut self, table: u32, name: &str) -> Self {
        self.pieces.push(Piece::Peer { table, name: name.to_owned() });
        self
    }

    /// Goes on with another template.
    pub fn then(mut self, other: &Self) -> Self {
        for piece in &other.pieces {
            self = match piece {
                Piece::Text(sql) => self.text(sql),
                Piece::Name(base) => self.name(base),
                Piece::Peer { table, name } => self.peer(*table, name),
            };
        }
        self
    }

    /// Goes on with an expression that the server printed for the table `table`.
    ///
    /// Such an expression names no table, with one exception: the whole row is printed as `table.*` (`get_variable`,
    /// `src/backend/utils/adt/ruleutils.c`). That name becomes a hole. The expression is read token by token, so the same
    /// letters in a literal, in a quoted name or in `OPERATOR(table.*)` are left alone.
    pub fn expression(mut self, sql: &str, table: &str) -> Self {
        let mut start = 0;
        while let Some(token) = next_token(&sql[start..]) {
            let end = start + token.len();
            let is_whole_row = is_name(token, table)
                && sql[end..].starts_with(".*")
                && !sql[..start].ends_with("OPERATOR(");
            self = if is_whole_row { self.name(table) } else { self.text(token) };
            start = end;
        }
        self
    }

    /// The SQL for one shard, if no other table has a part in it.
    pub fn fill(&self, shard_id: i64) -> Result<String, NameTooLong> {
        self.fill_beside(shard_id, &|_| shard_id)
    }

    /// The SQL for one shard; `peer` knows the shards of other tables that lie beside it.
    pub fn fill_beside(
        &self,
        shard_id: i64,
        peer: &dyn Fn(u32) -> i64,
    ) -> Result<String, NameTooLong> {
        let mut sql = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => sql.push_str(text),
                Piece::Name(base) => sql.push_str(&quote_name(&shard_name(base, shard_id)?)),
                Piece::Peer { table, name } => {
                    sql.push_str(&quote_name(&shard_name(name, peer(*table))?));
                }
            }
        }
        Ok(sql)
    }
}

/// Prints with `{name}` where a hole is: for tests and logs, not for a server.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Name(base) => write!(f, "{{{base}}}"),
            Piece::Peer { name, .. } => write!(f, "{{{name}}}"),
        })
    }
}

/// Quotes a suffixed name where it must be. No key word ends in `_<digits>`, so the letters alone decide.
fn quote_name(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The first token of `sql`: a literal, a name, or one character of anything else.
///
/// Literals are those that ruleutils prints with `standard_conforming_strings` on: a quote is doubled, a backslash is itself.
fn next_token(sql: &str) -> Option<&str> {
    let first = sql.chars().next()?;
    let length = match first {
        '\'' | '"' => quoted_length(sql, first),
        _ if is_name_start(first) => sql.find(|c| !is_name_part(c)).unwrap_or(sql.len()),
        _ => first.len_utf8(),
    };
    Some(&sql[..length])
}

/// The length of the text in quotes that `sql` begins with; a doubled quote stands for itself.
fn quoted_length(sql: &str, quote: char) -> usize {
    let mut quotes =
        sql.char_indices().filter(|&(_, c)| c == quote).map(|(at, _)| at).skip(1).peekable();
    while let Some(at) = quotes.next() {
        if quotes.next_if_eq(&(at + 1)).is_none() {
            return at + 1;
        }
    }
    sql.len()
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_name_part(c: char) -> bool {
    is_name_start(c) || c.is_ascii_digit() || c == '$'
}

/// Whether `token` is `name` as the server prints it, quoted or not.
fn is_name(token: &str, name: &str) -> bool {
    match token.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\"") == name,
        None => token == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(expression: &str, table: &str) -> String {
        Template::default().expression(expression, table).to_string()
    }

    #[test]
    fn holes_are_suffixed_inside_the_quotes() {
        let template = Template::new("CREATE INDEX ")
            .name("Odd \"name")
            .text(" ON public.")
            .name("orders")
            .text(" (id)");
        assert_eq!(
            template.fill(10_000).as_deref(),
            Ok("CREATE INDEX \"Odd \"\"name_10000\" ON public.orders_10000 (id)")
        );
    }

    #[test]
    fn a_key_word_needs_no_quotes_once_suffixed() {
        assert_eq!(Template::default().name("select").fill(1).as_deref(), Ok("select_1"));
        assert_eq!(Template::default().name("1st").fill(1).as_deref(), Ok("\"1st_1\""));
        assert_eq!(Template::default().name("straße").fill(1).as_deref(), Ok("\"straße_1\""));
    }

    #[test]
    fn the_longest_shard_name_has_62_bytes() {
        let base = "b".repeat(56);
        assert_eq!(shard_name(&base, 10_000).map(|name| name.len()), Ok(62));
        assert_eq!(shard_name(&base, 100_000), Err(NameTooLong { base: base.clone() }));
        assert_eq!(
            NameTooLong { base: "b".into() }.to_string(),
            "shard name too long to extend: \"b\""
        );
    }

    #[test]
    fn the_limit_counts_bytes_not_letters() {
        assert!(shard_name(&"ü".repeat(28), 10_000).is_ok());
        assert!(shard_name(&"ü".repeat(29), 10_000).is_err());
    }

    #[test]
    fn the_whole_row_is_a_hole() {
        assert_eq!(printed("CHECK ((t.* IS NOT NULL))", "t"), "CHECK (({t}.* IS NOT NULL))");
        assert_eq!(printed("((\"T \"\"x\".*)::text)", "T \"x"), "(({T \"x}.*)::text)");
        assert_eq!(printed("\"t\".*", "t"), "{t}.*");
    }

    #[test]
    fn the_same_letters_elsewhere_are_not() {
        for expression in [
            "(a = 't.*'::text)",
            "(a = 'it''s t.*'::text)",
            "(a = '\\'::text) AND (b = 't.*'::text)",
            "(a OPERATOR(t.*) 2)",
            "(\"x\"\"t.*\" > 1)",
            "(at.* IS NULL)",
            "t.f(a)",
            "(a *t)",
        ] {
            assert_eq!(printed(expression, "t"), expression);
        }
    }

    #[test]
    fn an_expression_keeps_every_byte() {
        for expression in ["", "'", "\"open", "ä.* || 'ß'", "a$1 + .5", "'''' || \"\"\"\""] {
            assert_eq!(printed(expression, "t"), expression);
        }
    }

    #[test]
    fn neighbouring_texts_become_one_piece() {
        let table = Template::new("public.").name("t");
        let template =
            Template::new("DROP ").text("TABLE ").then(&table).then(&Template::new("").text(""));
        assert_eq!(template.to_string(), "DROP TABLE public.{t}");
        assert_eq!(template.pieces.len(), 3);
    }
}
