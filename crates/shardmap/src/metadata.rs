//! What rows of the metadata say, and what of it makes no sense.
//!
//! The metadata may be edited by hand. Ranges may leave gaps; anything else that would lead a row to two places, or to none
//! without a word, is a [`Fault`], which names the row.

use std::fmt;

use crate::ids::{NodeAddress, PlacementId, ShardId};
use crate::map::{HashRange, Shard, ShardMap};

/// A row of `pgs_distribution_metadata.shard`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRow {
    /// Column `id`.
    pub id: ShardId,
    /// Column `storage`.
    pub storage: u8,
    /// Column `min_value`; NULL is the empty text.
    pub min_value: String,
    /// Column `max_value`, likewise.
    pub max_value: String,
}

/// A row of `pgs_distribution_metadata.shard_placement`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementRow {
    /// Column `id`.
    pub id: PlacementId,
    /// Column `shard_id`.
    pub shard: ShardId,
    /// Column `shard_state`.
    pub state: i32,
    /// Columns `node_name` and `node_port`.
    pub node: NodeAddress,
}

/// What makes a table's metadata unusable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The key names no column of the table that can be hashed.
    Key(String),
    /// A bound is not a 32-bit number.
    Bound(ShardId, &'static str, String),
    /// The first hash lies behind the last.
    EmptyRange(ShardId, i32, i32),
    /// A storage that does not exist.
    Storage(ShardId, u8),
    /// Two shards own the same hash.
    Overlap(ShardId, ShardId),
    /// A state that does not exist.
    State(PlacementId, ShardId, i32),
    /// A port that does not exist.
    Port(PlacementId, ShardId, i32),
    /// A host name that names no host.
    Host(PlacementId, ShardId),
    /// Two placements of a shard on one node.
    Twice(PlacementId, PlacementId, ShardId),
}

impl Fault {
    /// The table whose row is to be corrected, and which row that is.
    pub fn row(&self) -> String {
        match self {
            Self::Key(_) => "the table's row in pgs_distribution_metadata.partition".to_owned(),
            Self::Bound(shard, ..)
            | Self::EmptyRange(shard, ..)
            | Self::Storage(shard, _)
            | Self::Overlap(shard, _) => {
                format!("the row with id {} in pgs_distribution_metadata.shard", shard.0)
            }
            Self::State(placement, ..)
            | Self::Port(placement, ..)
            | Self::Host(placement, _)
            | Self::Twice(placement, ..) => {
                format!(
                    "the row with id {} in pgs_distribution_metadata.shard_placement",
                    placement.0
                )
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(name) => {
                write!(f, "The key \"{name}\" is not a column of the table that can be hashed.")
            }
            Self::Bound(shard, column, text) => {
                write!(
                    f,
                    "Column {column} of shard {} is \"{text}\", which is not an integer.",
                    shard.0
                )
            }
            Self::EmptyRange(shard, first, last) => {
                write!(
                    f,
                    "The hash range of shard {} begins at {first} and ends at {last}.",
                    shard.0
                )
            }
            Self::Storage(shard, storage) => {
                write!(f, "The storage of shard {} is \"{}\".", shard.0, char::from(*storage))
            }
            Self::Overlap(shard, other) => {
                write!(f, "The hash ranges of shards {} and {} overlap.", other.0, shard.0)
            }
            Self::State(placement, shard, state) => {
                write!(f, "The state of placement {} of shard {} is {state}.", placement.0, shard.0)
            }
            Self::Port(placement, shard, port) => {
                write!(f, "The port of placement {} of shard {} is {port}.", placement.0, shard.0)
            }
            Self::Host(placement, shard) => write!(
                f,
                "The node name of placement {} of shard {} is empty, or has a comma or a control character.",
                placement.0, shard.0
            ),
            Self::Twice(placement, other, shard) => write!(
                f,
                "Placements {} and {} of shard {} are on the same node.",
                other.0, placement.0, shard.0
            ),
        }
    }
}

/// Takes those of a shard's healthy placements for inactive that are leftovers of a crash: they may have missed a write, and are about to be marked.
/// Never the last: if there is no other one, nothing was written elsewhere that still counts.
pub fn pass_over(placements: &mut [PlacementRow], leftovers: &[PlacementId]) {
    let is_left = |row: &PlacementRow| leftovers.contains(&row.id);
    if placements.iter().any(|row| row.state == 1 && !is_left(row)) {
        placements
            .iter_mut()
            .filter(|row| row.state == 1 && is_left(row))
            .for_each(|row| row.state = 3);
    }
}

/// The address can be one of a server.
pub fn is_plausible(node: &NodeAddress) -> bool {
    has_port(node) && has_host(node)
}

fn has_port(node: &NodeAddress) -> bool {
    (1..=65_535).contains(&node.port)
}

fn has_host(node: &NodeAddress) -> bool {
    // A comma would make libpq choose among several servers.
    !node.host.trim().is_empty() && !node.host.contains(|c: char| c.is_control() || c == ',')
}

fn bound(id: ShardId, column: &'static str, text: &str) -> Result<i32, Fault> {
    text.trim().parse().map_err(|_| Fault::Bound(id, column, text.to_owned()))
}

fn range(row: &ShardRow) -> Result<HashRange, Fault> {
    let first = bound(row.id, "min_value", &row.min_value)?;
    let last = bound(row.id, "max_value", &row.max_value)?;
    let range = HashRange::new(first, last).ok_or(Fault::EmptyRange(row.id, first, last))?;
    if !matches!(row.storage, b't' | b'f') {
        return Err(Fault::Storage(row.id, row.storage));
    }
    Ok(range)
}

impl ShardMap {
    /// The shards as their rows say, and the first fault among these.
    ///
    /// With a fault the map is good for nothing but a list of the shards.
    pub fn read(rows: &[ShardRow]) -> (Self, Option<Fault>) {
        let mut fault = None;
        let shards = rows.iter().map(|row| {
            let range = range(row).unwrap_or_else(|found| {
                fault.get_or_insert(found);
                HashRange::ALL
            });
            Shard { id: row.id, range }
        });
        let map = Self::new(shards.collect());
        let fault = fault.or_else(|| map.validate().err());
        (map, fault)
    }

    /// No hash has two owners.
    pub fn validate(&self) -> Result<(), Fault> {
        match self.shards().windows(2).find(|pair| pair[0].range.last() >= pair[1].range.first()) {
            Some(pair) => Err(Fault::Overlap(pair[1].id, pair[0].id)),
            None => Ok(()),
        }
    }
}

/// What is wrong with the placements of one shard.
pub fn validate_placements(rows: &[PlacementRow]) -> Result<(), Fault> {
    for (index, row) in rows.iter().enumerate() {
        // 1.2 had 1 for finalized, 2 for cached, 3 for inactive, 4 for to be deleted.
        if !(1..=4).contains(&row.state) {
            return Err(Fault::State(row.id, row.shard, row.state));
        }
        if !has_port(&row.node) {
            return Err(Fault::Port(row.id, row.shard, row.node.port));
        }
        if !has_host(&row.node) {
            return Err(Fault::Host(row.id, row.shard));
        }
        if let Some(other) = rows[..index].iter().find(|other| other.node == row.node) {
            return Err(Fault::Twice(row.id, other.id, row.shard));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(id: i64, min_value: &str, max_value: &str) -> ShardRow {
        ShardRow {
            id: ShardId(id),
            storage: b't',
            min_value: min_value.to_owned(),
            max_value: max_value.to_owned(),
        }
    }

    fn placement(id: i64, state: i32, host: &str, port: i32) -> PlacementRow {
        let node = NodeAddress { host: host.into(), port };
        PlacementRow { id: PlacementId(id), shard: ShardId(7), state, node }
    }

    fn fault_of(rows: &[ShardRow]) -> Option<Fault> {
        ShardMap::read(rows).1
    }

    #[test]
    fn a_leftover_is_passed_over_unless_it_is_the_last_healthy_placement() {
        let states = |states: [i32; 2], leftovers: &[i64]| {
            let mut rows = [placement(1, states[0], "a", 1), placement(2, states[1], "b", 2)];
            let leftovers: Vec<PlacementId> = leftovers.iter().copied().map(PlacementId).collect();
            pass_over(&mut rows, &leftovers);
            rows.map(|row| row.state)
        };
        assert_eq!(states([1, 1], &[2]), [1, 3]);
        assert_eq!(states([1, 1], &[9]), [1, 1]);
        assert_eq!(states([3, 1], &[2]), [3, 1]);
        assert_eq!(states([1, 1], &[1, 2]), [1, 1]);
    }

    #[test]
    fn gaps_and_spaces_around_numbers_are_no_faults() {
        let (map, fault) = ShardMap::read(&[shard(2, " 20", "29 "), shard(1, "-5", "9")]);
        assert_eq!(fault, None);
        assert_eq!((map.owner(9), map.owner(15), map.owner(20)), (Some(0), None, Some(1)));
    }

    #[test]
    fn a_bound_that_is_no_number_is_told_with_its_shard_and_column() {
        for text in ["", "x", "1.5", "2147483648", "0x10"] {
            assert_eq!(
                fault_of(&[shard(1, "0", "9"), shard(2, text, "29")]),
                Some(Fault::Bound(ShardId(2), "min_value", text.to_owned()))
            );
            assert_eq!(
                fault_of(&[shard(1, "0", text)]),
                Some(Fault::Bound(ShardId(1), "max_value", text.to_owned()))
            );
        }
    }

    #[test]
    fn ranges_must_not_be_empty_nor_overlap() {
        assert_eq!(fault_of(&[shard(1, "9", "0")]), Some(Fault::EmptyRange(ShardId(1), 9, 0)));
        let touching = [shard(1, "0", "9"), shard(2, "9", "29")];
        assert_eq!(fault_of(&touching), Some(Fault::Overlap(ShardId(2), ShardId(1))));
        let within = [shard(1, "0", "99"), shard(2, "5", "6"), shard(3, "200", "201")];
        assert_eq!(fault_of(&within), Some(Fault::Overlap(ShardId(2), ShardId(1))));
        let twice = [shard(1, "0", "9"), shard(2, "0", "9")];
        assert_eq!(fault_of(&twice), Some(Fault::Overlap(ShardId(2), ShardId(1))));
    }

    #[test]
    fn shards_with_a_fault_are_still_listed() {
        let (map, fault) = ShardMap::read(&[shard(1, "x", "9"), shard(2, "10", "19")]);
        assert!(fault.is_some());
        assert_eq!(map.len(), 2);
    }

    #[test]
    fn storages_are_those_of_pg_shard_1_2() {
        let mut row = shard(1, "0", "9");
        row.storage = b'f';
        assert_eq!(fault_of(&[row.clone()]), None);
        row.storage = b'q';
        assert_eq!(fault_of(&[row]), Some(Fault::Storage(ShardId(1), b'q')));
    }

    #[test]
    fn placements_have_a_state_a_host_and_a_port_and_each_a_node_of_its_own() {
        let check = |rows: &[PlacementRow]| validate_placements(rows);
        let (first, shard) = (PlacementId(1), ShardId(7));
        assert_eq!(check(&[placement(1, 1, "a", 1), placement(2, 3, "a", 65_535)]), Ok(()));
        assert_eq!(check(&[placement(1, 0, "a", 1)]), Err(Fault::State(first, shard, 0)));
        assert_eq!(check(&[placement(1, 5, "a", 1)]), Err(Fault::State(first, shard, 5)));
        for port in [0, -1, 65_536] {
            assert_eq!(check(&[placement(1, 1, "a", port)]), Err(Fault::Port(first, shard, port)));
        }
        for host in ["", " ", "a\nb", "a,b", "\u{7f}"] {
            assert_eq!(check(&[placement(1, 1, host, 1)]), Err(Fault::Host(first, shard)));
        }
        assert_eq!(
            check(&[placement(1, 1, "a", 1), placement(2, 3, "a", 1)]),
            Err(Fault::Twice(PlacementId(2), first, shard))
        );
    }
}
