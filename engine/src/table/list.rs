//! Lists of tables: `hash:/etc/postfix/vmailbox, static:5000`.
//!
//! Source: postconf(5) and DATABASE_README on `type:name`.

use std::fmt;
use std::path::{Path, PathBuf};

use super::braces::{members, words};
use super::error::OpenError;
use super::kind::{Index, KINDS, Kind, hint};

/// One table of a list, `type:name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    kind: Kind,
    full: String,
    name_at: usize,
    /// The parameter whose value named it, for tables that depend on it.
    parameter: Option<String>,
}

impl TableName {
    /// Parses `type:name`. A path alone gets `default_database_type`; `proxy:` in front is
    /// dropped, since a proxy would answer the same.
    ///
    /// # Errors
    /// Not of that form, or a type we do not have.
    pub fn parse(word: &str, default_database_type: &str) -> Result<Self, OpenError> {
        let syntax = |cause: &str| OpenError::Syntax {
            list: word.to_owned(),
            cause: cause.to_owned(),
        };
        let mut rest = word;
        while let Some(inner) = rest.strip_prefix("proxy:") {
            rest = inner;
        }
        let full = match rest.split_once(':') {
            Some((kind, _)) if !kind.contains(['/', '{']) => rest.to_owned(),
            _ if rest.contains('/') && !rest.starts_with('{') => {
                format!("{default_database_type}:{rest}")
            }
            _ => return Err(syntax("no table type")),
        };
        let (kind, name) = full.split_once(':').unwrap_or_default();
        if name.is_empty() {
            return Err(syntax("no name after the table type"));
        }
        if name.contains('\0') {
            return Err(syntax("NUL character in the name"));
        }
        let known = KINDS.iter().find(|(known, _)| *known == kind);
        let Some(&(_, found)) = known else {
            return Err(OpenError::UnknownType {
                name: full.clone(),
                kind: kind.to_owned(),
                hint: hint(kind),
            });
        };
        Ok(Self {
            kind: found,
            name_at: kind.len() + 1,
            full,
            parameter: None,
        })
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// `type:name`, without `proxy:`.
    pub fn full(&self) -> &str {
        &self.full
    }

    /// The same table as part of the value of `parameter`: a recipient map has a table for each
    /// parameter, and its name then says which; results of patterns are used as the parameter
    /// allows.
    pub fn for_parameter(mut self, parameter: &str) -> Self {
        if self.kind == Kind::Map && self.map_parts().1.is_none() {
            self.full = format!("{}:{parameter}", self.full);
        }
        self.parameter = Some(parameter.to_owned());
        self
    }

    /// The parameter whose value named the table, if one did.
    pub(super) fn parameter(&self) -> Option<&str> {
        self.parameter.as_deref()
    }

    /// Path and table of a recipient map.
    pub(super) fn map_parts(&self) -> (&str, Option<&str>) {
        let is_table = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        match self.name().rsplit_once(':') {
            Some((path, table)) if !path.is_empty() && is_table(table) => (path, Some(table)),
            _ => (self.name(), None),
        }
    }

    /// All entries can be listed locally.
    pub fn is_listed(&self) -> bool {
        matches!(self.kind, Kind::Text | Kind::Indexed(_) | Kind::Inline)
    }

    /// The index to read a table from when there is no text.
    pub(super) fn index(&self) -> Option<(PathBuf, Index)> {
        let Kind::Indexed(index) = self.kind else {
            return None;
        };
        let suffix = match index {
            Index::Lmdb => "lmdb",
            Index::Cdb => "cdb",
        };
        Some((format!("{}.{suffix}", self.name()).into(), index))
    }

    /// One whose text Postfix makes an index of, with postmap(1) or postalias(1).
    pub(super) fn is_indexed(&self) -> bool {
        matches!(self.kind, Kind::Text | Kind::Indexed(_)) && !self.full.starts_with("texthash:")
    }

    /// What follows `type:`.
    pub(super) fn name(&self) -> &str {
        self.full.get(self.name_at..).unwrap_or_default()
    }

    /// The file the table is read from, if it has one; for a database, the file that describes
    /// it, unless `main.cf` does.
    pub fn path(&self) -> Option<&Path> {
        let has_file = match self.kind {
            Kind::Text | Kind::Indexed(_) => true,
            // Any other name is that of parameters in main.cf.
            Kind::Database(_) => self.name().starts_with(['/', '.']),
            Kind::Regexp | Kind::Pcre => !self.name().starts_with('{'),
            Kind::Map => return Some(Path::new(self.map_parts().0)),
            Kind::Static
            | Kind::Inline
            | Kind::Fail
            | Kind::Template
            | Kind::Unix
            | Kind::Compound(_)
            | Kind::Random
            | Kind::Tcp
            | Kind::Socketmap => false,
        };
        has_file.then(|| Path::new(self.name()))
    }
}

impl TableName {
    /// The tables that a table of tables consists of, in order; none for any other table.
    ///
    /// # Errors
    /// The name is not well formed, or names a table that is not.
    pub(super) fn members(&self) -> Result<Vec<Self>, OpenError> {
        if !matches!(self.kind, Kind::Compound(_)) {
            return Ok(Vec::new());
        }
        let words = members(&self.full, self.name())?;
        let parse = |word| {
            let member = Self::parse(word, "hash")?;
            Ok(match &self.parameter {
                Some(parameter) => member.for_parameter(parameter),
                None => member,
            })
        };
        words.into_iter().map(parse).collect()
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

/// A list of tables, in search order; may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableList {
    names: Vec<TableName>,
}

impl TableList {
    /// Parses a list separated by commas or white space; `{ }` keep a name together.
    ///
    /// # Errors
    /// An item is not `type:name`, or of a type we do not have.
    pub fn parse(list: &str, default_database_type: &str) -> Result<Self, OpenError> {
        let parse = |word| TableName::parse(word, default_database_type);
        let names = words(list).map(parse).collect::<Result<_, _>>()?;
        Ok(Self { names })
    }

    /// The same tables as the value of `parameter`; see [`TableName::for_parameter`].
    pub fn for_parameter(self, parameter: &str) -> Self {
        let bind = |name: TableName| name.for_parameter(parameter);
        self.names.into_iter().map(bind).collect()
    }

    /// The tables, in search order.
    pub fn names(&self) -> &[TableName] {
        &self.names
    }

    /// No table at all.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

impl FromIterator<TableName> for TableList {
    fn from_iter<I: IntoIterator<Item = TableName>>(names: I) -> Self {
        Self {
            names: names.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<Vec<String>, OpenError> {
        let list = TableList::parse(list, "hash")?;
        Ok(list.names().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn lists_are_separated_by_commas_or_blanks() {
        assert_eq!(
            parse(" hash:/a,\tstatic:5000\n  inline:{a=b, {c = d}}").unwrap(),
            ["hash:/a", "static:5000", "inline:{a=b, {c = d}}"]
        );
        assert!(parse(" , ").unwrap().is_empty());
    }

    #[test]
    fn a_path_alone_gets_the_default_type_and_proxies_are_dropped() {
        assert_eq!(
            parse("/etc/vmailbox proxy:btree:/x proxy:/y ./z:1").unwrap(),
            ["hash:/etc/vmailbox", "btree:/x", "hash:/y", "hash:./z:1"]
        );
    }

    #[test]
    fn what_is_no_table_is_refused() {
        for bad in ["word", "hash:", ":x", "{a}", "{hash:/a}", "proxy:"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_types_are_told_what_to_write_instead() {
        let text = |list: &str| parse(list).unwrap_err().to_string();
        assert!(text("hsah:/a").contains("did you mean \"hash\"?"));
        assert!(text("memcache:/a").contains("though Postfix has it"));
        assert!(text("zzzzzz:/a").contains("known are: hash, btree"));
    }

    #[test]
    fn a_recipient_map_gets_its_table_from_the_parameter_unless_it_names_one() {
        let bound = |list: &str| {
            let list = TableList::parse(list, "hash").unwrap();
            let list = list.for_parameter("virtual_uid_maps");
            list.names()
                .iter()
                .map(|name| name.members().unwrap().first().unwrap_or(name).clone())
                .map(|name| name.map_parts().1.map(str::to_owned))
                .next()
        };
        let uids = Some(Some("virtual_uid_maps".to_owned()));
        assert_eq!(bound("mailstow:/m"), uids);
        assert_eq!(bound("proxy:mailstow:/a:b/m"), uids);
        assert_eq!(bound("unionmap:{mailstow:/m, hash:/x}"), uids);
        assert_eq!(bound("mailstow:/m:other"), Some(Some("other".to_owned())));
        assert_eq!(bound("hash:/m"), Some(None));
    }

    #[test]
    fn only_tables_in_files_have_paths() {
        let path = |word: &str| {
            let name = TableName::parse(word, "hash").unwrap();
            name.path().map(|p| p.display().to_string())
        };
        assert_eq!(path("cdb:/a").as_deref(), Some("/a"));
        assert_eq!(path("pcre:/p").as_deref(), Some("/p"));
        assert_eq!(path("pcre:{{/a/ b}}"), None);
        assert_eq!(path("static:/a"), None);
        assert_eq!(path("sqlite:/q.cf").as_deref(), Some("/q.cf"));
        assert_eq!(path("unionmap:{hash:/a}"), None);
        assert_eq!(path("mailstow:/a:table").as_deref(), Some("/a"));
    }
}
