//! Cutting the list of shards by what a filter says of the distribution column.
//!
//! A [`Prune`] is the filter's shadow: what it implies for the distribution column and nothing else. It keeps
//! expressions as `E` (an index, for the extension), since their values may be known only at execution.

use crate::map::ShardMap;

/// What a filter implies for the distribution column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Prune<E> {
    /// Nothing: any shard may hold a matching row.
    #[default]
    All,
    /// The column equals the value of the expression (one value, or any of an array's).
    Key(E),
    /// All of these hold.
    And(Vec<Prune<E>>),
    /// At least one of these holds.
    Or(Vec<Prune<E>>),
}

/// The value of a key expression at execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyValue {
    /// NULL: `column = NULL` holds for no row.
    Null,
    /// The hashes of the value, or of the array's values.
    Hashes(Vec<i32>),
    /// It is no value of the column, but names shards by their indexes, which need not exist.
    Shards(Vec<usize>),
}

impl KeyValue {
    /// The shards that may hold such rows, in any order, some perhaps twice.
    fn owners(self, map: &ShardMap) -> Vec<usize> {
        match self {
            Self::Null => Vec::new(),
            Self::Hashes(hashes) => hashes.into_iter().flat_map(|hash| map.owners(hash)).collect(),
            Self::Shards(shards) => shards.into_iter().filter(|shard| *shard < map.len()).collect(),
        }
    }
}

impl<E> Prune<E> {
    /// Both hold; simplifies.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, side) | (side, Self::All) => side,
            (Self::And(mut left), Self::And(right)) => {
                left.extend(right);
                Self::And(left)
            }
            (Self::And(mut list), side) | (side, Self::And(mut list)) => {
                list.push(side);
                Self::And(list)
            }
            (left, right) => Self::And(vec![left, right]),
        }
    }

    /// It cuts nothing, whatever the values.
    pub fn is_all(&self) -> bool {
        match self {
            Self::All => true,
            Self::Key(_) => false,
            Self::And(list) => list.iter().all(Self::is_all),
            Self::Or(list) => list.iter().any(Self::is_all),
        }
    }

    /// The indexes of the shards that may hold a matching row, ascending.
    pub fn shards(&self, map: &ShardMap, value: &mut impl FnMut(&E) -> KeyValue) -> Vec<usize> {
        // The common case costs the same however many shards there are.
        if let Self::Key(expression) = self {
            let value = value(expression);
            if let KeyValue::Hashes(hashes) = &value
                && let [hash] = hashes[..]
            {
                return map.owners(hash);
            }
            let mut shards = value.owners(map);
            shards.sort_unstable();
            shards.dedup();
            return shards;
        }
        let mask = self.mask(map, value);
        mask.into_iter().enumerate().filter_map(|(index, kept)| kept.then_some(index)).collect()
    }

    fn mask(&self, map: &ShardMap, value: &mut impl FnMut(&E) -> KeyValue) -> Vec<bool> {
        match self {
            Self::All => vec![true; map.len()],
            Self::Key(expression) => {
                let mut mask = vec![false; map.len()];
                for index in value(expression).owners(map) {
                    mask[index] = true;
                }
                mask
            }
            Self::And(list) => list.iter().fold(vec![true; map.len()], |mut mask, part| {
                for (kept, also) in mask.iter_mut().zip(part.mask(map, value)) {
                    *kept &= also;
                }
                mask
            }),
            Self::Or(list) => list.iter().fold(vec![false; map.len()], |mut mask, part| {
                for (kept, also) in mask.iter_mut().zip(part.mask(map, value)) {
                    *kept |= also;
                }
                mask
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;
    use crate::map::{HashRange, Shard};
    use proptest::prelude::*;

    #[test]
    fn named_shards_are_those_that_there_are() {
        let map = ShardMap::new(vec![
            Shard { id: ShardId(1), range: HashRange::new(i32::MIN, -1).unwrap() },
            Shard { id: ShardId(2), range: HashRange::new(0, i32::MAX).unwrap() },
        ]);
        let prune = Prune::Key(());
        assert_eq!(prune.shards(&map, &mut |()| KeyValue::Shards(vec![1, 7, 1])), [1]);
        let both = prune.and(Prune::Key(()));
        assert_eq!(both.shards(&map, &mut |()| KeyValue::Shards(vec![0, 2])), [0]);
    }

    fn map(count: u32) -> ShardMap {
        let shards = HashRange::cut(count).into_iter().enumerate();
        ShardMap::new(shards.map(|(i, range)| Shard { id: ShardId(i as i64), range }).collect())
    }

    fn hashes_of(expression: &i32) -> KeyValue {
        KeyValue::Hashes(vec![*expression])
    }

    #[test]
    fn null_matches_no_shard_and_contradictions_neither() {
        let map = map(4);
        assert!(Prune::Key(0).shards(&map, &mut |_| KeyValue::Null).is_empty());
        let both = Prune::Key(i32::MIN).and(Prune::Key(i32::MAX));
        assert!(both.shards(&map, &mut hashes_of).is_empty());
    }

    #[test]
    fn an_or_with_an_unknown_side_cuts_nothing() {
        let either = Prune::Or(vec![Prune::Key(1), Prune::All]);
        assert!(either.is_all());
        assert_eq!(either.shards(&map(3), &mut hashes_of), [0, 1, 2]);
    }

    fn filters() -> impl Strategy<Value = Prune<i32>> {
        let leaf = prop_oneof![Just(Prune::All), any::<i32>().prop_map(Prune::Key)];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..4).prop_map(Prune::And),
                prop::collection::vec(inner, 1..4).prop_map(Prune::Or),
            ]
        })
    }

    /// A row whose key hashes to `hash` passes: what the filter means, by definition.
    fn passes(filter: &Prune<i32>, hash: i32) -> bool {
        match filter {
            Prune::All => true,
            Prune::Key(key) => *key == hash,
            Prune::And(list) => list.iter().all(|part| passes(part, hash)),
            Prune::Or(list) => list.iter().any(|part| passes(part, hash)),
        }
    }

    proptest! {
        #[test]
        fn pruning_keeps_every_shard_with_a_matching_row(count in 1u32..64, filter in filters(), hash: i32) {
            let map = map(count);
            prop_assume!(passes(&filter, hash));
            let kept = filter.shards(&map, &mut hashes_of);
            prop_assert!(kept.contains(&map.owner(hash).expect("ranges cover the space")));
        }
    }
}
