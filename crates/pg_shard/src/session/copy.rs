//! COPY on a session: data to a node, which may still be storing them when the session is wanted again, and data
//! from a node.

use super::{Copying, Failure, Session};
use pg::PgError;
use protocol::{Kind, Message};

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

    /// Starts `COPY ... FROM STDIN`; data follow by [`Self::put_copy`].
    pub(crate) fn start_copy_in(&mut self, sql: &str) -> Result<(), Failure> {
        self.start_copy(sql, Kind::CopyIn)
    }

    /// Starts `COPY ... TO STDOUT`; data follow by [`Self::get_copy`].
    pub(crate) fn start_copy_out(&mut self, sql: &str) -> Result<(), Failure> {
        self.start_copy(sql, Kind::CopyOut)
    }

    fn start_copy(&mut self, sql: &str, wanted: Kind) -> Result<(), Failure> {
        self.link.flight().query(sql);
        self.flush()?;
        let message = self.next_message()?;
        if message.kind == wanted {
            self.copy = Copying::Moving;
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
                    self.status = status;
                    return failed.map_or(Ok(()), |error| Err(Failure::Statement(error)));
                }
                _ => {}
            }
        }
    }

    /// Sends COPY data.
    pub(crate) fn put_copy(&mut self, data: &[u8]) -> Result<(), Failure> {
        for piece in data.chunks(64 * 1024) {
            self.link.flight().copy_data(piece);
            self.flush()?;
        }
        Ok(())
    }

    /// Ends the data without waiting for the node to have stored them.
    pub(crate) fn end_copy(&mut self) -> Result<(), Failure> {
        self.link.flight().copy_done();
        self.copy = Copying::Storing;
        self.flush()
    }

    /// Waits for the end of a COPY that the node is still storing, so that the session can be used.
    pub(crate) fn settle_copy(&mut self) {
        if matches!(self.copy, Copying::Storing) {
            let outcome = self.finish_copy();
            self.copy = Copying::Ended(outcome);
        }
    }

    /// Waits for the node to have stored the data.
    pub(crate) fn finish_copy(&mut self) -> Result<(), Failure> {
        if let Copying::Ended(outcome) = std::mem::replace(&mut self.copy, Copying::Moving) {
            self.copy = Copying::No;
            return outcome;
        }
        let outcome = self.broken().map_or_else(|| self.read_to_ready(), Err);
        self.copy = Copying::No;
        outcome
    }

    /// The next COPY data; empty at the end.
    pub(crate) fn get_copy(&mut self) -> Result<Vec<u8>, Failure> {
        const MUCH: usize = 64 * 1024;
        let mut data = Vec::new();
        if matches!(self.copy, Copying::No) {
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
                    self.finish_copy()?;
                    // If there are data, the caller asks once more and is told the end.
                    return Ok(data);
                }
                Kind::Error => {
                    let (error, is_fatal) = self.link.error(&message);
                    if is_fatal {
                        return Err(self.lose(error));
                    }
                    self.finish_copy()?;
                    return Err(Failure::Statement(error));
                }
                _ => {}
            }
        }
    }
}
