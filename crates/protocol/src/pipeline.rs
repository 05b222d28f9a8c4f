//! Messages to a node, collected so that they travel in one write.

/// What a prepared statement is called on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatementName {
    /// The unnamed statement, which the next one replaces.
    Unnamed,
    /// A statement that stays until it is closed.
    Numbered(u32),
}

impl StatementName {
    fn append(self, bytes: &mut Vec<u8>) {
        if let Self::Numbered(number) = self {
            let mut digits = [0u8; 10];
            let mut at = digits.len();
            let mut left = number;
            loop {
                at -= 1;
                digits[at] = b'0' + (left % 10) as u8;
                left /= 10;
                if left == 0 {
                    break;
                }
            }
            bytes.push(b's');
            bytes.extend_from_slice(&digits[at..]);
        }
        bytes.push(0);
    }
}

/// The arguments of one execution, as the tail of a Bind message: made once, sent as often as there are
/// placements to send it to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Arguments {
    bytes: Vec<u8>,
}

impl Arguments {
    /// No arguments; rows come as text.
    pub fn none() -> Self {
        let mut arguments = Self::start(std::iter::empty());
        arguments.finish(&[]);
        arguments
    }

    /// Starts a list: for each argument whether it is binary. [`Self::value`] or [`Self::null`] follow in that
    /// order, [`Self::finish`] ends it.
    pub fn start(binary: impl ExactSizeIterator<Item = bool>) -> Self {
        let mut bytes = Vec::with_capacity(64);
        let count = count(binary.len());
        bytes.extend_from_slice(&count);
        for is_binary in binary {
            bytes.extend_from_slice(&[0, u8::from(is_binary)]);
        }
        bytes.extend_from_slice(&count);
        Self { bytes }
    }

    /// The next arguments: all that are in `values`, which are bare.
    pub fn values(&mut self, values: &Self) {
        self.bytes.extend_from_slice(&values.bytes);
    }

    /// Values without what stands before and behind them, to become part of a list later.
    pub fn bare() -> Self {
        Self { bytes: Vec::new() }
    }

    /// The bytes, as they travel: of bare values each one's length and what it is.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes all values away.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The next argument, in pieces.
    pub(crate) fn value_of(&mut self, head: &[u8], bodies: &[&[u8]]) {
        let total = head.len() + bodies.iter().map(|body| body.len()).sum::<usize>();
        self.bytes.reserve(total + 4);
        self.bytes.extend_from_slice(&length(total));
        self.bytes.extend_from_slice(head);
        for body in bodies {
            self.bytes.extend_from_slice(body);
        }
    }

    /// How many bytes they are on the wire.
    #[allow(clippy::len_without_is_empty, reason = "a Bind message's tail is never empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The next argument.
    pub fn value(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(&length(value.len()));
        self.bytes.extend_from_slice(value);
    }

    /// The next argument is NULL.
    pub fn null(&mut self) {
        self.bytes.extend_from_slice(&(-1i32).to_be_bytes());
    }

    /// Ends the list; `binary_columns` says for each column of the result whether it is to come in binary.
    pub fn finish(&mut self, binary_columns: &[bool]) {
        let first = binary_columns.first().copied().unwrap_or(false);
        if binary_columns.iter().all(|is_binary| *is_binary == first) {
            self.bytes.extend_from_slice(&[0, 1, 0, u8::from(first)]);
            return;
        }
        self.bytes.extend_from_slice(&count(binary_columns.len()));
        for is_binary in binary_columns {
            self.bytes.extend_from_slice(&[0, u8::from(*is_binary)]);
        }
    }
}

fn length(n: usize) -> [u8; 4] {
    i32::try_from(n).unwrap_or(i32::MAX).to_be_bytes()
}

fn count(n: usize) -> [u8; 2] {
    u16::try_from(n).unwrap_or(u16::MAX).to_be_bytes()
}

/// Messages that travel in one write.
#[derive(Debug, Default)]
pub struct Pipeline {
    bytes: Vec<u8>,
}

impl Pipeline {
    /// What is to be sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Everything has been sent. Large buffers are given back.
    pub fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > 256 * 1024 {
            self.bytes = Vec::new();
        }
    }

    /// The first bytes have been sent.
    pub fn forget(&mut self, sent: usize) {
        self.bytes.drain(..sent);
    }

    fn message(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.push(kind);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        body(&mut self.bytes);
        let length = length(self.bytes.len() - start);
        self.bytes[start..start + 4].copy_from_slice(&length);
    }

    fn text(bytes: &mut Vec<u8>, text: &str) {
        // A zero byte would end the text early, and what follows would be read as the next field.
        bytes.extend(text.bytes().filter(|byte| *byte != 0));
        bytes.push(0);
    }

    /// Prepares `sql`; a type of 0 is left to the node.
    pub fn parse(&mut self, name: StatementName, sql: &str, types: &[u32]) {
        self.message(b'P', |bytes| {
            name.append(bytes);
            Self::text(bytes, sql);
            bytes.extend_from_slice(&count(types.len()));
            for type_oid in types {
                bytes.extend_from_slice(&type_oid.to_be_bytes());
            }
        });
    }

    /// Binds the arguments to a statement and executes it to its end.
    pub fn execute(&mut self, name: StatementName, arguments: &Arguments) {
        self.bind(name, arguments);
        self.run();
    }

    /// Binds the arguments to a statement.
    pub fn bind(&mut self, name: StatementName, arguments: &Arguments) {
        self.message(b'B', |bytes| {
            bytes.push(0);
            name.append(bytes);
            bytes.extend_from_slice(&arguments.bytes);
        });
    }

    /// Binds the arguments to a statement in a portal of that name.
    pub fn bind_in(&mut self, portal: &str, name: StatementName, arguments: &Arguments) {
        self.message(b'B', |bytes| {
            Self::text(bytes, portal);
            name.append(bytes);
            bytes.extend_from_slice(&arguments.bytes);
        });
    }

    /// Executes the portal of that name to its end.
    pub fn run_in(&mut self, portal: &str) {
        self.message(b'E', |bytes| {
            Self::text(bytes, portal);
            bytes.extend_from_slice(&[0; 4]);
        });
    }

    /// Closes the portal of that name.
    pub fn close_portal(&mut self, portal: &str) {
        self.message(b'C', |bytes| {
            bytes.push(b'P');
            Self::text(bytes, portal);
        });
    }

    /// Executes what was bound last to its end.
    pub fn run(&mut self) {
        self.message(b'E', |bytes| bytes.extend_from_slice(&[0; 5]));
    }

    /// Closes a prepared statement.
    pub fn close(&mut self, name: StatementName) {
        self.message(b'C', |bytes| {
            bytes.push(b'S');
            name.append(bytes);
        });
    }

    /// Ends a flight: the node answers up to here, and an error skips what is left of it.
    pub fn sync(&mut self) {
        self.message(b'S', |_| {});
    }

    /// Asks for the answers so far without ending the flight: what it has done is not committed before [`Self::sync`].
    pub fn flush(&mut self) {
        self.message(b'H', |_| {});
    }

    /// One or several commands in one text.
    pub fn query(&mut self, sql: &str) {
        self.message(b'Q', |bytes| Self::text(bytes, sql));
    }

    /// A piece of COPY data.
    pub fn copy_data(&mut self, data: &[u8]) {
        self.message(b'd', |bytes| bytes.extend_from_slice(data));
    }

    /// The end of COPY data.
    pub fn copy_done(&mut self) {
        self.message(b'c', |_| {});
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_by_number_is_bound_executed_and_synced_in_one_write() {
        let mut arguments = Arguments::start([true, false].into_iter());
        arguments.value(&[0, 0, 0, 7]);
        arguments.null();
        arguments.finish(&[true, true]);
        let mut flight = Pipeline::default();
        flight.execute(StatementName::Numbered(120), &arguments);
        flight.sync();
        // 34 bytes: 4 length, 1 portal, 5 name, 8 formats and counts, 12 values, 4 row formats.
        let expected = [
            &b"B\0\0\0\x22\0s120\0"[..],
            &[0, 2, 0, 1, 0, 0, 0, 2],
            &[0, 0, 0, 4, 0, 0, 0, 7, 255, 255, 255, 255],
            &[0, 1, 0, 1],
            b"E\0\0\0\x09\0\0\0\0\0",
            b"S\0\0\0\x04",
        ]
        .concat();
        assert_eq!(flight.bytes(), expected);
    }

    #[test]
    fn bare_values_become_part_of_a_list() {
        let mut bare = Arguments::bare();
        bare.value(b"b");
        bare.null();
        let mut whole = Arguments::start([false; 3].into_iter());
        whole.value(b"a");
        whole.values(&bare);
        let mut expected = Arguments::start([false; 3].into_iter());
        expected.value(b"a");
        expected.value(b"b");
        expected.null();
        assert_eq!(whole, expected);
    }

    #[test]
    fn answers_can_be_asked_for_before_the_flight_ends() {
        let mut flight = Pipeline::default();
        flight.flush();
        flight.sync();
        assert_eq!(flight.bytes(), b"H\0\0\0\x04S\0\0\0\x04");
    }

    #[test]
    fn columns_of_both_formats_are_asked_for_one_by_one() {
        let tail = |binary_columns: &[bool]| {
            let mut arguments = Arguments::start(std::iter::empty());
            arguments.finish(binary_columns);
            arguments.bytes[4..].to_vec()
        };
        assert_eq!(tail(&[true, false, true]), [0, 3, 0, 1, 0, 0, 0, 1]);
        assert_eq!(tail(&[false, false]), [0, 1, 0, 0]);
        assert_eq!(tail(&[true]), [0, 1, 0, 1]);
        assert_eq!(tail(&[]), [0, 1, 0, 0]);
    }

    #[test]
    fn a_parse_names_types_and_ends_its_texts() {
        let mut flight = Pipeline::default();
        flight.parse(StatementName::Unnamed, "SELECT $1", &[20]);
        assert_eq!(flight.bytes(), b"P\0\0\0\x15\0SELECT $1\0\0\x01\0\0\0\x14");
    }

    #[test]
    fn a_zero_byte_never_ends_a_text_early() {
        let mut flight = Pipeline::default();
        flight.query("a\0b");
        assert_eq!(flight.bytes(), b"Q\0\0\0\x07ab\0");
    }

    #[test]
    fn what_was_sent_is_forgotten_and_the_rest_stays() {
        let mut flight = Pipeline::default();
        flight.copy_data(b"ab");
        flight.copy_done();
        flight.forget(7);
        assert_eq!(flight.bytes(), b"c\0\0\0\x04");
    }

    #[test]
    fn a_cleared_flight_sends_nothing_again() {
        let mut flight = Pipeline::default();
        flight.sync();
        flight.clear();
        assert!(flight.bytes().is_empty());
        flight.close(StatementName::Numbered(0));
        assert_eq!(flight.bytes(), b"C\0\0\0\x08Ss0\0");
    }
}
