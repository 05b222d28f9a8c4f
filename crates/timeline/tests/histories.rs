//! Small histories of a few servers, in every order of their steps or in many at random: transfers over two servers, local
//! writes, and readers of a time. A server is modelled by what is committed and what is in progress on it.

use std::time::Duration;
use timeline::{
    Answer, Chosen, Commit, Decision, Decisions, DecisionsHead, Doubt, Flight, Gid, Head, Refusal,
    Time, Timeline,
};

const COMMITS: usize = 6;

/// The coordinator, and its database.
const COORDINATOR: u64 = 7;
const DATABASE: u32 = 1;

/// A server: its timeline's memory, and what PostgreSQL would know.
#[derive(Clone)]
struct Server {
    head: Head,
    flights: Vec<Flight>,
    doubts: Vec<Doubt>,
    commits: Vec<Commit>,
    /// Committed transactions, in the order in which they became visible.
    committed: Vec<u32>,
    in_progress: Vec<u32>,
    /// Who saw whom: the later transaction, and all that were visible before its commit began.
    seen: Vec<(u32, Vec<u32>)>,
    /// How far the server's own clock is off.
    skew: i64,
}

impl Server {
    fn new(skew: i64) -> Self {
        let mut server = Self {
            head: Head::default(),
            flights: vec![Flight::default(); 8],
            doubts: vec![Doubt::default(); 8],
            commits: vec![Commit::default(); COMMITS],
            committed: Vec::new(),
            in_progress: Vec::new(),
            seen: Vec::new(),
            skew,
        };
        let own = server.own(0);
        server.timeline().start(own);
        server
    }

    fn own(&self, tick: i64) -> Time {
        Time::of_micros(1_000_000_000 + self.skew + tick)
    }

    fn timeline(&mut self) -> Timeline<'_> {
        Timeline::new(&mut self.head, &mut self.flights, &mut self.doubts, &mut self.commits)
    }

    fn note_seen(&mut self, xid: u32) {
        let seen = self.committed.clone();
        self.seen.push((xid, seen));
    }

    fn show(&mut self, xid: u32) {
        self.in_progress.retain(|known| *known != xid);
        self.committed.push(xid);
    }
}

/// Who acts. Transactions have the same number on all servers.
#[derive(Clone)]
enum Actor {
    /// Writes on one server.
    Local { xid: u32, server: usize, step: usize },
    /// Writes on two: the second prepares, the first is the anchor. When the coordinator `forgets`, a resolver ends it, which
    /// asks the anchor for the time.
    Transfer { xid: u32, servers: [usize; 2], step: usize, low: Time, agreed: Time, forgets: bool },
    /// Reads all servers at one time, one after the other.
    Reader {
        step: usize,
        chosen: Chosen,
        acknowledged: Vec<u32>,
        views: Vec<Vec<u32>>,
        is_refused: bool,
    },
}

#[derive(Clone)]
struct World {
    servers: Vec<Server>,
    /// What the coordinator is deciding, the latest commit that it has acknowledged, and all that it has acknowledged.
    decisions: (DecisionsHead, Vec<Decision>),
    clock: Time,
    acknowledged: Vec<u32>,
    /// How many transactions the coordinator has left in doubt.
    forgotten: usize,
    /// The anchor does not know any more when something has committed.
    is_forgetful: bool,
    tick: i64,
}

impl World {
    fn decisions(&mut self) -> Decisions<'_> {
        Decisions::new(&mut self.decisions.0, &mut self.decisions.1)
    }

    fn acknowledge(&mut self, xid: u32, time: Time) {
        self.clock = self.clock.max(time);
        self.acknowledged.push(xid);
    }
}

impl Actor {
    fn is_done(&self) -> bool {
        match self {
            Self::Local { step, .. } => *step == 3,
            Self::Transfer { step, .. } => *step == 9,
            Self::Reader { is_refused, step, .. } => *is_refused || *step > 100,
        }
    }

    /// One step; false if the actor has to wait for others.
    fn act(&mut self, world: &mut World) -> bool {
        world.tick += 1;
        let tick = world.tick;
        match self {
            Self::Local { xid, server, step } => {
                let server = &mut world.servers[*server];
                let own = server.own(tick);
                match step {
                    0 => {
                        server.in_progress.push(*xid);
                        server.note_seen(*xid);
                        server.timeline().begin_commit(*xid, false, Time::ZERO, own).unwrap();
                    }
                    1 => server.show(*xid),
                    _ => {
                        let time = server.timeline().end_commit(*xid, true).unwrap();
                        world.acknowledge(*xid, time);
                    }
                }
                *step += 1;
            }
            Self::Transfer { xid, servers, step, low, agreed, forgets } => {
                let [anchor, other] = *servers;
                let clock_of_anchor = world.servers[anchor].timeline().clock();
                let told = match (*step > 4, world.is_forgetful) {
                    (true, false) => world.servers[anchor].timeline().committed(*xid),
                    _ => (clock_of_anchor, false),
                };
                let at = if matches!(*step, 2..=4) { anchor } else { other };
                let server = &mut world.servers[at];
                let own = server.own(tick);
                let gid = Gid::new(&xid.to_le_bytes()).unwrap();
                match step {
                    0 => {
                        server.in_progress.push(*xid);
                        server.note_seen(*xid);
                        let begun = server.timeline().begin_prepare(
                            *xid,
                            false,
                            gid,
                            Some(COORDINATOR),
                            own,
                        );
                        *low = begun.unwrap();
                    }
                    1 => {
                        *agreed = world.decisions().begin(*xid, DATABASE, *low).unwrap();
                    }
                    2 => {
                        server.in_progress.push(*xid);
                        server.note_seen(*xid);
                        server.timeline().hear(*agreed, own).unwrap();
                        server.timeline().begin_commit(*xid, false, *agreed, own).unwrap();
                    }
                    3 => server.show(*xid),
                    4 => *agreed = server.timeline().end_commit(*xid, true).unwrap(),
                    5 if *forgets => {
                        world.decisions().end(*xid, false);
                        world.forgotten += 1;
                    }
                    5 => world.decisions().decide(*xid, *agreed),
                    6 => {
                        let (known, is_exact) = if *forgets { told } else { (*agreed, true) };
                        server.timeline().hear(known, own).unwrap();
                        if is_exact {
                            server.timeline().agree(*xid, known);
                        }
                        (*low, *agreed) = (server.timeline().begin_prepared(own), known);
                    }
                    7 => server.show(*xid),
                    _ => {
                        let is_exact = !*forgets || told.1;
                        server.timeline().end_prepared(*xid, Some(*agreed), is_exact, *low);
                        let time = server.timeline().clock();
                        world.acknowledge(*xid, time.max(*agreed));
                        world.forgotten -= usize::from(*forgets);
                        if !*forgets {
                            world.decisions().end(*xid, true);
                        } else if world.forgotten == 0 {
                            let left = world.decisions().left();
                            world.decisions().settle(DATABASE, left);
                        }
                    }
                }
                *step += 1;
            }
            Self::Reader { step, chosen, acknowledged, views, is_refused } => {
                if *step == 0 {
                    let (least, now) = (world.clock, Time::of_micros(1_000_000_000 + tick));
                    *chosen = world.decisions().choose(DATABASE, least, now);
                    *acknowledged = world.acknowledged.clone();
                    *step = 1;
                    return true;
                }
                let at = &chosen.at;
                let but = chosen.is_settled.then_some(COORDINATOR);
                let reached = views.len() - usize::from(*step == 3);
                let server = &mut world.servers[reached];
                let own = server.own(tick);
                if *step == 1 {
                    let in_progress = server.in_progress.clone();
                    let is_in_progress = &mut |it| in_progress.contains(&it);
                    match server.timeline().may_read(*at, but, own, is_in_progress) {
                        Answer::Ready => *step = 2,
                        Answer::Wait(_) | Answer::WaitForNote(_) | Answer::TooEarly => {
                            return false;
                        }
                        Answer::Refused(_) => *is_refused = true,
                    }
                    return true;
                }
                if *step == 2 {
                    // The snapshot.
                    views.push(server.committed.clone());
                    *step = 3;
                    return true;
                }
                let mut hidden = Vec::new();
                let outcome = server.timeline().hidden(*at, &mut |it| hidden.push(it.xid));
                if let Err(refusal) = outcome {
                    assert_ne!(refusal, Refusal::TooFar);
                    *is_refused = true;
                    return true;
                }
                let shown = &mut views[reached];
                shown.retain(|xid| !hidden.contains(xid));
                for (later, seen) in &server.seen {
                    assert!(
                        !shown.contains(later) || seen.iter().all(|xid| shown.contains(xid)),
                        "what is hidden is not a suffix: {shown:?} shows {later}, which saw {seen:?}"
                    );
                }
                *step = if views.len() == world.servers.len() { 101 } else { 1 };
            }
        }
        true
    }

    /// What a reader that has ended has seen.
    fn check(&self, transfers: &[(u32, [usize; 2])]) {
        let Self::Reader { chosen, acknowledged, views, is_refused: false, .. } = self else {
            return;
        };
        for (xid, [one, other]) in transfers {
            assert_eq!(
                views[*one].contains(xid),
                views[*other].contains(xid),
                "half of {xid} was seen at {chosen:?}: {views:?}"
            );
        }
        for xid in acknowledged {
            assert!(
                views.iter().any(|view| view.contains(xid)),
                "{xid} had been acknowledged, and is not seen at {chosen:?}: {views:?}"
            );
        }
    }
}

fn transfer(xid: u32, servers: [usize; 2], forgets: bool) -> Actor {
    Actor::Transfer { xid, servers, step: 0, low: Time::ZERO, agreed: Time::ZERO, forgets }
}

fn local(xid: u32, server: usize) -> Actor {
    Actor::Local { xid, server, step: 0 }
}

fn reader() -> Actor {
    Actor::Reader {
        step: 0,
        chosen: Chosen { at: Time::ZERO, is_settled: false, is_clean: false },
        acknowledged: Vec::new(),
        views: Vec::new(),
        is_refused: false,
    }
}

fn world(skews: &[i64]) -> World {
    let mut world = World {
        decisions: (DecisionsHead::default(), vec![Decision::default(); 8]),
        servers: skews.iter().map(|skew| Server::new(*skew)).collect(),
        clock: Time::of_micros(1_000_000_000 + skews.iter().copied().max().unwrap_or(0)),
        acknowledged: Vec::new(),
        forgotten: 0,
        is_forgetful: false,
        tick: 0,
    };
    world.decisions().settle(DATABASE, 0);
    world
}

fn transfers(actors: &[Actor]) -> Vec<(u32, [usize; 2])> {
    let of_actor = |actor: &Actor| match actor {
        Actor::Transfer { xid, servers, .. } => Some((*xid, *servers)),
        _ => None,
    };
    actors.iter().filter_map(of_actor).collect()
}

/// Every order; tells how many there were, and how many readers were refused.
fn every_order(world: &World, actors: &[Actor], tally: &mut (usize, usize)) {
    let mut has_acted = false;
    for at in 0..actors.len() {
        if actors[at].is_done() {
            continue;
        }
        let (mut next, mut others) = (world.clone(), actors.to_vec());
        if others[at].act(&mut next) {
            has_acted = true;
            every_order(&next, &others, tally);
        }
    }
    if has_acted {
        return;
    }
    assert!(actors.iter().all(Actor::is_done), "somebody waits for ever");
    tally.0 += 1;
    for actor in actors {
        actor.check(&transfers(actors));
        tally.1 += usize::from(matches!(actor, Actor::Reader { is_refused: true, .. }));
    }
}

#[test]
fn a_reader_sees_a_transfer_whole_or_not_at_all_in_every_order() {
    for skews in [[0, 0], [0, 300], [300, 0]] {
        for servers in [[0, 1], [1, 0]] {
            let mut tally = (0, 0);
            every_order(&world(&skews), &[transfer(10, servers, false), reader()], &mut tally);
            assert!(tally.0 > 50 && tally.1 == 0, "{tally:?}");
        }
    }
}

#[test]
fn a_reader_sees_a_local_write_that_follows_a_transfer_only_with_it() {
    let mut tally = (0, 0);
    let mut world = world(&[0, 5]);
    let mut begun = transfer(10, [0, 1], false);
    for _ in 0..3 {
        begun.act(&mut world);
    }
    every_order(&world, &[begun, local(11, 0), reader()], &mut tally);
    assert!(tally.0 > 10_000 && tally.1 == 0, "{tally:?}");
}

#[test]
fn a_resolver_lets_no_reader_see_half() {
    for is_forgetful in [false, true] {
        let mut tally = (0, 0);
        let world = World { is_forgetful, ..world(&[0, 5]) };
        every_order(&world, &[transfer(10, [0, 1], true), reader()], &mut tally);
        assert!(tally.0 > 1000 && tally.1 == 0, "{tally:?}");
    }
}

/// A generator of numbers that are random enough (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[test]
fn many_transactions_and_readers_in_random_orders() {
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..4000 {
        let skews: Vec<i64> = (0..3).map(|_| numbers.below(400) as i64).collect();
        let mut world = world(&skews);
        let mut actors = Vec::new();
        for xid in 10..14 {
            let one = numbers.below(3);
            let other = (one + 1 + numbers.below(2)) % 3;
            actors.push(transfer(xid, [one, other], numbers.below(8) == 0));
        }
        actors.extend((20..23).map(|xid| local(xid, numbers.below(3))));
        actors.extend((0..3).map(|_| reader()));
        let mut left = 2000;
        while actors.iter().any(|actor| !actor.is_done()) && left > 0 {
            let at = numbers.below(actors.len());
            if !actors[at].is_done() {
                actors[at].act(&mut world);
            }
            left -= 1;
        }
        assert!(left > 0, "somebody waits for ever");
        let transfers = transfers(&actors);
        for actor in &actors {
            actor.check(&transfers);
            if let Actor::Reader { is_refused, .. } = actor {
                *(if *is_refused { &mut refused } else { &mut read }) += 1;
            }
        }
    }
    assert!(read > 10 * refused / 4, "read {read}, refused {refused}");
}

#[test]
fn clocks_that_differ_much_keep_readers_waiting_and_do_no_harm() {
    let mut world = world(&[0, 3_000_000]);
    // A write on the server whose clock is ahead.
    let mut write = local(10, 1);
    while !write.is_done() {
        write.act(&mut world);
    }
    let mut reads = reader();
    reads.act(&mut world);
    let mut waited = Duration::ZERO;
    while !reads.is_done() {
        if !reads.act(&mut world) {
            world.tick += 100_000;
            waited += Duration::from_millis(100);
        }
    }
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&waited), "{waited:?}");
    reads.check(&[]);
}
