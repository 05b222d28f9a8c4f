//! What holds whatever happens in whatever order.

use super::slot::FACTS;
use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::SeqCst};

/// Runs `body` with an empty table: making one takes room on the stack.
fn with_table(body: impl FnOnce(&Table) + Send) {
    std::thread::scope(|scope| {
        let run = move || body(&Table::default());
        let thread = std::thread::Builder::new().stack_size(1 << 27).spawn_scoped(scope, run);
        thread.expect("a thread").join().expect("no panic");
    });
}

fn key(number: u64, node: u32) -> Key {
    Key { digest: digest([&number.to_le_bytes()[..]]), node, database: 5, role: 10 }
}

fn nobody(_: i32) {}

fn opened(table: &Table, group: usize, owner: i32, most: u32) -> Option<Lease> {
    let lease = table.reserve(group, owner, most).ok()?;
    assert!(table.opened(lease, owner));
    Some(lease)
}

#[test]
fn the_session_that_was_given_back_last_is_lent_first() {
    with_table(|table| {
        let group = table.group(&key(1, 0)).expect("a group");
        let leases: Vec<Lease> =
            (1..=3).map(|owner| opened(table, group, owner, 9).expect("room")).collect();
        for (owner, at) in [(2, 1), (3, 2), (1, 0)] {
            assert!(table.give_back(leases[at], owner, &mut nobody));
        }
        for expected in [leases[0], leases[2], leases[1]] {
            assert_eq!(table.claim(group, 7), Some(expected));
        }
        assert_eq!(table.claim(group, 7), None);
    });
}

#[test]
fn what_a_dead_process_has_is_closed_and_never_lent() {
    with_table(|table| {
        let group = table.group(&key(1, 0)).expect("a group");
        let lease = opened(table, group, 4, 1).expect("room");
        let mut woken = Vec::new();
        let ticket = table.wait(group, 5, 1, &mut |owner| woken.push(owner)).expect("a place");
        assert_eq!(table.granted(&ticket), Granted::Nothing);
        table.leave(4, &mut |owner| woken.push(owner));
        assert_eq!(woken, [5]);
        let Granted::Room(new) = table.take(ticket, &mut nobody) else { panic!("room") };
        assert_ne!(new, lease);
        assert!(!table.give_back(lease, 4, &mut nobody), "it is not its any more");
        assert_eq!(table.count(0), 1);
    });
}

#[test]
fn who_waits_is_served_in_order() {
    with_table(|table| {
        let group = table.group(&key(1, 0)).expect("a group");
        let lease = opened(table, group, 1, 1).expect("room");
        let mut tickets: Vec<Ticket> = (2..6)
            .map(|owner| table.wait(group, owner, 1, &mut nobody).expect("a place"))
            .collect();
        // The second one gives up.
        assert_eq!(table.take(tickets.remove(1), &mut nobody), Granted::Nothing);
        let mut owner = 1;
        for (ticket, next) in tickets.into_iter().zip([2, 4, 5]) {
            assert!(table.has_queue(group));
            let mut woken = Vec::new();
            assert!(table.give_back(lease, owner, &mut |it| woken.push(it)));
            assert_eq!(woken, [next]);
            assert_eq!(table.take(ticket, &mut nobody), Granted::Session(lease));
            owner = next;
        }
        assert!(!table.has_queue(group));
    });
}

#[test]
fn an_idle_session_of_another_group_makes_room() {
    with_table(|table| {
        let (one, other) =
            (table.group(&key(1, 0)).expect("a group"), table.group(&key(2, 0)).expect("a group"));
        let lease = opened(table, one, 1, 1).expect("room");
        assert_eq!(table.reserve(other, 2, 1), Err(Refused::Node));
        assert!(table.give_back(lease, 1, &mut nobody));
        let new = table.reserve(other, 2, 1).expect("room");
        assert_eq!(table.count(0), 1);
        assert_eq!(table.claim(one, 1), None);
        table.retire(new, 2, &mut nobody);
        assert_eq!(table.count(0), 0);
    });
}

#[test]
fn a_session_that_its_process_keeps_makes_room_for_whoever_waits() {
    with_table(|table| {
        let group = table.group(&key(1, 0)).expect("a group");
        let lease = opened(table, group, 1, 1).expect("room");
        let ticket = table.wait(group, 2, 1, &mut nobody).expect("a place");
        assert_eq!(table.granted(&ticket), Granted::Nothing);
        table.keep(lease, 1, &mut nobody);
        assert!(matches!(table.take(ticket, &mut nobody), Granted::Room(_)));
        assert!(!table.need(lease, 1));
        assert_eq!(table.count(0), 1);
    });
}

#[test]
fn sessions_of_an_earlier_epoch_are_closed_as_soon_as_nobody_has_them() {
    with_table(|table| {
        let group = table.group(&key(1, 0)).expect("a group");
        let (free, lent) =
            (opened(table, group, 1, 9).expect("room"), opened(table, group, 2, 9).expect("room"));
        assert!(table.give_back(free, 1, &mut nobody));
        table.begin_epoch();
        assert_eq!(table.claim(group, 3), None);
        assert!(!table.give_back(lent, 2, &mut nobody));
        table.retire(lent, 2, &mut nobody);
        assert_eq!(table.count(0), 0);
    });
}

#[test]
fn statements_are_found_by_content_and_the_oldest_are_closed() {
    with_table(|table| {
        let statements = &table.slot(0).statements;
        statements.clear();
        let name = |number: u64| digest([b"x".as_slice(), &number.to_le_bytes()]);
        let mut open: HashMap<u32, u64> = HashMap::new();
        for round in 0..5000u64 {
            statements.begin_flight();
            let found = statements.find(name(round));
            assert!(found.is_new && !found.is_passing);
            if let Some(closed) = found.closes {
                assert!(open.remove(&closed).is_some());
            }
            assert_eq!(open.insert(found.number, round), None);
            assert!(!statements.find(name(round)).is_new);
        }
        assert_eq!(statements.count() as usize, open.len());
        for (number, round) in open {
            let found = statements.find(name(round));
            assert_eq!((found.number, found.is_new), (number, false));
        }
    });
}

#[test]
fn no_statement_of_a_flight_is_closed_for_another() {
    with_table(|table| {
        let statements = &table.slot(0).statements;
        statements.clear();
        statements.begin_flight();
        for number in 0..3000u64 {
            let found = statements.find(digest([&number.to_le_bytes()[..]]));
            assert_eq!(found.closes, None);
        }
    });
}

#[derive(Clone, Debug)]
enum Step {
    Claim { who: i32, key: u64 },
    GiveBack { who: i32 },
    Retire { who: i32 },
    Die { who: i32 },
    GiveUp { who: i32 },
    Doom { key: u64 },
    Keep { who: i32 },
    Need { who: i32 },
}

fn step() -> impl Strategy<Value = Step> {
    let who = 1..8i32;
    prop_oneof![
        6 => (who.clone(), 0..4u64).prop_map(|(who, key)| Step::Claim { who, key }),
        5 => who.clone().prop_map(|who| Step::GiveBack { who }),
        1 => who.clone().prop_map(|who| Step::Retire { who }),
        1 => who.clone().prop_map(|who| Step::Die { who }),
        1 => who.clone().prop_map(|who| Step::GiveUp { who }),
        2 => who.clone().prop_map(|who| Step::Keep { who }),
        2 => who.prop_map(|who| Step::Need { who }),
        1 => (0..4u64).prop_map(|key| Step::Doom { key }),
    ]
}

const MOST: u32 = 3;

fn run(table: &Table, steps: &[Step]) {
    let key_of = |number: u64| key(number, (number % 2) as u32);
    let mut held: HashMap<i32, Lease> = HashMap::new();
    let mut waits: HashMap<i32, Ticket> = HashMap::new();
    let mut kept: HashMap<i32, Lease> = HashMap::new();
    for step in steps {
        match *step {
            Step::Claim { who, key } => {
                if held.contains_key(&who) || waits.contains_key(&who) || kept.contains_key(&who) {
                    continue;
                }
                let group = table.group(&key_of(key)).expect("a group");
                let claimed = (!table.has_queue(group)).then(|| table.claim(group, who)).flatten();
                let lease = claimed.or_else(|| {
                    (!table.has_queue(group)).then(|| opened(table, group, who, MOST)).flatten()
                });
                match lease {
                    Some(lease) => {
                        held.insert(who, lease);
                    }
                    None => {
                        let ticket = table.wait(group, who, MOST, &mut nobody);
                        waits.insert(who, ticket.expect("a place"));
                    }
                }
            }
            Step::GiveBack { who } => {
                if let Some(lease) = held.remove(&who)
                    && !table.give_back(lease, who, &mut nobody)
                {
                    table.retire(lease, who, &mut nobody);
                }
            }
            Step::Retire { who } => {
                if let Some(lease) = held.remove(&who) {
                    table.retire(lease, who, &mut nobody);
                }
            }
            Step::Die { who } => {
                held.remove(&who);
                waits.remove(&who);
                kept.remove(&who);
                table.leave(who, &mut nobody);
            }
            Step::GiveUp { who } => {
                if let Some(ticket) = waits.remove(&who) {
                    match table.take(ticket, &mut nobody) {
                        Granted::Nothing => {}
                        Granted::Session(lease) | Granted::Room(lease) => {
                            table.retire(lease, who, &mut nobody);
                        }
                    }
                }
            }
            Step::Keep { who } => {
                if let Some(lease) = held.remove(&who) {
                    table.keep(lease, who, &mut nobody);
                    kept.insert(who, lease);
                }
            }
            Step::Need { who } => {
                if let Some(lease) = kept.remove(&who) {
                    if table.need(lease, who) {
                        held.insert(who, lease);
                    } else {
                        table.retire(lease, who, &mut nobody);
                    }
                }
            }
            Step::Doom { key } => {
                table.doom(&|seen| seen.node == (key % 2) as u32);
                (0..2).for_each(|node| table.serve(node, &mut nobody));
            }
        }
        let ready: Vec<i32> = waits
            .iter()
            .filter(|(_, ticket)| table.granted(ticket) != Granted::Nothing)
            .map(|(who, _)| *who)
            .collect();
        for who in ready {
            let ticket = waits.remove(&who).expect("it waits");
            match table.take(ticket, &mut nobody) {
                Granted::Session(lease) => assert_eq!(held.insert(who, lease), None),
                Granted::Room(lease) => {
                    assert!(table.opened(lease, who));
                    assert_eq!(held.insert(who, lease), None);
                }
                Granted::Nothing => unreachable!("it was ready"),
            }
        }
        check(table, &held, &waits);
    }
    // Whoever waits gets something when the others are done.
    for round in 0.. {
        assert!(round < 100, "nobody waits for ever");
        for (who, lease) in held.drain() {
            table.retire(lease, who, &mut nobody);
        }
        if waits.is_empty() {
            break;
        }
        waits.retain(|who, ticket| match table.granted(ticket) {
            Granted::Nothing => true,
            Granted::Session(lease) | Granted::Room(lease) => {
                let granted = table.take(Ticket(ticket.0), &mut nobody);
                assert_ne!(granted, Granted::Nothing);
                held.insert(*who, lease);
                false
            }
        });
    }
}

fn check(table: &Table, held: &HashMap<i32, Lease>, waits: &HashMap<i32, Ticket>) {
    let all = table.all();
    for node in 0..2 {
        let count = all.iter().filter(|seen| seen.node == node).count() as u32;
        assert_eq!(table.count(node), count);
        assert!(count <= MOST, "{count} sessions");
    }
    let lent: HashMap<i32, Lease> = all
        .iter()
        .filter(|seen| seen.state == State::Lent)
        .map(|seen| (seen.owner, seen.lease))
        .collect();
    assert_eq!(lent, *held, "each has what it holds, and nobody else does");
    // Nobody waits where there is room.
    for who in waits.keys() {
        assert!(!held.contains_key(who));
    }
    for node in 0..2 {
        if table.waiting(node) > 0 {
            assert_eq!(table.count(node), MOST);
            let is_idle = |state| matches!(state, State::Free | State::Kept);
            assert!(all.iter().all(|seen| seen.node != node || !is_idle(seen.state)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_session_is_lent_twice_and_no_limit_exceeded(steps in prop::collection::vec(step(), 1..120)) {
        with_table(|table| run(table, &steps));
    }
}

/// Threads that claim, give back, lose and die: each session has one user at a time, and all get their turns.
#[test]
fn threads_never_share_a_session() {
    const TURNS: usize = 2000;
    with_table(|table| {
        let users: Vec<AtomicI32> = (0..SLOTS).map(|_| AtomicI32::new(0)).collect();
        let done = AtomicU32::new(0);
        let failed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for me in 1..=6i32 {
                let (users, done, failed) = (&users, &done, &failed);
                scope.spawn(move || {
                    for turn in 0..TURNS {
                        let group = table.group(&key(turn as u64 % 2, 0)).expect("a group");
                        let lease = take_turn(table, group, me);
                        if users[lease.slot].swap(me, SeqCst) != 0 || table.count(0) > MOST {
                            failed.store(true, SeqCst);
                        }
                        users[lease.slot].store(0, SeqCst);
                        if turn % 50 == 17 {
                            table.leave(me, &mut nobody);
                        } else if !table.give_back(lease, me, &mut nobody) {
                            table.retire(lease, me, &mut nobody);
                        }
                        done.fetch_add(1, SeqCst);
                    }
                });
            }
        });
        assert!(!failed.load(SeqCst));
        assert_eq!(done.load(SeqCst) as usize, 6 * TURNS);
        assert!(table.all().iter().all(|seen| seen.state == State::Free));
    });
}

fn take_turn(table: &Table, group: usize, me: i32) -> Lease {
    if !table.has_queue(group) {
        let found = table.claim(group, me).or_else(|| opened(table, group, me, MOST));
        if let Some(lease) = found {
            return lease;
        }
    }
    let ticket = table.wait(group, me, MOST, &mut nobody).expect("a place");
    loop {
        if table.granted(&ticket) != Granted::Nothing {
            break;
        }
        std::thread::yield_now();
    }
    match table.take(ticket, &mut nobody) {
        Granted::Session(lease) => lease,
        Granted::Room(lease) => {
            assert!(table.opened(lease, me));
            lease
        }
        Granted::Nothing => unreachable!("it was granted"),
    }
}

#[test]
fn facts_are_of_one_use() {
    with_table(|table| {
        let group = table.group(&key(1, 0)).expect("a group");
        let lease = opened(table, group, 1, 1).expect("room");
        table.slot(lease.slot).note(Fact(FACTS - 1), 7);
        table.retire(lease, 1, &mut nobody);
        let next = opened(table, group, 1, 1).expect("room");
        assert_eq!(next.slot, lease.slot);
        assert_eq!(table.slot(next.slot).fact(Fact(FACTS - 1)), 0);
    });
}
