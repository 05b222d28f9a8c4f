//! What is a deadlock, what is none, and who gives way.

use super::*;

const N1: Place = Place(1);
const N2: Place = Place(2);
const N3: Place = Place(3);

fn backend(number: i32) -> Identity {
    Identity { coordinator: 7, pid: number }
}

/// The process of a backend on a node: backend 3 has process 103 on the first.
fn process(place: Place, number: i32) -> i32 {
    if place == Place::HERE { number } else { place.0 as i32 * 100 + number }
}

/// `(waiter, place, hold, holders)`; holder 0 is a prepared transaction.
type Line<'a> = (i32, Place, Hold, &'a [i32]);

fn look(lines: &[Line<'_>]) -> Look {
    let mut look = Look::default();
    for (waiter, place, hold, holders) in lines {
        for number in holders.iter().chain([waiter]).filter(|number| **number != 0) {
            look.serves(*place, process(*place, *number), backend(*number));
        }
        look.waits(Wait {
            place: *place,
            pid: process(*place, *waiter),
            since: format!("{waiter}"),
            hold: *hold,
            holders: holders
                .iter()
                .map(|number| if *number == 0 { 0 } else { process(*place, *number) })
                .collect(),
            table: None,
        });
    }
    look
}

/// Who gives way, if all look: a backend's transaction is the younger, the greater its number.
fn victims(look: &Look) -> Vec<i32> {
    (1..=9)
        .filter(|number| {
            let verdict = look.alone().verdict(backend(*number), &|it| Some(i64::from(it.pid)));
            matches!(verdict, Verdict::GivesWay(_))
        })
        .collect()
}

use Hold::{Moment, Transaction};

#[test]
fn two_backends_that_wait_on_two_nodes_are_a_deadlock_and_the_younger_gives_way() {
    let seen = look(&[(1, N1, Transaction, &[2]), (2, N2, Transaction, &[1])]);
    assert_eq!(victims(&seen), [2]);
    let other = seen.alone().verdict(backend(1), &|it| Some(i64::from(it.pid)));
    assert_eq!(other, Verdict::AnotherGivesWay);
    let Verdict::GivesWay(steps) = seen.alone().verdict(backend(2), &|it| Some(it.pid.into()))
    else {
        panic!("the younger one gives way");
    };
    let told: Vec<_> = steps.iter().map(|step| (step.waiter, step.place, step.pid)).collect();
    assert_eq!(
        told,
        [(Member::Backend(backend(2)), N2, 202), (Member::Backend(backend(1)), N1, 101)]
    );
}

#[test]
fn three_backends_on_three_nodes_are_a_deadlock() {
    let circle: [Line<'_>; 3] =
        [(1, N1, Transaction, &[3]), (3, N2, Transaction, &[2]), (2, N3, Transaction, &[1])];
    assert_eq!(victims(&look(&circle)), [3]);
    // With one wait less there is none.
    for left_out in 0..3 {
        let mut part = circle.to_vec();
        part.remove(left_out);
        assert_eq!(victims(&look(&part)), [] as [i32; 0]);
    }
}

#[test]
fn a_backend_that_waits_here_does_not_give_way_but_the_one_that_waits_on_a_node_does() {
    // The younger one waits for a lock of its own server, where it does not look.
    let seen = look(&[(2, Place::HERE, Transaction, &[1]), (1, N1, Transaction, &[2])]);
    assert_eq!(victims(&seen), [1]);
}

#[test]
fn a_deadlock_of_one_server_is_left_to_it() {
    let seen = look(&[(1, N1, Transaction, &[2]), (2, N1, Transaction, &[1])]);
    assert_eq!(victims(&seen), [] as [i32; 0]);
    // Two sessions of one backend on one node are two processes there: that no server sees.
    let mut seen = Look::default();
    seen.serves(N1, 11, backend(1));
    seen.serves(N1, 12, backend(1));
    let (place, hold, since) = (N1, Transaction, String::new());
    seen.waits(Wait { place, pid: 11, since, hold, holders: vec![12], table: None });
    assert_eq!(victims(&seen), [1]);
}

#[test]
fn nobody_gives_way_for_a_prepared_transaction() {
    let seen = look(&[(1, N1, Transaction, &[0]), (2, N2, Transaction, &[1])]);
    assert_eq!(victims(&seen), [] as [i32; 0]);
    // Beside one there may be a deadlock.
    let seen = look(&[(1, N1, Transaction, &[0, 2]), (2, N2, Transaction, &[1])]);
    assert_eq!(victims(&seen), [2]);
}

#[test]
fn who_waits_for_a_deadlock_without_being_in_it_goes_on_waiting() {
    let seen = look(&[
        (1, N1, Transaction, &[2]),
        (2, N2, Transaction, &[1]),
        (5, N1, Transaction, &[1]),
        (6, N3, Transaction, &[5]),
    ]);
    assert_eq!(victims(&seen), [2]);
    assert_eq!(seen.alone().verdict(backend(5), &|_| None), Verdict::Waits);
}

#[test]
fn a_tuple_lock_of_somebody_who_does_not_wait_there_is_no_reason() {
    // Backend 2 waits on the first node for 1, which waits for nobody, and holds the tuple's lock there meanwhile, for which 3
    // waits. On the second node it waits for 4, which waits on the third for 3. When 1 is done, 2 releases the tuple's lock.
    let lines: [Line<'_>; 4] = [
        (2, N1, Transaction, &[1]),
        (3, N1, Moment, &[2]),
        (2, N2, Transaction, &[4]),
        (4, N3, Transaction, &[3]),
    ];
    assert_eq!(victims(&look(&lines)), [] as [i32; 0]);
    // If 1 waits for one of them, it is one.
    let mut circle = lines.to_vec();
    circle.push((1, N3, Transaction, &[3]));
    assert_eq!(victims(&look(&circle)), [4]);
    // And if 3 waits for what 2 holds to its end.
    let mut solid = lines;
    solid[1].2 = Transaction;
    assert_eq!(victims(&look(&solid)), [4]);
}

#[test]
fn what_a_second_look_does_not_show_is_no_deadlock() {
    let first = look(&[(1, N1, Transaction, &[2]), (2, N2, Transaction, &[1])]);
    let same = first.clone();
    let gone = look(&[(1, N1, Transaction, &[2])]);
    let mut another = first.clone();
    another.waits[1].since = "later".to_owned();
    let verdict = |second: &Look| first.and(second).verdict(backend(2), &|it| Some(it.pid.into()));
    assert!(matches!(verdict(&same), Verdict::GivesWay(_)));
    assert_eq!(verdict(&gone), Verdict::Waits);
    assert_eq!(verdict(&another), Verdict::Waits);
}

#[test]
fn backends_of_two_coordinators_come_to_the_same_answer() {
    let there = Identity { coordinator: 8, pid: 1 };
    let mut seen = look(&[(1, N1, Transaction, &[2]), (2, N2, Transaction, &[1])]);
    for (place, pid) in [(N1, 102), (N2, 202)] {
        seen.serves(place, pid, there);
    }
    // Each knows its own transactions only: the wait that began last decides.
    let begun_at_7 = |it: Identity| (it.coordinator == 7).then_some(1);
    let begun_at_8 = |it: Identity| (it.coordinator == 8).then_some(1);
    assert_eq!(seen.alone().verdict(backend(1), &begun_at_7), Verdict::AnotherGivesWay);
    assert!(matches!(seen.alone().verdict(there, &begun_at_8), Verdict::GivesWay(_)));
}

#[test]
fn a_process_that_serves_no_backend_may_stand_in_a_circle_and_never_gives_way() {
    let mut seen = look(&[(1, N2, Transaction, &[2])]);
    for (pid, holders) in [(102, vec![55]), (55, vec![101])] {
        let (place, hold, since) = (N1, Transaction, String::new());
        seen.waits(Wait { place, pid, since, hold, holders, table: None });
    }
    seen.serves(N1, 101, backend(1));
    seen.serves(N1, 102, backend(2));
    assert_eq!(victims(&seen), [2]);
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    fn lines() -> impl Strategy<Value = Vec<(i32, usize, bool, Vec<i32>)>> {
        let line = (1..8i32, 0..4usize, any::<bool>(), prop::collection::vec(0..8i32, 1..3));
        prop::collection::vec(line, 0..14)
    }

    fn look_at(lines: &[(i32, usize, bool, Vec<i32>)]) -> Look {
        let lines: Vec<Line<'_>> = lines
            .iter()
            .map(|(waiter, place, moment, holders)| {
                let hold = if *moment { Moment } else { Transaction };
                (*waiter, Place(*place), hold, &holders[..])
            })
            .collect();
        look(&lines)
    }

    proptest! {
        #[test]
        fn whoever_gives_way_stands_in_a_circle_that_is_told(lines in lines()) {
            let seen = look_at(&lines);
            let edges = seen.alone();
            for number in 1..8 {
                let verdict = seen.alone().verdict(backend(number), &|it| Some(it.pid.into()));
                let Verdict::GivesWay(steps) = verdict else { continue };
                prop_assert!(!steps.is_empty());
                prop_assert_eq!(steps[0].waiter, Member::Backend(backend(number)));
                prop_assert_eq!(steps[steps.len() - 1].holder, steps[0].waiter);
                for pair in steps.windows(2) {
                    prop_assert_eq!(pair[0].holder, pair[1].waiter);
                }
                for step in &steps {
                    let is_there = |edge: &Edge| edge.waiter == step.waiter && edge.holder == step.holder;
                    prop_assert!(edges.0.iter().any(is_there));
                }
            }
        }

        #[test]
        fn waits_for_the_end_of_transactions_in_a_circle_over_nodes_have_one_victim(
            length in 2..8i32, places in prop::collection::vec(1..4usize, 8)
        ) {
            let holders: Vec<[i32; 1]> = (1..=length).map(|it| [it % length + 1]).collect();
            let lines: Vec<Line<'_>> = (1..=length)
                .map(|it| (it, Place(places[it as usize]), Transaction, &holders[it as usize - 1][..]))
                .collect();
            let is_on_one = (1..=length).all(|it| places[it as usize] == places[1]);
            let expected = if is_on_one { vec![] } else { vec![length] };
            prop_assert_eq!(victims(&look(&lines)), expected);
        }
    }
}
