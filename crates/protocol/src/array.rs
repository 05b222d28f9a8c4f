//! Columns of rows as arrays, in the binary form that `array_recv` reads: elements are collected as rows come, in as
//! many parts as there are places to send them to, and parts are joined when they are sent.

use crate::pipeline::Arguments;

/// Elements of an array.
#[derive(Clone, Debug)]
pub struct Elements {
    values: Arguments,
    count: usize,
    has_null: bool,
}

impl Default for Elements {
    fn default() -> Self {
        Self { values: Arguments::bare(), count: 0, has_null: false }
    }
}

impl Elements {
    /// Where the next element is to be appended, by `Arguments::value` or, if `is_null`, by `Arguments::null`: the
    /// lengths and bytes of elements are those of arguments.
    pub fn next(&mut self, is_null: bool) -> &mut Arguments {
        self.count += 1;
        self.has_null |= is_null;
        &mut self.values
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// How many bytes they take.
    pub fn bytes(&self) -> usize {
        self.values.bytes().len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends the array of all elements of `parts`, of type `element`, to a statement's arguments.
    pub fn append_to(parts: &[&Self], element: u32, arguments: &mut Arguments) {
        let count: usize = parts.iter().map(|part| part.count).sum();
        let has_null = parts.iter().any(|part| part.has_null);
        let int = |n: usize| i32::try_from(n).unwrap_or(i32::MAX).to_be_bytes();
        let mut head = Vec::with_capacity(20);
        head.extend_from_slice(&int(usize::from(count > 0)));
        head.extend_from_slice(&int(usize::from(has_null)));
        head.extend_from_slice(&element.to_be_bytes());
        if count > 0 {
            head.extend_from_slice(&int(count));
            head.extend_from_slice(&int(1));
        }
        let bodies: Vec<&[u8]> = parts.iter().map(|part| part.values.bytes()).collect();
        arguments.value_of(&head, &bodies);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_has_its_dimension_its_type_and_its_elements_in_the_order_of_the_parts() {
        let (mut first, mut second) = (Elements::default(), Elements::default());
        first.next(false).value(&[0, 0, 0, 7]);
        second.next(true).null();
        let mut arguments = Arguments::bare();
        Elements::append_to(&[&first, &second], 23, &mut arguments);
        let expected = [
            &[0, 0, 0, 32][..],
            &[0, 0, 0, 1],
            &[0, 0, 0, 1],
            &[0, 0, 0, 23],
            &[0, 0, 0, 2],
            &[0, 0, 0, 1],
            &[0, 0, 0, 4, 0, 0, 0, 7],
            &[255, 255, 255, 255],
        ]
        .concat();
        assert_eq!(arguments.bytes(), expected);
    }

    #[test]
    fn an_array_of_nothing_has_no_dimension() {
        let mut arguments = Arguments::bare();
        Elements::append_to(&[&Elements::default()], 25, &mut arguments);
        assert_eq!(arguments.bytes(), [0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25]);
        assert!(Elements::default().is_empty());
    }
}
