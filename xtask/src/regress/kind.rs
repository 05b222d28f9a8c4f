//! What a statement of PostgreSQL's tests asks of the runner, by its first words.

/// What the runner does around a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// It changes a table's definition: the tables that it names are made local first.
    pub(crate) defines: bool,
    /// It may leave a table that is not distributed yet.
    pub(crate) makes_tables: bool,
    /// It reads or writes rows: tables are distributed first.
    pub(crate) uses_rows: bool,
    /// Workers need it too: types, functions, roles, schemas.
    pub(crate) concerns_workers: bool,
    /// It shows a plan, which is not compared.
    pub(crate) shows_plan: bool,
}

/// The kind of a statement.
pub(crate) fn of(statement: &str) -> Kind {
    let text = statement.to_lowercase();
    let words: Vec<&str> =
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).collect();
    let first = words.first().copied().unwrap_or_default();
    let has = |word: &str| words.contains(&word);
    let object = words
        .iter()
        .skip(1)
        .copied()
        .find(|word| !matches!(*word, "or" | "replace" | "constraint" | "unique" | "trusted"))
        .unwrap_or_default();
    let is_ddl = matches!(first, "create" | "alter" | "drop");
    let makes_table = first == "create" && has("table");
    Kind {
        defines: (is_ddl
            && matches!(
                object,
                "index" | "trigger" | "rule" | "policy" | "statistics" | "publication"
            ))
            || (first == "alter"
                && matches!(object, "table" | "type" | "schema" | "domain" | "view"))
            || (makes_table && (has("inherits") || has("references") || has("partition")))
            || matches!(first, "grant" | "revoke" | "reindex" | "cluster" | "reassign" | "comment"),
        makes_tables: is_ddl
            || matches!(first, "do" | "call" | "rollback" | "grant" | "revoke")
            || (has("select") && has("into")),
        uses_rows: matches!(
            first,
            "select"
                | "insert"
                | "update"
                | "delete"
                | "with"
                | "merge"
                | "copy"
                | "execute"
                | "declare"
                | "table"
                | "values"
                | "truncate"
                | "call"
                | "do"
                | "prepare"
                | "vacuum"
                | "analyze"
                | "explain"
                // Tables that are distributed within a file's transaction are seen by one role only.
                | "begin"
                | "start"
        ),
        concerns_workers: matches!(first, "set" | "reset")
            || (is_ddl
                && matches!(
                    object,
                    "type"
                        | "domain"
                        | "function"
                        | "procedure"
                        | "aggregate"
                        | "operator"
                        | "role"
                        | "user"
                        | "group"
                        | "schema"
                        | "collation"
                        | "cast"
                        | "extension"
                        | "text"
                ))
            || (matches!(first, "grant" | "revoke")
                && (has("schema") || has("function") || has("type") || !has("on"))),
        shows_plan: first == "explain",
    }
}

/// Whether a statement creates or alters a role.
pub(crate) fn makes_role(statement: &str) -> bool {
    let words: Vec<String> = statement.split_whitespace().take(2).map(str::to_lowercase).collect();
    matches!(words.as_slice(), [verb, object]
        if matches!(verb.as_str(), "create" | "alter")
            && matches!(object.as_str(), "role" | "user" | "group"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_and_rows_are_told_apart() {
        assert!(of("ALTER TABLE t ADD c int").defines);
        assert!(of("CREATE UNIQUE INDEX i ON t (a)").defines);
        assert!(!of("CREATE TABLE t (a int)").defines);
        assert!(of("create table t (a int)").makes_tables);
        assert!(of("SELECT 1").uses_rows);
        assert!(of("SELECT 1 INTO t").makes_tables);
        assert!(of("CREATE OR REPLACE FUNCTION f() RETURNS int").concerns_workers);
        assert!(of("EXPLAIN (costs off) SELECT 1").shows_plan);
    }
}
