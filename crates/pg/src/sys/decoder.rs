//! Values that a node sends, as datums: from the binary form by the type's receive function, from the text form as a
//! stored value is read ([`super::stored`]).

use crate::sys::stored::Reading;
use crate::sys::value::{Function, Plain};
use pgrx::pg_sys::{self, Datum, Oid};

/// How values of one type arrive from a node.
#[derive(Debug)]
pub(crate) struct Decoder {
    plain: Option<Plain>,
    form: Arriving,
}

#[derive(Debug)]
enum Arriving {
    Binary { function: Function, io_parameter: Oid, typmod: i32 },
    Text(Reading),
}

impl Decoder {
    /// Looks the type's input function up; in the current memory context, which must outlive this value.
    pub(crate) fn new(type_oid: Oid, typmod: i32, binary: bool) -> Self {
        if !binary {
            return Self { plain: None, form: Arriving::Text(Reading::of(type_oid, typmod)) };
        }
        let (mut function, mut io_parameter) = (Oid::INVALID, Oid::INVALID);
        // SAFETY: a syscache look-up by value.
        unsafe {
            pg_sys::getTypeBinaryInputInfo(type_oid, &raw mut function, &raw mut io_parameter);
        }
        let function = Function::look_up(function);
        Self {
            plain: Plain::of(type_oid),
            form: Arriving::Binary { function, io_parameter, typmod },
        }
    }

    /// The datum of a value's bytes, in the current memory context. `bytes` has one byte more than the value,
    /// which is put back.
    pub(crate) fn datum(&self, bytes: &mut [u8]) -> Datum {
        let length = bytes.len() - 1;
        if let Some(datum) = self.plain.and_then(|plain| plain.datum(&bytes[..length])) {
            return datum;
        }
        let behind = std::mem::replace(&mut bytes[length], 0);
        // SAFETY: a zero byte ends the value. Receive functions read the buffer, and keep nothing of it; what they
        // change in it they put back. Input functions get a zero-terminated text that they do not change.
        let datum = unsafe {
            match &self.form {
                Arriving::Binary { function, io_parameter, typmod } => {
                    let mut buffer = pg_sys::StringInfoData {
                        data: bytes.as_mut_ptr().cast(),
                        len: length as i32,
                        maxlen: length as i32 + 1,
                        cursor: 0,
                    };
                    pg_sys::ReceiveFunctionCall(
                        function.pointer(),
                        &raw mut buffer,
                        *io_parameter,
                        *typmod,
                    )
                }
                Arriving::Text(reading) => reading.read(bytes.as_mut_ptr().cast()),
            }
        };
        bytes[length] = behind;
        datum
    }
}
