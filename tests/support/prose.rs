//! The prose in source files: comments and string literals of Rust, and the text of pages.
//!
//! Code in pages (fences and lines indented by four blanks) is left out, and so are the strings of
//! tests.

/// Where a passage of prose is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A comment of Rust.
    Comment,
    /// A string literal of Rust.
    Literal,
    /// A page of text.
    Page,
}

/// A passage of prose: a comment or a paragraph with its lines joined, or a string literal.
#[derive(Debug)]
pub struct Passage {
    /// The line it begins in, counted from 1.
    pub line: usize,
    /// Where it is from.
    pub origin: Origin,
    /// Its text, on one line.
    pub text: String,
}

/// Returns the prose of a Rust file. The strings of a module of tests at its end are left out.
pub fn of_rust(code: &str) -> Vec<Passage> {
    let tests = code.find("#[cfg(test)]\nmod ").unwrap_or(code.len());
    let mut found: Vec<Passage> = Vec::new();
    let (mut at, mut line) = (0, 1);
    let mut comment_ends = 0;
    while let Some(rest) = code.get(at..).filter(|rest| !rest.is_empty()) {
        let length = token(rest);
        let token = &rest[..length];
        if let Some(comment) = token.strip_prefix("//") {
            let text = comment.trim_start_matches(['/', '!']).trim();
            match found.last_mut().filter(|_| comment_ends + 1 == line) {
                Some(last) if !text.is_empty() => last.text = format!("{} {text}", last.text),
                _ => found.push(passage(line, Origin::Comment, text.to_owned())),
            }
            comment_ends = line;
        } else if let Some(string) = literal(token).filter(|_| at < tests) {
            comment_ends = 0;
            found.push(passage(line, Origin::Literal, joined(string)));
        }
        line += token.matches('\n').count();
        at += length;
    }
    found
}

/// Returns the paragraphs of a page of text, without code.
pub fn of_page(page: &str) -> Vec<Passage> {
    let mut found = Vec::new();
    let mut open: Option<Passage> = None;
    let mut is_code = false;
    for (number, line) in page.lines().enumerate() {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        if is_code || is_fence || line.starts_with("    ") || line.trim().is_empty() {
            found.extend(open.take());
            continue;
        }
        match &mut open {
            Some(paragraph) => paragraph.text = format!("{} {}", paragraph.text, line.trim()),
            None => open = Some(passage(number + 1, Origin::Page, line.trim().to_owned())),
        }
    }
    found.extend(open);
    found
}

fn passage(line: usize, origin: Origin, text: String) -> Passage {
    Passage { line, origin, text }
}

/// Returns the length of the comment, string or character at the start of `code`; of one character
/// of anything else.
fn token(code: &str) -> usize {
    let first = code.chars().next().map_or(1, char::len_utf8);
    if code.starts_with("//") {
        return code.find('\n').unwrap_or(code.len());
    }
    if let Some(quote) = raw_quote(code) {
        let begin = code.find('"').map_or(first, |at| at + 1);
        let end = code[begin..].find(&quote);
        return end.map_or(code.len(), |at| begin + at + quote.len());
    }
    match code.chars().next() {
        Some('"') => quoted(code, '"').unwrap_or(code.len()),
        // A lifetime has no second quote next to its first character.
        Some('\'') if code[1..].starts_with('\\') => quoted(code, '\'').unwrap_or(first),
        Some('\'') => {
            let character = code[1..].chars().next().map_or(0, char::len_utf8);
            let is_closed = code[1 + character..].starts_with('\'');
            if is_closed { character + 2 } else { first }
        }
        // A word is one token, so that the `r` of `var"` begins no raw string.
        Some(c) if c.is_alphanumeric() || c == '_' => {
            let end = code.find(|c: char| !(c.is_alphanumeric() || c == '_'));
            end.unwrap_or(code.len())
        }
        _ => first,
    }
}

/// Returns what ends the raw string at the start of `code`.
fn raw_quote(code: &str) -> Option<String> {
    let code = code.trim_start_matches(['b', 'c']).strip_prefix('r')?;
    let hashes = code.len() - code.trim_start_matches('#').len();
    let is_raw = code[hashes..].starts_with('"');
    is_raw.then(|| format!("\"{}", "#".repeat(hashes)))
}

/// Returns the length of a quoted text with escapes.
fn quoted(code: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, c) in code.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Returns the text of a string literal.
fn literal(token: &str) -> Option<&str> {
    let is_raw = raw_quote(token).is_some();
    let text = if is_raw {
        &token[token.find('"')?..]
    } else {
        token
    };
    let text = text.strip_prefix('"')?;
    Some(text.trim_end_matches('#').trim_end_matches('"'))
}

/// Joins the lines of a literal that a backslash continues.
fn joined(text: &str) -> String {
    let mut lines = text.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(code: &str) -> Vec<(usize, Origin, String)> {
        let found = of_rust(code).into_iter();
        found.map(|p| (p.line, p.origin, p.text)).collect()
    }

    #[test]
    fn comments_and_strings_are_found_and_code_is_not() {
        let code =
            "//! One\n//! two.\nfn f<'a>(c: char) { g('\"', \"a \\\"b\\\" // c\"); } // end\n";
        let expected = [
            (1, Origin::Comment, "One two.".to_owned()),
            (3, Origin::Literal, "a \\\"b\\\" // c".to_owned()),
            (3, Origin::Comment, "end".to_owned()),
        ];
        assert_eq!(texts(code), expected);
    }

    #[test]
    fn lines_of_a_literal_are_joined() {
        let code = "const A: &str = \"one \\\n    two\";\nconst B: &str = r#\"a \"raw\" one\"#;";
        let expected = [
            (1, Origin::Literal, "one two".to_owned()),
            (3, Origin::Literal, "a \"raw\" one".to_owned()),
        ];
        assert_eq!(texts(code), expected);
    }

    #[test]
    fn strings_of_tests_do_not_count() {
        let code = "const A: &str = \"one\";\n#[cfg(test)]\nmod tests { fn f() { g(\"two\") } }";
        assert_eq!(texts(code), [(1, Origin::Literal, "one".to_owned())]);
    }

    #[test]
    fn code_on_a_page_does_not_count() {
        let page = "One\ntwo.\n\n    code\n\n```sh\ncode\n```\nThree.\n";
        let found = of_page(page);
        let found: Vec<_> = found.iter().map(|p| (p.line, p.text.as_str())).collect();
        assert_eq!(found, [(1, "One two."), (9, "Three.")]);
    }
}
