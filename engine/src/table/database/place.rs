//! Where in a query an expansion stands, which decides what keeps its text from being more than
//! data.
//!
//! In a string, what would end the string is quoted. Elsewhere nothing can be quoted (Postfix
//! quotes as if it were in a string), so a text that could be more than a name or a number there is
//! refused. Sources: PostgreSQL "Lexical Structure", MariaDB "String Literals" and "Identifier
//! Names", SQLite "SQL As Understood By SQLite".

use std::iter::Peekable;
use std::str::Chars;

/// What of a query is no plain text in one kind of database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syntax {
    /// What begins and ends a string.
    pub(super) strings: &'static [char],
    /// What begins and ends a name.
    pub(super) names: &'static [(char, char)],
    /// A backslash hides the character after it: in every string, or in those of the form `E''`.
    pub(super) backslash: Backslash,
    pub(super) comments: Comments,
}

/// What a comment is, beside `/* */`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comments {
    /// From `--` to the end of the line.
    Standard,
    /// The same, and `/* /* */ */` is one comment. `$$` quotes a string.
    Nested,
    /// From `#`, or `--` and a blank, to the end of the line. `/*!` is none: its text is read.
    Mysql,
}

/// Strings in which a backslash hides the character after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backslash {
    Nowhere,
    InEscapeStrings,
    Everywhere,
}

/// The place of an expansion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a string that ends with this character.
    String { end: char, backslash: bool },
    /// In a name that ends with this character.
    Name(char),
    /// In a comment.
    Comment,
    /// Between all of these.
    Bare,
}

impl Place {
    /// Adds `text` to the query `out`, so that it is no more than data.
    ///
    /// # Errors
    /// Why that cannot be.
    pub(super) fn add(self, text: &str, out: &mut String) -> Result<(), &'static str> {
        match self {
            Self::String { end, backslash } => {
                for c in text.chars() {
                    if c == end || (backslash && c == '\\') {
                        out.push(c);
                    }
                    out.push(c);
                }
                return Ok(());
            }
            Self::Name(end) if text.contains([end, '\\']) => {
                return Err("could end the name that it is put into");
            }
            Self::Comment if text.contains(['*', '/', '\n', '\r']) => {
                return Err("could end the comment that it is put into");
            }
            Self::Bare if !text.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(
                    "is put into the query outside of a string, where only digits are data; \
                     write quotes around the expansion",
                );
            }
            Self::Name(_) | Self::Comment | Self::Bare => {}
        }
        out.push_str(text);
        Ok(())
    }
}

/// Reads a query from its beginning, expansions left out.
#[derive(Debug)]
pub(super) struct Reader {
    syntax: Syntax,
    place: Place,
    /// Of comments that are open; 0 for one that ends with its line.
    depth: usize,
    /// Strings that are quoted with `$$` or `$tag$` may hold anything.
    is_dollar_quoted: bool,
    last: [Option<char>; 2],
}

impl Reader {
    pub(super) fn new(syntax: Syntax) -> Self {
        Self {
            syntax,
            place: Place::Bare,
            depth: 0,
            is_dollar_quoted: false,
            last: [None; 2],
        }
    }

    /// The place behind what was read.
    pub(super) fn place(&self) -> Place {
        match self.is_dollar_quoted {
            true => Place::Bare,
            false => self.place,
        }
    }

    /// Goes on behind an expansion.
    pub(super) fn pass_expansion(&mut self) {
        self.last = [None; 2];
    }

    /// Reads `text`.
    pub(super) fn read(&mut self, text: &str) {
        let is_tag = |tag: &str| tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let parts = text.split('$').skip(1);
        let has_tags = parts.clone().zip(parts.skip(1)).any(|(tag, _)| is_tag(tag));
        self.is_dollar_quoted |= self.syntax.comments == Comments::Nested && has_tags;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match self.place {
                Place::String { end, backslash } => {
                    if backslash && c == '\\' {
                        chars.next();
                    } else if c == end && chars.next_if_eq(&end).is_none() {
                        self.place = Place::Bare;
                    }
                }
                Place::Name(end) => {
                    if c == end && chars.next_if_eq(&end).is_none() {
                        self.place = Place::Bare;
                    }
                }
                Place::Comment => self.comment(c, &mut chars),
                Place::Bare => self.bare(c, &mut chars),
            }
            self.last = [self.last[1], Some(c)];
        }
    }

    fn comment(&mut self, c: char, rest: &mut Peekable<Chars<'_>>) {
        let is_nested = self.syntax.comments == Comments::Nested;
        let ends = match self.depth {
            0 => c == '\n',
            _ if is_nested && c == '/' && rest.next_if_eq(&'*').is_some() => {
                self.depth += 1;
                false
            }
            depth if c == '*' && rest.next_if_eq(&'/').is_some() => {
                self.depth = depth - 1;
                self.depth == 0
            }
            _ => false,
        };
        if ends {
            self.place = Place::Bare;
        }
    }

    /// A comment begins with `c`; how deep it is then, see `depth`.
    fn begins_comment(&self, c: char, rest: &mut Peekable<Chars<'_>>) -> Option<usize> {
        let is_mysql = self.syntax.comments == Comments::Mysql;
        match c {
            '#' if is_mysql => Some(0),
            '-' => {
                rest.next_if_eq(&'-')?;
                let blank = rest.peek().is_none_or(|next| next.is_whitespace());
                (!is_mysql || blank).then_some(0)
            }
            '/' => {
                rest.next_if_eq(&'*')?;
                let is_read = is_mysql && matches!(rest.peek(), Some('!' | 'M'));
                (!is_read).then_some(1)
            }
            _ => None,
        }
    }

    fn bare(&mut self, c: char, rest: &mut Peekable<Chars<'_>>) {
        let name = self.syntax.names.iter().find(|(begin, _)| *begin == c);
        if let Some(depth) = self.begins_comment(c, rest) {
            self.place = Place::Comment;
            self.depth = depth;
        } else if self.syntax.strings.contains(&c) {
            self.place = Place::String {
                end: c,
                backslash: match self.syntax.backslash {
                    Backslash::Nowhere => false,
                    Backslash::InEscapeStrings => self.follows_e(),
                    Backslash::Everywhere => true,
                },
            };
        } else if let Some((_, end)) = name {
            self.place = Place::Name(*end);
        }
    }

    /// What was read ends in the separate word `E`.
    fn follows_e(&self) -> bool {
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
        matches!(self.last, [before, Some('e' | 'E')] if !before.is_some_and(is_word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PGSQL: Syntax = Syntax {
        strings: &['\''],
        names: &[('"', '"')],
        backslash: Backslash::InEscapeStrings,
        comments: Comments::Nested,
    };
    const MYSQL: Syntax = Syntax {
        strings: &['\'', '"'],
        names: &[('`', '`')],
        backslash: Backslash::Everywhere,
        comments: Comments::Mysql,
    };

    fn place(syntax: Syntax, text: &str) -> Place {
        let mut reader = Reader::new(syntax);
        reader.read(text);
        reader.place()
    }

    fn string(end: char, backslash: bool) -> Place {
        Place::String { end, backslash }
    }

    #[test]
    fn the_place_is_found_behind_strings_names_and_comments() {
        for (text, expected) in [
            ("x = ", Place::Bare),
            ("x = 'it''s', '", string('\'', false)),
            ("x = 'a' AND y = ", Place::Bare),
            ("x = 'a\\' AND y = ", Place::Bare),
            ("x = E'a\\' AND ", string('\'', true)),
            ("x = e'", string('\'', true)),
            ("x = type'", string('\'', false)),
            ("FROM \"", Place::Name('"')),
            ("FROM \"a'b\" WHERE x='", string('\'', false)),
            ("/* it's */ x = '", string('\'', false)),
            ("x -- it's\n = '", string('\'', false)),
            ("a-'", string('\'', false)),
            ("/* ", Place::Comment),
            ("x = 1 -- ", Place::Comment),
            ("x # '", string('\'', false)),
            ("/* /* */ '", Place::Comment),
            ("/* /* */ */ '", string('\'', false)),
            ("$$ '", Place::Bare),
            ("$a_1$ '", Place::Bare),
            ("$1 '", string('\'', false)),
        ] {
            assert_eq!(place(PGSQL, text), expected, "{text}");
        }
        for (text, expected) in [
            ("x = \"", string('"', true)),
            ("x = 'a\\' AND ", string('\'', true)),
            ("FROM `", Place::Name('`')),
            ("x # it's\n = '", string('\'', true)),
            ("1--'", string('\'', true)),
            ("1-- it's\n'", string('\'', true)),
            ("/*! x = '", string('\'', true)),
            ("/* x = '", Place::Comment),
            ("$$ '", string('\'', true)),
        ] {
            assert_eq!(place(MYSQL, text), expected, "{text}");
        }
    }

    #[test]
    fn text_is_quoted_in_strings_and_refused_where_it_could_be_more_than_data() {
        let add = |place: Place, text: &str| {
            let mut out = String::new();
            place.add(text, &mut out).map(|()| out).ok()
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(add(string('\'', false), "o'\\b\""), some("o''\\b\""));
        assert_eq!(add(string('\'', true), "o'\\b"), some("o''\\\\b"));
        assert_eq!(add(string('"', true), "o'\\b\""), some("o'\\\\b\"\""));
        assert_eq!(add(Place::Name('`'), "d.example"), some("d.example"));
        assert_eq!(add(Place::Name('`'), "d`x"), None);
        assert_eq!(add(Place::Bare, "123"), some("123"));
        assert_eq!(add(Place::Bare, "0/**/or/**/1=1"), None);
        assert_eq!(add(Place::Comment, "u@d"), some("u@d"));
        assert_eq!(add(Place::Comment, "*/x"), None);
    }

    proptest::proptest! {
        #[test]
        fn quoted_text_never_ends_its_string(text in "['\"\\\\a`]{0,12}") {
            for (syntax, open) in [(PGSQL, "'"), (PGSQL, "E'"), (MYSQL, "'"), (MYSQL, "\"")] {
                let before = place(syntax, open);
                let mut query = open.to_owned();
                proptest::prop_assert!(before.add(&text, &mut query).is_ok());
                proptest::prop_assert_eq!(place(syntax, &query), before, "{}", &query);
            }
        }
    }
}
