//! `mailstow.toml`: which keys it sets, to what text, on which line.
//!
//! Values become the text that `main.cf` would hold, so that everything after this file treats both
//! alike: arrays are joined with commas, booleans are `yes` and `no`. Every mistake is collected,
//! each with its line.

use std::ops::Range;
use std::path::Path;

use toml_edit::{Document, Item, TableLike, Value};

use super::kind::Kind;
use super::known::postfix_defaults;
use super::parameter::Parameter;
use super::problem::{Origin, Problem};
use super::registry::{PARAMETERS, find};
use crate::suggest::suggest;

/// One key that is set.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) parameter: &'static Parameter,
    /// Unexpanded.
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// What a `mailstow.toml` says.
#[derive(Debug, Default)]
pub(super) struct TomlFile {
    pub(super) given: Vec<Given>,
    pub(super) problems: Vec<Problem>,
}

/// Reads the text of a `mailstow.toml`.
pub(super) fn parse_toml(path: &Path, content: &[u8]) -> TomlFile {
    let mut reader = Reader {
        path,
        content,
        result: TomlFile::default(),
    };
    match std::str::from_utf8(content) {
        Ok(text) => match Document::parse(text) {
            Ok(document) => reader.top(document.as_table()),
            Err(error) => {
                let mut cause = error.message().trim_end().replace('\n', "; ");
                let place = error.span();
                let what = place.clone().and_then(|place| text.get(place));
                cause += &remedy(&cause, what.unwrap_or_default());
                reader.problem(place, format!("not valid TOML: {cause}"));
            }
        },
        Err(error) => {
            let at = error.valid_up_to();
            let text = "the file is not valid UTF-8; convert it to UTF-8";
            reader.problem(Some(at..at), text.to_owned());
        }
    }
    reader.result
}

/// Returns what to add to what the parser says about `what`.
fn remedy(cause: &str, what: &str) -> String {
    if cause.contains("duplicate key") {
        format!(
            " \"{}\"; set it once, and write each [section] once",
            what.trim()
        )
    } else if cause.contains("leading zero") {
        "; write file modes in quotation marks, such as \"0600\"".to_owned()
    } else {
        String::new()
    }
}

struct Reader<'a> {
    path: &'a Path,
    content: &'a [u8],
    result: TomlFile,
}

impl Reader<'_> {
    fn top(&mut self, table: &dyn TableLike) {
        for (name, item) in table.iter() {
            let span = key_span(table, name);
            let section = PARAMETERS
                .iter()
                .any(|p| p.section == name && !name.is_empty());
            match (section, item.as_table_like()) {
                (true, Some(inner)) => {
                    for (key, item) in inner.iter() {
                        self.key(name, key, item, key_span(inner, key));
                    }
                }
                (true, None) => {
                    self.problem(span, format!("{name} is a table; write [{name}]"));
                }
                (false, _) => self.key("", name, item, span),
            }
        }
    }

    fn key(&mut self, section: &str, name: &str, item: &Item, span: Option<Range<usize>>) {
        let Some(parameter) = find(section, name) else {
            let text = unknown(section, name);
            self.problem(span, text);
            return;
        };
        match self.text(&parameter.kind, item) {
            Ok(text) => {
                let origin = Origin::file(self.path, self.line(span));
                self.result.given.push(Given {
                    parameter,
                    text,
                    origin,
                });
            }
            Err(cause) => {
                self.problem(span, format!("{name}: {cause} ({})", parameter.unit()));
            }
        }
    }

    /// The text `main.cf` would hold for this value.
    fn text(&self, kind: &Kind, item: &Item) -> Result<String, String> {
        let value = item.as_value().ok_or("a table where a value belongs")?;
        let Value::Array(array) = value else {
            return self.scalar(kind, value);
        };
        if !matches!(
            kind,
            Kind::List(_) | Kind::Tables(_) | Kind::Locks(_) | Kind::Listen(_)
        ) {
            return Err("an array where one value belongs".into());
        }
        let items: Result<Vec<&str>, String> = array
            .iter()
            .map(|item| {
                item.as_str()
                    .ok_or_else(|| "an array holds strings only".to_owned())
            })
            .collect();
        Ok(items?.join(", "))
    }

    fn scalar(&self, kind: &Kind, value: &Value) -> Result<String, String> {
        let text = match value {
            Value::String(text) => text.value().clone(),
            // Permission bits are octal however they are written: 0o660 and 660 mean the same.
            Value::Integer(number) if matches!(kind, Kind::Mode(_)) => {
                let written = number.span().and_then(|span| self.content.get(span));
                String::from_utf8_lossy(written.unwrap_or_default()).into_owned()
            }
            Value::Integer(number) => number.value().to_string(),
            Value::Boolean(value) => if *value.value() { "yes" } else { "no" }.to_owned(),
            Value::Float(_) => return Err("a fraction where a whole number or text belongs".into()),
            Value::Datetime(_) => return Err("a date where a number or text belongs".into()),
            Value::Array(_) | Value::InlineTable(_) => {
                return Err("a table where a value belongs".into());
            }
        };
        match text.contains('\0') {
            true => Err("the value holds a NUL; remove it".into()),
            false => Ok(text),
        }
    }

    fn problem(&mut self, span: Option<Range<usize>>, text: String) {
        let origin = Origin::file(self.path, self.line(span));
        self.result.problems.push(Problem::at(&origin, text));
    }

    fn line(&self, span: Option<Range<usize>>) -> usize {
        let before = span
            .and_then(|span| self.content.get(..span.start))
            .unwrap_or_default();
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }
}

fn key_span(table: &dyn TableLike, name: &str) -> Option<Range<usize>> {
    table.get_key_value(name).and_then(|(key, _)| key.span())
}

/// What to say of a key we do not have.
fn unknown(section: &str, name: &str) -> String {
    let place = match section {
        "" => "at the top of the file".to_owned(),
        _ => format!("in [{section}]"),
    };
    let elsewhere = PARAMETERS.iter().find(|p| p.name == name);
    let here = PARAMETERS
        .iter()
        .filter(|p| p.section == section)
        .map(|p| p.name);
    let sections = PARAMETERS
        .iter()
        .map(|p| p.section)
        .filter(|s| section.is_empty() && !s.is_empty());
    let hint = if let Some(parameter) = elsewhere {
        match parameter.section {
            "" => "; it belongs at the top of the file, before the first table".to_owned(),
            other => format!("; it belongs in [{other}]"),
        }
    } else if section == "routing" && postfix_defaults().contains_key(name) {
        "; it is a Postfix parameter that mailstow does not act on; remove it".to_owned()
    } else {
        match suggest(name, here.chain(sections), usize::MAX) {
            Some(known) => format!("; the nearest known key is {known}"),
            None => String::new(),
        }
    };
    format!("unknown key {name} {place}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(content: &str) -> TomlFile {
        parse_toml(Path::new("mailstow.toml"), content.as_bytes())
    }

    fn problems(content: &str) -> Vec<String> {
        parse(content)
            .problems
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn every_form_of_value_becomes_the_text_of_main_cf() {
        let parsed = parse(
            "state_directory = \"/s\"\n[routing]\nvirtual_mailbox_domains = [\"a.example\",\n\
             \"b.example\"]\nvirtual_mailbox_limit = 60_000_000\nstrict_mailbox_ownership = false\n\
             lmtp.hostname = 1\n",
        );
        assert_eq!(parsed.problems.len(), 1, "{:?}", parsed.problems);
        let found: Vec<(String, String)> = parsed
            .given
            .iter()
            .map(|given| (given.text.clone(), given.origin.to_string()))
            .collect();
        let pair = |text: &str, line: u32| (text.to_owned(), format!("mailstow.toml:{line}"));
        assert_eq!(
            found,
            [
                pair("/s", 1),
                pair("a.example, b.example", 3),
                pair("60000000", 5),
                pair("no", 6),
            ]
        );
    }

    #[test]
    fn permission_bits_are_octal_in_every_spelling() {
        for text in ["0o660", "660", "\"0660\"", "\"660\""] {
            let parsed = parse(&format!("[lmtp]\nsocket_mode = {text}\n"));
            let mut settings = super::super::Settings::default();
            let given = &parsed.given[0];
            let applied = given.parameter.kind.apply(&given.text, true, &mut settings);
            assert_eq!(
                (applied, settings.lmtp.socket_mode),
                (Ok(()), 0o660),
                "{text}"
            );
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_one() {
        let found = problems(
            "colour = 1\n[routing]\nvirtual_mailbox_map = \"x\"\nlisten = \"/s\"\n\
             canonical_maps = \"hash:/v\"\n[lmtpd]\nlisten = \"/s\"\n[lmtp]\nlistn = \"/s\"\n",
        );
        assert_eq!(found.len(), 6, "{found:?}");
        assert!(
            found[0].starts_with("mailstow.toml:1: unknown key colour"),
            "{found:?}"
        );
        assert!(found[1].starts_with("mailstow.toml:3: ") && found[1].ends_with("_maps"));
        assert!(found[2].starts_with("mailstow.toml:4: ") && found[2].contains("in [lmtp]"));
        assert!(found[3].starts_with("mailstow.toml:5: ") && found[3].contains("not act on"));
        assert!(found[4].starts_with("mailstow.toml:6: ") && found[4].ends_with("is lmtp"));
        assert!(found[5].starts_with("mailstow.toml:9: ") && found[5].ends_with("is listen"));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_what_is_allowed() {
        let found = problems(
            "routing = 1\n[lmtp]\nidle_timeout = 1.5\nlenient_paths = [\"yes\"]\nlisten = [1]\n\
             hostname = { a = 1 }\nnul = \"a\\u0000b\"\nidle_timeout.a = 1979-05-27\n",
        );
        assert_eq!(
            found.len(),
            1,
            "one syntax error, the rest is not read: {found:?}"
        );
        let found = problems(
            "routing = 1\n[lmtp]\nidle_timeout = 1.5\nlenient_paths = [\"yes\"]\nlisten = [1]\n\
             hostname = { a = 1 }\nnul = \"a\\u0000b\"\ndrain_timeout = 1979-05-27\n",
        );
        assert_eq!(found.len(), 7, "{found:?}");
        assert!(
            found[1].starts_with("mailstow.toml:3: idle_timeout: a fraction"),
            "{found:?}"
        );
        assert!(found[2].contains("yes or no"), "{found:?}");
    }

    #[test]
    fn broken_toml_and_broken_text_name_the_line() {
        let found = problems("[lmtp]\nlisten = \n");
        assert!(
            found[0].starts_with("mailstow.toml:2: not valid TOML: "),
            "{found:?}"
        );
        let found = problems("[lmtp]\nnul = \"accept\"\nnul = \"reject\"\n");
        assert!(
            found[0].starts_with("mailstow.toml:3: not valid TOML: duplicate key \"nul\"; set"),
            "{found:?}"
        );
        let found = problems("[lmtp]\n[store]\n[lmtp]\nnul = \"accept\"\n");
        assert!(found[0].contains("\"lmtp\""), "{found:?}");
        let found = problems("[lmtp]\nsocket_mode = 0600\n");
        assert!(found[0].contains("such as \"0600\""), "{found:?}");
        let parsed = parse_toml(Path::new("m.toml"), b"# a\n# \xe9\n");
        assert!(
            parsed.problems[0]
                .to_string()
                .starts_with("m.toml:2: the file is not valid")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(content in any::<Vec<u8>>()) {
            parse_toml(Path::new("m.toml"), &content);
        }

        #[test]
        fn nothing_that_looks_like_toml_makes_the_parser_panic(
            content in "(\\[|\\]|[a-z.=\"'{},\\n ]|routing|lmtp|listen|[0-9]){0,60}"
        ) {
            parse_toml(Path::new("m.toml"), content.as_bytes());
        }
    }
}
