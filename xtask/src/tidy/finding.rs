//! The rules that have figures, and what is found against them.

/// A rule with a figure that can be too high.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    Header,
    FileLength,
    FunctionLength,
    PgSys,
    RawSqlState,
    Circle,
}

impl Rule {
    pub(super) const ALL: [Self; 6] = [
        Self::Header,
        Self::FileLength,
        Self::FunctionLength,
        Self::PgSys,
        Self::RawSqlState,
        Self::Circle,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::FileLength => "file-length",
            Self::FunctionLength => "function-length",
            Self::PgSys => "pg-sys",
            Self::RawSqlState => "raw-sqlstate",
            Self::Circle => "circle",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }
}

/// Something that needs a reason.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) rule: Rule,
    /// A file, with `#name` for a function.
    pub(super) place: String,
    pub(super) figure: usize,
    pub(super) what: String,
}

impl Finding {
    pub(super) fn new(rule: Rule, place: &str, figure: usize, what: &str) -> Self {
        Self { rule, place: place.to_owned(), figure, what: what.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_have_names_of_their_own() {
        for rule in Rule::ALL {
            assert_eq!(Rule::named(rule.name()), Some(rule));
        }
    }
}
