//! What stands around the union of a node's shards: one SELECT that makes of all rows of a node what the node sends.
//!
//! Inside, each shard's SELECT names its columns `c1`, `c2`, ...; the union is called `u`.

use crate::ordering::order_and_limit;

/// The SELECT around the union.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enclosing {
    /// What is selected; nothing is NULL.
    pub list: Vec<String>,
    /// Each row once.
    pub distinct: bool,
    /// The first row, by `order`, for each value of these.
    pub first_of: Vec<String>,
    /// GROUP BY.
    pub grouping: Grouping,
    /// ORDER BY.
    pub order: Vec<String>,
    /// LIMIT.
    pub limit: Option<i64>,
}

/// GROUP BY.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Grouping {
    /// There is none; or the rows are one group, because aggregates are asked for.
    #[default]
    None,
    /// By these keys, if there are any.
    Keys(Vec<String>),
    /// By each of these sets of keys.
    Sets(Vec<Vec<String>>),
}

impl Grouping {
    /// ` GROUP BY ...`.
    pub fn sql(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Keys(keys) if keys.is_empty() => String::new(),
            Self::Keys(keys) => format!(" GROUP BY {}", keys.join(", ")),
            Self::Sets(sets) => {
                let sets = sets.iter().map(|set| format!("({})", set.join(", ")));
                format!(" GROUP BY GROUPING SETS ({})", sets.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// A select list; one without anything still has a row for each row.
pub fn select_list(list: &[String]) -> String {
    if list.is_empty() { "NULL".to_owned() } else { list.join(", ") }
}

/// `text AS c1, text AS c2, ...`.
pub fn named_list(list: &[String], letter: char) -> String {
    let named = list.iter().enumerate().map(|(n, text)| format!("{text} AS {letter}{}", n + 1));
    select_list(&named.collect::<Vec<_>>())
}

/// `c1, c2, ...`.
pub fn names(count: usize, letter: char) -> Vec<String> {
    (1..=count).map(|number| format!("{letter}{number}")).collect()
}

/// The number of the column with that text, which is added if there is none yet.
pub fn place_of(columns: &mut Vec<String>, text: String) -> usize {
    let known = columns.iter().position(|known| *known == text);
    known.unwrap_or_else(|| {
        columns.push(text);
        columns.len() - 1
    }) + 1
}

impl Enclosing {
    /// What stands before the union.
    pub fn opening(&self) -> String {
        let distinct = if !self.first_of.is_empty() {
            format!("DISTINCT ON ({}) ", self.first_of.join(", "))
        } else if self.distinct {
            "DISTINCT ".to_owned()
        } else {
            String::new()
        };
        format!("SELECT {distinct}{} FROM (", select_list(&self.list))
    }

    /// What stands behind the union, without the parenthesis and the name that close it.
    pub fn closing(&self) -> String {
        self.grouping.sql() + &order_and_limit(&self.order, self.limit)
    }

    /// Both, around a union called `u`.
    pub fn around(&self) -> (String, String) {
        (self.opening(), format!(") u{}", self.closing()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn sql(enclosing: &Enclosing) -> String {
        let (opening, closing) = enclosing.around();
        format!("{opening}...{closing}")
    }

    #[test]
    fn partial_groups_are_grouped_by_their_keys() {
        let enclosing = Enclosing {
            list: texts(&["c1", "count(c2)"]),
            grouping: Grouping::Keys(texts(&["c1"])),
            ..Enclosing::default()
        };
        assert_eq!(sql(&enclosing), "SELECT c1, count(c2) FROM (...) u GROUP BY c1");
    }

    #[test]
    fn aggregates_without_keys_have_no_group_by() {
        let grouping = Grouping::Keys(Vec::new());
        let enclosing = Enclosing { list: texts(&["count(*)"]), grouping, ..Enclosing::default() };
        assert_eq!(sql(&enclosing), "SELECT count(*) FROM (...) u");
    }

    #[test]
    fn an_empty_set_of_keys_is_a_set() {
        let sets = vec![texts(&["c1", "c2"]), texts(&["c1"]), Vec::new()];
        let grouping = Grouping::Sets(sets);
        assert_eq!(grouping.sql(), " GROUP BY GROUPING SETS ((c1, c2), (c1), ())");
    }

    #[test]
    fn the_first_rows_of_a_node_are_sorted_and_cut() {
        let enclosing = Enclosing {
            list: texts(&["c1", "c2"]),
            order: texts(&["c2 DESC"]),
            limit: Some(10),
            ..Enclosing::default()
        };
        assert_eq!(sql(&enclosing), "SELECT c1, c2 FROM (...) u ORDER BY c2 DESC LIMIT 10");
    }

    #[test]
    fn distinct_on_goes_before_distinct() {
        let mut enclosing =
            Enclosing { list: texts(&["c1"]), distinct: true, ..Enclosing::default() };
        assert_eq!(sql(&enclosing), "SELECT DISTINCT c1 FROM (...) u");
        enclosing.first_of = texts(&["c2", "c3"]);
        assert_eq!(sql(&enclosing), "SELECT DISTINCT ON (c2, c3) c1 FROM (...) u");
    }

    #[test]
    fn rows_without_columns_are_rows_all_the_same() {
        assert_eq!(sql(&Enclosing::default()), "SELECT NULL FROM (...) u");
        assert_eq!(named_list(&[], 'c'), "NULL");
    }

    #[test]
    fn a_text_has_one_place_however_often_it_is_wanted() {
        let mut columns = Vec::new();
        assert_eq!(place_of(&mut columns, "t.a".to_owned()), 1);
        assert_eq!(place_of(&mut columns, "t.b".to_owned()), 2);
        assert_eq!(place_of(&mut columns, "t.a".to_owned()), 1);
        assert_eq!(named_list(&columns, 'c'), "t.a AS c1, t.b AS c2");
        assert_eq!(names(columns.len(), 'c'), ["c1", "c2"]);
    }
}
