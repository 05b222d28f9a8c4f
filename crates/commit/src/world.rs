//! A world for the protocol: servers that keep what PostgreSQL keeps, and everything that can go wrong with them.
//!
//! A run is told by its choices: whose answer comes next, who crashes before or after it has done what it was told, when
//! somebody else ends what is prepared. The tests run all choices of small transactions, and random ones of larger.

use crate::{
    Anchor, Cause, Command, Event, Outcome, Part, Participant, Protocol, State, Transaction,
    Verdict, verdict,
};
use proptest::prelude::*;

/// What a server keeps of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// Lost with its session.
    Active,
    Prepared,
    Committed,
    Aborted,
}

/// Where choices come from.
struct Choices {
    path: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    fn choose(&mut self, from: usize) -> usize {
        if from <= 1 {
            return 0;
        }
        if self.at == self.path.len() {
            self.path.push((0, from));
        }
        let (choice, arity) = &mut self.path[self.at];
        *arity = from;
        *choice %= from;
        self.at += 1;
        *choice
    }

    /// Moves to the next path; false if there is none.
    fn advance(&mut self) -> bool {
        self.path.truncate(self.at);
        self.at = 0;
        while let Some((choice, arity)) = self.path.pop() {
            if choice + 1 < arity {
                self.path.push((choice + 1, arity));
                return true;
            }
        }
        false
    }
}

struct World<'a> {
    choices: &'a mut Choices,
    transaction: Transaction,
    anchor: Anchor,
    kept: Vec<Kept>,
    connected: Vec<bool>,
    here: Kept,
    marked: Vec<usize>,
    left: Vec<usize>,
    waiting: Vec<Command>,
    /// How much may still go wrong.
    faults: usize,
}

fn who(command: &Command) -> Option<usize> {
    match command {
        Command::Prepare { who }
        | Command::Commit { who, .. }
        | Command::CommitPrepared { who, .. }
        | Command::RollBackPrepared { who } => Some(*who),
        _ => None,
    }
}

/// It is carried out over whatever connection there is.
fn is_of_prepared(command: &Command) -> bool {
    matches!(command, Command::CommitPrepared { .. } | Command::RollBackPrepared { .. })
}

impl World<'_> {
    /// Runs to the end; what the client is told, unless the coordinator has crashed.
    fn run(&mut self) -> Option<Outcome> {
        let (mut protocol, commands) = Protocol::begin(self.transaction.clone(), self.anchor);
        self.waiting = commands;
        while !self.waiting.is_empty() {
            self.others_act();
            let at = self.choices.choose(self.waiting.len());
            let command = self.waiting.remove(at);
            if self.fault(|_| true) {
                self.crash_here(&command);
                return None;
            }
            if protocol.may_stop() && self.fault(|_| true) {
                let more = protocol.on(Event::Stop);
                self.waiting.extend(more);
                if matches!(command, Command::DecideHere { .. }) {
                    continue;
                }
            }
            if let Some(event) = self.carry_out(&command) {
                let more = protocol.on(event);
                self.waiting.extend(more);
            }
        }
        let outcome = protocol.outcome();
        assert!(outcome.is_some(), "the protocol has come to an end");
        self.crash_sessions();
        outcome
    }

    /// Something goes wrong now, if it may.
    fn fault(&mut self, may: impl Fn(&Self) -> bool) -> bool {
        if self.faults == 0 || !may(self) || self.choices.choose(2) == 0 {
            return false;
        }
        self.faults -= 1;
        true
    }

    fn crash(&mut self, node: usize) {
        self.connected[node] = false;
        if self.kept[node] == Kept::Active {
            self.kept[node] = Kept::Aborted;
        }
    }

    fn crash_sessions(&mut self) {
        for node in 0..self.kept.len() {
            self.crash(node);
        }
        if self.here == Kept::Active {
            self.here = Kept::Aborted;
        }
    }

    /// The coordinator crashes. What it has told nodes may still be done.
    fn crash_here(&mut self, command: &Command) {
        let mut all = std::mem::take(&mut self.waiting);
        all.push(command.clone());
        for command in all {
            if self.choices.choose(2) == 1 {
                match command {
                    Command::DecideHere { .. } if !self.transaction.by_client => {
                        self.here = Kept::Committed;
                    }
                    _ => {
                        if let Some(node) = who(&command)
                            && (self.connected[node] || is_of_prepared(&command))
                        {
                            self.execute(node, &command);
                        }
                    }
                }
            }
        }
        self.crash_sessions();
    }

    /// A node crashes while nobody speaks to it, or somebody else ends what is prepared.
    fn others_act(&mut self) {
        for node in 0..self.kept.len() {
            if self.kept[node] == Kept::Active && self.connected[node] && self.fault(|_| true) {
                self.crash(node);
            }
            if self.kept[node] == Kept::Prepared && self.fault(|_| true) {
                self.resolve(node);
            }
        }
    }

    fn resolve(&mut self, node: usize) {
        match verdict(self.state_of_anchor()) {
            Verdict::Commit => self.kept[node] = Kept::Committed,
            Verdict::RollBack => self.kept[node] = Kept::Aborted,
            Verdict::Wait => {}
        }
    }

    fn state_of_anchor(&self) -> State {
        let kept = match self.anchor {
            Anchor::Here => self.here,
            Anchor::Participant(who) => self.kept[who],
            Anchor::Nobody => Kept::Active,
        };
        match kept {
            Kept::Active | Kept::Prepared => State::UnderWay,
            Kept::Committed => State::Ended { has_row: true },
            Kept::Aborted => State::Ended { has_row: false },
        }
    }

    /// What a node does that is told this; false if it says no.
    fn execute(&mut self, node: usize, command: &Command) -> bool {
        let kept = &mut self.kept[node];
        let next = match (command, *kept) {
            (Command::Prepare { .. }, Kept::Active) => Kept::Prepared,
            (Command::Commit { .. }, Kept::Active)
            | (Command::CommitPrepared { .. }, Kept::Prepared) => Kept::Committed,
            (Command::RollBackPrepared { .. }, Kept::Prepared) => Kept::Aborted,
            (Command::CommitPrepared { .. }, _) => {
                assert_ne!(*kept, Kept::Aborted, "it was decided to commit it");
                return false;
            }
            (Command::RollBackPrepared { .. }, _) => {
                assert_ne!(*kept, Kept::Committed, "it was decided to roll it back");
                return false;
            }
            (command, kept) => panic!("{command:?} of what is {kept:?}"),
        };
        *kept = next;
        true
    }

    fn carry_out(&mut self, command: &Command) -> Option<Event> {
        if let Some(who) = who(command) {
            return Some(self.tell(who, command));
        }
        match command {
            Command::Mark { whom } => {
                if self.fault(|_| true) {
                    return Some(Event::Marked(false));
                }
                self.marked.extend(whom);
                Some(Event::Marked(true))
            }
            Command::Ask { .. } => {
                let answer = match self.state_of_anchor() {
                    State::Ended { has_row } => Some(has_row),
                    State::UnderWay | State::Unknown => None,
                };
                Some(Event::Told(answer.filter(|_| !self.fault(|_| true))))
            }
            Command::DecideHere { .. } => {
                let commits = !self.fault(|_| true);
                self.here = if commits { Kept::Committed } else { Kept::Aborted };
                Some(Event::DecidedHere(commits))
            }
            Command::LeaveBehind { who } => {
                self.left.push(*who);
                None
            }
            _ => unreachable!("it is for a participant"),
        }
    }

    fn tell(&mut self, who: usize, command: &Command) -> Event {
        if !self.connected[who] && !is_of_prepared(command) {
            return Event::Lost { who };
        }
        if self.fault(|_| true) {
            // It crashes, or is not heard any more.
            let does_it = self.choices.choose(2) == 1;
            if does_it {
                self.execute(who, command);
            }
            self.crash(who);
            return Event::Lost { who };
        }
        if self.kept[who] == Kept::Active && self.fault(|_| true) {
            self.kept[who] = Kept::Aborted;
            return Event::Refused { who };
        }
        match (self.execute(who, command), command) {
            (false, _) => Event::Refused { who },
            (true, Command::Prepare { .. }) => Event::Prepared { who, clock: None },
            (true, _) => Event::Ended { who },
        }
    }

    /// Everybody is up again: whoever looks ends everything, and then all is as it must be.
    fn check(&mut self, told: Option<Outcome>) {
        for node in 0..self.kept.len() {
            if self.kept[node] == Kept::Prepared {
                assert!(
                    told.is_none() || self.left.contains(&node),
                    "somebody is told of what is left on {node}"
                );
                self.resolve(node);
            }
            assert_ne!(self.kept[node], Kept::Prepared, "nothing stays in doubt");
        }
        let wrote = |node: &usize| self.transaction.participants[*node].part == Part::Wrote;
        let writers: Vec<usize> = (0..self.kept.len()).filter(wrote).collect();
        let committed = |node: &usize| self.kept[*node] == Kept::Committed;
        let is_here = self.anchor == Anchor::Here;
        let all = writers.iter().all(|node| committed(node) || self.marked.contains(node))
            && (!is_here || self.here == Kept::Committed);
        let none = !writers.iter().any(committed) && (!is_here || self.here == Kept::Aborted);
        assert!(all || none, "all or nothing");
        match told {
            Some(Outcome::Committed) => assert!(all, "the client was told that it is committed"),
            Some(Outcome::Aborted(_)) => assert!(none, "the client was told an error"),
            Some(Outcome::Unknown(_)) | None => {}
        }
        for shard in self.transaction.participants.iter().flat_map(|known| &known.shards) {
            let has_healthy = writers.iter().any(|node| {
                self.transaction.participants[*node].shards.contains(shard)
                    && !self.marked.contains(node)
            });
            assert!(has_healthy, "a placement of shard {shard} is left");
        }
    }
}

fn run(transaction: &Transaction, faults: usize, choices: &mut Choices) -> Option<Outcome> {
    let nodes = transaction.participants.len();
    let mut world = World {
        choices,
        transaction: transaction.clone(),
        anchor: transaction.anchor(),
        kept: vec![Kept::Active; nodes],
        connected: vec![true; nodes],
        here: Kept::Active,
        marked: Vec::new(),
        left: Vec::new(),
        waiting: Vec::new(),
        faults,
    };
    let told = world.run();
    world.check(told);
    told
}

fn wrote(shards: &[u64], has_evidence: bool) -> Participant {
    Participant { part: Part::Wrote, shards: shards.to_vec(), has_evidence }
}

fn reader(part: Part) -> Participant {
    Participant { part, shards: Vec::new(), has_evidence: false }
}

fn transaction(participants: Vec<Participant>) -> Transaction {
    Transaction { participants, wrote_here: false, readers_may_refuse: false, by_client: false }
}

/// Transactions small enough for every order of events.
fn small() -> Vec<Transaction> {
    let mut all = vec![
        transaction(vec![wrote(&[1], false)]),
        transaction(vec![wrote(&[1], false), reader(Part::Read)]),
        transaction(vec![wrote(&[1], true), wrote(&[2], true)]),
        transaction(vec![wrote(&[1], true), wrote(&[2], false), wrote(&[3], false)]),
        transaction(vec![wrote(&[1], false), wrote(&[2], true), reader(Part::Locked)]),
        // Two placements of each shard: one can be lost.
        transaction(vec![wrote(&[1], true), wrote(&[1], true)]),
        transaction(vec![wrote(&[1, 2], true), wrote(&[1], false), wrote(&[2], false)]),
    ];
    let mut here = transaction(vec![wrote(&[1], false)]);
    here.wrote_here = true;
    all.push(here);
    let mut both = transaction(vec![wrote(&[1], true), wrote(&[2], true)]);
    both.wrote_here = true;
    all.push(both);
    let mut serializable =
        transaction(vec![wrote(&[1], true), wrote(&[2], true), reader(Part::Read)]);
    serializable.readers_may_refuse = true;
    all.push(serializable);
    all
}

#[test]
fn every_order_of_events_with_two_faults_anywhere_ends_whole_and_with_a_true_answer() {
    let mut runs = 0usize;
    for transaction in small() {
        let mut choices = Choices { path: Vec::new(), at: 0 };
        loop {
            run(&transaction, 2, &mut choices);
            runs += 1;
            if !choices.advance() {
                break;
            }
        }
    }
    assert!(runs > 10_000, "{runs} runs");
}

#[test]
fn without_faults_the_answer_is_success_and_nobody_is_left_behind() {
    for transaction in small() {
        let mut choices = Choices { path: Vec::new(), at: 0 };
        loop {
            assert_eq!(run(&transaction, 0, &mut choices), Some(Outcome::Committed));
            if !choices.advance() {
                break;
            }
        }
    }
}

#[test]
fn one_participant_that_has_written_commits_in_one_step() {
    let transaction =
        transaction(vec![reader(Part::Read), wrote(&[1], false), reader(Part::Locked)]);
    let (mut protocol, commands) = Protocol::begin(transaction.clone(), transaction.anchor());
    let commit = |who| Command::Commit { who, decides: false, at: None };
    assert_eq!(commands, [commit(0), commit(1), commit(2)]);
    for who in [2, 1, 0] {
        assert_eq!(protocol.on(Event::Ended { who }), []);
    }
    assert_eq!(protocol.outcome(), Some(Outcome::Committed));
}

#[test]
fn what_is_only_locked_elsewhere_stays_locked_until_this_server_has_committed() {
    let mut transaction = transaction(vec![reader(Part::Locked)]);
    transaction.wrote_here = true;
    let (mut protocol, commands) = Protocol::begin(transaction.clone(), transaction.anchor());
    assert_eq!(commands, [Command::DecideHere { at: None }]);
    let after = protocol.on(Event::DecidedHere(true));
    assert!(matches!(after[..], [Command::Commit { who: 0, decides: false, .. }]), "{after:?}");
}

#[test]
fn the_anchor_commits_alone_and_at_the_latest_moment_at_which_somebody_has_prepared() {
    let transaction = transaction(vec![wrote(&[1], false), wrote(&[2], true), wrote(&[3], false)]);
    let (mut protocol, commands) = Protocol::begin(transaction.clone(), transaction.anchor());
    assert_eq!(commands, [Command::Prepare { who: 0 }, Command::Prepare { who: 2 }]);
    assert_eq!(protocol.on(Event::Prepared { who: 2, clock: Some(9) }), []);
    assert_eq!(
        protocol.on(Event::Prepared { who: 0, clock: Some(7) }),
        [Command::Commit { who: 1, decides: true, at: Some(9) }]
    );
    assert_eq!(
        protocol.on(Event::Ended { who: 1 }),
        [0, 2].map(|who| Command::CommitPrepared { who, at: Some(9) })
    );
}

#[test]
fn a_stop_before_the_decision_rolls_back_what_is_prepared() {
    let transaction = transaction(vec![wrote(&[1], false), wrote(&[2], true), wrote(&[3], false)]);
    let (mut protocol, _) = Protocol::begin(transaction.clone(), transaction.anchor());
    assert_eq!(protocol.on(Event::Prepared { who: 0, clock: None }), []);
    assert_eq!(protocol.on(Event::Stop), []);
    assert_eq!(
        protocol.on(Event::Prepared { who: 2, clock: None }),
        [0, 2].map(|who| Command::RollBackPrepared { who })
    );
    assert_eq!(protocol.outcome(), Some(Outcome::Aborted(Cause::Stopped)));
}

fn any_transaction() -> impl Strategy<Value = Transaction> {
    let part = prop_oneof![
        4 => Just(Part::Wrote),
        1 => Just(Part::Read),
        1 => Just(Part::Locked)
    ];
    let participant = (part, proptest::collection::btree_set(1u64..4, 1..3), any::<bool>())
        .prop_map(|(part, shards, has_evidence)| Participant {
            part,
            shards: if part == Part::Wrote { shards.into_iter().collect() } else { Vec::new() },
            has_evidence,
        });
    (proptest::collection::vec(participant, 1..6), any::<bool>(), any::<bool>()).prop_map(
        |(participants, wrote_here, readers_may_refuse)| Transaction {
            participants,
            wrote_here,
            readers_may_refuse,
            by_client: false,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_transaction_with_any_faults_ends_whole_and_with_a_true_answer(
        transaction in any_transaction(),
        faults in 0usize..6,
        choices in proptest::collection::vec(0usize..12, 0..80),
    ) {
        let path = choices.into_iter().map(|choice| (choice, usize::MAX)).collect();
        run(&transaction, faults, &mut Choices { path, at: 0 });
    }
}
