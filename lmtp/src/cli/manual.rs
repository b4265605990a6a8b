//! The manual pages in `lmtp/man`, made from the text of the command line's help and of the table
//! of settings, so that they never disagree.
//!
//! `MAILSTOW_WRITE_MANUAL=1` writes them anew. Source: man-pages(7), man(7).

use super::Cli;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use mailstow_engine::config::{Fallback, PARAMETERS};
use roff::{Roff, roman};
use std::collections::BTreeMap;
use std::path::Path;

/// The date of the release.
const DATE: &str = "2026-11-29";
/// Words for the settings, which no command prints.
const SETTINGS: &str = include_str!("help/settings.txt");

/// The parts of a text: what a line is.
enum Line<'a> {
    /// The heading of a section: it ends with `:` and has no small letters.
    Heading(&'a str),
    /// Indented: kept as it is.
    Kept(&'a str),
    Blank,
    /// A paragraph.
    Paragraph(&'a str),
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Self {
        if let Some(kept) = line.strip_prefix("    ") {
            return Self::Kept(kept);
        }
        match line.strip_suffix(':') {
            Some(heading) if !line.chars().any(char::is_lowercase) => Self::Heading(heading),
            _ if line.is_empty() => Self::Blank,
            _ => Self::Paragraph(line),
        }
    }
}

fn add_text(page: &mut Roff, text: &str) {
    let (mut is_kept, mut blanks, mut is_first) = (false, 0, true);
    for line in text.lines().map(Line::of) {
        if is_kept && matches!(line, Line::Heading(_) | Line::Paragraph(_)) {
            page.control("EE", []);
            is_kept = false;
        }
        let begins = !is_kept && !is_first;
        match line {
            Line::Heading(heading) => {
                page.control("SH", [heading]);
            }
            Line::Blank => {}
            Line::Kept(kept) => {
                if begins {
                    page.control("PP", []);
                }
                if !is_kept {
                    page.control("EX", []);
                }
                for _ in 0..if is_kept { blanks } else { 0 } {
                    page.text([roman("")]);
                }
                page.text([roman(kept)]);
                is_kept = true;
            }
            Line::Paragraph(paragraph) => {
                if begins {
                    page.control("PP", []);
                }
                page.text([roman(paragraph)]);
            }
        }
        blanks = match line {
            Line::Blank => blanks + 1,
            _ => 0,
        };
        match line {
            Line::Blank => {}
            Line::Heading(_) => is_first = true,
            Line::Kept(_) | Line::Paragraph(_) => is_first = false,
        }
    }
    if is_kept {
        page.control("EE", []);
    }
}

fn title(page: &mut Roff, name: &str, section: &str) {
    let version = concat!("mailstow ", env!("CARGO_PKG_VERSION"));
    page.control("TH", [name, section, DATE, version, "mailstow"]);
    // Long names of files and settings leave gaps in lines that are adjusted.
    page.control("ad", ["l"]);
}

/// Splits a text into what comes before its first heading, which belongs to the description, and
/// its sections.
fn split_at_heading(text: &str) -> (&str, &str) {
    let mut before = 0;
    for line in text.split_inclusive('\n') {
        if matches!(Line::of(line.trim_end()), Line::Heading(_)) {
            break;
        }
        before += line.len();
    }
    text.split_at(before)
}

/// Adds the page of a command and those of its subcommands.
fn add_pages(command: &Command, pages: &mut BTreeMap<String, String>) {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name());
    assert!(
        command.get_after_help().is_none(),
        "{name}: write after_long_help, which the page has too"
    );
    let extra = command.get_after_long_help().map(ToString::to_string);
    let extra = extra.unwrap_or_default();
    let (description, sections) = split_at_heading(&extra);
    let mut page = Vec::new();
    let mut head = Roff::new();
    title(&mut head, name, "1");
    head.to_writer(&mut page).unwrap();
    let man = Man::new(command.clone());
    man.render_name_section(&mut page).unwrap();
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]);
    let usage = command.clone().render_usage().to_string();
    synopsis.text([roman(usage.trim_start_matches("Usage: "))]);
    synopsis.to_writer(&mut page).unwrap();
    man.render_description_section(&mut page).unwrap();
    if !description.is_empty() {
        let mut more = Roff::new();
        more.control("PP", []);
        add_text(&mut more, description);
        page.extend(more.to_roff().into_bytes());
    }
    if command
        .get_arguments()
        .any(|argument| !argument.is_hide_set())
    {
        man.render_options_section(&mut page).unwrap();
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page).unwrap();
    }
    let mut rest = Roff::new();
    add_text(&mut rest, sections);
    rest.control("SH", ["SEE ALSO"]);
    rest.text([roman("mailstow(1), mailstow.toml(5), virtual(8), lmtp(8)")]);
    page.extend(rest.to_roff().into_bytes());
    pages.insert(format!("{name}.1"), String::from_utf8(page).unwrap());
    for subcommand in command.get_subcommands() {
        if subcommand.get_name() != "help" {
            add_pages(subcommand, pages);
        }
    }
}

fn settings() -> String {
    let mut page = Roff::new();
    title(&mut page, "mailstow.toml", "5");
    page.control("SH", ["NAME"]);
    page.text([roman("mailstow.toml - configuration of mailstow(1)")]);
    add_text(&mut page, SETTINGS);
    let mut section = None;
    for parameter in PARAMETERS.iter() {
        if section != Some(parameter.section) {
            section = Some(parameter.section);
            let heading = match parameter.section {
                "" => "SETTINGS OUTSIDE OF ANY TABLE".to_owned(),
                section => format!("SETTINGS IN [{section}]"),
            };
            page.control("SH", [heading.as_str()]);
        }
        page.control("TP", []);
        page.text([roff::bold(parameter.name)]);
        let default = match parameter.fallback {
            Fallback::Text(_) => format!("Default: {}", parameter.default_toml()),
            Fallback::Computed(how) => format!("Default: {how}"),
        };
        let (meaning, unit) = (parameter.meaning, parameter.unit());
        page.text([roman(format!("{meaning}. ({unit}) {default}"))]);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("mailstow(1), postconf(5)")]);
    page.to_roff()
}

fn pages() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    add_pages(&command, &mut pages);
    pages.insert("mailstow.toml.5".to_owned(), settings());
    pages
}

#[test]
fn the_manual_pages_say_what_the_command_line_says() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let pages = pages();
    if std::env::var_os("MAILSTOW_WRITE_MANUAL").is_some() {
        std::fs::create_dir_all(&directory).unwrap();
        for file in std::fs::read_dir(&directory).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        for (name, page) in &pages {
            std::fs::write(directory.join(name), page).unwrap();
        }
    }
    let files = std::fs::read_dir(&directory).unwrap().map(|file| {
        let file = file.unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        (file.file_name().into_string().unwrap(), text)
    });
    let files: BTreeMap<String, String> = files.collect();
    assert!(
        pages == files,
        "lmtp/man is old: MAILSTOW_WRITE_MANUAL=1 cargo test -p mailstow-lmtp manual"
    );
}
