//! `unionmap:` and `pipemap:`: tables made of other tables.
//!
//! Source: Postfix DATABASE_README. A union or pipe is made anew
//! from its members whenever one of them changes, so it keeps no state.

use crate::sync::Arc;
use crate::table::kind::Joint;
use crate::table::{KeyInValues, LookupTable, Matching, TableError};

/// `unionmap:{type:name, ...}` or `pipemap:{type:name, ...}`
#[derive(Debug)]
pub(in crate::table) struct CompoundTable {
    name: String,
    joint: Joint,
    members: Vec<Arc<dyn LookupTable>>,
    /// Those of all members.
    warnings: Vec<String>,
}

impl CompoundTable {
    /// The table called `name` over `members`.
    pub(in crate::table) fn new(
        name: &str,
        joint: Joint,
        members: Vec<Arc<dyn LookupTable>>,
    ) -> Self {
        let warnings = members.iter().flat_map(|member| member.warnings());
        Self {
            name: name.to_owned(),
            joint,
            warnings: warnings.cloned().collect(),
            members,
        }
    }

    fn union(&self, key: &str) -> Result<Option<String>, TableError> {
        let mut all = String::new();
        for member in &self.members {
            if let Some(value) = member.lookup(key)? {
                if !all.is_empty() {
                    all.push(',');
                }
                all.push_str(&value);
            }
        }
        Ok((!all.is_empty()).then_some(all))
    }

    fn pipe(&self, key: &str) -> Result<Option<String>, TableError> {
        let mut key = key.to_owned();
        for member in &self.members {
            match member.lookup(&key)? {
                Some(value) => key = value,
                None => return Ok(None),
            }
        }
        Ok(Some(key))
    }
}

impl LookupTable for CompoundTable {
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        match self.joint {
            Joint::Union => self.union(key),
            Joint::Pipe => self.pipe(key),
        }
    }

    /// As Postfix has it: one member of whole keys is enough to be asked for partial keys.
    fn matching(&self) -> Matching {
        let fixed = |member: &Arc<dyn LookupTable>| member.matching() == Matching::Exact;
        if self.members.iter().any(fixed) {
            Matching::Exact
        } else {
            Matching::Pattern
        }
    }

    fn name(&self) -> &str {
        &self.name
    }

    /// What the last table of a pipe answers is the value, and its key another table's answer.
    fn key_in_values(&self) -> KeyInValues {
        let mut members = self.members.iter().map(|member| member.key_in_values());
        let most = |members: &mut dyn Iterator<Item = KeyInValues>| {
            members.max().unwrap_or(KeyInValues::Never)
        };
        match self.joint {
            Joint::Union => most(&mut members),
            Joint::Pipe => {
                let last = members.next_back().unwrap_or(KeyInValues::Never);
                let is_steered = self.members.len() == 1 || most(&mut members) > KeyInValues::Never;
                if is_steered { last } else { KeyInValues::Never }
            }
        }
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn may_block(&self) -> bool {
        self.members.iter().any(|member| member.may_block())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::chance::below;
    use crate::table::{OpenError, TableCache, TableContext, TableList, TableSet};

    fn open(list: &str) -> Result<TableSet, OpenError> {
        let list = TableList::parse(list, "hash")?;
        TableCache::new(TableContext::default()).open_all(&list)
    }

    fn ask(list: &str, key: &str) -> Result<Option<String>, TableError> {
        let set = open(list).unwrap();
        let found = set.lookup(key, false)?;
        Ok(found.map(|(value, _)| value))
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_union_has_the_answers_of_all_its_tables() {
        let union = "unionmap:{inline:{a=1, b=2}, pcre:{{/^[ac]$/ 3}}}";
        assert_eq!(ask(union, "a").unwrap(), some("1,3"));
        assert_eq!(ask(union, "b").unwrap(), some("2"));
        assert_eq!(ask(union, "c").unwrap(), some("3"));
        assert_eq!(ask(union, "d").unwrap(), None);
    }

    #[test]
    fn a_pipe_asks_one_table_for_the_answer_of_the_other() {
        let pipe = "pipemap:{inline:{a=x, b=y}, inline:{x=1}}";
        assert_eq!(ask(pipe, "a").unwrap(), some("1"));
        assert_eq!(ask(pipe, "b").unwrap(), None);
        assert_eq!(ask(pipe, "x").unwrap(), None);
        let nested = "pipemap:{unionmap:{inline:{a=x}}, inline:{x=1}}";
        assert_eq!(ask(nested, "a").unwrap(), some("1"));
    }

    #[test]
    fn an_error_of_a_member_is_an_error_of_the_whole() {
        assert!(ask("unionmap:{inline:{a=1}, fail:x}", "a").is_err());
        assert!(ask("pipemap:{inline:{a=1}, fail:x}", "a").is_err());
        assert_eq!(ask("pipemap:{inline:{a=1}, fail:x}", "b").unwrap(), None);
    }

    #[test]
    fn one_member_of_whole_keys_makes_the_whole_asked_for_partial_keys() {
        let partial = |list: &str| {
            let set = open(list).unwrap();
            set.lookup("@d", true).unwrap().map(|(value, _)| value)
        };
        assert_eq!(partial("unionmap:{pcre:{{/./ p}}}"), None);
        let mixed = "unionmap:{pcre:{{/./ p}}, inline:{@d=i}}";
        assert_eq!(partial(mixed), some("p,i"));
    }

    #[test]
    fn chance_gives_each_value_and_nothing_else() {
        let set = open("randmap:{a, b c}").unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            seen.insert(set.lookup("k", false).unwrap().unwrap().0);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(below(0), 0);
        assert_eq!(below(1), 0);
    }

    #[test]
    fn what_is_not_well_formed_does_not_open() {
        for list in [
            "unionmap:{}",
            "unionmap:{inline:{a=1}",
            "pipemap:{nonsense:x}",
            "unionmap:{word}",
            "randmap:{}",
            "unionmap:inline:{a=1}",
        ] {
            assert!(open(list).is_err(), "{list}");
        }
    }
}
