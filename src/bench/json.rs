//! The JSON of a report, indented for readers. Deeper levels, mostly lists of numbers, stay on one line.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

/// Levels that are indented: the report, its rows, a row's fields.
const INDENTED: usize = 3;

/// `value` as JSON text that ends in a line break.
pub fn to_json(value: &impl Serialize) -> String {
    let mut text = Vec::new();
    let formatter = Shallow { pretty: PrettyFormatter::new(), depth: 0 };
    // Cannot fail: it writes to memory, and all keys are strings.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut text, formatter));
    text.push(b'\n');
    String::from_utf8(text).unwrap_or_default()
}

struct Shallow {
    pretty: PrettyFormatter<'static>,
    depth: usize,
}

impl Shallow {
    fn indents(&self) -> bool {
        self.depth <= INDENTED
    }

    fn comma(first: bool, to: &mut (impl Write + ?Sized)) -> io::Result<()> {
        to.write_all(if first { b"" } else { b", " })
    }
}

impl Formatter for Shallow {
    fn begin_array<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.depth += 1;
        if self.indents() { self.pretty.begin_array(to) } else { to.write_all(b"[") }
    }

    fn end_array<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        let indents = self.indents();
        self.depth -= 1;
        if indents { self.pretty.end_array(to) } else { to.write_all(b"]") }
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        if self.indents() { self.pretty.begin_array_value(to, first) } else { Self::comma(first, to) }
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        if self.indents() { self.pretty.end_array_value(to) } else { Ok(()) }
    }

    fn begin_object<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.depth += 1;
        if self.indents() { self.pretty.begin_object(to) } else { to.write_all(b"{") }
    }

    fn end_object<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        let indents = self.indents();
        self.depth -= 1;
        if indents { self.pretty.end_object(to) } else { to.write_all(b"}") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        if self.indents() { self.pretty.begin_object_key(to, first) } else { Self::comma(first, to) }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        to.write_all(b": ")
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        if self.indents() { self.pretty.end_object_value(to) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::testing::report;

    #[test]
    fn it_is_the_same_value_and_lists_of_a_row_stand_on_one_line() {
        let mut report = report();
        report.rows[0].histogram = Some(vec![(1000, 2), (2000, 3)]);
        let text = to_json(&report);
        let back: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back, serde_json::to_value(&report).unwrap());
        assert!(
            text.contains("\n      \"histogram\": [[1000, 2], [2000, 3]],\n")
                || text.contains("\n      \"histogram\": [[1000, 2], [2000, 3]]\n"),
            "{text}"
        );
        assert!(text.contains("\n      \"round_iops\": [1000.0, 2000.0, 4000.0],\n"), "{text}");
        assert!(text.ends_with("}\n"));
    }

    #[test]
    fn empty_lists_stay_empty() {
        assert_eq!(to_json(&serde_json::json!({"a": [], "b": {}})), "{\n  \"a\": [],\n  \"b\": {}\n}\n");
        assert_eq!(to_json(&[[[[1, 2]]]]), "[\n  [\n    [\n      [1, 2]\n    ]\n  ]\n]\n");
    }
}
