//! Address lists: the right-hand sides of alias tables, alias files and `:include:` files.
//!
//! Addresses are separated by commas or just by white space; comments and phrases are dropped,
//! groups count as their members, `<>` stand around an address or not. The parser never fails: what
//! cannot be understood is an address that a later step refuses. Source: RFC 822 section 6 and
//! appendix A, read as leniently as Postfix reads it, from right to left.

use super::tokens::{Spacing, Token, externalize, internalize, scan};

/// One address of a list, not yet checked or completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedAddress {
    tokens: Vec<Token>,
}

impl ListedAddress {
    /// As it is written in a header: quotes where they are needed.
    pub fn external(&self) -> String {
        externalize(&self.tokens, Spacing::Joined)
    }

    /// Without quotes: `|command args`, `/file`, `user@domain`.
    pub fn internal(&self) -> String {
        internalize(&self.tokens, Spacing::Joined)
    }
}

/// The addresses of a list, in order.
pub fn parse_address_list(text: &str) -> Vec<ListedAddress> {
    let mut tokens = scan(text);
    // A comment is no part of any address, wherever it stands.
    tokens.retain(|token| !matches!(token, Token::Comment(_)));
    let mut parser = Parser {
        tokens: &tokens,
        right: tokens.len(),
        found: Vec::new(),
    };
    parser.run();
    let mut found = parser.found;
    found.reverse();
    found
}

/// Goes through the tokens from right to left. What lies between the current token and `right`
/// is the address being looked at.
struct Parser<'a> {
    tokens: &'a [Token],
    right: usize,
    found: Vec<ListedAddress>,
}

impl Parser<'_> {
    fn run(&mut self) {
        // A word may stand here without beginning another address.
        let mut word_expected = true;
        let mut in_group = false;
        let mut at = self.tokens.len();
        while let Some(token) = at.checked_sub(1).and_then(|last| self.tokens.get(last)) {
            let here = at - 1;
            match token {
                Token::Operator(';') => {
                    self.take(here);
                    self.right = here;
                    in_group = true;
                    word_expected = true;
                }
                Token::Operator(':') if in_group => {
                    self.take(here);
                    at = self.back_to(at, |token| token.is(','));
                    self.right = at.saturating_sub(1);
                    continue;
                }
                Token::Operator('>') => {
                    self.take(here);
                    self.right = here;
                    let open = self.back_to(at, |token| token.is('<'));
                    self.take_from(open);
                    at = self.back_to(open, |token| {
                        matches!(token, Token::Operator('>' | ';' | ',' | ':'))
                    });
                    self.right = at.saturating_sub(1);
                    word_expected = true;
                    continue;
                }
                Token::Operator(',') => {
                    self.take(here);
                    self.right = here;
                    word_expected = true;
                }
                Token::Atom(_) | Token::Quoted(_) | Token::Literal(_) => {
                    if !word_expected {
                        self.take(here);
                        self.right = at;
                    }
                    word_expected = false;
                }
                Token::Operator(_) | Token::Comment(_) => word_expected = true,
            }
            at -= 1;
        }
        self.take_from(0);
    }

    /// The position just behind the nearest token before `at` that is `wanted`; 0 when there is
    /// none.
    fn back_to(&self, at: usize, wanted: impl Fn(&Token) -> bool) -> usize {
        let before = self.tokens.get(..at).unwrap_or_default();
        before.iter().rposition(wanted).map_or(0, |found| found + 1)
    }

    /// Takes what is between the token at `left` and `right` as an address, if it is anything.
    fn take(&mut self, left: usize) {
        self.take_from(left + 1);
    }

    fn take_from(&mut self, start: usize) {
        if let Some(tokens) = self.tokens.get(start..self.right)
            && !tokens.is_empty()
        {
            self.found.push(ListedAddress {
                tokens: tokens.to_vec(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse_address_list;

    fn list(text: &str) -> Vec<String> {
        parse_address_list(text)
            .iter()
            .map(|address| address.external())
            .collect()
    }

    #[test]
    fn commas_or_blanks_separate_addresses() {
        assert_eq!(list("a@b, c@d"), ["a@b", "c@d"]);
        assert_eq!(list("a@b c@d"), ["a@b", "c@d"]);
        assert_eq!(list(" a@b,,\tc@d,"), ["a@b", "c@d"]);
        assert_eq!(list("a b c"), ["a", "b", "c"]);
        assert_eq!(list(""), [""; 0]);
        assert_eq!(list(","), [""; 0]);
    }

    #[test]
    fn comments_and_phrases_are_dropped() {
        assert_eq!(
            list("info@vm, (hi) Foo Bar <sales@vm>, grp: low@vm, info@vm;"),
            ["info@vm", "sales@vm", "low@vm", "info@vm"]
        );
        assert_eq!(list("(all of it)"), [""; 0]);
        assert_eq!(list("a(b)@c(d)"), ["a@c"]);
        assert_eq!(list("<a@b> <c@d>"), ["a@b", "c@d"]);
    }

    #[test]
    fn groups_count_as_their_members() {
        assert_eq!(
            list("x@y, friends: a@b, c@d;, z@y"),
            ["x@y", "a@b", "c@d", "z@y"]
        );
        assert_eq!(list("nobody:;"), [""; 0]);
        assert_eq!(list("g: <a@b>, c@d;"), ["a@b", "c@d"]);
    }

    #[test]
    fn quoted_words_and_source_routes_stay_whole() {
        assert_eq!(list("\"a, b\"@c \"d\"@e"), ["\"a, b\"@c", "\"d\"@e"]);
        assert_eq!(list("@a,@b:u@c"), ["@a", "@b:u@c"]);
        assert_eq!(list("<@a,@b:u@c>"), ["@a,@b:u@c"]);
        assert_eq!(list(":include:/etc/list"), [":include:/etc/list"]);
        assert_eq!(list("\"|cmd -x\", /var/file"), ["\"|cmd -x\"", "/var/file"]);
    }

    #[test]
    fn what_is_broken_never_panics_and_hides_nothing_but_phrases() {
        assert_eq!(list("<>"), [""; 0]);
        assert_eq!(list("<a@b"), ["<a@b"]);
        assert_eq!(list("a@b>"), ["a@b"]);
        assert_eq!(list("a:b@c"), ["a:b@c"]);
        assert_eq!(list(";:;><,:"), [";:;", "<", ":"]);
        assert_eq!(list("a@b;c@d"), ["a@b", "c@d"]);
    }
}
