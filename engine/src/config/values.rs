//! All values that were given, unexpanded, and how one refers to another.
//!
//! Routing parameters and whatever else `main.cf` sets share Postfix's flat name space, so that
//! `$name` finds both; our own tables are kept apart from it. Invariant: a later insertion wins.

use std::collections::BTreeMap;

use super::expand::{ExpandError, Expansion, expand};
use super::kind::Kind;
use super::known::postfix_defaults;
use super::parameter::{Fallback, Parameter};
use super::problem::Origin;
use super::registry::find;

/// A value as it was written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) text: String,
    pub(super) origin: Origin,
    /// Read from `main.cf`, where only what Postfix understands is allowed.
    pub(super) main_cf: bool,
}

/// All values that were given.
#[derive(Debug)]
pub(super) struct Values {
    written: BTreeMap<String, Written>,
    postfix_defaults: &'static BTreeMap<String, String>,
}

impl Values {
    pub(super) fn new() -> Self {
        Self {
            written: BTreeMap::new(),
            postfix_defaults: postfix_defaults(),
        }
    }

    /// Sets a parameter of `section` (`routing` for everything from `main.cf`).
    pub(super) fn set(&mut self, section: &str, name: &str, written: Written) {
        self.written.insert(key(section, name), written);
    }

    /// Sets a parameter to a literal text: `$` means itself.
    pub(super) fn set_literal(&mut self, section: &str, name: &str, text: &str, origin: Origin) {
        let text = text.replace('$', "$$");
        self.set(
            section,
            name,
            Written {
                text,
                origin,
                main_cf: false,
            },
        );
    }

    pub(super) fn get(&self, section: &str, name: &str) -> Option<&Written> {
        self.written.get(&key(section, name))
    }

    pub(super) fn is_set(&self, section: &str, name: &str) -> bool {
        self.get(section, name).is_some()
    }

    /// Where a parameter was set.
    pub(super) fn origin(&self, section: &str, name: &str) -> Origin {
        self.get(section, name)
            .map_or(Origin::Default, |written| written.origin.clone())
    }

    /// True for every parameter of Postfix 3.7.
    pub(super) fn is_postfix_parameter(&self, name: &str) -> bool {
        self.postfix_defaults.contains_key(name)
    }

    /// Whether `text` says what Postfix's parameter `name` says anyway.
    pub(super) fn is_postfix_default(&self, name: &str, text: &str) -> bool {
        let expanded = |text: &str| Some(self.expand(name, text).ok()?.value);
        let default = self.postfix_defaults.get(name);
        default.is_some_and(|default| expanded(default) == expanded(text))
    }

    /// The unexpanded text of a parameter: as given, else its default.
    pub(super) fn text(&self, parameter: &Parameter) -> &str {
        match (
            self.get(parameter.section, parameter.name),
            parameter.fallback,
        ) {
            (Some(written), _) => &written.text,
            (None, Fallback::Text(text)) => text,
            (None, Fallback::Computed(_)) => "",
        }
    }

    /// The value of a parameter, as given or its default, expanded unless it is one that keeps its
    /// `$name`.
    pub(super) fn effective(&self, parameter: &Parameter) -> Result<Expansion, ExpandError> {
        let text = self.text(parameter);
        match parameter.kind {
            Kind::Raw(_) => Ok(Expansion::none(text)),
            _ => self.expand(parameter.name, text),
        }
    }

    /// Expands `text`, the value of parameter `name`.
    pub(super) fn expand(&self, name: &str, text: &str) -> Result<Expansion, ExpandError> {
        expand(name, text, &|name| self.lookup(name).map(str::to_owned))
    }

    /// Returns the value of `$name`, unexpanded.
    pub(super) fn written_or_default(&self, name: &str) -> Option<&str> {
        self.lookup(name)
    }

    /// Returns the value of `$name`.
    fn lookup(&self, name: &str) -> Option<&str> {
        if let Some(written) = self.written.get(name) {
            return Some(&written.text);
        }
        match find("routing", name).map(|parameter| parameter.fallback) {
            Some(Fallback::Text(text)) => Some(text),
            _ => self.postfix_defaults.get(name).map(String::as_str),
        }
    }

    /// Fills in `myhostname` and `mydomain` as Postfix does: the machine's name, completed
    /// with the domain when it has no dot; the host name without its first component.
    pub(super) fn name_host(&mut self, machine: &str) -> Result<(), ExpandError> {
        let machine = if machine.is_empty() || machine == "(none)" {
            "localhost"
        } else {
            machine
        };
        let domain_given = self.is_set("routing", "mydomain");
        let plain = |text: String| Written {
            text,
            origin: Origin::Default,
            main_cf: false,
        };
        if !self.is_set("routing", "myhostname") {
            let text = match (machine.contains('.'), domain_given) {
                (true, _) => machine.to_owned(),
                (false, true) => format!("{machine}.$mydomain"),
                (false, false) => format!("{machine}.localdomain"),
            };
            self.set("routing", "myhostname", plain(text));
        }
        if !domain_given {
            // While the host name is expanded, the domain refers to it, so that a host name
            // made from the domain is reported as a circle.
            self.set("routing", "mydomain", plain("$myhostname".to_owned()));
            let hostname = self.lookup("myhostname").unwrap_or_default().to_owned();
            let hostname = self.expand("myhostname", &hostname)?.value;
            let domain = hostname
                .split_once('.')
                .map_or("localdomain", |(_, domain)| domain);
            self.set_literal("routing", "mydomain", domain, Origin::Default);
        }
        Ok(())
    }
}

fn key(section: &str, name: &str) -> String {
    match section {
        "routing" => name.to_owned(),
        // No parameter reference can hold a dot, so $name never reaches these.
        _ => format!("{section}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(given: &[(&str, &str)]) -> Values {
        let mut values = Values::new();
        for (name, text) in given {
            let text = (*text).to_owned();
            values.set(
                "routing",
                name,
                Written {
                    text,
                    origin: Origin::Default,
                    main_cf: true,
                },
            );
        }
        values
    }

    fn value(values: &Values, text: &str) -> String {
        values.expand("test", text).expect(text).value
    }

    #[test]
    fn host_and_domain_complete_each_other_as_in_postfix() {
        for (given, machine, host, domain) in [
            (&[][..], "vm", "vm.localdomain", "localdomain"),
            (&[], "vm.example.org", "vm.example.org", "example.org"),
            (&[("mydomain", "foo.org")], "vm", "vm.foo.org", "foo.org"),
            (&[("myhostname", "foo")], "vm", "foo", "localdomain"),
            (&[("myhostname", "a.b.c")], "vm", "a.b.c", "b.c"),
            (
                &[("myhostname", "a.$mydomain"), ("mydomain", "b")],
                "vm",
                "a.b",
                "b",
            ),
            (&[], "", "localhost.localdomain", "localdomain"),
        ] {
            let mut values = values(given);
            values.name_host(machine).expect("no circle");
            assert_eq!(
                value(&values, "$myhostname $mydomain"),
                format!("{host} {domain}")
            );
        }
    }

    #[test]
    fn a_host_name_made_from_its_own_domain_is_a_circle() {
        let mut values = values(&[("myhostname", "mail.$mydomain")]);
        let error = values.name_host("vm").expect_err("circle").to_string();
        assert!(
            error.contains("myhostname -> mydomain -> myhostname"),
            "{error}"
        );
    }

    #[test]
    fn parameters_of_postfix_that_nobody_set_have_their_defaults() {
        let values = values(&[("queue_directory", "/q")]);
        assert_eq!(
            value(&values, "$queue_directory $data_directory"),
            "/q /var/lib/postfix"
        );
        assert_eq!(
            value(&values, "${mail_owner?{$mail_owner}}$virtual_alias_maps"),
            "postfix"
        );
    }
}
