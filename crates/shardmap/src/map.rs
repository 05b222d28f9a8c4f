//! The shards of one table and the slices of the hash space that they own.

use crate::ids::ShardId;

/// An inclusive slice of the hash space. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HashRange {
    first: i32,
    last: i32,
}

impl HashRange {
    /// The whole hash space.
    pub const ALL: Self = Self { first: i32::MIN, last: i32::MAX };

    /// The slice from `first` to `last`; none if it were empty.
    pub fn new(first: i32, last: i32) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The smallest hash in it.
    pub fn first(self) -> i32 {
        self.first
    }

    /// The largest hash in it.
    pub fn last(self) -> i32 {
        self.last
    }

    /// The hash lies in it.
    pub fn contains(self, hash: i32) -> bool {
        self.first <= hash && hash <= self.last
    }

    /// The parts of the slice that end with these hashes, and the rest; none unless each has at least one hash.
    pub fn split(self, ends: &[i32]) -> Option<Vec<Self>> {
        let mut parts = Vec::with_capacity(ends.len() + 1);
        let mut first = self.first;
        for end in ends {
            // A part that ended with the slice would leave nothing.
            let next = end.checked_add(1).filter(|next| *next <= self.last)?;
            parts.push(Self::new(first, *end)?);
            first = next;
        }
        parts.push(Self::new(first, self.last)?);
        (parts.len() > 1).then_some(parts)
    }

    /// The hash space cut into `count` slices, as pg_shard 1.2.3 cuts it.
    ///
    /// The slice is floor((2^32 - 1) / count) wide and the last one takes what is left; none for a count of zero.
    pub fn cut(count: u32) -> Vec<Self> {
        let Some(width) = u32::MAX.checked_div(count) else { return Vec::new() };
        let first_of =
            |index: u32| (i64::from(i32::MIN) + i64::from(index) * i64::from(width)) as i32;
        (0..count)
            .map(|index| Self {
                first: first_of(index),
                last: if index == count - 1 {
                    i32::MAX
                } else {
                    first_of(index + 1).wrapping_sub(1)
                },
            })
            .collect()
    }
}

/// A slice of a distributed table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its id.
    pub id: ShardId,
    /// The hashes it owns.
    pub range: HashRange,
}

/// All shards of one table, in the order of their ranges.
///
/// Metadata may be edited by hand, so ranges may leave gaps or overlap: a hash in a gap has no shard, one in an
/// overlap has several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardMap {
    shards: Vec<Shard>,
    disjoint: bool,
}

impl ShardMap {
    /// Takes the shards in any order.
    pub fn new(mut shards: Vec<Shard>) -> Self {
        shards.sort_by_key(|shard| (shard.range, shard.id));
        let disjoint = shards.windows(2).all(|pair| pair[0].range.last < pair[1].range.first);
        Self { shards, disjoint }
    }

    /// The shards in the order of their ranges.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// The indexes of the shards that own `hash`: one, unless somebody edited the metadata.
    pub fn owners(&self, hash: i32) -> Vec<usize> {
        if self.disjoint {
            return self.owner(hash).into_iter().collect();
        }
        (0..self.shards.len()).filter(|index| self.shards[*index].range.contains(hash)).collect()
    }

    /// The index of the shard that owns `hash`; the first if several do.
    pub fn owner(&self, hash: i32) -> Option<usize> {
        if !self.disjoint {
            return self.shards.iter().position(|shard| shard.range.contains(hash));
        }
        let after = self.shards.partition_point(|shard| shard.range.first <= hash);
        let index = after.checked_sub(1)?;
        self.shards[index].range.contains(hash).then_some(index)
    }

    /// Each hash has one owner.
    pub fn covers_all(&self) -> bool {
        let meets =
            |pair: &[Shard]| i64::from(pair[0].range.last) + 1 == i64::from(pair[1].range.first);
        self.shards.first().is_some_and(|shard| shard.range.first == i32::MIN)
            && self.shards.last().is_some_and(|shard| shard.range.last == i32::MAX)
            && self.shards.windows(2).all(meets)
    }

    /// Both tables are cut at the same hashes.
    pub fn is_cut_like(&self, other: &Self) -> bool {
        self.shards.len() == other.shards.len()
            && self.shards.iter().zip(&other.shards).all(|(a, b)| a.range == b.range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(count: u32) -> ShardMap {
        let shards = HashRange::cut(count)
            .into_iter()
            .enumerate()
            .map(|(index, range)| Shard { id: ShardId(10_000 + index as i64), range });
        ShardMap::new(shards.collect())
    }

    #[test]
    fn sixteen_shards_have_the_ranges_of_the_article() {
        let ranges = HashRange::cut(16);
        let pairs: Vec<_> = ranges.iter().map(|r| (r.first, r.last)).collect();
        assert_eq!(pairs[0], (-2147483648, -1879048194));
        assert_eq!(pairs[7], (-268435463, -9));
        assert_eq!(pairs[8], (-8, 268435446));
        assert_eq!(pairs[15], (1879048177, 2147483647));
    }

    #[test]
    fn one_shard_owns_everything_and_two_meet_at_minus_one() {
        assert_eq!(HashRange::cut(1), [HashRange { first: i32::MIN, last: i32::MAX }]);
        assert_eq!(
            HashRange::cut(2),
            [HashRange { first: i32::MIN, last: -2 }, HashRange { first: -1, last: i32::MAX }]
        );
        assert!(HashRange::cut(0).is_empty());
    }

    #[test]
    fn a_hash_in_a_gap_has_no_shard_and_one_in_an_overlap_has_two() {
        let shard = |id, first, last| Shard { id: ShardId(id), range: HashRange { first, last } };
        let gap = ShardMap::new(vec![shard(1, 0, 9), shard(2, 20, 29)]);
        assert_eq!(gap.owner(15), None);
        assert_eq!(gap.owner(-1), None);
        assert_eq!(gap.owner(29), Some(1));
        assert!(!gap.covers_all());
        let overlap = ShardMap::new(vec![shard(1, 0, 9), shard(2, 5, 29)]);
        assert_eq!(overlap.owners(7), [0, 1]);
        assert_eq!(overlap.owners(20), [1]);
    }

    #[test]
    fn a_slice_is_split_behind_hashes_of_it() {
        let slice = |first, last| HashRange { first, last };
        assert_eq!(slice(0, 9).split(&[3]), Some(vec![slice(0, 3), slice(4, 9)]));
        assert_eq!(
            HashRange::ALL.split(&[i32::MIN, 0]),
            Some(vec![slice(i32::MIN, i32::MIN), slice(i32::MIN + 1, 0), slice(1, i32::MAX)])
        );
        for ends in [&[][..], &[9], &[-1], &[3, 3], &[5, 4], &[i32::MAX]] {
            assert_eq!(slice(0, 9).split(ends), None, "{ends:?}");
        }
        assert_eq!(slice(5, 5).split(&[5]), None);
    }

    proptest! {
        #[test]
        fn ranges_cover_the_space_without_gap_or_overlap(count in 1u32..5000) {
            let ranges = HashRange::cut(count);
            prop_assert_eq!(ranges.len(), count as usize);
            prop_assert_eq!(ranges[0].first, i32::MIN);
            prop_assert_eq!(ranges[ranges.len() - 1].last, i32::MAX);
            for pair in ranges.windows(2) {
                prop_assert_eq!(i64::from(pair[0].last) + 1, i64::from(pair[1].first));
            }
        }

        #[test]
        fn every_hash_has_exactly_one_owner_and_it_contains_the_hash(count in 1u32..2000, hash: i32) {
            let map = map(count);
            prop_assert!(map.covers_all());
            let owners = map.owners(hash);
            prop_assert_eq!(owners.len(), 1);
            prop_assert!(map.shards()[owners[0]].range.contains(hash));
            prop_assert_eq!(map.owner(hash), Some(owners[0]));
        }
    }
}
