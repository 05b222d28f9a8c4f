//! COPY on a session: data to a node, which may still be storing them when the session is wanted again, and data
//! from a node.

use super::{Failure, Session};
use pg::PgError;
use protocol::{Kind, Message};

/// So many bytes of COPY data travel in a message.
pub(super) const COPY_PIECE: usize = 1024 * 1024;

/// The client may want fewer digits than are stored.
pub(super) const EXACT_FLOATS: &str = "SET extra_float_digits = 3";

impl Session {
    /// The next message, waiting for it.
    fn next_message(&mut self) -> Result<Message, Failure> {
        loop {
            match self.link.message() {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => self.wait()?,
                Err(error) => return Err(self.lose(error)),
            }
        }
    }

    /// Starts `COPY ... TO STDOUT`; data follow by [`Self::get_copy`].
    pub(crate) fn start_copy_out(&mut self, sql: &str) -> Result<(), Failure> {
        if !self.standing.is_told() {
            self.run("SELECT", None, &mut |_| Ok(()))?;
        }
        self.told.asks();
        self.is_private = true;
        if !self.queue_lent_copy(sql, None) {
            self.link.flight().query(&format!("{EXACT_FLOATS}; {sql}"));
        }
        self.standing.forget_settings();
        self.flush()?;
        let message = loop {
            let message = self.next_message()?;
            if matches!(message.kind, Kind::CopyOut | Kind::Error | Kind::Ready(_)) {
                break message;
            }
        };
        if message.kind == Kind::CopyOut {
            self.copying_out = true;
            return Ok(());
        }
        let error = if message.kind == Kind::Error {
            self.link.error(&message).0
        } else {
            PgError::internal("a node did not start COPY")
        };
        self.read_to_ready()?;
        Err(Failure::Statement(error))
    }

    /// Reads to the end of a COPY or a text of commands.
    fn read_to_ready(&mut self) -> Result<(), Failure> {
        let mut failed = None;
        loop {
            let message = self.next_message()?;
            match message.kind {
                Kind::Error => {
                    let (error, is_fatal) = self.link.error(&message);
                    if is_fatal {
                        return Err(self.lose(error));
                    }
                    failed = Some(error);
                }
                Kind::Ready(status) => {
                    self.told.has_answered();
                    self.status = status;
                    return failed.map_or(Ok(()), |error| Err(Failure::Statement(error)));
                }
                _ => {}
            }
        }
    }

    /// Queues `COPY ... FROM STDIN` with all of its data, without waiting for anything: a node that refuses the
    /// statement passes over the data. Several may be queued; [`Self::stored`] tells by the number returned what became of each.
    pub(crate) fn queue_copy(&mut self, sql: &str, data: &[u8]) -> Result<u64, Failure> {
        if let Some(failure) = self.broken() {
            return Err(failure);
        }
        self.told.asks();
        self.is_private = true;
        if !self.queue_lent_copy(sql, Some(data)) {
            let flight = self.link.flight();
            flight.query(sql);
            for piece in data.chunks(COPY_PIECE) {
                flight.copy_data(piece);
            }
            flight.copy_done();
        }
        self.storing += 1;
        self.copies += 1;
        self.move_copies()?;
        Ok(self.copies)
    }

    /// Sends and reads of queued COPYs what goes without waiting.
    pub(crate) fn move_copies(&mut self) -> Result<(), Failure> {
        if self.storing == 0 {
            return Ok(());
        }
        if let Some(failure) = self.broken() {
            return Err(failure);
        }
        self.link.send_some().map_err(|error| self.lose_unless_told(error))?;
        self.consume()?;
        self.read_answers()
    }

    /// Takes in the answers to queued COPYs that are here.
    fn read_answers(&mut self) -> Result<(), Failure> {
        while self.storing > 0 {
            let message = match self.link.message() {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.lose(error)),
            };
            match message.kind {
                Kind::Error => {
                    let (error, is_fatal) = self.link.error(&message);
                    if is_fatal {
                        return Err(self.lose(error));
                    }
                    self.error.get_or_insert(error);
                }
                Kind::Ready(status) => {
                    self.status = status;
                    self.storing -= 1;
                    let failed = self.error.take().map(Failure::Statement);
                    let number = self.copies - self.storing;
                    if self.storing == 0 {
                        self.told.has_answered();
                    }
                    self.stored.push((number, failed.map_or(Ok(()), Err)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What became of a queued COPY, once it is known.
    pub(crate) fn stored(&mut self, number: u64) -> Option<Result<(), Failure>> {
        let at = self.stored.iter().position(|(stored, _)| *stored == number)?;
        Some(self.stored.swap_remove(at).1)
    }

    /// Bytes that wait to be sent.
    pub(crate) fn unsent(&self) -> usize {
        self.link.unsent()
    }

    /// Waits for all queued COPYs, so that the session can be used; what became of them is kept.
    pub(crate) fn settle_copies(&mut self) {
        while self.storing > 0 {
            let moved = self.flush().and_then(|()| self.read_answers());
            if moved.is_err() || self.storing > 0 && self.wait().is_err() {
                return;
            }
        }
    }

    /// The next COPY data; empty at the end.
    pub(crate) fn get_copy(&mut self) -> Result<Vec<u8>, Failure> {
        const MUCH: usize = 64 * 1024;
        let mut data = Vec::new();
        if !self.copying_out {
            return Ok(data);
        }
        loop {
            let message = match self.link.message() {
                Ok(Some(message)) => message,
                Ok(None) if !data.is_empty() => return Ok(data),
                Ok(None) => {
                    self.wait()?;
                    continue;
                }
                Err(error) => return Err(self.lose(error)),
            };
            match message.kind {
                Kind::CopyData => {
                    data.extend_from_slice(self.link.body(&message));
                    if data.len() >= MUCH {
                        return Ok(data);
                    }
                }
                Kind::CopyDone => {
                    self.finish_copy_out()?;
                    // If there are data, the caller asks once more and is told the end.
                    return Ok(data);
                }
                Kind::Error => {
                    let (error, is_fatal) = self.link.error(&message);
                    if is_fatal {
                        return Err(self.lose(error));
                    }
                    self.finish_copy_out()?;
                    return Err(Failure::Statement(error));
                }
                _ => {}
            }
        }
    }

    fn finish_copy_out(&mut self) -> Result<(), Failure> {
        self.copying_out = false;
        self.read_to_ready()
    }
}
