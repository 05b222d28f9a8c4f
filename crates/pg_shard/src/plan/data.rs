//! Our plans on their way into PostgreSQL's plan tree and back: each with a serial number of its own.

use pg::sys::plan::{Coded, Coder, Plan, PlanReader, PlanWriter};
use std::cell::Cell;

thread_local! {
    static LAST_SERIAL: Cell<u64> = const { Cell::new(0) };
}

/// A number for a plan, which no other has had in this backend.
fn next_serial() -> u64 {
    LAST_SERIAL.set(LAST_SERIAL.get() + 1);
    LAST_SERIAL.get()
}

/// The plan as a list, with a serial number of its own.
pub(crate) fn write(plan: &Plan) -> PlanWriter {
    let mut writer = PlanWriter::new();
    let coder: &mut dyn Coder = &mut writer;
    coder.wide(&mut next_serial().cast_signed());
    plan.clone().code(coder);
    writer
}

/// A plan's serial number, which stands first.
pub(super) fn read_serial(reader: &mut PlanReader) -> u64 {
    let mut serial = 0;
    let coder: &mut dyn Coder = reader;
    coder.wide(&mut serial);
    serial.cast_unsigned()
}

/// The plan behind its serial number.
pub(super) fn read(reader: &mut PlanReader) -> Plan {
    let mut plan = Plan::default();
    plan.code(reader);
    plan
}
