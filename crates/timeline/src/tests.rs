//! Histories of several servers, and what a reader may see of them.

use super::*;

/// A timeline with its memory.
struct Owned {
    head: Head,
    flights: Vec<Flight>,
    doubts: Vec<Doubt>,
    commits: Vec<Commit>,
}

impl Owned {
    fn new(commits: usize) -> Self {
        let mut owned = Self {
            head: Head::default(),
            flights: vec![Flight::default(); 4],
            doubts: vec![Doubt::default(); 4],
            commits: vec![Commit::default(); commits],
        };
        owned.timeline().start(own(0));
        owned
    }

    fn timeline(&mut self) -> Timeline<'_> {
        Timeline::new(&mut self.head, &mut self.flights, &mut self.doubts, &mut self.commits)
    }

    fn commit(&mut self, xid: u32) -> Time {
        let time = self.timeline().begin_commit(xid, false, Time::ZERO, own(0)).unwrap();
        self.timeline().end_commit(xid, true);
        time
    }

    fn hidden(&mut self, at: Time) -> Result<Vec<u32>, Refusal> {
        let mut found = Vec::new();
        self.timeline().hidden(at, &mut |it| found.push(it.xid))?;
        found.sort_unstable();
        Ok(found)
    }

    fn answer(&mut self, at: Time) -> Answer {
        self.timeline().may_read(at, None, own(0), &mut |_| true)
    }
}

fn own(micros: i64) -> Time {
    Time::of_micros(1_000_000_000 + micros)
}

fn gid(name: &str) -> Gid {
    Gid::new(name.as_bytes()).unwrap()
}

#[test]
fn what_commits_after_a_read_has_a_later_time() {
    let mut server = Owned::new(8);
    let at = own(500_000);
    assert_eq!(server.answer(at), Answer::Ready);
    let time = server.commit(10);
    assert!(time > at);
    assert_eq!(server.hidden(at), Ok(vec![10]));
    assert_eq!(server.hidden(time), Ok(vec![]));
}

#[test]
fn what_is_committing_gets_a_time_after_the_reader_who_finds_it() {
    let mut server = Owned::new(8);
    let time = server.timeline().begin_commit(10, false, Time::ZERO, own(0)).unwrap();
    assert_eq!(server.answer(time.previous()), Answer::Ready);
    assert_eq!(server.hidden(time.previous()), Ok(vec![10]));
    assert_eq!(server.answer(time), Answer::Ready);
    assert_eq!(server.hidden(time), Ok(vec![10]));
    // Whoever has seen it commits later.
    assert_eq!(server.timeline().end_commit(10, true), Some(time.next()));
    let dependent = server.commit(11);
    assert!(dependent > time.next());
    assert_eq!(server.hidden(time), Ok(vec![10, 11]));
    assert_eq!(server.hidden(time.next()), Ok(vec![11]));
}

#[test]
fn what_is_visible_and_not_noted_yet_keeps_its_time() {
    let mut server = Owned::new(8);
    let time = server.timeline().begin_commit(10, false, Time::ZERO, own(0)).unwrap();
    assert_eq!(server.timeline().may_read(time, None, own(0), &mut |_| false), Answer::Ready);
    assert_eq!(server.hidden(time), Ok(vec![]));
    assert_eq!(server.timeline().end_commit(10, true), Some(time));
}

#[test]
fn what_its_coordinator_has_promised_to_commit_later_is_not_waited_for() {
    let mut server = Owned::new(8);
    let low = server.timeline().begin_prepare(10, false, gid("a"), Some(7), own(0)).unwrap();
    assert_eq!(server.answer(low), Answer::Wait(10));
    let except = |server: &mut Owned, coordinator| {
        server.timeline().may_read(low, Some(coordinator), own(0), &mut |_| true)
    };
    assert_eq!(except(&mut server, 8), Answer::Wait(10));
    assert_eq!(except(&mut server, 7), Answer::Ready);
    assert_eq!(server.hidden(low), Ok(vec![10]));
    let begun = server.timeline().begin_prepared(own(10));
    server.timeline().hear(low.next(), own(0)).unwrap();
    server.timeline().agree(10, low.next());
    assert_eq!(server.answer(low), Answer::Ready);
    server.timeline().end_prepared(10, Some(low.next()), true, begun);
    assert_eq!(server.hidden(low), Ok(vec![10]));
    assert_eq!(server.hidden(low.next()), Ok(vec![]));
}

#[test]
fn nobody_is_excepted_by_a_number_that_no_coordinator_has() {
    let mut server = Owned::new(8);
    let low = server.timeline().begin_prepare(10, false, gid("a"), Some(0), own(0)).unwrap();
    let answer = server.timeline().may_read(low, Some(0), own(0), &mut |_| true);
    assert_eq!(answer, Answer::Wait(10));
}

#[test]
fn a_transaction_that_was_aborted_is_neither_waited_for_nor_hidden() {
    let mut server = Owned::new(8);
    let time = server.timeline().begin_commit(10, false, Time::ZERO, own(0)).unwrap();
    server.timeline().end_commit(10, false);
    assert_eq!(server.answer(time), Answer::Ready);
    assert_eq!(server.hidden(time.previous()), Ok(vec![]));
}

#[test]
fn a_prepared_transaction_is_waited_for_until_it_has_ended_and_shows_at_the_agreed_time() {
    let mut server = Owned::new(8);
    let low = server.timeline().begin_prepare(10, true, gid("a"), Some(7), own(0)).unwrap();
    assert_eq!(server.answer(low.previous()), Answer::Ready);
    let agreed = low.next().next();
    server.timeline().hear(agreed.next(), own(0)).unwrap();
    let begun = server.timeline().begin_prepared(own(0));
    // COMMIT PREPARED may still fail.
    assert_eq!(server.answer(low), Answer::Wait(10));
    let at = server.timeline().may_read(low, None, own(0), &mut |_| false);
    assert_eq!(at, Answer::WaitForNote(10));
    server.timeline().end_prepared(10, Some(agreed), true, begun);
    assert_eq!(server.answer(low), Answer::Ready);
    assert_eq!(server.hidden(agreed.previous()), Ok(vec![10]));
    assert_eq!(server.hidden(agreed), Ok(vec![]));
}

#[test]
fn where_nobody_knows_the_agreed_time_readers_between_are_refused() {
    let mut server = Owned::new(8);
    let low = server.timeline().begin_prepare(10, false, gid("a"), Some(7), own(0)).unwrap();
    let begun = server.timeline().begin_prepared(own(10));
    server.timeline().end_prepared(10, None, false, begun);
    let now = server.timeline().clock();
    assert_eq!(server.hidden(low.previous()), Ok(vec![10]));
    assert_eq!(server.hidden(low), Err(Refusal::Unsure));
    assert_eq!(server.hidden(now.previous()), Err(Refusal::Unsure));
    assert_eq!(server.hidden(now), Ok(vec![]));
}

#[test]
fn who_knows_by_when_it_was_narrows_what_is_refused() {
    let mut server = Owned::new(8);
    let low = server.timeline().begin_prepare(10, false, gid("a"), Some(7), own(0)).unwrap();
    let by = low.next().next();
    let begun = server.timeline().begin_prepared(own(10));
    server.timeline().end_prepared(10, Some(by), false, begun);
    assert_eq!(server.hidden(low), Err(Refusal::Unsure));
    assert_eq!(server.hidden(by), Ok(vec![]));
}

#[test]
fn a_server_tells_when_a_transaction_has_committed_as_long_as_it_knows() {
    let mut server = Owned::new(2);
    let time = server.timeline().begin_commit(10, false, Time::ZERO, own(0)).unwrap();
    // It is visible before it is noted.
    assert_eq!(server.timeline().committed(10), (time, true));
    server.timeline().end_commit(10, true);
    assert_eq!(server.timeline().committed(10), (time, true));
    server.commit(11);
    server.commit(12);
    let (by, is_exact) = server.timeline().committed(10);
    assert!(!is_exact && by >= time);
    // Readers of that time are not refused.
    assert_eq!(server.hidden(by).map(|hidden| hidden.contains(&10)), Ok(false));
    server.timeline().start(own(500));
    assert_eq!(server.timeline().committed(12), (own(500), false));
}

#[test]
fn a_time_before_the_prepare_or_in_the_future_is_not_an_agreed_one() {
    for wrong in [own(0), own(900_000)] {
        let mut server = Owned::new(8);
        server.commit(9);
        let low = server.timeline().begin_prepare(10, false, gid("a"), Some(7), own(0)).unwrap();
        let begun = server.timeline().begin_prepared(own(10));
        server.timeline().end_prepared(10, Some(wrong), true, begun);
        assert_eq!(server.hidden(low), Err(Refusal::Unsure));
    }
}

#[test]
fn a_prepared_transaction_of_this_server_alone_keeps_nobody_waiting() {
    let mut server = Owned::new(8);
    let low = server.timeline().begin_prepare(10, false, gid("xa"), None, own(0)).unwrap();
    let later = low.next();
    assert_eq!(server.answer(later), Answer::Ready);
    let begun = server.timeline().begin_prepared(own(0));
    assert_eq!(server.answer(begun), Answer::Ready);
    let at = server.timeline().may_read(begun, None, own(0), &mut |_| false);
    assert_eq!(at, Answer::WaitForNote(10));
    server.timeline().end_prepared(10, None, false, begun);
    assert_eq!(server.hidden(later.previous()), Ok(vec![10]));
    assert_eq!(server.hidden(begun), Ok(vec![]));
}

#[test]
fn what_was_prepared_before_a_restart_is_waited_for_at_any_time() {
    let mut server = Owned::new(8);
    assert!(!server.timeline().knows_prepared());
    server.timeline().tell_prepared([(7, gid("old"), Some(7))].into_iter());
    server.timeline().tell_prepared([(8, gid("gone"), Some(7))].into_iter());
    assert_eq!(server.timeline().prepared(&gid("gone")), None);
    assert_eq!(server.timeline().prepared(&gid("old")), Some(7));
    assert_eq!(server.answer(own(0)), Answer::Wait(7));
    server.timeline().forget(7);
    assert_eq!(server.answer(own(0)), Answer::Ready);
}

#[test]
fn times_before_the_start_are_refused() {
    let mut server = Owned::new(8);
    assert_eq!(server.answer(own(0).previous()), Answer::Refused(Refusal::TooOld));
    assert_eq!(server.answer(own(0)), Answer::Ready);
}

#[test]
fn what_has_left_the_ring_cannot_be_hidden() {
    let mut server = Owned::new(2);
    let first = server.commit(10);
    let second = server.commit(11);
    assert_eq!(server.hidden(first.previous()), Ok(vec![10, 11]));
    server.commit(12);
    assert_eq!(server.hidden(first.previous()), Err(Refusal::TooOld));
    assert_eq!(server.answer(first.previous()), Answer::Refused(Refusal::TooOld));
    assert_eq!(server.hidden(first), Ok(vec![11, 12]));
    assert_eq!(server.hidden(second), Ok(vec![12]));
}

#[test]
fn nobody_pushes_the_clock_far() {
    let mut server = Owned::new(2);
    let before = server.timeline().clock();
    assert_eq!(server.answer(own(2_000_000)), Answer::TooEarly);
    assert_eq!(server.answer(own(600_000_000)), Answer::Refused(Refusal::TooFar));
    assert_eq!(server.timeline().clock(), before);
    assert_eq!(server.answer(own(900_000)), Answer::Ready);
}

#[test]
fn there_is_room_for_so_many_and_no_more() {
    let mut server = Owned::new(2);
    for xid in 0..4 {
        assert!(server.timeline().begin_commit(xid, false, Time::ZERO, own(0)).is_some());
        assert!(
            server.timeline().begin_prepare(9 + xid, false, gid("x"), Some(7), own(0)).is_some()
        );
    }
    assert!(server.timeline().begin_commit(5, false, Time::ZERO, own(0)).is_none());
    assert!(server.timeline().begin_prepare(20, false, gid("x"), Some(7), own(0)).is_none());
    assert!(Gid::new(&[b'x'; 201]).is_none());
}
