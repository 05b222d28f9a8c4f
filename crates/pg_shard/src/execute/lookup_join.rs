//! Rows that are read here, joined with what the nodes find for them.
//!
//! The left side's rows are read first, numbered and kept; their keys go to the nodes, which answer with the numbers of rows that
//! have a match (semi and anti join), or with each match and its number, sorted by it (left join). The rows come out
//! in the order in which they were read, whatever the nodes say: one that could match nowhere has not been sent, but is there.
//! What is asked of the nodes, and how their answers come, is [`Read`]'s affair.

use super::read::Read;
use super::tables;
use crate::plan::compiled::Compiled;
use pg::PgError;
use pg::exec::explain::Explain;
use pg::exec::scan_io::{Scan, ScanIo};
use pg::sys::plan::{LookupJoin, LookupKind, Plan};
use std::rc::Rc;

/// The join.
pub(crate) struct LookupJoinScan {
    join: LookupJoin,
    compiled: Rc<Compiled>,
    read: Read,
    state: State,
}

enum State {
    /// Nothing has been read.
    Ready,
    /// It is known of each row whether it has a match; so many rows have been looked at.
    Known(Vec<bool>, usize),
    /// The matches come.
    Joining(Joining),
}

/// Rows and matches side by side.
#[derive(Default)]
struct Joining {
    /// How many rows have been taken, the one at hand included.
    taken: usize,
    /// There is a row at hand; whether it has found a match.
    at_hand: Option<bool>,
    /// The number of the match that is held until its row's turn.
    held: Option<usize>,
    /// All matches have come.
    is_over: bool,
}

impl LookupJoinScan {
    /// The scan of a plan.
    pub(crate) fn new(join: LookupJoin, compiled: Rc<Compiled>) -> Self {
        let read = Read::new(Rc::clone(&compiled));
        Self { join, compiled, read, state: State::Ready }
    }

    /// Reads the rows. Without any that can match, no node is asked.
    fn start(&mut self, io: &mut ScanIo) -> Result<(), PgError> {
        let Plan::ShardScan(plan) = &self.compiled.plan else {
            return Err(PgError::internal("a join by position without a scan"));
        };
        let tables = tables(&plan.tables)?;
        io.read_arrays(&plan.broadcasts, &|hash| tables[0].map.owner(hash))?;
        let asks = io.has_rows_to_send();
        self.state = match self.join.kind {
            LookupKind::Left => State::Joining(Joining { is_over: !asks, ..Joining::default() }),
            LookupKind::Semi | LookupKind::Anti => {
                let mut found = vec![false; io.numbers()];
                while asks && self.read.next(io)? {
                    if let Some(is_found) = found.get_mut(io.number()) {
                        *is_found = true;
                    }
                    io.pass_over();
                }
                State::Known(found, 0)
            }
        };
        Ok(())
    }

    /// Puts the next match of the row at hand in the slot; false if there is none any more.
    fn next_match(read: &mut Read, join: &mut Joining, io: &mut ScanIo) -> Result<bool, PgError> {
        let row = join.taken - 1;
        if let Some(number) = join.held {
            if number != row {
                return Ok(false);
            }
            join.held = None;
            io.emit_held();
            return Ok(true);
        }
        if join.is_over {
            return Ok(false);
        }
        if !read.next(io)? {
            join.is_over = true;
            return Ok(false);
        }
        let number = io.number();
        if number == row {
            return Ok(true);
        }
        if number < row {
            return Err(PgError::internal("a node sorts matches otherwise than by their rows"));
        }
        io.hold();
        join.held = Some(number);
        Ok(false)
    }
}

impl Scan for LookupJoinScan {
    fn asks_later(&self, io: &ScanIo) -> bool {
        self.read.asks_later(io)
    }

    fn ask_early(&mut self, io: &mut ScanIo) -> Result<(), PgError> {
        if matches!(self.state, State::Ready) {
            self.start(io)?;
        }
        match self.state {
            State::Joining(Joining { is_over: false, .. }) => self.read.ask_early(io),
            _ => Ok(()),
        }
    }

    fn next(&mut self, io: &mut ScanIo) -> Result<bool, PgError> {
        if matches!(self.state, State::Ready) {
            self.start(io)?;
        }
        let (first, columns) = (self.join.first, &self.join.columns);
        match &mut self.state {
            State::Ready => Ok(false),
            State::Known(found, looked_at) => {
                let wanted = self.join.kind == LookupKind::Semi;
                while io.next_numbered() {
                    *looked_at += 1;
                    if found.get(io.number_of(*looked_at - 1)) == Some(&wanted) {
                        io.emit_nulls();
                        io.put_numbered(first, columns);
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            State::Joining(join) => loop {
                let has_match = match join.at_hand {
                    Some(has_match) => has_match,
                    None if io.next_numbered() => {
                        join.taken += 1;
                        false
                    }
                    None => return Ok(false),
                };
                if Self::next_match(&mut self.read, join, io)? {
                    join.at_hand = Some(true);
                    io.put_numbered(first, columns);
                    return Ok(true);
                }
                join.at_hand = None;
                if !has_match {
                    io.emit_nulls();
                    io.put_numbered(first, columns);
                    return Ok(true);
                }
            },
        }
    }

    fn rescan(&mut self, io: &mut ScanIo, changed: bool) -> Result<(), PgError> {
        if matches!(self.state, State::Ready) {
            return Ok(());
        }
        if changed && !io.has_sent_rows() {
            io.clear_numbered();
            self.state = State::Ready;
            return self.read.rescan(io, changed);
        }
        io.rewind_numbered();
        match &mut self.state {
            State::Ready => {}
            State::Known(_, looked_at) => *looked_at = 0,
            State::Joining(join) => {
                let is_over = !io.has_rows_to_send();
                *join = Joining { is_over, ..Joining::default() };
                self.read.rescan(io, changed)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, io: &mut ScanIo) {
        self.read.end(io);
    }

    fn explain(&mut self, io: &mut ScanIo, explain: &mut Explain) -> Result<(), PgError> {
        let kind = match self.join.kind {
            LookupKind::Semi => "semi",
            LookupKind::Anti => "anti",
            LookupKind::Left => "left",
        };
        explain.text("Join", &format!("{kind}, by position"));
        self.read.explain(io, explain)
    }
}
