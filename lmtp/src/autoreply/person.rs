//! Whose autoreply it is, and whether the sender of a message is to get one.
//!
//! Pure. A recipient `user@example.com@autoreply.example.com`, as the VIRTUAL_README has it, means
//! `user@example.com`; any other means itself. Sources: VIRTUAL_README "Autoreplies", RFC 3834
//! section 2.

use super::original::Original;
use crate::notices::can_be_told;
use mailstow_engine::address::{Address, ExtensionRule, fold_case, unquote};
use mailstow_engine::{Recipient, ReversePath, octets};

/// Local parts of programs.
const PROGRAMS: [&str; 12] = [
    "mailer-daemon",
    "double-bounce",
    "listserv",
    "majordomo",
    "mailman",
    "noreply",
    "no-reply",
    "no_reply",
    "donotreply",
    "do-not-reply",
    "bounce",
    "bounces",
];
/// How local parts of programs and lists begin.
const BEGINNINGS: [&str; 7] = [
    "owner-", "bounce-", "bounce+", "bounces-", "bounces+", "noreply-", "noreply+",
];
/// How they end.
const ENDS: [&str; 5] = ["-request", "-owner", "-bounce", "-bounces", "-relay"];
/// What is in those that name the recipient (VERP).
const VERP: [&str; 2] = ["-bounces+", "-owner+"];

/// Whose mail is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Person {
    /// Without an extension.
    pub(super) address: Address,
    /// All addresses that are known to be the same person's, folded.
    own: Vec<String>,
    /// The domain that recipients are sent to for their autoreplies; `None` when they are
    /// themselves.
    detour: Option<String>,
}

impl Person {
    /// Returns the person that a recipient of the transport means; `None` when it has no
    /// domain.
    pub(super) fn of(recipient: &Recipient, rule: &ExtensionRule) -> Option<Self> {
        let given = &recipient.address;
        let inner = Address::from_internal(&given.local_part);
        let (full, detour) = match &inner.domain {
            Some(_) => (inner, given.domain.clone()),
            None => (given.clone(), None),
        };
        let domain = full.domain.as_deref().unwrap_or_default();
        let domain = match &detour {
            // An extension is added behind the whole local part.
            Some(_) => without_extension(domain, rule),
            None => domain,
        };
        if domain.is_empty() {
            return None;
        }
        let user = rule.split(&full.local_part).map(|(user, _)| user);
        let user = user.unwrap_or(&full.local_part);
        if user.is_empty() {
            return None;
        }
        let address = Address::new(user, Some(domain));
        let original = recipient.original.as_deref().unwrap_or_default();
        let own = [address.internal(), given.internal(), original.to_owned()];
        let own = own.iter().filter(|address| !address.is_empty());
        let own = own.map(|address| plain(address, rule)).collect();
        Some(Self {
            address,
            own,
            detour: detour.map(|domain| domain.to_ascii_lowercase()),
        })
    }

    fn is_own(&self, address: &str, rule: &ExtensionRule) -> bool {
        self.own.contains(&plain(address, rule))
    }

    /// Returns true when one of these addresses, separated by commas or blanks, is the person's.
    /// `@domain` means all in a domain.
    pub(super) fn is_in(&self, addresses: &str, rule: &ExtensionRule) -> bool {
        let own = plain(&self.address.internal(), rule);
        let mut listed = addresses
            .split([',', ' ', '\t'])
            .filter(|one| !one.is_empty());
        listed.any(|one| match one.strip_prefix('@') {
            Some(domain) => {
                let own = own.rsplit_once('@').map(|(_, domain)| domain);
                own == Some(fold_case(domain).as_ref())
            }
            None => plain(one, rule) == own,
        })
    }

    /// Returns why the sender gets no reply. `only_named`: the person must be named in the header.
    pub(super) fn refusal(
        &self,
        sender: &ReversePath,
        original: &Original,
        (rule, only_named): (&ExtensionRule, bool),
    ) -> Option<String> {
        let ReversePath::Address(sender) = sender else {
            return Some("it has no sender".to_owned());
        };
        let domain = sender.domain.as_deref().unwrap_or_default();
        if domain.is_empty() || !can_be_told(sender) {
            return Some("the domain of its sender is invalid".to_owned());
        }
        let both = [sender.internal(), self.address.internal()];
        if both.iter().any(|one| one.contains(is_unfit)) {
            return Some("an address cannot be written into a header".to_owned());
        }
        if is_program(&sender.local_part) {
            return Some("its sender is a program or a list".to_owned());
        }
        let is_detour = self.detour.as_deref() == Some(&domain.to_ascii_lowercase());
        if is_detour || self.is_own(&sender.internal(), rule) {
            return Some("its sender is the recipient".to_owned());
        }
        if let Some(refusal) = &original.refusal {
            return Some(refusal.clone());
        }
        let mut named = original.recipients.iter();
        if only_named && !named.any(|named| self.is_own(named, rule)) {
            return Some("its header does not name the recipient".to_owned());
        }
        None
    }
}

/// An address as it is compared: without quotes, extension and case.
fn plain(address: &str, rule: &ExtensionRule) -> String {
    let address = Address::from_internal(&unquote(address));
    let user = rule.split(&address.local_part).map(|(user, _)| user);
    let user = user.unwrap_or(&address.local_part);
    let domain = address.domain.as_deref().unwrap_or_default();
    fold_case(&format!("{user}@{domain}")).into_owned()
}

/// What a delimiter that no domain has leaves of it.
fn without_extension<'a>(domain: &'a str, rule: &ExtensionRule) -> &'a str {
    let is_delimiter =
        |c: char| rule.delimiters.contains(c) && !c.is_alphanumeric() && !"-.".contains(c);
    let end = domain.find(is_delimiter).unwrap_or(domain.len());
    domain.get(..end).unwrap_or(domain)
}

/// Octets that are no UTF-8, and control characters.
fn is_unfit(c: char) -> bool {
    c.is_control() || octets::is_octet(c)
}

fn is_program(local_part: &str) -> bool {
    let name = local_part.to_ascii_lowercase();
    PROGRAMS.contains(&name.as_str())
        || BEGINNINGS.iter().any(|begin| name.starts_with(begin))
        || ENDS.iter().any(|end| name.ends_with(end))
        || VERP.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> ExtensionRule {
        ExtensionRule {
            delimiters: "+".into(),
            owner_request_special: true,
        }
    }

    fn person(local_part: &str, domain: &str, original: Option<&str>) -> Person {
        let recipient = Recipient {
            address: Address::new(local_part, Some(domain)),
            original: original.map(str::to_owned),
        };
        Person::of(&recipient, &rule()).unwrap()
    }

    fn refusal(person: &Person, sender: &str, to: &str) -> Option<String> {
        let sender = match sender {
            "" => ReversePath::Null,
            sender => ReversePath::Address(Address::from_internal(sender)),
        };
        let original = Original::parse(format!("To: {to}\n\n").as_bytes());
        person.refusal(&sender, &original, (&rule(), true))
    }

    #[test]
    fn a_recipient_of_the_autoreply_domain_stands_for_the_one_in_its_local_part() {
        let inner = person("info@example.com", "autoreply.example.com", None);
        assert_eq!(inner.address.internal(), "info@example.com");
        let extended = person("info+x@example.com", "autoreply.example.com", None);
        assert_eq!(extended.address.internal(), "info@example.com");
        let behind = person("info@example.com+x", "autoreply.example.com", None);
        assert_eq!(behind.address.internal(), "info@example.com");
        let itself = person("info", "example.com", None);
        assert_eq!(itself.address.internal(), "info@example.com");
        let bare = Recipient {
            address: Address::new("info", None),
            original: None,
        };
        assert_eq!(Person::of(&bare, &rule()), None);
    }

    #[test]
    fn a_person_is_named_by_any_of_its_addresses() {
        let info = person("info@example.com", "autoreply.x", Some("sales@example.com"));
        for to in [
            "info@example.com",
            "Info <INFO@Example.com>",
            "<info+tag@example.com>",
            "a@b, sales@example.com",
        ] {
            assert_eq!(refusal(&info, "a@x", to), None, "{to}");
        }
        assert!(refusal(&info, "a@x", "other@example.com").is_some());
        let original = Original::default();
        let sender = ReversePath::Address(Address::new("a", Some("x")));
        assert_eq!(info.refusal(&sender, &original, (&rule(), false)), None);
    }

    #[test]
    fn a_person_is_listed_by_address_or_domain() {
        let info = person(
            "Info+x@Example.com",
            "autoreply.x",
            Some("sales@example.com"),
        );
        for listed in ["info@example.com", "a@b, INFO@example.com", "@EXAMPLE.com"] {
            assert!(info.is_in(listed, &rule()), "{listed}");
        }
        for listed in [
            "",
            "sales@example.com",
            "@x",
            "@ple.com",
            "info",
            "example.com",
            "@",
        ] {
            assert!(!info.is_in(listed, &rule()), "{listed}");
        }
    }

    #[test]
    fn programs_lists_bounces_and_the_person_itself_get_no_reply() {
        let info = person("info@example.com", "autoreply.x", Some("sales@example.com"));
        for sender in [
            "",
            "MAILER-DAEMON@x",
            "owner-list@x",
            "list-request@x",
            "list-bounces@x",
            "list-bounces+info=example.com@x",
            "bounces+123-info=example.com@em.x",
            "noreply@x",
            "No-Reply@x",
            "info@example.com",
            "INFO+x@example.com",
            "sales@example.com",
            "other@example.com@autoreply.x",
            "a",
            "a@x,y",
        ] {
            let refused = refusal(&info, sender, "info@example.com");
            assert!(refused.is_some(), "{sender}");
        }
        for sender in ["a@x", "owner@x", "request@x", "bouncer@x"] {
            assert_eq!(refusal(&info, sender, "info@example.com"), None, "{sender}");
        }
    }
}
