//! The splitter against a reading of the rules one byte at a time, and against itself with the data in pieces.

use super::*;
use proptest::prelude::*;

/// Records and how the data end, as somebody reads them who has all of them before him.
fn read(format: &Format, data: &[u8]) -> Result<Vec<(Vec<u8>, u64)>, BadLine> {
    read_in_pieces(format, data, data.len().max(1))
}

/// The same with the data coming in pieces.
fn read_in_pieces(
    format: &Format,
    data: &[u8],
    size: usize,
) -> Result<Vec<(Vec<u8>, u64)>, BadLine> {
    let mut splitter = Splitter::new(format);
    let (mut records, mut at, mut known) = (Vec::new(), 0, 0);
    loop {
        match splitter.next(&data[at..known], known == data.len())? {
            Next::Record(record) => {
                records.push((data[at..at + record.length].to_vec(), splitter.line()));
                at += record.consumed;
            }
            Next::More => known = (known + size).min(data.len()),
            Next::End => return Ok(records),
        }
    }
}

/// Where lines end by the rules, a byte at a time: for data with newlines as line ends and without carriage returns.
fn read_slowly(format: &Format, data: &[u8]) -> Vec<Vec<u8>> {
    let (mut records, mut record) = (Vec::new(), Vec::new());
    let (mut in_quote, mut after_escape) = (false, false);
    let mut bytes = data.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if format.csv {
            let is_escape = format.escape != format.quote && byte == format.escape;
            if byte == format.quote && !after_escape {
                in_quote = !in_quote;
            }
            after_escape = in_quote && is_escape && !after_escape;
        }
        if byte == b'\n' && !in_quote {
            records.push(std::mem::take(&mut record));
            continue;
        }
        record.push(byte);
        if !format.csv && byte == b'\\' {
            record.extend(bytes.next());
        }
    }
    if !record.is_empty() {
        records.push(record);
    }
    records
}

fn formats() -> impl Strategy<Value = Format> {
    prop_oneof![
        Just(Format::text()),
        Just(Format { delimiter: b'|', null: b"x".to_vec(), ..Format::text() }),
        Just(Format::csv()),
        Just(Format { escape: b'\\', ..Format::csv() }),
        Just(Format { quote: b'\'', escape: b'x', delimiter: b'|', ..Format::csv() }),
    ]
}

fn data(alphabet: &'static str) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(alphabet.as_bytes()), 0..40)
}

proptest! {
    #[test]
    fn records_end_where_the_rules_say(format in formats(), data in data("a\\x|,'\"\t\n\n")) {
        let expected = read_slowly(&format, &data);
        let records = read(&format, &data).expect("neither carriage returns nor dots are in it");
        let records: Vec<Vec<u8>> = records.into_iter().map(|(record, _)| record).collect();
        prop_assert_eq!(records, expected);
    }

    #[test]
    fn pieces_make_no_difference(format in formats(), data in data("a\\x.|,'\"\t\n\r"), size in 1..9usize) {
        prop_assert_eq!(read_in_pieces(&format, &data, size), read(&format, &data));
    }

    #[test]
    fn what_is_written_as_a_field_is_read_again(format in formats(), value in data("a\\.x|,'\"\t\n\r0"), other in data("ab")) {
        // `x` escapes in one format; there a field that is nothing but NULL's letters is quoted.
        let mut line = Vec::new();
        format.append(&value, &mut line);
        line.push(format.delimiter);
        format.append(&other, &mut line);
        line.push(b'\n');
        let records = read(&format, &line).expect("line breaks in values are not bare");
        prop_assert_eq!(records.len(), 1);
        let record = &records[0].0;
        let fields: Vec<Field> = Fields::of(record, &format).collect();
        prop_assert_eq!(fields.len(), 2);
        prop_assert_eq!(&*fields[0].value(record, &format), &value[..]);
        prop_assert_eq!(&*fields[1].value(record, &format), &other[..]);
    }

    #[test]
    fn fields_cover_their_record(format in formats(), record in data("a\\x|,'\"\t0")) {
        let mut expected = 0;
        for field in Fields::of(&record, &format) {
            prop_assert_eq!(field.start, expected);
            expected = field.end + 1;
            let _ = field.value(&record, &format);
        }
        prop_assert_eq!(expected, record.len() + 1);
    }
}

fn lines(format: &Format, data: &str) -> Vec<String> {
    let records = read(format, data.as_bytes()).unwrap();
    records
        .into_iter()
        .map(|(record, line)| format!("{line}:{}", String::from_utf8(record).unwrap()))
        .collect()
}

#[test]
fn a_backslash_takes_the_line_break_behind_it_into_the_value() {
    assert_eq!(lines(&Format::text(), "a\\\nb\tc\nd"), ["1:a\\\nb\tc", "2:d"]);
    assert_eq!(lines(&Format::csv(), "a\\\nb\n"), ["1:a\\", "2:b"]);
}

#[test]
fn line_breaks_in_quotes_count_as_lines_once_it_is_known_how_lines_end() {
    assert_eq!(lines(&Format::csv(), "h\n\"a\n\nb\",c\nd\n"), ["1:h", "4:\"a\n\nb\",c", "5:d"]);
    // PostgreSQL takes carriage returns for what counts before the first line end.
    assert_eq!(lines(&Format::csv(), "\"a\nb\"\nc\n"), ["1:\"a\nb\"", "2:c"]);
}

#[test]
fn each_style_of_line_ends_is_understood_and_a_second_one_is_not() {
    for end in ["\n", "\r", "\r\n"] {
        let data = ["a", "b", "c"].join(end);
        assert_eq!(lines(&Format::text(), &data), ["1:a", "2:b", "3:c"], "{end:?}");
    }
    let bad = |data: &str| read(&Format::text(), data.as_bytes()).unwrap_err();
    assert_eq!(bad("a\nb\rc\n"), BadLine::Return { csv: false });
    assert_eq!(bad("a\rb\nc\r"), BadLine::Newline { csv: false });
    assert_eq!(bad("a\r\nb\rc\r\n"), BadLine::Return { csv: false });
}

#[test]
fn the_marker_ends_the_data() {
    assert_eq!(lines(&Format::text(), "a\n\\.\nb\n"), ["1:a"]);
    assert_eq!(lines(&Format::text(), "a\nb\\.\nc\n"), ["1:a", "2:b"]);
    assert_eq!(lines(&Format::csv(), "a\n\\.\nb\n"), ["1:a"]);
    assert_eq!(lines(&Format::csv(), "a\n\\.b\nb\\.\n"), ["1:a", "2:\\.b", "3:b\\."]);
    assert_eq!(lines(&Format::csv(), "a\r\n\\.\r\nb\r\n"), ["1:a"]);
    let bad = |data: &str| read(&Format::text(), data.as_bytes()).unwrap_err();
    assert_eq!(bad("a\n\\.b\n"), BadLine::CorruptMarker);
    assert_eq!(bad("a\n\\."), BadLine::CorruptMarker);
    assert_eq!(bad("a\n\\.\r\n"), BadLine::OtherMarker);
    assert_eq!(bad("a\r\n\\.\n"), BadLine::OtherMarker);
}

#[test]
fn a_strict_marker_has_a_line_of_its_own_and_is_data_in_csv() {
    let text = Format { has_strict_marker: true, ..Format::text() };
    let csv = Format { has_strict_marker: true, ..Format::csv() };
    assert_eq!(lines(&text, "a\n\\.\nb\n"), ["1:a"]);
    assert_eq!(lines(&csv, "a\n\\.\nb\n"), ["1:a", "2:\\.", "3:b"]);
    let bad = |data: &str| read(&text, data.as_bytes()).unwrap_err();
    assert_eq!(bad("a\nb\\.\nc\n"), BadLine::MarkerInLine);
    assert_eq!(bad("a\n\\.b\n"), BadLine::MarkerInLine);
    assert_eq!(bad("a\n\\."), BadLine::MarkerInLine);
    assert_eq!(bad("a\n\\.\r\n"), BadLine::OtherMarker);
    assert_eq!(bad("a\nb\\.\r\n"), BadLine::OtherMarker);
}

#[test]
fn escapes_of_the_text_format_are_what_postgres_makes_of_them() {
    let value = |record: &str| {
        let field = Fields::of(record.as_bytes(), &Format::text()).next().unwrap();
        field.value(record.as_bytes(), &Format::text()).into_owned()
    };
    assert_eq!(value("\\b\\f\\n\\r\\t\\v\\q"), b"\x08\x0c\n\r\t\x0bq");
    assert_eq!(value("\\1012\\x41F\\x4g\\xg\\08"), b"A2AF\x04gxg\08");
    assert_eq!(value("\\777a\\"), b"\xffa\\");
    assert_eq!(value("a\\\tb\tc"), b"a\tb");
}

#[test]
fn null_is_compared_before_anything_is_decoded() {
    let is_null = |format: &Format, record: &str| {
        Fields::of(record.as_bytes(), format).next().unwrap().is_null(record.as_bytes(), format)
    };
    assert!(is_null(&Format::text(), "\\N\tb"));
    assert!(!is_null(&Format::text(), "\\\\N\tb"));
    assert!(is_null(&Format::csv(), ",b"));
    assert!(!is_null(&Format::csv(), "\"\",b"));
}

#[test]
fn quotes_may_begin_and_end_anywhere_in_a_csv_field() {
    let format = Format { escape: b'\\', ..Format::csv() };
    let record = b"a\"b,\\\"\\x\"c,d";
    let fields: Vec<Field> = Fields::of(record, &format).collect();
    assert_eq!(&*fields[0].value(record, &format), b"ab,\"\\xc");
    assert_eq!(&*fields[1].value(record, &format), b"d");
}
