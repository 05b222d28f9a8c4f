//! Whatever a plan says is the same after PostgreSQL has kept it.

use crate::Plan;
use crate::claim::{Claim, FirstFree};
use crate::code::{Coded, Coder};
use crate::row::{Key, SortKey, Source, Spread, StateKind};
use crate::scan::{LookupJoin, LookupKind, ShardScan, Split};
use crate::statement::{Command, ComputedModify, InsertedRows, Routed};
use crate::template::Piece;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use shardmap::Prune;
use shardmap::tid::TidLayout;
use std::collections::VecDeque;

#[derive(Debug)]
enum Atom {
    Number(i32),
    Text(String),
}

/// A list that grows, or of which the first is taken.
struct List {
    atoms: VecDeque<Atom>,
    reads: bool,
}

impl Coder for List {
    fn number(&mut self, value: &mut i32) {
        if !self.reads {
            return self.atoms.push_back(Atom::Number(*value));
        }
        match self.atoms.pop_front() {
            Some(Atom::Number(number)) => *value = number,
            other => panic!("a number was expected, not {other:?}"),
        }
    }

    fn text(&mut self, value: &mut String) {
        if !self.reads {
            return self.atoms.push_back(Atom::Text(value.clone()));
        }
        match self.atoms.pop_front() {
            Some(Atom::Text(text)) => *value = text,
            other => panic!("a text was expected, not {other:?}"),
        }
    }
}

/// The value as it is read from what was written of it; nothing may be left.
fn kept<T: Coded + Clone>(value: &T) -> T {
    let mut list = List { atoms: VecDeque::new(), reads: false };
    value.clone().code(&mut list);
    list.reads = true;
    let mut read = T::default();
    read.code(&mut list);
    assert!(list.atoms.is_empty(), "not all was read");
    read
}

fn place() -> impl Strategy<Value = usize> {
    0..1000_usize
}

fn text() -> impl Strategy<Value = String> {
    ".{0,8}"
}

fn layout() -> impl Strategy<Value = TidLayout> {
    (1..100_000_usize).prop_map(TidLayout::for_shards)
}

fn command() -> impl Strategy<Value = Command> {
    prop::sample::select(vec![
        Command::Select,
        Command::SelectForUpdate,
        Command::Insert,
        Command::Upsert,
        Command::Update,
        Command::Delete,
        Command::Merge,
    ])
}

fn key() -> impl Strategy<Value = Key<u32>> {
    (place(), any::<[u32; 3]>(), any::<bool>()).prop_map(|(expression, oids, is_array)| Key {
        expression,
        hash_type: oids[0],
        family: oids[1],
        collation: oids[2],
        is_array,
    })
}

fn prune() -> impl Strategy<Value = Prune<Key<u32>>> {
    let leaf = prop_oneof![Just(Prune::All), key().prop_map(Prune::Key)];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Prune::And),
            vec(inner, 0..3).prop_map(Prune::Or),
        ]
    })
}

fn template() -> impl Strategy<Value = Vec<Piece<u32>>> {
    let piece = prop_oneof![
        text().prop_map(Piece::Text),
        any::<u32>().prop_map(Piece::Table),
        (any::<u32>(), text()).prop_map(|(table, name)| Piece::Object(table, name)),
        Just(Piece::Index),
    ];
    vec(piece, 0..5)
}

fn source() -> impl Strategy<Value = Source<u32>> {
    let state = prop::sample::select(vec![
        StateKind::Sum,
        StateKind::NumericSum,
        StateKind::Squares,
        StateKind::NumericSquares,
    ]);
    prop_oneof![
        place().prop_map(Source::Remote),
        any::<u32>().prop_map(Source::TableOid),
        (any::<u32>(), vec(place(), 0..4)).prop_map(|(table, columns)| Source::Row(table, columns)),
        (place(), layout()).prop_map(|(first, layout)| Source::Tid(first, layout)),
        (place(), layout()).prop_map(|(first, layout)| Source::ShardTid(first, layout)),
        (state, place()).prop_map(|(kind, first)| Source::State(kind, first)),
        (any::<u32>(), place()).prop_map(|(type_oid, column)| Source::Input(type_oid, column)),
        Just(Source::Here),
    ]
}

fn spread() -> impl Strategy<Value = Spread<u32>> {
    (place(), any::<[u32; 3]>()).prop_map(|(column, oids)| Spread {
        column,
        family: oids[0],
        type_oid: oids[1],
        collation: oids[2],
    })
}

fn sort_key() -> impl Strategy<Value = SortKey<u32>> {
    (place(), any::<[u32; 2]>(), any::<bool>()).prop_map(|(column, oids, nulls_first)| SortKey {
        column,
        operator: oids[0],
        collation: oids[1],
        nulls_first,
    })
}

fn first_free() -> impl Strategy<Value = FirstFree<u32>> {
    let candidates = || (template(), text());
    let merge = vec(sort_key(), 0..3);
    (candidates(), candidates(), template(), (text(), text()), merge).prop_map(
        |(first, all, locking, around, merge)| FirstFree {
            candidates: [first, all],
            locking,
            around,
            merge,
        },
    )
}

fn claim() -> impl Strategy<Value = Claim<u32>> {
    let numbers = (option::of(place()), option::of(place()), any::<i64>());
    (numbers, option::of(first_free()), any::<bool>(), (place(), place())).prop_map(
        |((limit, offset, candidates), first_free, by_place, version)| Claim {
            limit,
            offset,
            candidates,
            first_free,
            by_place,
            version,
        },
    )
}

fn lookup_join() -> impl Strategy<Value = LookupJoin> {
    let kind = prop::sample::select(vec![LookupKind::Semi, LookupKind::Anti, LookupKind::Left]);
    (kind, vec(place(), 0..3), place(), vec(place(), 0..3))
        .prop_map(|(kind, keys, first, columns)| LookupJoin { kind, keys, first, columns })
}

prop_compose! {
    fn shard_scan()(
        (tables, user, template, around, remote) in (
            vec(any::<u32>(), 0..3), any::<u32>(), template(), (text(), text()), vec(any::<(u32, i32)>(), 0..4),
        ),
        sources in vec(source(), 0..5),
        prune in prune(),
        broadcasts in vec((option::of(spread()), any::<bool>()), 0..3),
        (moves, sent) in (place(), place()),
        split in option::of((spread(), any::<bool>(), text())),
        merge in vec(sort_key(), 0..3),
        merge_text in text(),
        flags in any::<[bool; 5]>(),
        claim in option::of(claim()),
        lookup_join in option::of(lookup_join()),
    ) -> ShardScan<u32> {
        let (broadcasts, needed) = broadcasts.into_iter().unzip();
        let split = split.map(|(by, keeps_nulls, text)| Split { by, keeps_nulls, text });
        let [locks, is_target, is_claimed, is_candidates, by_ctid] = flags;
        ShardScan {
            tables, user, template, around, remote, sources, prune, broadcasts, needed, moves, split, sent, merge,
            merge_text, locks, is_target, is_claimed, is_candidates, claim, by_ctid, lookup_join,
        }
    }
}

prop_compose! {
    fn routed()(
        command in command(),
        tables in vec(any::<u32>(), 0..3),
        user: u32,
        writes in vec(command(), 0..3),
        flags: [bool; 5],
        prune in prune(),
        template in template(),
        sent in place(),
        returned_tids in vec(place(), 0..3),
        layout in layout(),
    ) -> Routed<u32> {
        let [brings_row, spreads, must_find, is_plain, returning] = flags;
        Routed {
            command, tables, user, writes, brings_row, spreads, must_find, is_plain, prune, template, sent, returning,
            returned_tids, layout,
        }
    }
}

prop_compose! {
    fn inserted_rows()(
        command in command(),
        (table, user) in any::<(u32, u32)>(),
        columns in vec(text(), 0..4),
        key_position in option::of(place()),
        template in template(),
        sent in place(),
        flags: [bool; 4],
    ) -> InsertedRows<u32> {
        let [by_statement, returning, on_conflict, buffered] = flags;
        InsertedRows {
            command, table, user, columns, key_position, template, sent, by_statement, returning, on_conflict, buffered,
        }
    }
}

fn plan() -> impl Strategy<Value = Plan<u32>> {
    let modify = (command(), any::<(u32, u32)>(), any::<[bool; 3]>());
    let modify = modify.prop_map(|(command, (table, user), flags)| {
        let [is_alone, has_subqueries, must_find] = flags;
        ComputedModify { table, user, command, is_alone, has_subqueries, must_find }
    });
    prop_oneof![
        routed().prop_map(Plan::Routed),
        shard_scan().prop_map(|scan| Plan::ShardScan(Box::new(scan))),
        inserted_rows().prop_map(Plan::InsertedRows),
        modify.prop_map(Plan::ComputedModify),
    ]
}

proptest! {
    #[test]
    fn every_plan_is_read_as_it_was_written(plan in plan()) {
        prop_assert_eq!(kept(&plan), plan);
    }
}

#[test]
fn oids_and_numbers_keep_all_their_bits() {
    let claim = Claim::<u32> { candidates: i64::MIN + 7, ..Claim::default() };
    assert_eq!(kept(&claim), claim);
    let modify = ComputedModify { table: u32::MAX, ..ComputedModify::default() };
    assert_eq!(kept(&modify), modify);
}

#[test]
fn a_missing_place_is_not_the_first_place() {
    let without = InsertedRows::<u32>::default();
    let first = InsertedRows { key_position: Some(0), ..without.clone() };
    assert_eq!(kept(&without).key_position, None);
    assert_eq!(kept(&first).key_position, Some(0));
}

#[test]
fn plans_may_follow_each_other_in_one_list() {
    let first = Plan::Routed(Routed { user: 3_u32, ..Routed::default() });
    let second = Plan::InsertedRows(InsertedRows { table: 5_u32, ..InsertedRows::default() });
    let mut list = List { atoms: VecDeque::new(), reads: false };
    for plan in [&first, &second] {
        plan.clone().code(&mut list);
    }
    list.reads = true;
    for plan in [first, second] {
        let mut read = Plan::default();
        read.code(&mut list);
        assert_eq!(read, plan);
    }
}

#[test]
fn the_tables_of_a_plan_are_those_that_it_is_about() {
    let scan = ShardScan { tables: vec![1_u32, 2], ..ShardScan::default() };
    assert_eq!(Plan::ShardScan(Box::new(scan)).tables(), [1, 2]);
    assert_eq!(
        Plan::InsertedRows(InsertedRows { table: 3_u32, ..InsertedRows::default() }).tables(),
        [3]
    );
}
