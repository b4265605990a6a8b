//! The manual pages of the C library, made from its header file.
//!
//! One page for each function, with the structs and function types that its prototype names, and
//! `libmailstow(3)` with the introduction, the list of functions and the results.

use std::fmt::Write as _;

/// What a comment of the header describes.
struct Item {
    /// Its paragraphs; words are joined across lines.
    text: Vec<String>,
    /// The C code below the comment, up to the next comment at the left margin.
    code: String,
}

/// Returns the name and text of each page, in the order of the header.
pub fn pages(header: &str) -> Vec<(String, String)> {
    let items = items(header);
    let version = header
        .lines()
        .find_map(|line| line.strip_prefix("#define MAILSTOW_VERSION \""))
        .expect("the header has a version");
    let version = version.trim_end_matches('"');
    let mut pages = vec![(
        "libmailstow.3".to_owned(),
        overview(header, &items, version),
    )];
    for item in &items {
        if let Some(name) = function(&item.code) {
            pages.push((format!("{name}.3"), page(name, item, &items, version)));
        }
    }
    pages
}

/// The commented parts of the header.
fn items(header: &str) -> Vec<Item> {
    let mut items = Vec::new();
    for part in header.split("\n/**\n").skip(1) {
        let (comment, code) = part.split_once("\n */\n").expect("the comment ends");
        let code = code.split("\n\n").next().unwrap_or_default().trim_end();
        items.push(Item {
            text: paragraphs(comment),
            code: code.to_owned(),
        });
    }
    items
}

/// The paragraphs of a comment, each on one line.
fn paragraphs(comment: &str) -> Vec<String> {
    let lines: Vec<&str> = comment
        .lines()
        .map(|line| line.trim_start().trim_start_matches('*').trim())
        .collect();
    let paragraphs = lines.split(|line| line.is_empty());
    let joined = paragraphs.map(|lines| lines.join(" "));
    joined.filter(|text| !text.is_empty()).collect()
}

/// The name of the function that `code` declares.
fn function(code: &str) -> Option<&str> {
    if code.starts_with("typedef") || code.starts_with('#') || !code.ends_with(';') {
        return None;
    }
    let (head, _) = code.split_once('(')?;
    let name = head.rsplit([' ', '*']).next()?;
    name.starts_with("mailstow_").then_some(name)
}

/// The name of the struct with members, or of the function type, that `code` declares.
fn type_name(code: &str) -> Option<&str> {
    if let Some(rest) = code.strip_prefix("typedef struct ") {
        return rest.split_once(" {").map(|(name, _)| name);
    }
    let (_, rest) = code.strip_prefix("typedef ")?.split_once("(*")?;
    rest.split_once(')').map(|(name, _)| name)
}

/// The value of the constant that `code` defines, with its name.
fn constant(code: &str) -> Option<(&str, &str)> {
    code.strip_prefix("#define ")?.split_once(' ')
}

fn page(name: &str, item: &Item, items: &[Item], version: &str) -> String {
    let mut out = head(name, version);
    let first = item.text.first().map(String::as_str).unwrap_or_default();
    let _ = writeln!(out, ".SH NAME\n{name} \\- {}", plain(&summary(first)));
    synopsis(&mut out, &item.code);
    out.push_str(".SH DESCRIPTION\n");
    describe(&mut out, &item.text);
    let mentioned: Vec<&Item> = items
        .iter()
        .filter(|other| type_name(&other.code).is_some_and(|name| names(&item.code, name)))
        .collect();
    if !mentioned.is_empty() {
        out.push_str(".SH TYPES\n");
        for other in mentioned {
            describe(&mut out, &other.text);
            example(&mut out, &other.code);
        }
    }
    if item.code.starts_with("mailstow_result ") {
        out.push_str(
            ".SH RETURN VALUE\n.B MAILSTOW_OK\nor another result of\n.BR libmailstow (3);\n\
             .BR mailstow_result_text (3)\nsays what it means.\n",
        );
    }
    out.push_str(".SH SEE ALSO\n.BR libmailstow (3)");
    let mut others: Vec<&str> = item
        .text
        .iter()
        .flat_map(|text| text.split(|c: char| !(c.is_ascii_alphanumeric() || "_()".contains(c))))
        .filter_map(|word| word.strip_suffix("(3)"))
        .filter(|word| word.starts_with("mailstow_") && *word != name)
        .collect();
    others.sort_unstable();
    others.dedup();
    for other in others {
        let _ = write!(out, ",\n.BR {other} (3)");
    }
    out.push('\n');
    out
}

/// The page about the whole library.
fn overview(header: &str, items: &[Item], version: &str) -> String {
    let comment = header.strip_prefix("/*\n").expect("the introduction");
    let (comment, _) = comment.split_once("\n */").expect("the introduction ends");
    let mut out = head("libmailstow", version);
    let mut paragraphs = paragraphs(comment).into_iter();
    let title = paragraphs.next().unwrap_or_default();
    let (_, title) = title.split_once(": ").unwrap_or(("", &title));
    let _ = writeln!(
        out,
        ".SH NAME\nlibmailstow \\- {}",
        plain(title.trim_end_matches('.'))
    );
    out.push_str(
        ".SH SYNOPSIS\n.nf\n#include <mailstow.h>\n.sp\n\
         cc program.c $(pkg\\-config \\-\\-cflags \\-\\-libs mailstow)\n.fi\n.SH DESCRIPTION\n",
    );
    for text in paragraphs.filter(|text| !text.starts_with("This file is made")) {
        // Headings have no full stop.
        match text.ends_with(['.', ':']) {
            true => describe(&mut out, &[text]),
            false => {
                let _ = writeln!(out, ".SS {}", plain(&text));
            }
        }
    }
    out.push_str(".SH FUNCTIONS\n");
    for item in items {
        if let Some(name) = function(&item.code) {
            let first = item.text.first().map(String::as_str).unwrap_or_default();
            let _ = writeln!(out, ".TP\n.BR {name} (3)\n{}", rich(&sentence(first)));
        }
    }
    out.push_str(".SH RESULTS\n");
    for item in items {
        let Some((name, value)) = constant(&item.code) else {
            continue;
        };
        if value == "0" && name == "MAILSTOW_OK" || value.len() == 4 && value.starts_with('6') {
            let text = rich(&item.text.join(" "));
            let _ = writeln!(out, ".TP\n.BR {name} \" ({value})\"\n{text}");
        }
    }
    out.push_str(".SH OTHER CONSTANTS\n");
    for item in items {
        if let Some((name, value)) = constant(&item.code)
            && value.parse::<u32>().is_ok_and(|value| value < 6500)
            && name != "MAILSTOW_OK"
        {
            let text = rich(&item.text.join(" "));
            let _ = writeln!(out, ".TP\n.BR {name} \" ({value})\"\n{text}");
        }
    }
    out
}

/// Returns what begins a paragraph: nothing behind a heading.
fn paragraph(out: &str) -> &'static str {
    let last = out.lines().next_back().unwrap_or_default();
    match last.starts_with(".SH") || last.starts_with(".SS") {
        true => "",
        false => ".PP\n",
    }
}

/// The date of the release.
const DATE: &str = "2026-11-29";

fn head(name: &str, version: &str) -> String {
    format!(
        ".\\\" Made from mailstow.h.\n.TH {name} 3 \"{DATE}\" \"libmailstow {version}\" \"libmailstow\"\n"
    )
}

fn synopsis(out: &mut String, code: &str) {
    out.push_str(".SH SYNOPSIS\n.nf\n#include <mailstow.h>\n.sp\n");
    let _ = writeln!(out, "{}\n.fi", literal(code));
}

fn example(out: &mut String, code: &str) {
    let begin = paragraph(out);
    let _ = writeln!(out, "{begin}.nf\n{}\n.fi", literal(code));
}

fn describe(out: &mut String, paragraphs: &[String]) {
    for text in paragraphs {
        let begin = paragraph(out);
        let _ = writeln!(out, "{begin}{}", rich(text));
    }
}

/// Whether `code` has `name` as a word.
fn names(code: &str, name: &str) -> bool {
    let mut words = code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.any(|word| word == name)
}

/// The first sentence, which ends before a capital letter.
fn sentence(text: &str) -> String {
    let end = text.match_indices(". ").find(|(at, _)| {
        let next = text.get(at + 2..).and_then(|rest| rest.chars().next());
        next.is_some_and(char::is_uppercase)
    });
    text.get(..end.map_or(text.len(), |(at, _)| at + 1))
        .unwrap_or(text)
        .to_owned()
}

/// The first sentence as a NAME section has it.
fn summary(text: &str) -> String {
    let sentence = sentence(text);
    let sentence = sentence.trim_end_matches('.');
    let mut letters = sentence.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

/// Text without marks, for roff.
fn plain(text: &str) -> String {
    escaped(&text.replace('`', ""))
}

/// Text in which `code` is bold, for roff.
fn rich(text: &str) -> String {
    let mut out = String::new();
    for (at, part) in text.split('`').enumerate() {
        match at % 2 {
            0 => out.push_str(&escaped(part)),
            _ => {
                let _ = write!(out, "\\fB{}\\fR", escaped(part));
            }
        }
    }
    match out.starts_with(['.', '\'']) {
        true => format!("\\&{out}"),
        false => out,
    }
}

fn literal(code: &str) -> String {
    code.lines()
        .map(escaped)
        .collect::<Vec<String>>()
        .join("\n")
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}
