//! Rights that a coordinator lends to a session of a node, for the statements of one flight.
//!
//! A view and a function that is SECURITY DEFINER act with the rights of their owner, whoever calls them. On the node all of them act in
//! the caller's session, so the coordinator tells it whose rights count, with a proof ([`crate::instruction`]). The instruction
//! names the session by a random number that the node has made, and has a number of its own: it holds in one session, once.

use std::fmt::Write;

/// Whose rights count, where, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lending {
    /// The node's number for the session.
    pub session: u64,
    /// Larger than that of each before it in the session.
    pub number: u64,
    /// What acts so must not leave anything behind in the session: it is maintenance.
    pub is_restricted: bool,
    /// Numbers of the prepared statements that are about to be executed so.
    pub statements: Vec<u32>,
    /// The name of the role.
    pub role: String,
    /// Values of the settings that follow the client's, in an order that both sides know.
    pub settings: Vec<String>,
}

/// Stands between values of settings; none has it.
const SEPARATOR: char = '\u{1f}';

impl Lending {
    /// The instruction's text.
    pub fn to_text(&self) -> String {
        let Self { session, number, is_restricted, statements, role, settings } = self;
        let mut text = format!("{session} {number} {} ", u8::from(*is_restricted));
        for (index, statement) in statements.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let _ = write!(text, "{separator}{statement}");
        }
        if statements.is_empty() {
            text.push('-');
        }
        // Names may have anything in them.
        let _ = write!(text, " {} {role}", role.len());
        for value in settings {
            text.push(SEPARATOR);
            text.extend(value.chars().filter(|letter| *letter != SEPARATOR));
        }
        text
    }

    /// What an instruction's text says.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.splitn(6, ' ');
        let session = fields.next()?.parse().ok()?;
        let number = fields.next()?.parse().ok()?;
        let is_restricted = match fields.next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let statements = match fields.next()? {
            "-" => Vec::new(),
            list => list.split(',').map(str::parse).collect::<Result<_, _>>().ok()?,
        };
        let length: usize = fields.next()?.parse().ok()?;
        let (role, settings) = fields.next()?.split_at_checked(length)?;
        if role.is_empty() || !settings.is_empty() && !settings.starts_with(SEPARATOR) {
            return None;
        }
        let settings = settings.split(SEPARATOR).skip(1).map(str::to_owned).collect();
        Some(Self { session, number, is_restricted, statements, role: role.to_owned(), settings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            session in any::<u64>(),
            number in any::<u64>(),
            is_restricted in any::<bool>(),
            statements in prop::collection::vec(any::<u32>(), 0..4),
            role in "(?s).{1,40}",
            settings in prop::collection::vec("[^\u{1f}]{0,9}", 0..4),
        ) {
            let lending = Lending { session, number, is_restricted, statements, role, settings };
            prop_assert_eq!(Lending::parse(&lending.to_text()), Some(lending));
        }

        #[test]
        fn garbage_lends_nothing_and_does_no_harm(text in ".{0,60}") {
            if let Some(lending) = Lending::parse(&text) {
                prop_assert!(!lending.role.is_empty());
            }
        }
    }

    #[test]
    fn a_text_without_a_role_lends_nothing() {
        for text in [
            "1 2 0 - ",
            "1 2 0 -",
            "1 2 0 - 0 ",
            "1 2 0 - 5 r",
            "1 2 2 - 1 r",
            "-1 2 0 - 1 r",
            "1 2 0 - 1 rs",
        ] {
            assert_eq!(Lending::parse(text), None, "{text}");
        }
        assert!(Lending::parse("1 2 0 - 1 r").is_some());
    }
}
