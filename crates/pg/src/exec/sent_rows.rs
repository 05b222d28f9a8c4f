//! Rows of child plans that are sent along with the statements of the nodes: as arrays, or split by shard.

use crate::exec::numbered::too_much_to_send;
use crate::exec::scan_io::{ChildRows, CopyBatch, ScanIo, Seal, next_row};
use crate::sys::error::PgError;
use crate::sys::node;
use crate::sys::plan::Spread;
use crate::sys::value::Encoder;
use crate::sys::version;
use pgrx::pg_sys::{self, Datum, Oid};
use protocol::{Arguments, Elements};
use std::rc::Rc;

/// More bytes than that are not sent along: a node takes a gigabyte in one message, and they are held in memory here.
const MOST_SENT: usize = 768 * 1024 * 1024;

/// The elements of an array, or of a domain over one.
///
/// # Safety
///
/// A value of that type.
pub(super) unsafe fn array_elements(value: Datum, type_oid: Oid) -> Vec<Option<Datum>> {
    // SAFETY: the caller vouches for the value; the arrays that are returned are as long as told.
    unsafe {
        let element = pg_sys::get_base_element_type(type_oid);
        let (mut length, mut by_value, mut align) = (0i16, false, 0);
        pg_sys::get_typlenbyvalalign(element, &raw mut length, &raw mut by_value, &raw mut align);
        let array = pg_sys::pg_detoast_datum(value.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let (mut values, mut nulls, mut n) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(
            array,
            element,
            length.into(),
            by_value,
            align,
            &raw mut values,
            &raw mut nulls,
            &raw mut n,
        );
        (0..n as usize).map(|i| (!*nulls.add(i)).then(|| *values.add(i))).collect()
    }
}

impl ScanIo {
    /// The rows of so many children, the last, move.
    pub fn set_moves(&mut self, moves: usize) {
        self.moves = moves;
    }

    /// What the nodes are told of rows that have moved, as far as these parts are concerned.
    pub(super) fn append_moved(&self, shards: &[usize], seal: Seal<'_>, arguments: &mut Arguments) {
        for number in 0..self.moves {
            let moved = self.moved.as_ref().and_then(|(_, moved)| moved.get(number));
            // Without any a node can plan, and finds no rows.
            let text = moved.map_or_else(String::new, |moved| moved.of_parts(shards).to_text());
            let text = if text.is_empty() { text } else { seal(&text) };
            arguments.value(text.as_bytes());
        }
    }

    /// The columns of the children's rows are arguments too, as arrays, before the others.
    pub fn send_children_as_arrays(&mut self) {
        self.array_count = self.array_elements().iter().map(Vec::len).sum();
    }

    /// What stands for the children's rows where nothing is executed.
    pub(super) fn unread_arrays(&self) -> Option<Rc<Vec<ChildRows>>> {
        (self.array_count > 0).then(|| {
            let types = |elements: Vec<Oid>| elements.iter().map(|known| known.to_u32()).collect();
            let empty = |elements| ChildRows { types: types(elements), batches: Vec::new() };
            Rc::new(self.array_elements().into_iter().map(empty).collect())
        })
    }

    /// The children's rows are arguments, or have to move.
    pub fn sends_rows(&self) -> bool {
        self.array_count + self.moves > 0
    }

    /// Nothing of that has to be done any more.
    pub fn has_sent_rows(&self) -> bool {
        (self.array_count == 0 || self.arrays.is_some())
            && (self.moves == 0 || self.moved.is_some())
    }

    /// The types of each child's columns; a child without columns counts rows by numbers.
    pub(super) fn array_elements(&self) -> Vec<Vec<Oid>> {
        // SAFETY: the children were initialised by `begin`.
        unsafe {
            let children = node::elements::<pg_sys::PlanState>((*self.node).custom_ps);
            children[..children.len() - self.moves]
                .iter()
                .enumerate()
                .map(|(number, child)| {
                    let descriptor = (**child).ps_ResultTupleDesc;
                    if let Some(numbered) = self.numbered.as_ref().filter(|_| number == 0) {
                        return numbered.types(descriptor);
                    }
                    let columns = (*descriptor).natts as usize;
                    if columns == 0 {
                        return vec![pg_sys::INT4OID];
                    }
                    (0..columns)
                        .map(|index| (*version::attribute(descriptor, index)).atttypid)
                        .collect()
                })
                .collect()
        }
    }

    /// Reads the children's rows, if they are to be sent and that has not been done. Where a child's rows are spread,
    /// `owner` says which shard a hash belongs to.
    pub fn read_arrays(
        &mut self,
        spread: &[Option<Spread>],
        owner: &dyn Fn(i32) -> Option<usize>,
    ) -> Result<(), PgError> {
        if self.array_count == 0 || self.arrays.is_some() {
            return Ok(());
        }
        let codecs = self.codecs();
        let elements = self.array_elements();
        let mut numbered = self.numbered.take();
        let mut read = Vec::new();
        let (mut first, mut bytes) = (0, 0);
        // SAFETY: the children were initialised by `begin`; each element's encoder is made for its column's type, each
        // hasher for the type that the planner has found.
        unsafe {
            let memory = (*(*self.node).ss.ps.state).es_query_cxt;
            let children = node::elements::<pg_sys::PlanState>((*self.node).custom_ps);
            for (number, (child, types)) in children.into_iter().zip(elements).enumerate() {
                let encoders: Vec<Encoder> = {
                    let before = pg_sys::MemoryContextSwitchTo(memory);
                    let made = types.iter().map(|element| Encoder::new(*element)).collect();
                    pg_sys::MemoryContextSwitchTo(before);
                    made
                };
                let spread = match spread.get(number).copied().flatten() {
                    None => None,
                    Some(by) => {
                        let hasher = codecs.hasher(by.family, by.type_oid, by.collation);
                        let hasher = hasher.ok_or_else(|| {
                            PgError::internal("a hash function is gone since the plan was made")
                        })?;
                        Some((by.column, hasher))
                    }
                };
                let mut kept = numbered.as_mut().filter(|_| number == 0);
                let mut batches: Vec<CopyBatch> = Vec::new();
                while let Some(slot) = next_row(child) {
                    let columns = (*(*slot).tts_tupleDescriptor).natts as usize;
                    let row = match &mut kept {
                        None => None,
                        Some(numbered) => {
                            let number = self.in_tuple_context(|_| numbered.keep(slot, &encoders));
                            let number = number?;
                            if number.is_none() {
                                self.reset_row_memory();
                                continue;
                            }
                            number
                        }
                    };
                    let value = |index: usize| {
                        let index = match (&kept, row) {
                            (Some(numbered), Some(row)) => match numbered.column(index) {
                                Some(column) => column,
                                None => return Some(Datum::from(row)),
                            },
                            _ if columns == 0 => return Some(Datum::from(0)),
                            _ => index,
                        };
                        (!*(*slot).tts_isnull.add(index)).then(|| *(*slot).tts_values.add(index))
                    };
                    self.in_tuple_context(|_| {
                        let shard = match &spread {
                            None => None,
                            Some((column, hasher)) => {
                                // A row that can match nowhere is not sent.
                                let hash = value(*column).map(|value| hasher.hash(value));
                                let Some(shard) = hash.and_then(owner) else { return };
                                Some(shard)
                            }
                        };
                        let known = batches.iter().position(|batch| batch.shard == shard);
                        let batch = known.unwrap_or_else(|| {
                            let columns = vec![Elements::default(); types.len()];
                            batches.push(CopyBatch { shard, columns });
                            batches.len() - 1
                        });
                        for (index, encoder) in encoders.iter().enumerate() {
                            let value = value(index);
                            let column = &mut batches[batch].columns[index];
                            let before = column.bytes();
                            encoder.append(value, column.next(value.is_none()));
                            bytes += column.bytes() - before;
                        }
                    });
                    self.reset_row_memory();
                    if bytes > MOST_SENT {
                        return Err(too_much_to_send());
                    }
                }
                let types = types.iter().map(|element| element.to_u32()).collect();
                read.push(ChildRows { types, batches });
                first += encoders.len();
            }
        }
        debug_assert_eq!(first, self.array_count);
        self.numbered = numbered;
        self.arrays = Some(Rc::new(read));
        Ok(())
    }

    /// Of the rows that have been read, this shard gets some of each child's that are needed.
    pub fn has_needed_rows(&self, needed: &[bool], shard: usize) -> bool {
        let concerns = |batch: &CopyBatch| batch.shard.is_none_or(|known| known == shard);
        self.arrays
            .iter()
            .flat_map(|children| children.iter())
            .zip(needed)
            .all(|(child, is_needed)| !is_needed || child.batches.iter().any(concerns))
    }

    /// Some of the children's rows may match something.
    pub fn has_rows_to_send(&self) -> bool {
        let has_rows = |child: &ChildRows| !child.batches.is_empty();
        self.arrays.as_ref().is_some_and(|children| children.iter().all(has_rows))
    }
}
