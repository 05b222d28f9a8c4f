//! A column whose type or generation expression changes: what a shard's ALTER TABLE does about it.

use super::Column;

/// How the values of a column become others, if the statement says how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// They are converted to the column's new type.
    Using {
        /// The column's number.
        column: i16,
        /// The expression of USING, over the columns as they were.
        expression: String,
    },
    /// They are generated anew, by the expression that the column has now.
    Generated {
        /// The column's number.
        column: i16,
    },
}

/// Types whose values have the same hash when they are converted to a wider one.
const SAME_HASH: [&[&str]; 2] =
    [&["smallint", "integer", "bigint"], &["character varying", "text"]];

/// Whether each value of the one type becomes one with the same hash in the other.
pub(super) fn keeps_hashes(from: &str, to: &str) -> bool {
    let split = |name: &str| match name.split_once('(') {
        Some((base, limit)) => (base.to_owned(), limit.trim_end_matches(')').parse::<u32>().ok()),
        None => (name.to_owned(), None),
    };
    let ((from, from_limit), (to, to_limit)) = (split(from), split(to));
    // A limit that becomes lower cuts off blanks.
    let is_wide_enough = to_limit.is_none_or(|to| from_limit.is_some_and(|from| from <= to));
    SAME_HASH.iter().any(|family| {
        let place = |name: &str| family.iter().position(|member| *member == name);
        let is_text = family[1] == "text";
        matches!((place(&from), place(&to)), (Some(from), Some(to)) if from <= to || is_text)
            && is_wide_enough
    })
}

/// The actions of ALTER TABLE that make the column what it has become.
pub(super) fn actions(was: &Column, is: &Column, conversions: &[Conversion]) -> Vec<String> {
    let mut actions = Vec::new();
    let name = &is.quoted_name;
    if was.generated.is_some() && is.generated.is_none() {
        actions.push(format!("ALTER COLUMN {name} DROP EXPRESSION"));
    }
    // Only the statement tells: an expression is also printed otherwise when a column has another name.
    let again = Conversion::Generated { column: is.number };
    if let (Some(generated), true) = (&is.generated, conversions.contains(&again)) {
        let expression = generated.rsplit_once(' ').map_or("", |(expression, _)| expression);
        actions.push(format!("ALTER COLUMN {name} SET EXPRESSION AS {expression}"));
    }
    if was.type_name == is.type_name {
        return actions;
    }
    let using = conversions.iter().find_map(|conversion| match conversion {
        Conversion::Using { column, expression } if *column == is.number => {
            Some(format!(" USING {expression}"))
        }
        _ => None,
    });
    // A default that cannot be cast would be refused; the new one is set afterwards.
    if was.default.is_some() && was.default != is.default {
        actions.push(format!("ALTER COLUMN {name} DROP DEFAULT"));
    }
    let using = using.unwrap_or_default();
    actions.push(format!("ALTER COLUMN {name} TYPE {}{using}", is.type_name));
    actions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_generated_anew_if_the_statement_says_so() {
        let was = Column {
            number: 3,
            quoted_name: "g".to_owned(),
            type_name: "integer".to_owned(),
            generated: Some("(a * 2) STORED".to_owned()),
            ..Column::default()
        };
        let is = Column { generated: Some("(a * 3) STORED".to_owned()), ..was.clone() };
        assert_eq!(actions(&was, &is, &[]), Vec::<String>::new());
        assert_eq!(
            actions(&was, &is, &[Conversion::Generated { column: 3 }]),
            ["ALTER COLUMN g SET EXPRESSION AS (a * 3)"]
        );
    }
}
