//! The name of a prepared transaction: who decides about it.

use std::fmt;
use std::str::FromStr;

/// What every name begins with; the number is that of the format.
const PREFIX: &str = "pg_shard:1";

/// What shows that an anchor has committed: the row that its transaction has written, if it is visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// By which number the anchor's node is known.
    pub node: u64,
    /// The anchor's transaction, with its epoch.
    pub transaction: u64,
    /// A random number, which tells the transaction from another of the same number.
    pub nonce: i64,
}

/// The name of a participant's prepared transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gid {
    /// Who decides.
    pub evidence: Evidence,
    /// The node whose client has begun the transaction.
    pub coordinator: u64,
    /// The participant's number.
    pub number: u32,
}

impl Gid {
    /// How all names begin.
    pub fn prefix() -> &'static str {
        PREFIX
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Evidence { node, transaction, nonce } = self.evidence;
        let (coordinator, number) = (self.coordinator, self.number);
        write!(f, "{PREFIX}:{node}:{transaction}:{nonce}:{coordinator}:{number}")
    }
}

/// The text is not a name of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOurs;

impl FromStr for Gid {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<Self, NotOurs> {
        let rest = text.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(':'));
        let mut fields = rest.ok_or(NotOurs)?.split(':');
        let mut field = || fields.next().ok_or(NotOurs);
        let gid = Self {
            evidence: Evidence {
                node: number(field()?)?,
                transaction: number(field()?)?,
                nonce: number(field()?)?,
            },
            coordinator: number(field()?)?,
            number: number(field()?)?,
        };
        // Leading zeros and signs would give one transaction two names.
        if gid.to_string() == text { Ok(gid) } else { Err(NotOurs) }
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, NotOurs> {
    text.parse().map_err(|_| NotOurs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_is_read_as_it_was_written_and_fits_in_200_bytes(
            node: u64, transaction: u64, nonce: i64, coordinator: u64, number: u32
        ) {
            let evidence = Evidence { node, transaction, nonce };
            let gid = Gid { evidence, coordinator, number };
            let text = gid.to_string();
            prop_assert!(text.len() < 200);
            prop_assert_eq!(text.parse(), Ok(gid));
        }

        #[test]
        fn other_names_are_not_taken_for_ours(text in "(pg_shard:1)?[:0-9a-z-]{0,20}") {
            if let Ok(gid) = text.parse::<Gid>() {
                prop_assert_eq!(gid.to_string(), text);
            }
        }
    }

    #[test]
    fn a_name_with_more_than_belongs_to_it_is_not_ours() {
        let ours = "pg_shard:1:7:8:-9:10:2";
        assert!(ours.parse::<Gid>().is_ok());
        for other in
            ["pg_shard:1:7:8:-9:10:2:3", "pg_shard:1:07:8:-9:10:2", "pg_shard:2:7:8:-9:10:2", ""]
        {
            assert_eq!(other.parse::<Gid>(), Err(NotOurs), "{other}");
        }
    }
}
