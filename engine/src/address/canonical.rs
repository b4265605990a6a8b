//! Canonical form: an address completed and rewritten as Postfix does before it looks it up.
//!
//! Source routes are stripped, `site!user` and `user%site` become `user@site`, a missing domain is
//! appended, a dot at the end of the domain is dropped. Source: trivial-rewrite(8), postconf(5).

use super::quote::{is_folded_domain, is_folded_dot_string};
use super::tokens::{Spacing, Token, internalize, scan};
use super::{Address, quote_address, quote_local_part};
use crate::config::RoutingSettings;
use std::borrow::Cow;

/// The rewriting parameters.
#[derive(Clone, Debug)]
pub struct CanonicalForm {
    myorigin: Vec<Token>,
    mydomain: Vec<Token>,
    append_at_myorigin: bool,
    append_dot_mydomain: bool,
    swap_bangpath: bool,
    allow_percent_hack: bool,
}

impl CanonicalForm {
    /// The rewriting that `settings` ask for.
    pub fn new(settings: &RoutingSettings) -> Self {
        Self {
            myorigin: scan(&settings.myorigin),
            mydomain: scan(&settings.mydomain),
            append_at_myorigin: settings.append_at_myorigin,
            append_dot_mydomain: settings.append_dot_mydomain,
            swap_bangpath: settings.swap_bangpath,
            allow_percent_hack: settings.allow_percent_hack,
        }
    }

    /// Returns the canonical form of an address.
    pub fn of(&self, address: &Address) -> Address {
        self.canonical(address.clone())
    }

    /// As [`CanonicalForm::of`], for an address that is not needed any more.
    pub fn canonical(&self, address: Address) -> Address {
        if let Some(domain) = &address.domain
            && self.is_canonical(&address.local_part, domain)
        {
            return address;
        }
        Address::from_internal(&self.of_internal(&address.internal()))
    }

    /// Certainly in canonical form already, as nearly all addresses are.
    fn is_canonical(&self, local_part: &str, domain: &str) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        domain.bytes().all(is_plain)
            && !domain.is_empty()
            && !domain.ends_with('.')
            && (domain.contains('.') || !self.append_dot_mydomain)
            && matches!(quote_local_part(local_part), Cow::Borrowed(_))
    }

    /// Certainly in canonical form, and its own folded form, too; neither part is empty.
    pub(crate) fn is_canonical_and_folded(&self, local_part: &str, domain: &str) -> bool {
        is_folded_dot_string(local_part)
            && is_folded_domain(domain)
            && !domain.ends_with('.')
            && (!self.append_dot_mydomain || domain.contains('.'))
    }

    /// The canonical form of an address in internal form, in internal form.
    pub(crate) fn of_internal<'a>(&self, address: &'a str) -> Cow<'a, str> {
        match address.rsplit_once('@') {
            Some((local_part, domain)) if self.is_canonical(local_part, domain) => {
                Cow::Borrowed(address)
            }
            _ => Cow::Owned(self.of_external(&quote_address(address))),
        }
    }

    /// The canonical form of an address as it is written (quoted), in internal form.
    pub(crate) fn of_external(&self, address: &str) -> String {
        let mut tokens = scan(address);
        let spacing = self.rewrite(&mut tokens);
        internalize(&tokens, spacing)
    }

    /// `swap_bangpath` is on and there is a `!`, or `allow_percent_hack` and a `%`.
    pub(crate) fn has_route(&self, text: &str) -> bool {
        (self.swap_bangpath && text.contains('!'))
            || (self.allow_percent_hack && text.contains('%'))
    }

    /// Rewrites the tokens of one address. Says how they are to be written: tokens of a `!user`
    /// without a site run together.
    pub(crate) fn rewrite(&self, tokens: &mut Vec<Token>) -> Spacing {
        match tokens.as_slice() {
            [] => {
                tokens.push(Token::Quoted(String::new()));
                return Spacing::Spaced;
            }
            [Token::Quoted(word)] if word.is_empty() => return Spacing::Spaced,
            [Token::Operator('@')] => {
                *tokens = vec![Token::Quoted(String::new())];
                return Spacing::Spaced;
            }
            _ => {}
        }
        strip_source_route(tokens);
        let mut spacing = Spacing::Spaced;
        if !tokens.iter().any(|token| token.is('@')) {
            if self.swap_bangpath && tokens.first().is_some_and(|token| token.is('!')) {
                spacing = Spacing::Joined;
            }
            self.add_domain(tokens);
        }
        self.complete_domain(tokens);
        if let [.., before, last] = tokens.as_slice()
            && last.is('.')
            && !before.is('.')
            && !before.is('@')
        {
            tokens.pop();
        }
        spacing
    }

    fn add_domain(&self, tokens: &mut Vec<Token>) {
        let bang = tokens.iter().position(|token| token.is('!'));
        let percent = tokens.iter().rposition(|token| token.is('%'));
        if let Some(bang) = bang.filter(|_| self.swap_bangpath) {
            let user = tokens.split_off(bang + 1);
            tokens.pop();
            let site = std::mem::replace(tokens, user);
            tokens.push(Token::Operator('@'));
            tokens.extend(site);
        } else if let Some(percent) = percent.filter(|_| self.allow_percent_hack) {
            if let Some(token) = tokens.get_mut(percent) {
                *token = Token::Operator('@');
            }
        } else if self.append_at_myorigin && !self.myorigin.is_empty() {
            tokens.push(Token::Operator('@'));
            tokens.extend_from_slice(&self.myorigin);
        }
    }

    /// Appends `.$mydomain` to a domain without a dot. `user@` and address literals stay.
    fn complete_domain(&self, tokens: &mut Vec<Token>) {
        if !self.append_dot_mydomain || self.mydomain.is_empty() {
            return;
        }
        let Some(at) = tokens.iter().rposition(|token| token.is('@')) else {
            return;
        };
        let domain = tokens.get(at + 1..).unwrap_or_default();
        let is_complete = |token: &Token| token.is('.') || matches!(token, Token::Literal(_));
        if domain.is_empty() || domain.iter().any(is_complete) {
            return;
        }
        tokens.push(Token::Operator('.'));
        tokens.extend_from_slice(&self.mydomain);
    }
}

/// `@a,@b:user@c` is `user@c` (RFC 5321 appendix C).
fn strip_source_route(tokens: &mut Vec<Token>) {
    if !tokens.first().is_some_and(|token| token.is('@')) {
        return;
    }
    if let Some(colon) = tokens.iter().position(|token| token.is(':'))
        && colon + 1 < tokens.len()
    {
        tokens.drain(..=colon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(change: impl FnOnce(&mut RoutingSettings)) -> CanonicalForm {
        let mut settings = RoutingSettings {
            myorigin: "origin.example".into(),
            mydomain: "my.example".into(),
            ..RoutingSettings::default()
        };
        change(&mut settings);
        CanonicalForm::new(&settings)
    }

    #[test]
    fn a_missing_domain_is_myorigin() {
        assert_eq!(form(|_| {}).of_external("user"), "user@origin.example");
        assert_eq!(form(|_| {}).of_external("\"a b\""), "a b@origin.example");
        assert_eq!(
            form(|s| s.append_at_myorigin = false).of_external("user"),
            "user"
        );
    }

    #[test]
    fn a_domain_without_a_dot_gets_mydomain_when_asked() {
        assert_eq!(form(|_| {}).of_external("u@host"), "u@host");
        let form = form(|s| s.append_dot_mydomain = true);
        assert_eq!(form.of_external("u@host"), "u@host.my.example");
        assert_eq!(form.of_external("u@host.x"), "u@host.x");
        assert_eq!(form.of_external("u@[192.0.2.1]"), "u@[192.0.2.1]");
        assert_eq!(form.of_external("u@"), "u@");
    }

    #[test]
    fn routes_are_stripped_and_turned_around() {
        let plain = form(|_| {});
        assert_eq!(plain.of_external("@a,@b:u@c.example"), "u@c.example");
        assert_eq!(plain.of_external("site.example!user"), "user@site.example");
        assert_eq!(
            plain.of_external("a.example!b.example!u"),
            "b.example!u@a.example"
        );
        assert_eq!(plain.of_external("u%b%c.example"), "u%b@c.example");
        assert_eq!(plain.of_external("u%b@c.example"), "u%b@c.example");
        let strict = form(|s| {
            s.swap_bangpath = false;
            s.allow_percent_hack = false;
        });
        assert_eq!(strict.of_external("a!u"), "a!u@origin.example");
        assert_eq!(strict.of_external("u%a"), "u%a@origin.example");
    }

    #[test]
    fn a_dot_at_the_end_of_the_domain_is_dropped_but_broken_forms_stay() {
        let form = form(|_| {});
        assert_eq!(form.of_external("u@c.example."), "u@c.example");
        assert_eq!(form.of_external("u@c.example.."), "u@c.example..");
        assert_eq!(form.of_external("u@."), "u@.");
    }

    #[test]
    fn the_empty_address_stays_empty() {
        let form = form(|_| {});
        for text in ["\"\"", "@", "", " "] {
            assert_eq!(form.of_external(text), "", "{text:?}");
        }
    }

    #[test]
    fn quoted_local_parts_keep_what_is_in_them() {
        let form = form(|_| {});
        let address = Address::new("user@domain.tld", Some("auto.example"));
        assert_eq!(form.of(&address), address);
        let address = Address::new("a%b c!d", Some("x.example"));
        assert_eq!(form.of(&address), address);
    }

    proptest::proptest! {
        #[test]
        fn the_short_way_for_plain_addresses_leads_where_the_long_one_does(
            address in "([ab.+%!@:\"\\\\ -]|é|user|@vm.example){0,8}", append in proptest::bool::ANY,
        ) {
            let form = form(|s| s.append_dot_mydomain = append);
            let long = form.of_external(&quote_address(&address));
            proptest::prop_assert_eq!(form.of_internal(&address), long);
        }
    }
}
