//! The protocol as a state machine.

use std::collections::HashSet;

/// A moment of the cluster's clock, if nodes tell it: a commit is not before any of its participants' prepares.
pub type Stamp = u64;

/// What a participant has done in the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It was only read.
    Read,
    /// It holds locks on rows, which it keeps until the decision.
    Locked,
    /// It has changed something.
    Wrote,
}

/// A session that is in the transaction.
#[derive(Clone, Debug)]
pub struct Participant {
    /// What it has done.
    pub part: Part,
    /// The shards that it has written.
    pub shards: Vec<u64>,
    /// Its transaction has written evidence, so that it can be the anchor.
    pub has_evidence: bool,
}

/// What is to be committed.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Who takes part, besides the coordinator's own server.
    pub participants: Vec<Participant>,
    /// The coordinator's own server has written something.
    pub wrote_here: bool,
    /// Also who was only read may refuse, and must have agreed before the decision.
    pub readers_may_refuse: bool,
    /// The client prepares the transaction and will decide later.
    pub by_client: bool,
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Nobody need decide: at most one participant has written.
    Nobody,
    /// The coordinator's own server, by its local transaction.
    Here,
    /// A participant, by its number.
    Participant(usize),
}

impl Transaction {
    /// Chooses who decides.
    ///
    /// Where a shard has been written on several participants it is the coordinator's own server: if one of them is lost the
    /// others can go on, which they cannot without the anchor.
    pub fn anchor(&self) -> Anchor {
        let writers =
            || self.participants.iter().enumerate().filter(|(_, known)| known.part == Part::Wrote);
        if self.by_client {
            return Anchor::Here;
        }
        match writers().count() {
            // What has been locked there, and relied upon here, stays locked until others see what has been written here.
            0 if self.wrote_here && self.participants.iter().any(|it| it.part == Part::Locked) => {
                return Anchor::Here;
            }
            0 => return Anchor::Nobody,
            1 if !self.wrote_here => return Anchor::Nobody,
            _ if self.wrote_here || self.has_copies() => return Anchor::Here,
            _ => {}
        }
        writers()
            .filter(|(_, known)| known.has_evidence)
            .max_by_key(|(_, known)| known.shards.len())
            .map_or(Anchor::Here, |(who, _)| Anchor::Participant(who))
    }

    /// A shard has been written on several participants.
    fn has_copies(&self) -> bool {
        let mut seen = HashSet::new();
        let mut shards = self.participants.iter().flat_map(|known| &known.shards);
        shards.any(|shard| !seen.insert(shard))
    }
}

/// What the coordinator is to do. Commands that are given together are carried out together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// PREPARE TRANSACTION.
    Prepare {
        /// The participant.
        who: usize,
    },
    /// COMMIT.
    Commit {
        /// The participant.
        who: usize,
        /// It decides: the commit must be durable.
        decides: bool,
        /// When the transaction commits.
        at: Option<Stamp>,
    },
    /// COMMIT PREPARED.
    CommitPrepared {
        /// The participant.
        who: usize,
        /// When the transaction commits.
        at: Option<Stamp>,
    },
    /// ROLLBACK PREPARED.
    RollBackPrepared {
        /// The participant.
        who: usize,
    },
    /// Marks what these participants have written, so that nobody reads it there.
    Mark {
        /// The participants.
        whom: Vec<usize>,
    },
    /// The anchor was lost in its commit: ask its server what became of it.
    Ask {
        /// The participant.
        who: usize,
    },
    /// The coordinator's own server commits, which decides.
    DecideHere {
        /// When the transaction commits.
        at: Option<Stamp>,
    },
    /// Somebody else has to end what the participant has prepared.
    LeaveBehind {
        /// The participant.
        who: usize,
    },
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The participant has prepared.
    Prepared {
        /// The participant.
        who: usize,
        /// When, by its clock.
        clock: Option<Stamp>,
    },
    /// It has committed, or has ended what it had prepared.
    Ended {
        /// The participant.
        who: usize,
    },
    /// It has said no. What it has not prepared it has rolled back.
    Refused {
        /// The participant.
        who: usize,
    },
    /// Nobody knows whether it has done what it was told last.
    Lost {
        /// The participant.
        who: usize,
    },
    /// The marks are written, or one could not be.
    Marked(bool),
    /// What the anchor's server says: it has committed or not, or cannot be asked.
    Told(Option<bool>),
    /// The local transaction has committed or not.
    DecidedHere(bool),
    /// The client, or the server, wants the transaction to end without a commit.
    Stop,
}

/// Why nothing is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A participant has said no.
    Refused(usize),
    /// A participant was lost, and with it what it had written.
    Lost(usize),
    /// A lost placement could not be marked.
    NotMarked,
    /// Somebody wanted it so.
    Stopped,
    /// The local transaction has failed.
    Here,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is committed, or will be.
    Committed,
    /// Nothing is committed, and nothing will be.
    Aborted(Cause),
    /// One or the other. The participant that knows could not be asked.
    Unknown(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// In the transaction.
    Open,
    /// Something is under way there.
    Busy,
    Prepared,
    Over,
    /// It may have prepared.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Prepare,
    Mark,
    Decide,
    Finish,
    Done,
}

/// The commit of one transaction.
#[derive(Clone, Debug)]
pub struct Protocol {
    transaction: Transaction,
    anchor: Anchor,
    status: Vec<Status>,
    stage: Stage,
    at: Option<Stamp>,
    cause: Option<Cause>,
    outcome: Option<Outcome>,
}

impl Protocol {
    /// Begins; the first commands.
    pub fn begin(transaction: Transaction, anchor: Anchor) -> (Self, Vec<Command>) {
        let status = vec![Status::Open; transaction.participants.len()];
        let mut this = Self {
            transaction,
            anchor,
            status,
            stage: Stage::Prepare,
            at: None,
            cause: None,
            outcome: None,
        };
        let mut commands = Vec::new();
        for who in 0..this.status.len() {
            match this.part(who) {
                _ if this.prepares(who) => commands.push(Command::Prepare { who }),
                // Where nobody can refuse they end with the only writer.
                Part::Read if anchor != Anchor::Nobody || this.transaction.readers_may_refuse => {
                    commands.push(Command::Commit { who, decides: false, at: None });
                }
                _ => continue,
            }
            this.status[who] = Status::Busy;
        }
        if commands.is_empty() {
            commands = this.prepared();
        }
        (this, commands)
    }

    /// How it has ended, if it has.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Who decides.
    pub fn anchor(&self) -> Anchor {
        self.anchor
    }

    /// Nothing is decided yet: it may still be stopped.
    pub fn may_stop(&self) -> bool {
        matches!(self.stage, Stage::Prepare | Stage::Mark)
            || self.stage == Stage::Decide && self.anchor == Anchor::Here
    }

    /// Takes an event; the commands that follow from it.
    pub fn on(&mut self, event: Event) -> Vec<Command> {
        match event {
            Event::Prepared { who, clock } => {
                self.status[who] = Status::Prepared;
                self.at = self.at.max(clock);
            }
            Event::Ended { who } => self.status[who] = Status::Over,
            Event::Refused { who } => self.refused(who),
            Event::Lost { who } => self.lost(who),
            Event::Marked(true) | Event::DecidedHere(true) | Event::Told(Some(true)) => {}
            Event::Marked(false) => self.cause = Some(Cause::NotMarked),
            Event::DecidedHere(false) => self.cause = Some(Cause::Here),
            Event::Told(Some(false)) => self.cause = self.anchor_number().map(Cause::Lost),
            Event::Told(None) => self.outcome = self.anchor_number().map(Outcome::Unknown),
            Event::Stop => {
                self.cause.get_or_insert(Cause::Stopped);
            }
        }
        if self.status.contains(&Status::Busy) {
            return Vec::new();
        }
        match self.stage {
            Stage::Prepare => self.prepared(),
            Stage::Mark => self.decide(),
            Stage::Decide => self.decided(event),
            Stage::Finish => self.finished(),
            Stage::Done => Vec::new(),
        }
    }

    fn part(&self, who: usize) -> Part {
        self.transaction.participants[who].part
    }

    fn anchor_number(&self) -> Option<usize> {
        match self.anchor {
            Anchor::Participant(who) => Some(who),
            Anchor::Here => None,
            Anchor::Nobody => (0..self.status.len()).find(|who| self.part(*who) == Part::Wrote),
        }
    }

    fn refused(&mut self, who: usize) {
        // Whoever refuses to end what it has prepared is ended by somebody else.
        let keeps = self.stage == Stage::Finish && self.prepares(who);
        self.status[who] = if keeps { Status::Lost } else { Status::Over };
        if self.stage != Stage::Finish && (self.prepares(who) || self.matters(who)) {
            self.cause.get_or_insert(Cause::Refused(who));
        }
    }

    fn lost(&mut self, who: usize) {
        let may_be_prepared = self.stage != Stage::Decide && self.prepares(who);
        self.status[who] = if may_be_prepared { Status::Lost } else { Status::Over };
        if self.stage == Stage::Prepare && !self.prepares(who) && self.matters(who) {
            self.cause.get_or_insert(Cause::Lost(who));
        }
        if self.anchor == Anchor::Nobody && self.part(who) == Part::Wrote {
            self.outcome = Some(Outcome::Unknown(who));
        }
    }

    /// It takes part in two phases. A client that decides later keeps its locks until then.
    fn prepares(&self, who: usize) -> bool {
        match self.part(who) {
            Part::Wrote => self.anchor != Anchor::Nobody && self.anchor != Anchor::Participant(who),
            Part::Locked => self.transaction.by_client,
            Part::Read => false,
        }
    }

    /// Its commit may fail, and then nothing is committed.
    fn matters(&self, who: usize) -> bool {
        self.part(who) == Part::Wrote
            || self.transaction.readers_may_refuse && self.stage == Stage::Prepare
    }

    /// Everybody has answered who was to prepare.
    fn prepared(&mut self) -> Vec<Command> {
        if self.cause.is_some() {
            return self.abort();
        }
        let lost: Vec<usize> =
            (0..self.status.len()).filter(|who| self.status[*who] == Status::Lost).collect();
        if lost.is_empty() {
            return self.decide();
        }
        if let Some(who) = lost.iter().find(|who| !self.is_kept_elsewhere(**who)) {
            self.cause = Some(Cause::Lost(*who));
            return self.abort();
        }
        self.stage = Stage::Mark;
        vec![Command::Mark { whom: lost }]
    }

    /// Each shard that it has written is written by another that has prepared.
    fn is_kept_elsewhere(&self, who: usize) -> bool {
        let shards = &self.transaction.participants[who].shards;
        !shards.is_empty()
            && shards.iter().all(|shard| {
                (0..self.status.len()).any(|other| {
                    self.status[other] == Status::Prepared
                        && self.transaction.participants[other].shards.contains(shard)
                })
            })
    }

    fn decide(&mut self) -> Vec<Command> {
        if self.cause.is_some() {
            return self.abort();
        }
        self.stage = Stage::Decide;
        match self.anchor {
            Anchor::Here => vec![Command::DecideHere { at: self.at }],
            Anchor::Participant(who) => {
                self.status[who] = Status::Busy;
                vec![Command::Commit { who, decides: true, at: self.at }]
            }
            Anchor::Nobody => {
                // All that is left: the only one that has written, if there is one, and those that have not.
                let left: Vec<usize> = (0..self.status.len())
                    .filter(|who| self.status[*who] == Status::Open)
                    .collect();
                if left.is_empty() {
                    return self.finished();
                }
                for who in &left {
                    self.status[*who] = Status::Busy;
                }
                let commit = |who| Command::Commit { who, decides: false, at: self.at };
                left.into_iter().map(commit).collect()
            }
        }
    }

    fn decided(&mut self, event: Event) -> Vec<Command> {
        if let Some(Outcome::Unknown(_)) = self.outcome {
            return self.leave();
        }
        if self.cause.is_some() {
            return self.abort();
        }
        match (self.anchor, event) {
            (Anchor::Participant(anchor), Event::Lost { who }) if who == anchor => {
                vec![Command::Ask { who }]
            }
            (Anchor::Nobody, _) => self.finished(),
            _ => self.commit_rest(),
        }
    }

    /// It is decided that all commit.
    fn commit_rest(&mut self) -> Vec<Command> {
        self.stage = Stage::Finish;
        self.outcome = Some(Outcome::Committed);
        let mut commands = Vec::new();
        for who in 0..self.status.len() {
            match self.status[who] {
                Status::Prepared => {
                    commands.push(Command::CommitPrepared { who, at: self.at });
                    self.status[who] = Status::Busy;
                }
                Status::Open => {
                    commands.push(Command::Commit { who, decides: false, at: self.at });
                    self.status[who] = Status::Busy;
                }
                Status::Busy | Status::Over | Status::Lost => {}
            }
        }
        if commands.is_empty() { self.finished() } else { commands }
    }

    /// Nothing is committed. What is open is rolled back by whoever ends the local transaction.
    fn abort(&mut self) -> Vec<Command> {
        self.stage = Stage::Finish;
        self.outcome = self.cause.map(Outcome::Aborted);
        let mut commands = Vec::new();
        for who in 0..self.status.len() {
            if self.status[who] == Status::Prepared {
                commands.push(Command::RollBackPrepared { who });
                self.status[who] = Status::Busy;
            }
        }
        if commands.is_empty() { self.finished() } else { commands }
    }

    /// Nobody knows what was decided: what is prepared waits for whoever can ask.
    fn leave(&mut self) -> Vec<Command> {
        for status in &mut self.status {
            if *status == Status::Prepared {
                *status = Status::Lost;
            }
        }
        self.finished()
    }

    fn finished(&mut self) -> Vec<Command> {
        self.stage = Stage::Done;
        self.outcome.get_or_insert(Outcome::Committed);
        (0..self.status.len())
            .filter(|who| self.status[*who] == Status::Lost)
            .map(|who| Command::LeaveBehind { who })
            .collect()
    }
}
