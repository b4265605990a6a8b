//! Command-line flags as settings, and the defaults that make `--domain` work by itself.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::problem::{Origin, Problem};
use super::values::{Values, Written};

/// What the command line says beyond naming files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--listen`, each `unix:PATH`, `inet:HOST:PORT` or a path; replaces `[lmtp] listen`.
    pub listen: Vec<String>,
    /// `--domain`; replaces `virtual_mailbox_domains`.
    pub domains: Vec<String>,
    /// `--base`; replaces `virtual_mailbox_base`. May be relative to the current directory.
    pub base: Option<PathBuf>,
    /// `--state-directory`. May be relative to the current directory.
    pub state_directory: Option<PathBuf>,
}

impl Flags {
    /// Puts the flags over what the files say. `main_cf`: a main.cf was read.
    pub(super) fn apply(
        &self,
        values: &mut Values,
        environment: &Environment,
        main_cf: bool,
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        // The owner is our choice only where we also choose the mailboxes.
        let on_our_own = !main_cf && !values.is_set("routing", "virtual_mailbox_maps");
        self.set_path(values, "routing", "virtual_mailbox_base", &mut problems);
        self.set_path(values, "", "state_directory", &mut problems);
        if !self.listen.is_empty() {
            let origin = flag("--listen");
            for address in &self.listen {
                if address.contains(|c: char| c == ',' || c.is_whitespace()) {
                    let text = format!("\"{address}\" holds a blank or comma; repeat --listen");
                    problems.push(Problem::at(&origin, text));
                }
            }
            values.set_literal("lmtp", "listen", &self.listen.join(", "), origin);
        }
        if !self.domains.is_empty() {
            self.set_domains(values, main_cf, &mut problems);
            if on_our_own {
                default_owner(values, environment);
            }
        }
        problems
    }

    fn set_domains(&self, values: &mut Values, main_cf: bool, problems: &mut Vec<Problem>) {
        let origin = flag("--domain");
        for domain in &self.domains {
            if !is_domain(domain) {
                let text = format!("\"{domain}\" is no domain name; write it like example.com");
                problems.push(Problem::at(&origin, text));
            }
        }
        let domains = self.domains.join(", ");
        values.set_literal(
            "routing",
            "virtual_mailbox_domains",
            &domains,
            origin.clone(),
        );
        if !values.is_set("routing", "virtual_mailbox_maps") {
            // All recipients in these domains, and none in others: a table with only a template
            // would take mail for any domain that a client names.
            let everybody = self.domains.iter().map(|domain| format!("@{domain}=any"));
            let maps = format!("inline:{{{}}}", everybody.collect::<Vec<_>>().join(", "));
            values.set_literal("routing", "virtual_mailbox_maps", &maps, origin.clone());
            if !values.is_set("store", "mailbox_path") {
                values.set_literal("store", "mailbox_path", "%d/%u/", origin.clone());
            }
        }
        if !main_cf && !values.is_set("routing", "mydestination") {
            // Without Postfix no domain is local, not even this machine's own name.
            values.set_literal("routing", "mydestination", "", origin);
        }
    }

    /// Sets `virtual_mailbox_base` or `state_directory` to an absolute path.
    fn set_path(
        &self,
        values: &mut Values,
        section: &str,
        name: &str,
        problems: &mut Vec<Problem>,
    ) {
        let (path, flag_name) = match section {
            "" => (&self.state_directory, "--state-directory"),
            _ => (&self.base, "--base"),
        };
        let Some(path) = path else { return };
        let origin = flag(flag_name);
        match absolute(path) {
            Ok(text) => values.set_literal(section, name, &text, origin),
            Err(cause) => problems.push(Problem::at(&origin, cause)),
        }
    }
}

/// `path` made absolute, `.` components and doubled slashes dropped.
pub(super) fn absolute(path: &Path) -> Result<String, String> {
    let absolute = std::path::absolute(path)
        .map_err(|error| format!("\"{}\": {error}; name a directory", path.display()))?;
    match absolute.to_str() {
        Some(text) if !text.contains(char::is_control) => Ok(text.to_owned()),
        _ => Err(format!(
            "\"{}\" is no printable UTF-8; rename it",
            path.display()
        )),
    }
}

/// Gives mail to the user who runs us, or, for root, to `vmail` or `nobody`.
fn default_owner(values: &mut Values, environment: &Environment) {
    if values.is_set("routing", "virtual_uid_maps") || values.is_set("routing", "virtual_gid_maps")
    {
        return;
    }
    let (uid, gid, who) = if !environment.is_root() {
        (
            environment.euid,
            environment.egid,
            "(not started as root: mail is owned by this user)".to_owned(),
        )
    } else if let Some((name, uid, gid)) = &environment.mail_user {
        (
            *uid,
            *gid,
            format!("(started as root: mail is owned by {name})"),
        )
    } else {
        return;
    };
    let origin = flag(&format!("--domain {who}"));
    let mut set = |name: &str, text: String| {
        values.set(
            "routing",
            name,
            Written {
                text,
                origin: origin.clone(),
                main_cf: false,
            },
        );
    };
    set("virtual_uid_maps", format!("static:{uid}"));
    set("virtual_gid_maps", format!("static:{gid}"));
    if !values.is_set("routing", "virtual_minimum_uid") && uid < 100 {
        let text = uid.to_string();
        values.set(
            "routing",
            "virtual_minimum_uid",
            Written {
                text,
                origin,
                main_cf: false,
            },
        );
    }
}

fn is_domain(domain: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && label
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
    };
    domain.len() <= 253 && domain.split('.').all(label)
}

fn flag(text: &str) -> Origin {
    Origin::Flag(text.to_owned())
}
