//! What is wrong with a table's text, line by line.
//!
//! Two kinds: *malformed* lines were skipped or cut, so the table answers less than its author
//! meant; *notices* are suspicious but lose nothing that Postfix would keep.

/// Complaints kept of one table; a file of garbage must not fill the memory with them.
const COMPLAINTS_MAX: usize = 100;

/// Collects complaints while a table is read.
#[derive(Debug)]
pub(in crate::table) struct Problems {
    /// The file, or the table's name when its text stands in the configuration.
    source: String,
    lines: Vec<String>,
    malformed: usize,
    first_malformed: Option<String>,
    total: usize,
}

/// What [`Problems`] found.
#[derive(Debug, Default)]
pub(in crate::table) struct Complaints {
    /// One line each, in the order of the text.
    pub(in crate::table) warnings: Vec<String>,
    /// Set when lines were skipped or cut: the first of them, and how many follow.
    pub(in crate::table) malformed: Option<String>,
}

impl Problems {
    /// Nothing found yet in `source`.
    pub(in crate::table) fn new(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            lines: Vec::new(),
            malformed: 0,
            first_malformed: None,
            total: 0,
        }
    }

    /// Line `number` was skipped or cut.
    pub(in crate::table) fn malformed(&mut self, number: usize, text: &str) {
        let line = self.add(number, text);
        self.malformed += 1;
        self.first_malformed.get_or_insert(line);
    }

    /// Line `number` is kept, but worth a look.
    pub(in crate::table) fn notice(&mut self, number: usize, text: &str) {
        self.add(number, text);
    }

    fn add(&mut self, number: usize, text: &str) -> String {
        let line = format!("{}:{number}: {text}", self.source);
        self.total += 1;
        if self.lines.len() < COMPLAINTS_MAX {
            self.lines.push(line.clone());
        }
        line
    }

    /// Adds what was found further on in the same source.
    pub(in crate::table) fn append(&mut self, later: Self) {
        let room = COMPLAINTS_MAX.saturating_sub(self.lines.len());
        self.lines.extend(later.lines.into_iter().take(room));
        self.total += later.total;
        self.malformed += later.malformed;
        self.first_malformed = self.first_malformed.take().or(later.first_malformed);
    }

    /// Ends the collection.
    pub(in crate::table) fn finish(mut self) -> Complaints {
        let left_out = self.total.saturating_sub(self.lines.len());
        if left_out > 0 {
            self.lines
                .push(format!("{}: {left_out} more complaints", self.source));
        }
        let more = self.malformed.saturating_sub(1);
        let malformed = self.first_malformed.map(|first| match more {
            0 => first,
            1 => format!("{first} (and one more such line)"),
            more => format!("{first} (and {more} more such lines)"),
        });
        Complaints {
            warnings: self.lines,
            malformed,
        }
    }
}

/// `text` for a message: at most 60 characters, control characters escaped.
pub(in crate::table) fn excerpt(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut shown = String::new();
    for c in text.chars().take(60) {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    if text.chars().nth(60).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_counted_past_the_number_that_is_kept() {
        let mut problems = Problems::new("/etc/t");
        for number in 1..=150 {
            problems.malformed(number, "bad");
        }
        let found = problems.finish();
        assert_eq!(found.warnings.len(), COMPLAINTS_MAX + 1);
        assert_eq!(found.warnings[0], "/etc/t:1: bad");
        assert_eq!(
            found.malformed.as_deref(),
            Some("/etc/t:1: bad (and 149 more such lines)")
        );
    }

    #[test]
    fn notices_are_not_malformed() {
        let mut problems = Problems::new("t");
        problems.notice(3, "odd");
        let found = problems.finish();
        assert_eq!(found.warnings, ["t:3: odd"]);
        assert_eq!(found.malformed, None);
    }

    #[test]
    fn excerpts_are_short_and_printable() {
        assert_eq!(excerpt(b"a\x1bb\xff"), "a\\u{1b}b\u{fffd}");
        assert_eq!(excerpt(&[b'x'; 61]).len(), 63);
    }
}
