//! What paths over shards cost, in the planner's units: one is a page read in sequence.
//!
//! Every figure that a cost is made of is a constant here. PostgreSQL's own defaults are the measure:
//! `cpu_tuple_cost` is 0.01, `cpu_operator_cost` 0.0025. Figures that these do not give are chosen so that the planner
//! picks the faster of two ways in `cargo xtask bench reads` and `bench tpch`. They are compared with each other only,
//! because every way to a distributed table is ours.

/// A row on its way from a worker into a plan here: ten times `cpu_tuple_cost`, the middle of what `postgres_fdw`
/// takes in its versions (`DEFAULT_FDW_TUPLE_COST`, 0.01 and 0.2).
pub const TRANSFER: f64 = 0.1;

/// A statement that is sent to all nodes: `DEFAULT_FDW_STARTUP_COST` of `postgres_fdw`.
pub const ROUND_TRIP: f64 = 100.0;

/// A row that a worker reads, joins or compares: `cpu_tuple_cost`.
const ROW: f64 = 0.01;

/// What a filter adds to the reading of a row, as a share of it: `cpu_operator_cost` beside `cpu_tuple_cost`.
const FILTER: f64 = 0.25;

/// A row that a worker puts into its group: to hash and compare it costs as much as to read it once more.
const GROUPED: f64 = 2.0 * ROW;

/// The same if each shard is grouped by itself: the planner there knows the table's statistics.
const GROUPED_BY_SHARD: f64 = 1.5 * ROW;

/// A row that passes a window, which has sorted it.
const WINDOW: f64 = 3.0 * ROW;

/// A row that passes the windows of a sub-query, of which it is not known how many there are.
const SUBQUERY_WINDOWS: f64 = 2.0 * WINDOW;

/// A value of a row that is sent along: to write it here, and to read it there.
const SENT: f64 = 0.02;

/// What a further column adds to a row that is sent along, as a share of it.
const SENT_COLUMN: f64 = 0.5;

/// A filter of which nothing is known lets a third of the rows pass: `DEFAULT_INEQ_SEL`.
const PASSING: f64 = 1.0 / 3.0;

/// A join is taken to yield so many rows a shard at least: estimates of next to nothing are wrong more often than right, and a
/// nested loop over what then comes is dear.
const LEAST_JOINED: f64 = 8.0;

/// A pair of rows that only a nested loop can compare: twice `cpu_operator_cost`.
const PAIR: f64 = 0.005;

/// Of the left rows of an anti-join at least this share is taken to have no match.
const LEAST_UNMATCHED: f64 = 0.1;

/// Nodes that connect to each other: twenty statements to all nodes.
const CONNECTING: f64 = 2_000.0;

/// A row that is partitioned and kept, and as much again where it is fetched and stored.
const REPARTITIONED: f64 = 0.06;

/// The same for each of its columns.
const REPARTITIONED_COLUMN: f64 = 0.01;

/// A row that comes before it is wanted, and is kept until then.
const SPOOLED: f64 = 0.02;

/// Sorted paths are never alike in cost to plain ones: the planner would drop the plain path, of which others are made. It takes
/// costs within one per cent for alike (`STD_FUZZ_FACTOR`).
const SORTED_AT_LEAST: f64 = 1.02;

/// More rows than these are not sent to all nodes.
pub const MOST_BROADCAST: f64 = 2_000_000.0;

/// The same in bytes, by the planner's guess of a row's width: a quarter of what one message can hold.
pub const MOST_BROADCAST_BYTES: f64 = 256.0 * 1024.0 * 1024.0;

/// With more rows than that a worker is not told that they are distinct: it would take them for 200.
pub const MOST_DISTINCT: f64 = 50_000.0;

/// If a table has fewer than so many rows for one that is sent along, the rows that are sent are not few.
const FEW_SENT: f64 = 100.0;

/// Of so many rows in a table one may be looked up by an index; if more are, reading the table is faster.
const LOOKED_UP: f64 = 400.0;

/// Two sides with fewer rows are not worth a connection from each node to each.
const LEAST_REPARTITIONED: f64 = 5_000.0;

/// Over how many nodes and shards a relation is spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extent {
    /// Nodes, one at least.
    pub nodes: f64,
    /// Shards.
    pub shards: f64,
}

impl Extent {
    /// Of a table with so many nodes and shards.
    pub fn new(nodes: usize, shards: usize) -> Self {
        Self { nodes: nodes.max(1) as f64, shards: shards as f64 }
    }
}

/// What a path costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Until the first row comes.
    pub startup: f64,
    /// Until the last has come.
    pub total: f64,
}

/// What is spent on a relation: on the workers together, and before they are asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// On the workers.
    pub work: f64,
    /// Before.
    pub before: f64,
}

/// A scan that has the workers compute a relation, of which `rows` come back.
pub fn scan(spent: Spent, extent: Extent, rows: f64) -> Cost {
    let startup = ROUND_TRIP + spent.before;
    Cost { startup, total: startup + spent.work / extent.nodes + rows * TRANSFER }
}

/// What workers spend on a table of so many rows under so many filters.
pub fn reading(rows: f64, filters: usize) -> f64 {
    rows * ROW * (1.0 + FILTER * filters as f64)
}

/// What workers spend on a join, beyond its sides.
pub fn joining(left: f64, right: f64, joined: f64) -> f64 {
    (left + right + joined) * ROW
}

/// How many rows a join over so many shards is taken to yield.
pub fn joined_rows(estimated: f64, extent: Extent) -> f64 {
    estimated.max(LEAST_JOINED * extent.shards)
}

/// What workers spend on putting so many rows into groups, once for each set of keys.
pub fn grouping(rows: f64, sets: usize) -> f64 {
    rows * GROUPED * sets as f64
}

/// What workers spend on so many windows over so many rows.
pub fn windows(rows: f64, windows: usize) -> f64 {
    rows * WINDOW * windows as f64
}

/// What workers spend on a sub-query that yields so many rows, beyond what it reads.
pub fn subquery(rows: f64, groups: bool, has_windows: bool) -> f64 {
    let grouping = if groups { grouping(rows, 1) } else { 0.0 };
    grouping + if has_windows { rows * SUBQUERY_WINDOWS } else { 0.0 }
}

/// What workers spend on finding the first of so many rows.
pub fn finding_first(rows: f64) -> f64 {
    rows * ROW
}

/// How many of the rows pass, if there are filters of which nothing is known.
pub fn passing(rows: f64, has_filters: bool) -> f64 {
    if has_filters { rows * PASSING } else { rows }
}

/// How many groups come if each node makes those of its own rows.
pub fn groups_of_nodes(groups: f64, rows: f64, extent: Extent) -> f64 {
    (groups * extent.nodes).min(rows.max(1.0))
}

/// How many rows come if each node sends so many at most.
pub fn limited_rows(limit: i64, rows: f64, extent: Extent) -> f64 {
    (limit as f64 * extent.nodes).min(rows)
}

/// Groups that are made in parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PartialGroups {
    /// Each shard makes its own, and not each node of all its shards' rows.
    pub by_shard: bool,
    /// How many come.
    pub rows: f64,
    /// What workers spend on them.
    pub work: f64,
}

/// How so many groups of so many rows are best made in parts.
///
/// A worker groups a shard's rows quicker than the union of its shards' rows, of which it knows less; but then more groups come.
pub fn partial_groups(groups: f64, rows: f64, extent: Extent) -> PartialGroups {
    let shards = extent.shards.max(extent.nodes);
    let by_shard = groups * (shards - extent.nodes) * TRANSFER < rows * ROW;
    let parts = if by_shard { shards } else { extent.nodes };
    let each = if by_shard { GROUPED_BY_SHARD } else { GROUPED };
    PartialGroups { by_shard, rows: (groups * parts).min(rows.max(1.0)), work: rows * each }
}

/// Rows that are read here and sent along.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sent {
    /// How many.
    pub rows: f64,
    /// Of how many columns.
    pub columns: usize,
    /// A node gets those only that match there.
    pub spread: bool,
}

impl Sent {
    /// How many rows travel.
    fn copies(self, extent: Extent) -> f64 {
        self.rows * if self.spread { 1.0 } else { extent.nodes }
    }

    fn sending(self, extent: Extent) -> f64 {
        self.copies(extent) * (1.0 + self.columns as f64 * SENT_COLUMN) * SENT
    }
}

/// What is spent on rows that cost `reading` here and are sent along: a node gets its rows and looks at them once a shard.
pub fn broadcast(sent: Sent, reading: f64, extent: Extent) -> Spent {
    let work = sent.copies(extent) * (extent.shards / extent.nodes) * SENT;
    Spent { work, before: reading + sent.sending(extent) }
}

/// Rows of a size that may be sent to all nodes.
pub fn can_broadcast(rows: f64, width: f64) -> bool {
    rows <= MOST_BROADCAST && rows * width <= MOST_BROADCAST_BYTES
}

/// So few rows are sent that they may find theirs by an index of each shard of a table with so many rows.
pub fn are_few(sent: f64, stored: f64) -> bool {
    sent * FEW_SENT < stored
}

/// How many rows may look theirs up one by one in a table with so many rows; none if even one is too many.
pub fn most_looked_up(stored: f64) -> Option<i64> {
    Some((stored / LOOKED_UP) as i64).filter(|most| *most > 0)
}

/// A join of rows that are kept here with what the workers answer about them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LookupJoin {
    /// The rows, and the cost of reading them.
    pub sent: Sent,
    /// See above.
    pub reading: f64,
    /// How many rows the workers look through, and what they spend on reading them.
    pub right: f64,
    /// See above.
    pub right_work: f64,
    /// How many rows the join yields.
    pub joined: f64,
    /// Rows are found by a hash, and not each compared with each.
    pub has_equality: bool,
    /// So many rows may look theirs up one by one.
    pub few: Option<i64>,
    /// The nodes answer with what has a match, and what has none is yielded.
    pub is_anti: bool,
    /// Rows are yielded while answers come.
    pub streams: bool,
    /// `random_page_cost`.
    pub random_page: f64,
}

impl LookupJoin {
    /// What it costs over so many nodes and shards.
    pub fn cost(&self, extent: Extent) -> Cost {
        let left = self.sent.rows;
        let before = self.reading + left * ROW + self.sent.sending(extent);
        // To look a row up in what has been sent, for each that is there; or the other way round, if there are few.
        let compared =
            if self.has_equality { (left + self.right) * ROW } else { left * self.right * PAIR };
        let read = self.right_work + compared;
        let looked_up =
            self.sent.copies(extent) * (extent.shards / extent.nodes) * self.random_page;
        let work = match self.few {
            Some(few) if left <= few as f64 => read.min(looked_up),
            _ => read,
        };
        let matches = if self.is_anti {
            (left - self.joined).max(left * LEAST_UNMATCHED)
        } else {
            self.joined
        };
        let startup = ROUND_TRIP + before + work / extent.nodes;
        let coming = matches * TRANSFER;
        Cost {
            startup: if self.streams { startup } else { startup + coming },
            total: startup + coming + left * ROW,
        }
    }
}

/// Rows enough on one of two sides to be worth a connection from each node to each.
pub fn can_repartition(left: f64, right: f64) -> bool {
    left.max(right) >= LEAST_REPARTITIONED
}

/// What it costs to partition so many rows, and once more to fetch them.
pub fn repartitioning(rows: f64, columns: usize) -> f64 {
    rows * (REPARTITIONED + REPARTITIONED_COLUMN * columns as f64)
}

/// What is spent on rows that have been repartitioned, of which the partitioning costs `partitioned` in all.
pub fn repartitioned(rows: f64, columns: usize, partitioned: f64) -> Spent {
    Spent { work: repartitioning(rows, columns), before: partitioned + CONNECTING }
}

/// What is spent on `rows` that each node sorts at the same time, before the first row comes, if nothing else is done with
/// them; and what it costs to merge them. To compare two costs `compare`.
pub fn merging(spent: Spent, rows: f64, compare: f64, extent: Extent) -> (Spent, f64) {
    let of_node = (rows / extent.nodes).max(2.0);
    let sorting = compare * of_node * of_node.log2();
    let before = spent.before + spent.work / extent.nodes + sorting;
    (Spent { work: 0.0, before }, rows * compare * (extent.nodes + 1.0).log2())
}

/// What a sorted path costs in all beside a plain one; if `spools`, it may have to wait for another with its rows kept.
pub fn beside_plain(plain: f64, sorted: f64, rows: f64, spools: bool) -> f64 {
    let spooling = if spools { SPOOLED * rows } else { 0.0 };
    (sorted + spooling).max(plain * SORTED_AT_LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FOUR_BY_EIGHT: Extent = Extent { nodes: 4.0, shards: 32.0 };

    fn sent(rows: f64, spread: bool) -> Sent {
        Sent { rows, columns: 2, spread }
    }

    #[test]
    fn a_scan_costs_a_round_trip_the_share_of_a_node_and_its_rows() {
        let cost = scan(Spent { work: 400.0, before: 7.0 }, FOUR_BY_EIGHT, 50.0);
        assert_eq!(cost, Cost { startup: 107.0, total: 212.0 });
    }

    #[test]
    fn a_table_of_no_node_is_taken_for_one_of_one_node() {
        assert_eq!(Extent::new(0, 1), Extent { nodes: 1.0, shards: 1.0 });
    }

    #[test]
    fn few_groups_are_made_by_shard_and_many_by_node() {
        let few = partial_groups(3.0, 1e6, FOUR_BY_EIGHT);
        assert!(few.by_shard);
        assert_eq!(few.rows, 96.0);
        let many = partial_groups(1e5, 1e6, FOUR_BY_EIGHT);
        assert!(!many.by_shard);
        assert_eq!(many.rows, 4e5);
    }

    #[test]
    fn no_more_groups_come_than_there_are_rows() {
        assert_eq!(partial_groups(1e6, 1e6, FOUR_BY_EIGHT).rows, 1e6);
        assert_eq!(groups_of_nodes(90.0, 100.0, FOUR_BY_EIGHT), 100.0);
        assert_eq!(groups_of_nodes(9.0, 0.0, FOUR_BY_EIGHT), 1.0);
    }

    #[test]
    fn rows_that_are_spread_cost_a_node_s_share_of_a_broadcast() {
        let everywhere = broadcast(sent(1000.0, false), 10.0, FOUR_BY_EIGHT);
        let spread = broadcast(sent(1000.0, true), 10.0, FOUR_BY_EIGHT);
        assert_eq!(everywhere.work, 4.0 * spread.work);
        assert_eq!(everywhere.before - 10.0, 4.0 * (spread.before - 10.0));
    }

    #[test]
    fn a_join_is_never_taken_to_yield_next_to_nothing() {
        assert_eq!(joined_rows(1.0, FOUR_BY_EIGHT), 256.0);
        assert_eq!(joined_rows(1e6, FOUR_BY_EIGHT), 1e6);
    }

    #[test]
    fn a_broadcast_is_limited_by_rows_and_by_bytes() {
        assert!(can_broadcast(MOST_BROADCAST, 100.0));
        assert!(!can_broadcast(MOST_BROADCAST + 1.0, 8.0));
        assert!(!can_broadcast(MOST_BROADCAST, 1000.0));
    }

    fn lookup(few: Option<i64>, rows: f64) -> LookupJoin {
        LookupJoin {
            sent: sent(rows, true),
            reading: 0.0,
            right: 1e7,
            right_work: 1e5,
            joined: rows,
            has_equality: true,
            few,
            is_anti: false,
            streams: true,
            random_page: 4.0,
        }
    }

    #[test]
    fn a_few_rows_with_an_index_are_looked_up_and_not_read_through() {
        let with_index = lookup(most_looked_up(1e7), 10.0).cost(FOUR_BY_EIGHT);
        let without = lookup(None, 10.0).cost(FOUR_BY_EIGHT);
        assert!(with_index.total < without.total / 10.0);
        // More than a few read the table either way.
        let many = lookup(most_looked_up(1e7), 30_000.0).cost(FOUR_BY_EIGHT);
        assert_eq!(many, lookup(None, 30_000.0).cost(FOUR_BY_EIGHT));
    }

    #[test]
    fn a_small_table_has_nothing_to_look_up() {
        assert_eq!(most_looked_up(399.0), None);
        assert_eq!(most_looked_up(400.0), Some(1));
    }

    #[test]
    fn a_semi_join_yields_nothing_before_the_last_answer() {
        let streaming = lookup(None, 1000.0);
        let waiting = LookupJoin { streams: false, ..streaming };
        assert!(waiting.cost(FOUR_BY_EIGHT).startup > streaming.cost(FOUR_BY_EIGHT).startup);
        assert_eq!(waiting.cost(FOUR_BY_EIGHT).total, streaming.cost(FOUR_BY_EIGHT).total);
    }

    #[test]
    fn a_join_without_equality_costs_each_pair() {
        let hashed = lookup(None, 1000.0);
        let compared = LookupJoin { has_equality: false, ..hashed };
        assert!(compared.cost(FOUR_BY_EIGHT).total > 50.0 * hashed.cost(FOUR_BY_EIGHT).total);
    }

    #[test]
    fn small_sides_are_not_repartitioned() {
        assert!(!can_repartition(4_999.0, 10.0));
        assert!(can_repartition(10.0, 5_000.0));
    }

    #[test]
    fn a_sorted_path_is_never_alike_in_cost_to_the_plain_one() {
        assert_eq!(beside_plain(100.0, 100.0, 10.0, false), 102.0);
        assert_eq!(beside_plain(100.0, 150.0, 10.0, false), 150.0);
        assert_eq!(beside_plain(100.0, 150.0, 10.0, true), 150.2);
    }

    #[test]
    fn what_is_sorted_is_worked_on_before_the_first_row_comes() {
        let (spent, merging) = merging(Spent { work: 40.0, before: 1.0 }, 4.0, 0.5, FOUR_BY_EIGHT);
        assert_eq!(spent, Spent { work: 0.0, before: 12.0 });
        assert!(merging > 0.0);
    }

    proptest! {
        #[test]
        fn more_rows_never_cost_less(
            rows in 1.0f64..1e9, more in 0.0f64..1e9, groups in 1.0f64..1e9, spread: bool,
        ) {
            let extent = FOUR_BY_EIGHT;
            let spent = Spent { work: 1.0, before: 1.0 };
            prop_assert!(scan(spent, extent, rows).total <= scan(spent, extent, rows + more).total);
            prop_assert!(
                partial_groups(groups, rows, extent).rows
                    <= partial_groups(groups, rows + more, extent).rows + groups * extent.shards
            );
            let few = broadcast(sent(rows, spread), 0.0, extent);
            let many = broadcast(sent(rows + more, spread), 0.0, extent);
            prop_assert!(few.work <= many.work && few.before <= many.before);
        }
    }
}
