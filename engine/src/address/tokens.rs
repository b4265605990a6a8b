//! Tokens of addresses as they are written in headers, alias files and lookup tables.
//!
//! The scanner throws nothing away and never fails: what is not well formed stays visible in its
//! result, as Postfix has it. Text is UTF-8; all that has a meaning is ASCII. Source: RFC 822
//! section 3.3, with `%`, `!` and `|` as further operators.

/// Characters that are tokens, or begin one.
const OPERATORS: &str = "|%!()<>@,;:\\\".[]";

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A single character with a special meaning, such as `@` or `.`.
    Operator(char),
    /// A word without quotes.
    Atom(String),
    /// What stood between quotes, or a word that needs them; without the quotes.
    Quoted(String),
    /// What stood between `[` and `]`.
    Literal(String),
    /// A comment with its parentheses.
    Comment(String),
}

impl Token {
    /// This very operator.
    pub(crate) fn is(&self, operator: char) -> bool {
        matches!(self, Self::Operator(c) if *c == operator)
    }
}

/// Whether tokens that would run together are written with a space between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spacing {
    /// `a b`
    Spaced,
    /// `ab`
    Joined,
}

/// Splits `text` into tokens.
pub(crate) fn scan(text: &str) -> Vec<Token> {
    let mut scanner = Scanner { rest: text };
    let mut tokens = Vec::new();
    while let Some(c) = scanner.peek() {
        if is_space(c) {
            scanner.skip();
            continue;
        }
        tokens.push(match c {
            '(' => Token::Comment(scanner.comment()),
            '[' => {
                scanner.skip();
                Token::Literal(scanner.collect_through(']'))
            }
            '"' => {
                scanner.skip();
                Token::Quoted(scanner.collect_through('"'))
            }
            c if c != '\\' && OPERATORS.contains(c) => {
                scanner.skip();
                Token::Operator(c)
            }
            _ => word(scanner.collect(|c| !is_space(c) && !OPERATORS.contains(c))),
        });
    }
    tokens
}

/// A word is an atom unless a backslash smuggled something into it that needs quotes.
fn word(text: String) -> Token {
    let needs_quotes = |c: char| c.is_ascii_control() || is_space(c) || OPERATORS.contains(c);
    if text.contains(needs_quotes) {
        Token::Quoted(text)
    } else {
        Token::Atom(text)
    }
}

/// White space of the C locale.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

struct Scanner<'a> {
    rest: &'a str,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn skip(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next();
        self.rest = chars.as_str();
        c
    }

    /// Takes characters while `wanted`; a backslash takes the next one whatever it is.
    fn collect(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek() {
            let c = if c == '\\' {
                self.skip();
                match self.peek() {
                    Some(escaped) => escaped,
                    None => break,
                }
            } else if wanted(c) {
                c
            } else {
                break;
            };
            self.skip();
            text.push(if is_space(c) { ' ' } else { c });
        }
        text
    }

    fn collect_through(&mut self, end: char) -> String {
        let text = self.collect(|c| c != end);
        self.skip();
        text
    }

    /// Comments nest; one that does not end takes all that is left.
    fn comment(&mut self) -> String {
        let mut text = String::new();
        let mut depth = 0_usize;
        while let Some(c) = self.skip() {
            text.push(c);
            match c {
                '(' => depth += 1,
                ')' => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                '\\' => text.extend(self.skip()),
                _ => {}
            }
        }
        text
    }
}

/// The tokens as text with quotes where they are needed.
pub(crate) fn externalize(tokens: &[Token], spacing: Spacing) -> String {
    write(tokens, spacing, |token, text| match token {
        Token::Operator(c) => text.push(*c),
        Token::Atom(word) | Token::Comment(word) => text.push_str(word),
        Token::Quoted(word) => {
            text.push('"');
            push_escaped(text, word, "\"\\\r\n");
            text.push('"');
        }
        Token::Literal(word) => {
            text.push('[');
            push_escaped(text, word, "\\\r\n");
            text.push(']');
        }
    })
}

/// The tokens as text without quotes.
pub(crate) fn internalize(tokens: &[Token], spacing: Spacing) -> String {
    write(tokens, spacing, |token, text| match token {
        Token::Operator(c) => text.push(*c),
        Token::Atom(word) | Token::Comment(word) | Token::Quoted(word) => text.push_str(word),
        Token::Literal(word) => {
            text.push('[');
            text.push_str(word);
            text.push(']');
        }
    })
}

fn write(tokens: &[Token], spacing: Spacing, one: impl Fn(&Token, &mut String)) -> String {
    let mut text = String::new();
    let mut tokens = tokens.iter().peekable();
    while let Some(token) = tokens.next() {
        one(token, &mut text);
        let Some(next) = tokens.peek() else { break };
        let is_text = |t: &Token| !matches!(t, Token::Operator(_));
        let apart = token.is(',') || next.is('<') || (is_text(token) && is_text(next));
        if spacing == Spacing::Spaced && apart {
            text.push(' ');
        }
    }
    text
}

fn push_escaped(text: &mut String, word: &str, escaped: &str) {
    for c in word.chars() {
        if escaped.contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &str) -> String {
        externalize(&scan(text), Spacing::Spaced)
    }

    #[test]
    fn words_operators_comments_and_literals_are_told_apart() {
        let op = Token::Operator;
        let atom = |t: &str| Token::Atom(t.to_owned());
        assert_eq!(
            scan("a.b@[192.0.2.1] (a (nested) one)"),
            [
                atom("a"),
                op('.'),
                atom("b"),
                op('@'),
                Token::Literal("192.0.2.1".into()),
                Token::Comment("(a (nested) one)".into()),
            ]
        );
        assert_eq!(
            scan("\"a \\\" b\"x"),
            [Token::Quoted("a \" b".into()), atom("x")]
        );
        assert_eq!(scan("ünï+x"), [atom("ünï+x")]);
        assert_eq!(scan("|cmd"), [op('|'), atom("cmd")]);
    }

    #[test]
    fn a_word_with_an_escaped_special_becomes_a_quoted_one() {
        assert_eq!(scan("a\\ b"), [Token::Quoted("a b".into())]);
        assert_eq!(scan("a\\\tb"), [Token::Quoted("a b".into())]);
        assert_eq!(scan("a\\,b"), [Token::Quoted("a,b".into())]);
        assert_eq!(scan("a\\b"), [Token::Atom("ab".into())]);
    }

    #[test]
    fn text_that_ends_too_early_is_kept() {
        assert_eq!(scan("\"abc"), [Token::Quoted("abc".into())]);
        assert_eq!(scan("[abc"), [Token::Literal("abc".into())]);
        assert_eq!(scan("(abc (d"), [Token::Comment("(abc (d".into())]);
        assert_eq!(scan("abc\\"), [Token::Atom("abc".into())]);
        assert_eq!(scan("\\"), [Token::Atom(String::new())]);
        assert_eq!(scan("(a\\"), [Token::Comment("(a\\".into())]);
    }

    #[test]
    fn tokens_are_written_back_with_quotes_and_spaces_where_needed() {
        assert_eq!(round_trip("a  b @ c"), "a b@c");
        assert_eq!(round_trip("\"a\\\\b\"@c"), "\"a\\\\b\"@c");
        assert_eq!(round_trip("a\\ b@c"), "\"a b\"@c");
        assert_eq!(round_trip("x,<y@z>"), "x, <y@z>");
        assert_eq!(
            internalize(&scan("\"a b\"@[::1]"), Spacing::Spaced),
            "a b@[::1]"
        );
        assert_eq!(externalize(&scan("a b@c"), Spacing::Joined), "ab@c");
    }
}
