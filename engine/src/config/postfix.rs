//! Postfix's own files: `main.cf` (postconf(5)) and `master.cf` (master(5)).
//!
//! Values are kept unexpanded. A mistake in `main.cf` is an error, as it is for Postfix; one in
//! `master.cf` concerns other programs and is a warning.

use std::collections::HashMap;
use std::path::Path;

use super::problem::{Origin, Problem};
use super::read::{LogicalLine, logical_lines, trim};

/// One `name = value` of `main.cf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) name: String,
    pub(super) value: String,
    /// Line on which the name stands, counted from 1.
    pub(super) line: usize,
}

/// What a `main.cf` says.
#[derive(Debug, Default)]
pub(super) struct MainCf {
    /// One per name, the last one of the file.
    pub(super) assignments: Vec<Assignment>,
    pub(super) warnings: Vec<String>,
    pub(super) problems: Vec<Problem>,
}

/// Reads the text of a `main.cf`.
pub(super) fn parse_main_cf(path: &Path, content: &[u8]) -> MainCf {
    let lines = logical_lines(path, content);
    let mut result = MainCf {
        assignments: Vec::new(),
        warnings: lines.warnings,
        problems: lines.problems,
    };
    let mut last: HashMap<String, Assignment> = HashMap::new();
    for LogicalLine { line, text } in lines.lines {
        match split_assignment(&text) {
            Ok((name, value)) => {
                let assignment = Assignment {
                    name: name.to_owned(),
                    value: value.to_owned(),
                    line,
                };
                if let Some(earlier) = last.insert(name.to_owned(), assignment) {
                    result.warnings.push(format!(
                        "{}:{line}: {name} is set again and replaces line {}; remove one of them",
                        path.display(),
                        earlier.line
                    ));
                }
            }
            Err(cause) => result
                .problems
                .push(Problem::at(&Origin::file(path, line), cause)),
        }
    }
    result.assignments = last.into_values().collect();
    result.assignments.sort_unstable_by_key(|known| known.line);
    result
}

/// Splits `name = value`, blanks around both dropped.
fn split_assignment(text: &str) -> Result<(&str, &str), String> {
    let shown: String = text.chars().take(40).collect();
    let Some((name, value)) = text.split_once('=') else {
        return Err(format!(
            "missing '=' after attribute name in \"{shown}\"; write name = value, and start \
             continuation lines with a blank"
        ));
    };
    let name = trim(name);
    if name.is_empty() {
        return Err(format!(
            "missing attribute name before '=' in \"{shown}\"; write name = value"
        ));
    }
    if name.contains(|c: char| c.is_ascii_whitespace() || c == '\x0b') {
        return Err(format!(
            "missing '=' after attribute name in \"{shown}\"; a name holds no blanks, and \
             continuation lines start with a blank"
        ));
    }
    Ok((name, trim(value)))
}

/// One service of `master.cf`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// Line on which it starts, counted from 1.
    pub(super) line: usize,
    /// Its name, the first field.
    pub(super) name: String,
    /// `y`, `n` or `-` (the default).
    pub(super) chroot: String,
    /// Its type: `inet`, `unix` and others.
    pub(super) kind: String,
    /// How many processes it may have; `-` for the default.
    pub(super) process_limit: String,
    /// The program.
    pub(super) command: String,
    /// `-o name=value`, in order.
    pub(super) overrides: Vec<(String, String)>,
    /// The arguments that are no `-o`.
    pub(super) arguments: Vec<String>,
}

/// What a `master.cf` says.
#[derive(Debug, Default)]
pub(super) struct MasterCf {
    pub(super) services: Vec<Service>,
    pub(super) warnings: Vec<String>,
}

/// Reads the text of a `master.cf`.
pub(super) fn parse_master_cf(path: &Path, content: &[u8]) -> MasterCf {
    let lines = logical_lines(path, content);
    let mut warnings = lines.warnings;
    warnings.extend(lines.problems.iter().map(ToString::to_string));
    let mut services = Vec::new();
    for LogicalLine { line, text } in lines.lines {
        match parse_service(line, &text) {
            Ok(service) => services.push(service),
            Err(cause) => warnings.push(format!("{}:{line}: {cause}", path.display())),
        }
    }
    MasterCf { services, warnings }
}

/// service type private unprivileged chroot wakeup process-limit command arguments...
fn parse_service(line: usize, text: &str) -> Result<Service, String> {
    let mut fields = words(text)?.into_iter();
    let mut next = || {
        let field = fields.next().filter(|field| !field.is_empty());
        field.ok_or_else(|| {
            "a service has eight fields: name, type, private, unprivileged, chroot, wakeup, \
             process limit, command; some are missing or empty"
                .to_owned()
        })
    };
    let name = next()?;
    let kind = next()?;
    if !["inet", "unix", "unix-dgram", "fifo", "pass"].contains(&kind.as_str()) {
        return Err(format!(
            "service type \"{kind}\"; use inet, unix, unix-dgram, fifo or pass"
        ));
    }
    let mut chroot = String::new();
    for field in ["private", "unprivileged", "chroot"] {
        let value = next()?;
        if !["y", "n", "-"].contains(&value.as_str()) {
            return Err(format!("field {field} is \"{value}\"; use y, n or -"));
        }
        chroot = value;
    }
    let mut process_limit = String::new();
    for field in ["wakeup", "process limit"] {
        let value = next()?;
        let digits = value.strip_suffix('?').unwrap_or(&value);
        if value != "-" && digits.parse::<u32>().is_err() {
            return Err(format!("field {field} is \"{value}\"; use a number or -"));
        }
        process_limit = value;
    }
    let command = next()?;
    let mut service = Service {
        line,
        name,
        chroot,
        kind,
        process_limit,
        command,
        overrides: Vec::new(),
        arguments: Vec::new(),
    };
    while let Some(word) = fields.next() {
        // Past the first word that is no option, a `-o` is the program's own: that of a command
        // that pipe(8) runs, for one.
        if !word.starts_with('-') || word == "--" {
            service.arguments.push(word);
            service.arguments.extend(fields);
            break;
        }
        let Some(attached) = word.strip_prefix("-o") else {
            service.arguments.push(word);
            continue;
        };
        let assignment = match attached {
            "" => fields
                .next()
                .ok_or("-o without name=value at the end of the service")?,
            _ => attached.to_owned(),
        };
        let (name, value) = split_assignment(&assignment)?;
        service.overrides.push((name.to_owned(), value.to_owned()));
    }
    Ok(service)
}

/// Words separated by blanks; `{ ... }` groups one, its braces and the blanks inside dropped.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = trim(text);
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('{') {
            let mut level = 1_usize;
            let end = inner.char_indices().find_map(|(at, c)| {
                level = match c {
                    '{' => level + 1,
                    '}' => level - 1,
                    _ => level,
                };
                (level == 0).then_some(at)
            });
            let (group, after) = end
                .and_then(|end| Some((inner.get(..end)?, inner.get(end + 1..)?)))
                .ok_or("\"{\" without \"}\"; close it")?;
            words.push(trim(group).to_owned());
            rest = trim(after);
        } else {
            let end = rest
                .find(|c: char| c.is_ascii_whitespace())
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            words.push(word.to_owned());
            rest = trim(after);
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn main_cf(content: &str) -> MainCf {
        parse_main_cf(Path::new("main.cf"), content.as_bytes())
    }

    #[test]
    fn names_and_values_lose_the_blanks_around_them() {
        let parsed = main_cf("a=1\nb = x = y \t\nc =\nd\t=\n  1,\n  2\r\n");
        let found: Vec<_> = parsed
            .assignments
            .iter()
            .map(|a| (a.name.as_str(), a.value.as_str()))
            .collect();
        assert_eq!(
            found,
            [("a", "1"), ("b", "x = y"), ("c", ""), ("d", "1,  2")]
        );
        assert!(parsed.warnings.is_empty() && parsed.problems.is_empty());
    }

    #[test]
    fn a_later_setting_wins_and_is_reported() {
        let parsed = main_cf("a = 1\nb = 2\na = 3\n");
        let a = parsed
            .assignments
            .iter()
            .find(|a| a.name == "a")
            .expect("a");
        assert_eq!((a.value.as_str(), a.line), ("3", 3));
        assert_eq!(parsed.assignments.len(), 2);
        assert_eq!(parsed.warnings.len(), 1);
        assert!(parsed.warnings[0].starts_with("main.cf:3: a is set again"));
    }

    #[test]
    fn every_malformed_line_is_named() {
        let parsed = main_cf("a = 1\nmyhostname\n= foo\ntwo words = x\n");
        let problems: Vec<String> = parsed.problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].starts_with("main.cf:2: missing '=' after attribute name"));
        assert!(problems[1].starts_with("main.cf:3: missing attribute name"));
        assert!(problems[2].starts_with("main.cf:4: missing '='"));
    }

    #[test]
    fn master_cf_services_carry_their_overrides() {
        let text = "smtp inet n - y - - smtpd\n  -o syslog_name=a -o { b = c d } -v\n\
                    lmtp unix - - n 60? 0 lmtp -obase=1\n";
        let parsed = parse_master_cf(Path::new("master.cf"), text.as_bytes());
        assert!(parsed.warnings.is_empty(), "{:?}", parsed.warnings);
        let smtp = &parsed.services[0];
        assert_eq!(
            (smtp.name.as_str(), smtp.command.as_str()),
            ("smtp", "smtpd")
        );
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(smtp.overrides, [pair("syslog_name", "a"), pair("b", "c d")]);
        assert_eq!(smtp.arguments, ["-v"]);
        assert_eq!(parsed.services[1].overrides, [pair("base", "1")]);
    }

    #[test]
    fn options_of_a_pipe_command_are_no_overrides() {
        let text = "mailstow unix - n n - - pipe\n  -v -o syslog_name=a flags=q user=vmail\n  \
                    argv=/bin/mailstow deliver -f ${sender} -o ${original_recipient} -- x\n\
                    other unix - n n - - spawn -- -o a\n";
        let parsed = parse_master_cf(Path::new("master.cf"), text.as_bytes());
        assert!(parsed.warnings.is_empty(), "{:?}", parsed.warnings);
        let pipe = &parsed.services[0];
        assert_eq!(pipe.overrides, [("syslog_name".to_owned(), "a".to_owned())]);
        assert!(
            pipe.arguments
                .iter()
                .any(|word| word == "${original_recipient}")
        );
        assert!(parsed.services[1].overrides.is_empty());
    }

    #[test]
    fn a_malformed_master_cf_warns_and_goes_on() {
        let text = "smtp inet n\nx tcp n n n - - x\ny unix q n n - - y\nz unix n n n a - z\n\
                    u unix n n n - - u { a\nv unix n n n - - v -o\nw unix n n n - - w -o a\n\
                    ok unix n n n - - ok\n";
        let parsed = parse_master_cf(Path::new("master.cf"), text.as_bytes());
        assert_eq!(parsed.warnings.len(), 7, "{:?}", parsed.warnings);
        assert_eq!(parsed.services.len(), 1);
    }

    #[test]
    fn a_service_with_an_empty_name_or_command_is_none() {
        let text = "{} unix - n n - - pipe\nempty unix - n n - - { }\nok unix n n n - - ok {}\n";
        let parsed = parse_master_cf(Path::new("master.cf"), text.as_bytes());
        assert_eq!(parsed.warnings.len(), 2, "{:?}", parsed.warnings);
        assert_eq!(parsed.services.len(), 1, "{:?}", parsed.services);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parsers_panic(content in any::<Vec<u8>>()) {
            parse_main_cf(Path::new("main.cf"), &content);
            parse_master_cf(Path::new("master.cf"), &content);
        }

        #[test]
        fn nothing_that_looks_like_a_file_makes_the_parsers_panic(
            content in "([a-z =#{}\\-\\n\\t]|unix|inet| - ){0,80}"
        ) {
            parse_main_cf(Path::new("main.cf"), content.as_bytes());
            parse_master_cf(Path::new("master.cf"), content.as_bytes());
        }
    }
}
