//! Postfix's configuration files of database tables, `/etc/postfix/pgsql-aliases.cf` and the
//! like: `name = value` lines as in main.cf, without `$name`.
//!
//! Source: pgsql_table(5), mysql_table(5), sqlite_table(5), ldap_table(5).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::OpenError;
use super::super::braces::name_value;
use super::Description;
use crate::suggest::suggest;
use crate::table::text::lines::{is_space, logical_lines};

/// How long a database may take to answer when the file does not say: the default that
/// ldap_table(5) has for `timeout`.
const TIMEOUT_SECONDS: u64 = 10;

/// The parameters of one file.
pub(super) struct Cf {
    /// `type:name` of the table.
    table: String,
    source: String,
    /// The prefix of each name in `main.cf`; empty for a separate file.
    prefix: String,
    values: BTreeMap<String, (String, usize)>,
}

impl Cf {
    /// Reads the parameters of `table` from where they stand.
    ///
    /// # Errors
    /// As [`Cf::parse`].
    pub(super) fn read(table: &str, description: &Description<'_>) -> Result<Self, OpenError> {
        match *description {
            Description::File { path, bytes } => Self::parse(table, path, bytes),
            Description::MainCf {
                path,
                prefix,
                values,
            } => {
                let own = values.iter().filter_map(|(name, value, line)| {
                    let name = name.strip_prefix(prefix)?;
                    Some((name.to_owned(), (value.clone(), *line)))
                });
                Ok(Self {
                    table: table.to_owned(),
                    source: path.to_owned(),
                    prefix: prefix.to_owned(),
                    values: own.collect(),
                })
            }
        }
    }

    /// Reads `bytes`, the content of the file `source` behind `table`. The last of two equal
    /// names wins, as in main.cf.
    ///
    /// # Errors
    /// A line is not `name = value`.
    pub(super) fn parse(table: &str, source: &str, bytes: &[u8]) -> Result<Self, OpenError> {
        let mut cf = Self {
            table: table.to_owned(),
            source: source.to_owned(),
            prefix: String::new(),
            values: BTreeMap::new(),
        };
        for line in logical_lines(bytes) {
            let number = line.number;
            let at = |cause: &str| cf.wrong(&format!("line {number}: {cause}"));
            let text = str::from_utf8(&line.text).map_err(|_| at("not UTF-8"))?;
            if line.is_stray() {
                return Err(at("white space at its start, but it continues nothing"));
            }
            if text.contains('\0') {
                return Err(at("NUL character"));
            }
            let (name, value) = name_value(text).map_err(&at)?;
            if name.is_empty() {
                return Err(at("no name before \"=\""));
            }
            cf.values
                .insert(name.to_owned(), (value.to_owned(), number));
        }
        Ok(cf)
    }

    /// An error about this file.
    pub(super) fn wrong(&self, cause: &str) -> OpenError {
        OpenError::Content {
            name: self.table.clone(),
            cause: format!("{}: {cause}; correct the file", self.source),
        }
    }

    /// The value of `name`, "" when there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", |(value, _)| value)
    }

    /// The value of `name`, or `default` where the file has none.
    pub(super) fn text_or<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.values.get(name).map_or(default, |(value, _)| value)
    }

    /// The value of `name`.
    ///
    /// # Errors
    /// There is none, or it is empty.
    pub(super) fn required(&self, name: &str) -> Result<&str, OpenError> {
        match self.text(name) {
            "" => Err(self.wrong(&format!("no value for {}{name}", self.prefix))),
            value => Ok(value),
        }
    }

    /// The words of `name`, separated by commas or white space.
    pub(super) fn words(&self, name: &str) -> Vec<&str> {
        let separates = |c: char| c == ',' || u8::try_from(c).is_ok_and(is_space);
        let words = self.text(name).split(separates);
        words.filter(|word| !word.is_empty()).collect()
    }

    /// The number that `name` has, or `default`.
    ///
    /// # Errors
    /// It is none, or not in `range`.
    pub(super) fn number(
        &self,
        name: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, OpenError> {
        let Some((value, line)) = self.values.get(name) else {
            return Ok(default);
        };
        let number = value.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let (least, most) = range.into_inner();
            self.wrong(&format!(
                "line {line}: {}{name} = {value}: not a number between {least} and {most}",
                self.prefix
            ))
        })
    }

    /// The truth of `name`, or `default`.
    ///
    /// # Errors
    /// It is neither yes nor no.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, OpenError> {
        match self.values.get(name) {
            None => Ok(default),
            Some((value, _)) if value.eq_ignore_ascii_case("yes") => Ok(true),
            Some((value, _)) if value.eq_ignore_ascii_case("no") => Ok(false),
            Some((value, line)) => {
                let name = format!("{}{name}", self.prefix);
                Err(self.wrong(&format!("line {line}: {name} = {value}: write yes or no")))
            }
        }
    }

    /// How long one server may take for one lookup. Databases of Postfix other than LDAP have
    /// no such parameter and ignore it.
    ///
    /// # Errors
    /// `timeout` is not a number of seconds.
    pub(super) fn timeout(&self) -> Result<Duration, OpenError> {
        let seconds = self.number("timeout", TIMEOUT_SECONDS, 1..=3600)?;
        Ok(Duration::from_secs(seconds))
    }

    /// One sentence for each parameter that has no effect: those of `ignored`, with what it says
    /// there, and those that are not `known`.
    pub(super) fn complaints(&self, known: &[&str], ignored: &[(&str, &str)]) -> Vec<String> {
        let mut found = Vec::new();
        for (name, (_, line)) in &self.values {
            let name = name.as_str();
            if let Some((_, why)) = ignored.iter().find(|(ignored, _)| *ignored == name) {
                found.push(format!(
                    "{}:{line}: {}{name} has no effect: {why}",
                    self.source, self.prefix
                ));
            } else if !known.contains(&name) {
                let nearest = suggest(name, known.iter().copied(), 2);
                let hint = nearest.map_or_else(String::new, |nearest| {
                    format!("; did you mean \"{nearest}\"?")
                });
                found.push(format!(
                    "{}:{line}: unknown parameter {}{name} has no effect{hint}",
                    self.source, self.prefix
                ));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Cf, OpenError> {
        Cf::parse("pgsql:/f.cf", "/f.cf", text.as_bytes())
    }

    #[test]
    fn parameters_are_read_as_in_main_cf() {
        let cf = parse("# c\nuser = me\nquery = SELECT a\n  FROM b # no comment\nuser= you\nx =\n")
            .unwrap();
        assert_eq!(cf.text("user"), "you");
        assert_eq!(cf.text("query"), "SELECT a  FROM b # no comment");
        assert_eq!(cf.text_or("x", "d"), "");
        assert_eq!(cf.text_or("y", "d"), "d");
        assert!(cf.required("x").is_err());
        assert_eq!(cf.required("user").unwrap(), "you");
    }

    #[test]
    fn parameters_in_main_cf_have_the_name_of_the_table_before_theirs() {
        let values = [
            ("users_dbname".to_owned(), "mail".to_owned(), 3),
            ("users_expansion_limit".to_owned(), "x".to_owned(), 4),
            ("users_qeury".to_owned(), "q".to_owned(), 5),
            ("other_dbname".to_owned(), "no".to_owned(), 6),
        ];
        let description = Description::MainCf {
            path: "/etc/postfix/main.cf",
            prefix: "users_",
            values: &values,
        };
        let cf = Cf::read("pgsql:users", &description).unwrap();
        assert_eq!(cf.text("dbname"), "mail");
        let error = cf.number("expansion_limit", 0, 0..=9).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("line 4: users_expansion_limit = x")
        );
        let error = cf.required("query").unwrap_err().to_string();
        assert!(error.contains("no value for users_query"), "{error}");
        let complaints = cf.complaints(&["query", "dbname", "expansion_limit"], &[]);
        assert_eq!(
            complaints,
            [
                "/etc/postfix/main.cf:5: unknown parameter users_qeury has no effect; did you mean \"query\"?"
            ]
        );
    }

    #[test]
    fn numbers_flags_and_words_are_checked() {
        let cf = parse("n = 7\nbad = 7x\nyes = YES\nw = a, b\t c\n").unwrap();
        assert_eq!(cf.number("n", 0, 0..=9).unwrap(), 7);
        assert!(cf.number("n", 0, 0..=6).is_err());
        assert!(cf.number("bad", 0, 0..=9).is_err());
        assert_eq!(cf.number("other", 3, 0..=9).unwrap(), 3);
        assert!(cf.flag("yes", false).unwrap());
        assert!(cf.flag("n", false).is_err());
        assert_eq!(cf.words("w"), ["a", "b", "c"]);
        assert_eq!(cf.timeout().unwrap(), Duration::from_secs(10));
    }

    #[test]
    fn lines_that_are_no_parameters_are_told_with_their_number() {
        let text = |text: &str| parse(text).err().unwrap().to_string();
        assert!(text("a = b\nquery\n").contains("line 2: no \"=\""));
        assert!(text("  a = b\n").contains("line 1"));
        assert!(text("= b\n").contains("line 1"));
    }

    #[test]
    fn parameters_without_effect_are_reported() {
        let cf = parse("user = a\noption_group = g\nqeury = x\n").unwrap();
        let complaints = cf.complaints(&["user", "query"], &[("option_group", "no libmysql")]);
        assert_eq!(
            complaints,
            [
                "/f.cf:2: option_group has no effect: no libmysql",
                "/f.cf:3: unknown parameter qeury has no effect; did you mean \"query\"?"
            ]
        );
    }
}
