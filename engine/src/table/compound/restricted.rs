//! `domain` of database tables: addresses in other domains are not looked up at all.
//!
//! Source: pgsql_table(5) and ldap_table(5), "domain": a list of domain names, files with such
//! lists, and tables; `!` in front excludes. Bare user names and `@domain` keys are not looked up
//! either.

use crate::address::fold_case;
use crate::sync::Arc;
use crate::table::braces::words;
use crate::table::watch::text_files::TextFiles;
use crate::table::{KeyInValues, LookupTable, Matching, OpenError, TableError};

/// A list that names itself, through files, would never end.
const FILE_DEPTH_MAX: usize = 8;

/// A table behind a list of domains.
#[derive(Debug)]
pub(in crate::table) struct RestrictedTable {
    table: Arc<dyn LookupTable>,
    domains: Vec<(bool, Pattern)>,
}

#[derive(Debug)]
enum Pattern {
    Name(String),
    Table(Arc<dyn LookupTable>),
}

impl RestrictedTable {
    /// Puts `table` behind the domains of `list`; `open` opens the tables that the list names, its
    /// files are in `texts`.
    ///
    /// # Errors
    /// A table or file of the list cannot be opened.
    pub(in crate::table) fn new(
        table: Arc<dyn LookupTable>,
        list: &str,
        texts: &TextFiles,
        mut open: impl FnMut(&str) -> Result<Arc<dyn LookupTable>, OpenError>,
    ) -> Result<Self, OpenError> {
        let mut domains = Vec::new();
        collect(list, true, texts, &mut open, &mut domains, 0)?;
        Ok(Self { table, domains })
    }

    fn has(&self, domain: &str) -> Result<bool, TableError> {
        let domain = fold_case(domain);
        for (positive, pattern) in &self.domains {
            let matches = match pattern {
                Pattern::Name(name) => *name == domain,
                Pattern::Table(table) => table.lookup(&domain)?.is_some(),
            };
            if matches {
                return Ok(*positive);
            }
        }
        Ok(false)
    }
}

impl LookupTable for RestrictedTable {
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        match key.rsplit_once('@') {
            Some((user, domain)) if !user.is_empty() && self.has(domain)? => self.table.lookup(key),
            _ => Ok(None),
        }
    }

    fn matching(&self) -> Matching {
        self.table.matching()
    }

    fn name(&self) -> &str {
        self.table.name()
    }

    fn key_in_values(&self) -> KeyInValues {
        self.table.key_in_values()
    }

    fn warnings(&self) -> &[String] {
        self.table.warnings()
    }

    fn may_block(&self) -> bool {
        self.table.may_block()
    }
}

fn collect(
    list: &str,
    positive: bool,
    texts: &TextFiles,
    open: &mut impl FnMut(&str) -> Result<Arc<dyn LookupTable>, OpenError>,
    domains: &mut Vec<(bool, Pattern)>,
    depth: usize,
) -> Result<(), OpenError> {
    for word in words(list) {
        let name = word.trim_start_matches('!');
        let positive = positive ^ ((word.len() - name.len()) % 2 == 1);
        if name.starts_with('/') {
            let unreadable = |source| OpenError::Read {
                name: list.to_owned(),
                path: name.to_owned(),
                source,
                remedy: "create the file, or remove it from the list \"domain\"",
            };
            if depth >= FILE_DEPTH_MAX {
                let error = std::io::Error::other("it is named by a file that it names itself");
                return Err(unreadable(error));
            }
            let (text, _) = texts.text(name.as_ref()).map_err(unreadable)?;
            let lines = text.lines().filter(|l| !l.trim_start().starts_with('#'));
            let lines: Vec<_> = lines.collect();
            collect(&lines.join("\n"), positive, texts, open, domains, depth + 1)?;
        } else if name.contains(':') {
            domains.push((positive, Pattern::Table(open(name)?)));
        } else if !name.is_empty() {
            domains.push((positive, Pattern::Name(fold_case(name).into_owned())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::constant::StaticTable;
    use super::*;
    use crate::table::text::inline::InlineTable;

    fn texts() -> TextFiles {
        TextFiles::new(std::time::Duration::from_secs(60))
    }

    fn found(list: &str, key: &str) -> bool {
        let inner = Arc::new(StaticTable::open("static:v", "v").unwrap());
        let table = RestrictedTable::new(inner, list, &texts(), |name| {
            let text = name.strip_prefix("inline:").unwrap();
            Ok(Arc::new(InlineTable::open(name, text)?))
        });
        table.unwrap().lookup(key).unwrap().is_some()
    }

    #[test]
    fn only_addresses_in_the_domains_are_looked_up() {
        let list = "a.example, !b.example inline:{C.example=x}";
        assert!(found(list, "u@A.example"));
        assert!(found(list, "u@c.example"));
        for key in ["u@b.example", "u@d.example", "@a.example", "u", "a.example"] {
            assert!(!found(list, key), "{key}");
        }
    }

    #[test]
    fn lists_may_stand_in_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("domains");
        std::fs::write(&path, "# ours\na.example\nb.example, c.example\n").unwrap();
        let list = path.display().to_string();
        assert!(found(&list, "u@c.example"));
        assert!(!found(&format!("!{list}"), "u@c.example"));
        let inner = Arc::new(StaticTable::open("static:v", "v").unwrap());
        let none = |_: &str| -> Result<Arc<dyn LookupTable>, OpenError> { unreachable!() };
        assert!(RestrictedTable::new(inner, "/no/such/list", &texts(), none).is_err());
    }
}
