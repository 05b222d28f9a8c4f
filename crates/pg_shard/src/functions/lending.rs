//! On a node: a coordinator has a session act as another role. What is believed and what is refused is in `pg/src/catalog/lent.rs`.

use crate::session::secrets;
use crate::session::{BEGIN_ACTING, END_ACTING};
use pg::catalog::lent;
use pg::sys::error::raise;
use pg::{PgError, SqlState};
use pgrx::prelude::*;
use shardmap::instruction::Purpose;
use shardmap::lending::Lending;
use std::ffi::CStr;

/// The number by which coordinators name this session.
#[pg_extern]
fn lending_session() -> String {
    lent::session_number().to_string()
}

/// Has the session act as the role of the instruction.
#[pg_extern]
fn begin_acting(instruction: &str) {
    raise(begin(instruction));
}

fn begin(instruction: &str) -> Result<(), PgError> {
    check_caller(BEGIN_ACTING)?;
    let text = secrets::open_for("", Purpose::Lend, instruction)?;
    let lending = Lending::parse(text).ok_or_else(|| {
        PgError::new(SqlState::INVALID_PARAMETER_VALUE, "no such instruction to act as a role")
    })?;
    if !lent::is_next(lending.session, lending.number) {
        return Err(secrets::not_proven());
    }
    lent::begin(&lending)
}

/// Gives back what [`begin_acting`] has lent.
#[pg_extern]
fn end_acting() {
    raise(check_caller(END_ACTING).and_then(|()| lent::end()));
}

fn check_caller(command: &CStr) -> Result<(), PgError> {
    if lent::is_command_of_client(command) { Ok(()) } else { Err(secrets::not_proven()) }
}
