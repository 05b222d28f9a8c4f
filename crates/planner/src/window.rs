//! Window functions as SQL, shard by shard.
//!
//! A shard's query has two levels: what windows work on, as columns `c1`, `c2`, ..., groups included; and above it the
//! windows, as `w1`, `w2`, .... Filters on windows, which the planner has taken from the query around, make a third.

use crate::enclosing::{named_list, names};

/// `function(arguments) FILTER (...) OVER (...)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Its schema and name, quoted.
    pub schema: String,
    /// See above.
    pub name: String,
    /// Its arguments; `*` for `count(*)`.
    pub arguments: Vec<String>,
    /// Its FILTER.
    pub filter: Option<String>,
    /// PARTITION BY.
    pub partition: Vec<String>,
    /// ORDER BY.
    pub order: Vec<String>,
    /// The frame, if it is not the usual one.
    pub frame: Option<Frame>,
}

/// A frame: which rows of the partition a window function looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What offsets count.
    pub unit: Unit,
    /// Where it begins.
    pub start: Bound,
    /// Where it ends.
    pub end: Bound,
    /// What is left out of it.
    pub exclusion: Exclusion,
}

/// What the offsets of a frame count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Differences of the sort key.
    Range,
    /// Rows.
    Rows,
    /// Groups of rows that are sorted alike.
    Groups,
}

/// Where a frame begins or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// With the partition: at its first row for a beginning, at its last for an end.
    Unbounded,
    /// The current row.
    CurrentRow,
    /// So far before it.
    Preceding(String),
    /// So far behind it.
    Following(String),
}

/// What is left out of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// Nothing.
    None,
    /// The current row.
    CurrentRow,
    /// The current row and those that are sorted alike.
    Group,
    /// Those that are sorted alike.
    Ties,
}

impl Bound {
    fn sql(&self, unbounded: &str) -> String {
        match self {
            Self::Unbounded => format!("UNBOUNDED {unbounded}"),
            Self::CurrentRow => "CURRENT ROW".to_owned(),
            Self::Preceding(offset) => format!("{offset} PRECEDING"),
            Self::Following(offset) => format!("{offset} FOLLOWING"),
        }
    }
}

impl Frame {
    fn sql(&self) -> String {
        let unit = match self.unit {
            Unit::Range => "RANGE",
            Unit::Rows => "ROWS",
            Unit::Groups => "GROUPS",
        };
        let exclusion = match self.exclusion {
            Exclusion::None => "",
            Exclusion::CurrentRow => " EXCLUDE CURRENT ROW",
            Exclusion::Group => " EXCLUDE GROUP",
            Exclusion::Ties => " EXCLUDE TIES",
        };
        let (start, end) = (self.start.sql("PRECEDING"), self.end.sql("FOLLOWING"));
        format!("{unit} BETWEEN {start} AND {end}{exclusion}")
    }
}

impl Call {
    /// As SQL. The server's own schema goes without saying.
    pub fn sql(&self) -> String {
        let mut over: Vec<String> = Vec::new();
        if !self.partition.is_empty() {
            over.push(format!("PARTITION BY {}", self.partition.join(", ")));
        }
        if !self.order.is_empty() {
            over.push(format!("ORDER BY {}", self.order.join(", ")));
        }
        over.extend(self.frame.as_ref().map(Frame::sql));
        let schema = match self.schema.as_str() {
            "pg_catalog" => String::new(),
            schema => format!("{schema}."),
        };
        let filter = self.filter.as_ref();
        let filter = filter.map_or_else(String::new, |it| format!(" FILTER (WHERE {it})"));
        let (name, arguments) = (&self.name, self.arguments.join(", "));
        format!("{schema}{name}({arguments}){filter} OVER ({})", over.join(" "))
    }
}

/// What stands before FROM and behind the grouping of a shard's query: `shown` are the columns of the level with windows,
/// `base` those of the level below, `conditions` filters on the former.
pub fn levels(shown: &[String], base: &[String], conditions: &[String]) -> (String, String) {
    let (mut opening, mut closing) = (String::new(), ") s".to_owned());
    if !conditions.is_empty() {
        opening = format!("SELECT {} FROM (", names(shown.len(), 'w').join(", "));
        closing.push_str(&format!(") r WHERE {}", conditions.join(" AND ")));
    }
    let windows: Vec<String> =
        shown.iter().enumerate().map(|(n, text)| format!("{text} AS w{}", n + 1)).collect();
    let (windows, base) = (windows.join(", "), named_list(base, 'c'));
    (format!("{opening}SELECT {windows} FROM (SELECT {base}"), closing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn rank() -> Call {
        Call {
            schema: "pg_catalog".to_owned(),
            name: "rank".to_owned(),
            partition: texts(&["c1"]),
            order: texts(&["c2 DESC"]),
            ..Call::default()
        }
    }

    #[test]
    fn a_window_is_printed_in_full() {
        assert_eq!(rank().sql(), "rank() OVER (PARTITION BY c1 ORDER BY c2 DESC)");
    }

    #[test]
    fn only_the_servers_own_schema_goes_without_saying() {
        let other = Call { schema: "information_schema".to_owned(), ..rank() };
        assert!(other.sql().starts_with("information_schema.rank() OVER"));
    }

    #[test]
    fn a_filter_stands_before_the_window() {
        let call = Call {
            name: "count".to_owned(),
            arguments: texts(&["*"]),
            filter: Some("c3".to_owned()),
            order: Vec::new(),
            ..rank()
        };
        assert_eq!(call.sql(), "count(*) FILTER (WHERE c3) OVER (PARTITION BY c1)");
    }

    #[test]
    fn a_frame_names_both_ends_and_what_is_left_out() {
        let frame = Frame {
            unit: Unit::Rows,
            start: Bound::Preceding("$1".to_owned()),
            end: Bound::CurrentRow,
            exclusion: Exclusion::Ties,
        };
        let call = Call { frame: Some(frame), partition: Vec::new(), ..rank() };
        assert_eq!(
            call.sql(),
            "rank() OVER (ORDER BY c2 DESC ROWS BETWEEN $1 PRECEDING AND CURRENT ROW EXCLUDE TIES)"
        );
    }

    #[test]
    fn an_unbounded_end_is_at_its_own_side() {
        let frame = Frame {
            unit: Unit::Groups,
            start: Bound::Unbounded,
            end: Bound::Unbounded,
            exclusion: Exclusion::Group,
        };
        assert_eq!(
            frame.sql(),
            "GROUPS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE GROUP"
        );
        let frame = Frame { unit: Unit::Range, exclusion: Exclusion::CurrentRow, ..frame };
        assert!(frame.sql().starts_with("RANGE BETWEEN"));
        assert!(frame.sql().ends_with("EXCLUDE CURRENT ROW"));
    }

    #[test]
    fn windows_stand_on_a_level_above_what_they_work_on() {
        let (opening, closing) = levels(&texts(&["c1", "rank() OVER ()"]), &texts(&["t.a"]), &[]);
        assert_eq!(
            format!("{opening} FROM t{closing}"),
            "SELECT c1 AS w1, rank() OVER () AS w2 FROM (SELECT t.a AS c1 FROM t) s"
        );
    }

    #[test]
    fn filters_on_windows_stand_on_a_level_above_these() {
        let conditions = texts(&["(w1 <= $1)", "(w1 > $2)"]);
        let (opening, closing) = levels(&texts(&["rank() OVER ()"]), &[], &conditions);
        assert_eq!(
            format!("{opening} FROM t{closing}"),
            "SELECT w1 FROM (SELECT rank() OVER () AS w1 FROM (SELECT NULL FROM t) s) r \
             WHERE (w1 <= $1) AND (w1 > $2)"
        );
    }
}
