//! Rows that move from worker to worker: which parts of them lie on which node, as a text.
//!
//! Each source node splits its rows into parts, one for each shard beside which rows are to be read, and keeps them under
//! a name. The coordinator hands this text to the nodes that read the parts: where they are, and how many rows to
//! expect there, so that whoever gets fewer knows it.

use crate::ids::{NodeAddress, ShardId};
use crate::map::{HashRange, Shard};
use std::fmt::Write;

/// How rows are to be split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionSpec {
    /// The name under which they are kept.
    pub name: String,
    /// The column by whose hash.
    pub column: usize,
    /// The operator family whose hash function it is, by its number on every node.
    pub family: u32,
    /// The type that the column is hashed as, likewise.
    pub type_oid: u32,
    /// A row without a value there goes to the first part, and is not left out.
    pub keeps_nulls: bool,
    /// The parts; a shard's id is the part's number.
    pub parts: Vec<Shard>,
}

impl PartitionSpec {
    /// As a text.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} {} {} {} {}\n",
            self.name,
            self.column,
            self.family,
            self.type_oid,
            i32::from(self.keeps_nulls)
        );
        for Shard { id, range } in &self.parts {
            let _ = writeln!(text, "{} {} {}", id.0, range.first(), range.last());
        }
        text
    }

    /// The reverse of [`Self::to_text`]; none if it is not such a text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut words = lines.next()?.split(' ');
        let name = words.next().filter(|name| is_name(name))?.to_owned();
        let mut number = || words.next()?.parse::<u32>().ok();
        let (column, family, type_oid) = (number()? as usize, number()?, number()?);
        let keeps_nulls = number()? != 0;
        let part = |line: &str| {
            let mut numbers = line.split(' ').map(|number| number.parse::<i64>().ok());
            // A part's number takes 32 bits in the file.
            let id = ShardId(i64::from(u32::try_from(numbers.next()??).ok()?));
            let mut bound = || i32::try_from(numbers.next()??).ok();
            Some(Shard { id, range: HashRange::new(bound()?, bound()?)? })
        };
        let parts: Option<Vec<Shard>> = lines.map(part).collect();
        Some(Self { name, column, family, type_oid, keeps_nulls, parts: parts? })
    }
}

/// How much of a part one source holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionSize {
    /// The part: the index of a shard.
    pub part: usize,
    /// Its rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What one node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepartitionSource {
    /// Under which name: letters and digits.
    pub name: String,
    /// Where.
    pub node: NodeAddress,
    /// Of which parts; those that are not named are empty.
    pub parts: Vec<PartitionSize>,
}

/// All parts of some rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepartitionedRows {
    /// The nodes that hold some.
    pub sources: Vec<RepartitionSource>,
}

impl RepartitionedRows {
    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.sources.iter().flat_map(|source| &source.parts).map(|size| size.rows).sum()
    }

    /// What concerns these parts.
    pub fn of_parts(&self, wanted: &[usize]) -> Self {
        let sources = self.sources.iter().filter_map(|source| {
            let parts: Vec<PartitionSize> =
                source.parts.iter().filter(|size| wanted.contains(&size.part)).copied().collect();
            (!parts.is_empty()).then(|| RepartitionSource { parts, ..source.clone() })
        });
        Self { sources: sources.collect() }
    }

    /// As a text: a line for each source, with its name, port and parts, and the host last.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for source in &self.sources {
            let _ = write!(text, "{} {} {}", source.name, source.node.port, source.parts.len());
            for size in &source.parts {
                let _ = write!(text, " {} {} {}", size.part, size.rows, size.bytes);
            }
            let _ = writeln!(text, " {}", source.node.host);
        }
        text
    }

    /// The reverse of [`Self::to_text`]; none if it is not such a text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut sources = Vec::new();
        for line in text.lines() {
            let (name, rest) = line.split_once(' ')?;
            let (port, rest) = rest.split_once(' ')?;
            let (count, mut rest) = rest.split_once(' ')?;
            let mut parts = Vec::new();
            for _ in 0..count.parse::<u32>().ok()? {
                let mut number = || {
                    let (number, behind) = rest.split_once(' ')?;
                    rest = behind;
                    number.parse::<u64>().ok()
                };
                let part = usize::try_from(number()?).ok()?;
                parts.push(PartitionSize { part, rows: number()?, bytes: number()? });
            }
            if !is_name(name) {
                return None;
            }
            let node = NodeAddress { host: rest.into(), port: port.parse().ok()? };
            sources.push(RepartitionSource { name: name.to_owned(), node, parts });
        }
        Some(Self { sources })
    }
}

/// It may be the name of rows: nothing in it has a meaning in the name of a file.
pub fn is_name(name: &str) -> bool {
    (1..=60).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// What a source node answers: a line for each part, with its number, rows and bytes.
pub fn sizes_to_text(sizes: &[PartitionSize]) -> String {
    let mut text = String::new();
    for size in sizes {
        let _ = writeln!(text, "{} {} {}", size.part, size.rows, size.bytes);
    }
    text
}

/// The reverse of [`sizes_to_text`].
pub fn parse_sizes(text: &str) -> Option<Vec<PartitionSize>> {
    text.lines()
        .map(|line| {
            let mut numbers = line.split(' ').map(|number| number.parse::<u64>().ok());
            let part = usize::try_from(numbers.next()??).ok()?;
            Some(PartitionSize { part, rows: numbers.next()??, bytes: numbers.next()?? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(name: &str, host: &str, parts: &[(usize, u64)]) -> RepartitionSource {
        let parts = parts.iter().map(|(part, rows)| PartitionSize {
            part: *part,
            rows: *rows,
            bytes: rows * 10,
        });
        RepartitionSource {
            name: name.to_owned(),
            node: NodeAddress { host: host.into(), port: 5432 },
            parts: parts.collect(),
        }
    }

    #[test]
    fn a_node_is_told_of_its_own_parts_only() {
        let all = RepartitionedRows {
            sources: vec![
                source("a1", "north", &[(0, 3), (1, 4)]),
                source("b2", "south", &[(1, 5)]),
            ],
        };
        assert_eq!(all.rows(), 12);
        let own = all.of_parts(&[0]);
        assert_eq!(own.to_text(), "a1 5432 1 0 3 30 north\n");
        assert_eq!(all.of_parts(&[7]).to_text(), "");
    }

    #[test]
    fn how_to_split_is_read_as_it_was_written() {
        let parts = HashRange::cut(3).into_iter().zip(4..);
        let spec = PartitionSpec {
            name: "f00".to_owned(),
            column: 2,
            family: 1977,
            type_oid: 23,
            keeps_nulls: true,
            parts: parts.map(|(range, id)| Shard { id: ShardId(id), range }).collect(),
        };
        assert_eq!(PartitionSpec::parse(&spec.to_text()), Some(spec.clone()));
        assert_eq!(PartitionSpec::parse(&spec.to_text().replace("f00", "f/0")), None);
        assert_eq!(PartitionSpec::parse(""), None);
        assert_eq!(
            PartitionSpec::parse("a 0 1977 23 0\n-1 0 9\n"),
            None,
            "no part has that number"
        );
        assert_eq!(
            PartitionSpec::parse("a 0 1977 23 0\n0 9 0\n"),
            None,
            "no hash is in that range"
        );
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_none() {
        assert_eq!(RepartitionedRows::parse("../x 5432 0 north\n"), None);
        assert_eq!(RepartitionedRows::parse("a1 5432 2 0 1 1 north\n"), None);
        assert!(!is_name(""));
        assert!(!is_name("a/b"));
    }

    proptest! {
        #[test]
        fn a_text_says_what_it_was_made_of(
            sources in prop::collection::vec(
                ("[a-z0-9]{1,40}", "[a-z. ]{1,20}", prop::collection::vec((0usize..2000, 0u64..1 << 40), 0..5)),
                0..4,
            ),
        ) {
            let sources: Vec<_> =
                sources.iter().map(|(name, host, parts)| source(name, host, parts)).collect();
            let all = RepartitionedRows { sources };
            prop_assert_eq!(RepartitionedRows::parse(&all.to_text()), Some(all.clone()));
            for source in &all.sources {
                prop_assert_eq!(parse_sizes(&sizes_to_text(&source.parts)), Some(source.parts.clone()));
            }
        }
    }
}
