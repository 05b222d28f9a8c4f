//! PostgreSQL's protocol, version 3, as bytes: what a session says to a node and what it hears, without a
//! socket, a server or a clock.
//!
//! [`Pipeline`] collects messages to be sent in one write, [`Inbox`] cuts what was received into [`Message`]s.
//! Connecting and logging in are not here: libpq does that, and hands over a connection that is ready for a
//! statement. Source of the formats: PostgreSQL's documentation, "Message Formats".

/// Columns of rows as arrays.
mod array;

/// The text and CSV formats of COPY.
pub mod copy;

/// The text form of ranges.
pub mod ranges;

/// Messages to a node.
mod pipeline;

/// Messages from a node.
mod inbox;

pub use array::Elements;
pub use inbox::{
    Ending, Inbox, Kind, Malformed, Message, OwnedRow, Row, TransactionStatus, error_fields,
};
pub use pipeline::{Arguments, Pipeline, StatementName};
