//! How two placements of a shard differ, found without sending their rows.
//!
//! Both nodes hash each row and sum the hashes by *bucket*: the lowest bits of the key's hash, or of the row's. Buckets with
//! different counts or sums hold different rows; for these alone the nodes sum by smaller buckets if that is cheap, and then name
//! each row's hash and place. A row needs no key for that: what is compared are multisets. The idea is that of anti-entropy with
//! hash trees (Dynamo, 2007), with a tree of two or three levels.

use std::collections::HashMap;

/// How many rows a bucket should have: few, so that little is looked at twice, but enough that buckets are fewer bytes than rows.
const ROWS_IN_A_BUCKET: u64 = 64;

/// The most buckets; a digest of all is some 8 MB then.
const MOST_BUCKETS: u64 = 1 << 18;

/// How many rows a bucket of the first of two levels should have.
const ROWS_AT_FIRST: u64 = 256;

/// The most buckets of the first of two levels: a node's table of them fits in the cache of a core.
const MOST_AT_FIRST: u64 = 1 << 14;

/// How many buckets of the second level a bucket of the first one has.
const FINER: u64 = 16;

/// Into how many buckets a placement is cut: powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Of all rows.
    pub first: u64,
    /// Of the rows in buckets that differ; the same as `first` if these are not looked at once more.
    pub last: u64,
}

impl Levels {
    /// One level, for rows whose buckets cost as much to tell as their hashes.
    pub fn single(rows: u64) -> Self {
        let buckets = buckets_for(rows, ROWS_IN_A_BUCKET, MOST_BUCKETS);
        Self { first: buckets, last: buckets }
    }

    /// Two levels, for rows whose buckets are told quickly: fewer buckets, and in the end fewer rows that are named.
    pub fn cheap_to_refine(rows: u64) -> Self {
        let first = buckets_for(rows, ROWS_AT_FIRST, MOST_AT_FIRST);
        Self { first, last: first * FINER }
    }
}

fn buckets_for(rows: u64, each: u64, most: u64) -> u64 {
    (rows / each).next_power_of_two().clamp(64, most)
}

/// What a placement holds, by bucket: how many rows, and the sum of their hashes. Where no two rows are equal the sum may be the
/// exclusive or of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digest(HashMap<u64, (u64, i128)>);

impl Digest {
    /// Adds a line of a node's answer: bucket, rows, sum, with a space between. False if it is none.
    pub fn add(&mut self, line: &str) -> bool {
        let mut fields = line.split(' ');
        let mut field = || fields.next().unwrap_or_default();
        match (field().parse(), field().parse(), field().parse()) {
            (Ok(bucket), Ok(rows), Ok(sum)) => self.0.insert(bucket, (rows, sum)).is_none(),
            _ => false,
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.0.values().map(|(rows, _)| rows).sum()
    }

    /// The buckets in which the two differ, in order.
    pub fn differing(&self, other: &Self) -> Vec<u64> {
        let mut buckets: Vec<u64> = self
            .0
            .iter()
            .filter(|(bucket, what)| other.0.get(bucket) != Some(what))
            .map(|(bucket, _)| *bucket)
            .chain(other.0.keys().filter(|bucket| !self.0.contains_key(bucket)).copied())
            .collect();
        buckets.sort_unstable();
        buckets
    }

    /// How many rows these buckets have.
    pub fn rows_in(&self, buckets: &[u64]) -> u64 {
        buckets.iter().filter_map(|bucket| self.0.get(bucket)).map(|(rows, _)| rows).sum()
    }
}

/// A row of a placement: its hash, and its `ctid` there as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    hash: i64,
    place: String,
}

impl Row {
    /// Reads a line of a node's answer: hash and place, with a space between.
    pub fn parse(line: &str) -> Option<Self> {
        let (hash, place) = line.split_once(' ')?;
        Some(Self { hash: hash.parse().ok()?, place: place.to_owned() })
    }
}

/// What makes a placement equal to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Places of rows on the source that the target lacks.
    pub missing: Vec<String>,
    /// Places of rows on the target that the source does not have.
    pub surplus: Vec<String>,
}

impl Difference {
    /// Compares rows of the same buckets. Of equal rows as many count as there are.
    pub fn of(source: Vec<Row>, target: Vec<Row>) -> Self {
        let mut wanted: HashMap<i64, Vec<String>> = HashMap::new();
        for row in source {
            wanted.entry(row.hash).or_default().push(row.place);
        }
        let mut surplus = Vec::new();
        for row in target {
            if wanted.get_mut(&row.hash).and_then(Vec::pop).is_none() {
                surplus.push(row.place);
            }
        }
        let mut missing: Vec<String> = wanted.into_values().flatten().collect();
        missing.sort();
        surplus.sort();
        Self { missing, surplus }
    }

    /// The placements hold the same rows.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.surplus.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values as a node hashes them (SplitMix64): sums tell sets apart because hashes are as if drawn at random.
    fn hash(value: u64) -> i64 {
        let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).cast_signed()
    }

    /// A placement that holds rows of these hashes, at places that are their numbers.
    fn digest(hashes: &[i64], buckets: u64) -> Digest {
        let mut sums: HashMap<u64, (u64, i128)> = HashMap::new();
        for hash in hashes {
            let entry = sums.entry(hash.cast_unsigned() & (buckets - 1)).or_default();
            *entry = (entry.0 + 1, entry.1 + i128::from(*hash));
        }
        let mut digest = Digest::default();
        for (bucket, (rows, sum)) in sums {
            assert!(digest.add(&format!("{bucket} {rows} {sum}")));
        }
        digest
    }

    fn rows(hashes: &[i64], buckets: u64, of: &[u64]) -> Vec<Row> {
        let is_asked = |hash: &i64| of.contains(&(hash.cast_unsigned() & (buckets - 1)));
        let numbered = hashes.iter().enumerate().filter(|(_, hash)| is_asked(hash));
        numbered.map(|(place, hash)| Row { hash: *hash, place: place.to_string() }).collect()
    }

    proptest! {
        #[test]
        fn applied_to_the_target_a_difference_makes_it_the_source(
            source in prop::collection::vec(0_u64..300, 0..200),
            target in prop::collection::vec(0_u64..300, 0..200),
        ) {
            let buckets = 64;
            let [source, target] = [source, target].map(|values| values.into_iter().map(hash).collect::<Vec<i64>>());
            let differing = digest(&source, buckets).differing(&digest(&target, buckets));
            let difference = Difference::of(
                rows(&source, buckets, &differing), rows(&target, buckets, &differing));
            let at = |hashes: &[i64], place: &String| hashes[place.parse::<usize>().unwrap()];
            let mut repaired: Vec<i64> = target
                .iter()
                .enumerate()
                .filter(|(place, _)| !difference.surplus.contains(&place.to_string()))
                .map(|(_, hash)| *hash)
                .collect();
            repaired.extend(difference.missing.iter().map(|place| at(&source, place)));
            repaired.sort_unstable();
            let mut wanted = source.clone();
            wanted.sort_unstable();
            prop_assert_eq!(repaired, wanted);
        }

        #[test]
        fn equal_placements_have_no_differing_buckets_in_whatever_order_their_rows_lie(
            hashes in prop::collection::vec(any::<i64>(), 0..100)
        ) {
            let mut shuffled = hashes.clone();
            shuffled.reverse();
            prop_assert_eq!(digest(&hashes, 64).differing(&digest(&shuffled, 64)), Vec::<u64>::new());
        }
    }

    #[test]
    fn one_of_two_equal_rows_is_missed() {
        let row = |place: &str| Row { hash: 7, place: place.to_owned() };
        let difference = Difference::of(vec![row("(0,1)"), row("(0,2)")], vec![row("(3,1)")]);
        assert_eq!((difference.missing.len(), difference.surplus.len()), (1, 0));
    }

    #[test]
    fn what_is_no_line_of_a_digest_is_noticed() {
        for line in ["", "1", "1 2", "1 2 x", "-1 2 3", "a 2 3"] {
            assert!(!Digest::default().add(line), "{line}");
        }
        assert_eq!(Row::parse("(0,1)"), None);
        let row = Row { hash: -5, place: "(0,1)".to_owned() };
        assert_eq!(Row::parse("-5 (0,1)"), Some(row));
    }

    #[test]
    fn sums_may_exceed_64_bits() {
        let mut digest = Digest::default();
        assert!(digest.add("1 4 36893488147419103228"));
        assert_eq!(digest.rows(), 4);
        assert_eq!(digest.rows_in(&[1, 2]), 4);
    }

    #[test]
    fn buckets_are_a_power_of_two_within_bounds() {
        assert_eq!(Levels::single(0), Levels { first: 64, last: 64 });
        assert_eq!(Levels::single(64 * 1000), Levels { first: 1024, last: 1024 });
        assert_eq!(Levels::single(u64::MAX / 2), Levels { first: 1 << 18, last: 1 << 18 });
        assert_eq!(Levels::cheap_to_refine(0), Levels { first: 64, last: 1024 });
        assert_eq!(Levels::cheap_to_refine(256 * 1000), Levels { first: 1024, last: 1 << 14 });
        assert_eq!(Levels::cheap_to_refine(u64::MAX / 2), Levels { first: 1 << 14, last: 1 << 18 });
    }
}
