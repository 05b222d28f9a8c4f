//! The SQL of a statement that changes one row of a shard.

use pg::sys::plan::Piece;
use pgrx::pg_sys::Oid;

/// How a row is found again on a placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Find {
    /// By where it lies.
    Place,
    /// By the columns of a unique index.
    Key,
    /// By all that is in it.
    Row,
}

/// What is done, by which statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Insert,
    /// Insert it unless there is a row that it conflicts with.
    Offer,
    /// Lock and fetch the row that it conflicts with.
    Existing,
    Update(usize, Find),
    Delete(Find),
}

/// The quoted names of a table's columns.
pub(super) struct Names {
    /// Those of the new row, whose values come first among the arguments.
    pub(super) new: Vec<String>,
    /// Those by which the old row is found, whose values follow.
    pub(super) old: Vec<String>,
    /// Those of ON CONFLICT.
    pub(super) conflict: Option<Vec<String>>,
    /// All of them, with their types.
    pub(super) all: Vec<(String, String)>,
    /// A generated one.
    pub(super) generated: Option<String>,
}

/// The statement for any shard.
pub(super) fn template(kind: Kind, names: &Names, table: Oid) -> Vec<Piece> {
    let text = |text: &str| Piece::Text(text.to_owned());
    let (before, after) = match kind {
        Kind::Insert => ("INSERT INTO ", names.values("")),
        Kind::Offer => ("INSERT INTO ", names.values(&names.conflict_clause())),
        Kind::Existing => return names.existing(table),
        Kind::Update(..) => ("UPDATE ", format!(" AS t SET {}", names.assignments())),
        Kind::Delete(_) => ("DELETE FROM ", " AS t".to_owned()),
    };
    let mut template = vec![text(before), Piece::Table(table), text(&after)];
    let first = names.new.len() + 1;
    match kind {
        Kind::Insert | Kind::Offer | Kind::Existing => {}
        Kind::Update(_, Find::Place) | Kind::Delete(Find::Place) => {
            template.push(text(&format!(" WHERE t.ctid = ${first}")));
        }
        Kind::Update(_, Find::Key) | Kind::Delete(Find::Key) => {
            template.push(text(&format!(" WHERE {}", equal(&names.old, first))));
        }
        Kind::Update(_, Find::Row) | Kind::Delete(Find::Row) => {
            template.push(text(" WHERE t.ctid = (SELECT s.ctid FROM "));
            template.push(Piece::Table(table));
            template.push(text(&names.same_row(first)));
        }
    }
    template
}

/// `t.a = $1 AND t.b = $2`, from the parameter `first` on.
fn equal(names: &[String], first: usize) -> String {
    let names = names.iter().enumerate();
    names.map(|(n, name)| format!("t.{name} = ${}", first + n)).collect::<Vec<_>>().join(" AND ")
}

impl Names {
    fn values(&self, conflict: &str) -> String {
        let values: Vec<String> = (1..=self.new.len()).map(|n| format!("${n}")).collect();
        format!(" ({}) VALUES ({}){conflict}", self.new.join(", "), values.join(", "))
    }

    fn conflict_clause(&self) -> String {
        self.conflict.as_ref().map_or_else(
            || " ON CONFLICT DO NOTHING".to_owned(),
            |columns| format!(" ON CONFLICT ({}) DO NOTHING", columns.join(", ")),
        )
    }

    fn existing(&self, table: Oid) -> Vec<Piece> {
        let columns: Vec<String> = self.all.iter().map(|(name, _)| format!("t.{name}")).collect();
        let condition = equal(&self.new, 1);
        vec![
            Piece::Text(format!("SELECT t.ctid, {} FROM ", columns.join(", "))),
            Piece::Table(table),
            Piece::Text(format!(" AS t WHERE {condition} FOR UPDATE")),
        ]
    }

    fn assignments(&self) -> String {
        let new = self.new.iter().enumerate();
        let mut assigned: Vec<String> =
            new.map(|(n, name)| format!("{name} = ${}", n + 1)).collect();
        // An UPDATE that assigns nothing said DEFAULT of generated columns only.
        if assigned.is_empty() {
            assigned.extend(self.generated.iter().map(|name| format!("{name} = DEFAULT")));
        }
        assigned.join(", ")
    }

    fn same_row(&self, first: usize) -> String {
        let names: Vec<String> = self.old.iter().map(|name| format!("s.{name}")).collect();
        let types = self.all.iter().enumerate();
        let values: Vec<String> =
            types.map(|(n, (_, type_name))| format!("${}::{type_name}", first + n)).collect();
        format!(
            " AS s WHERE ROW({})::text = ROW({})::text LIMIT 1)",
            names.join(", "),
            values.join(", ")
        )
    }
}
