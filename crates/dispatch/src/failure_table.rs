//! The rows of `docs/explanation/failures.md` that are about reading, each as what happens and what is done.

use crate::assignment::{Parts, Unreadable, assign};
use crate::read::{
    AtOneTime, Attempts, Interruption, Opening, Progress, Recovery, Retry, SendFailure, Times,
    Unopened,
};

/// Shard `n` lies on node `n`, which leads, and on node `n + 1`.
fn nodes(shard: usize) -> Vec<usize> {
    vec![shard, shard + 1]
}

/// The next round of a read in which no node is silent.
fn next(opening: &mut Opening<usize>) -> Result<Option<Parts<usize>>, Unopened<Unreadable>> {
    opening.next(|shards, avoid| assign(shards, nodes, avoid, &[]))
}

#[test]
fn a_worker_that_cannot_be_reached_is_replaced_by_other_placements() {
    let mut opening = Opening::new(&[1, 2], Vec::new());
    assert_eq!(next(&mut opening), Ok(Some(vec![(1, vec![1]), (2, vec![2])])));
    opening.on_unreachable(1, &[1], false);
    assert_eq!(next(&mut opening), Ok(Some(vec![(2, vec![1])])));
    assert_eq!(next(&mut opening), Ok(None));
}

#[test]
fn a_read_fails_when_no_placement_is_left() {
    let mut opening = Opening::new(&[1], Vec::new());
    next(&mut opening).expect("both nodes are there");
    opening.on_unreachable(1, &[1], false);
    next(&mut opening).expect("the other node is there");
    opening.on_unreachable(2, &[1], false);
    assert_eq!(next(&mut opening), Err(Unopened::Unreadable(Unreadable { shard: 1 })));
}

#[test]
fn what_this_server_has_refused_says_more_than_that_no_placement_is_left() {
    let mut opening = Opening::new(&[1], vec![2]);
    next(&mut opening).expect("one node is there");
    opening.on_unreachable(1, &[1], true);
    assert_eq!(next(&mut opening), Err(Unopened::RefusedHere));
}

#[test]
fn all_nodes_that_fail_in_one_round_are_replaced_in_the_next() {
    let mut opening = Opening::new(&[1, 3], Vec::new());
    next(&mut opening).expect("all nodes are there");
    opening.on_unreachable(1, &[1], false);
    opening.on_unreachable(3, &[3], false);
    assert_eq!(next(&mut opening), Ok(Some(vec![(2, vec![1]), (4, vec![3])])));
}

#[test]
fn a_connection_that_was_closed_while_it_was_idle_is_replaced_once() {
    let mut attempts = Attempts::default();
    assert_eq!(attempts.on(SendFailure::Lost { had_transaction: false }), Retry::SendAgain);
    assert_eq!(attempts.on(SendFailure::Lost { had_transaction: false }), Retry::AskOthers);
}

#[test]
fn a_transaction_that_is_lost_with_its_connection_is_not_begun_again() {
    assert_eq!(
        Attempts::default().on(SendFailure::Lost { had_transaction: true }),
        Retry::AskOthers
    );
}

#[test]
fn a_node_that_rejects_is_no_node_that_is_gone() {
    assert_eq!(Attempts::default().on(SendFailure::Rejected), Retry::Fail);
    assert_eq!(Attempts::default().on(SendFailure::Unreachable), Retry::AskOthers);
    assert_eq!(Attempts::default().on(SendFailure::RefusedHere), Retry::AskOthers);
    assert_eq!(Attempts::default().on(SendFailure::LostInPreparation), Retry::AskOthers);
}

#[test]
fn a_snapshot_that_had_answered_cannot_be_had_again() {
    assert_eq!(Attempts::default().on(SendFailure::Torn), Retry::FailTorn);
    let torn = Progress { is_torn: true, ..Progress::default() };
    assert_eq!(torn.recovery(Interruption::Lost), Recovery::FailInTheMiddle);
}

#[test]
fn a_node_that_is_lost_before_it_delivered_a_row_is_asked_again() {
    let recovery = Progress::default().recovery(Interruption::Lost);
    assert_eq!(recovery, Recovery::AskAgainUnlessSilent);
    assert!(recovery.asks_again(|| false));
}

#[test]
fn a_node_from_which_nobody_hears_is_not_asked_again() {
    let recovery = Progress::default().recovery(Interruption::Lost);
    assert!(!recovery.asks_again(|| true));
}

#[test]
fn a_read_whose_rows_have_been_delivered_is_never_short() {
    let delivered = Progress { has_rows: true, ..Progress::default() };
    let recovery = delivered.recovery(Interruption::Lost);
    assert_eq!(recovery, Recovery::FailInTheMiddle);
    assert!(!recovery.asks_again(|| false));
}

#[test]
fn a_cursor_that_has_been_opened_shows_the_moment_of_its_opening_or_fails() {
    let opened = Progress { is_settled: true, ..Progress::default() };
    assert_eq!(opened.recovery(Interruption::Lost), Recovery::FailInTheMiddle);
}

#[test]
fn a_statement_that_the_node_has_forgotten_is_prepared_again_unless_rows_have_come() {
    let afresh = Progress { is_afresh: true, ..Progress::default() };
    let recovery = afresh.recovery(Interruption::StaleStatement);
    assert_eq!(recovery, Recovery::AskAgain);
    // The node has answered: it is not silent.
    assert!(recovery.asks_again(|| true));
    let delivered = Progress { has_rows: true, ..afresh };
    assert_eq!(delivered.recovery(Interruption::StaleStatement), Recovery::Fail);
}

#[test]
fn a_transaction_that_the_error_has_aborted_is_not_gone_on_with() {
    let in_transaction = Progress { is_afresh: false, ..Progress::default() };
    assert_eq!(in_transaction.recovery(Interruption::StaleStatement), Recovery::Fail);
}

#[test]
fn an_error_of_a_node_is_the_statements_error() {
    for is_afresh in [false, true] {
        let progress = Progress { is_afresh, ..Progress::default() };
        assert_eq!(progress.recovery(Interruption::Error), Recovery::Fail);
    }
}

const READ: AtOneTime = AtOneTime {
    has_time: true,
    is_kept: false,
    has_yielded: false,
    is_settled: false,
    can_be_undone: false,
};

#[test]
fn a_time_that_a_node_refuses_is_followed_by_a_later_one_seven_times() {
    let mut times = Times::default();
    let tried = (0..10).filter(|_| times.on_refused(READ, || true)).count();
    assert_eq!((tried, times.refused()), (7, 10));
}

#[test]
fn a_read_of_which_something_was_seen_stays_at_its_time() {
    for read in [
        AtOneTime { has_yielded: true, ..READ },
        AtOneTime { is_settled: true, ..READ },
        AtOneTime { has_time: false, ..READ },
    ] {
        assert!(!Times::default().on_refused(read, || true), "{read:?}");
    }
}

#[test]
fn a_transaction_that_has_done_something_on_a_node_stays_at_its_time() {
    assert!(!Times::default().on_refused(READ, || false));
}

#[test]
fn parts_of_a_statement_that_have_one_time_stay_at_it() {
    let kept = AtOneTime { is_kept: true, ..READ };
    assert!(!Times::default().on_refused(kept, || true));
}

#[test]
fn a_read_that_locks_rows_is_undone_and_repeated_if_it_was_the_first() {
    let first = AtOneTime { can_be_undone: true, ..READ };
    assert!(Times::default().on_refused(first, || false));
}
