//! Class, transport and nexthop of one recipient, as trivial-rewrite(8) resolves it.
//!
//! Our own domains are peeled off the address until the rest is foreign, or empty:
//! `user%far.example@here` goes to far.example. Source: trivial-rewrite(8), ADDRESS_CLASS_README,
//! postconf(5).

use super::class::Classes;
use super::error::RouteError;
use super::hostname::{is_valid_hostname, is_valid_literal};
use super::interfaces::is_address;
use super::opener::Opener;
use super::search::{KeyForms, Maps, Search, Strategy};
use super::trace::{Step, Trace};
use super::transport::TransportMaps;
use super::types::AddressClass;
use crate::address::tokens::{Spacing, Token, internalize, scan};
use crate::address::{CanonicalForm, ExtensionRule, quote_address};
use crate::config::RoutingSettings;
use crate::table::{OpenError, TableError};

/// What resolving needs to know.
#[derive(Debug)]
pub(crate) struct Resolver {
    pub(crate) form: CanonicalForm,
    pub(crate) classes: Classes,
    pub(crate) rule: ExtensionRule,
    transports: TransportMaps,
    relocated: Maps,
    myorigin: String,
    myhostname: Vec<Token>,
    empty_address_recipient: Vec<Token>,
    resolve_dequoted_address: bool,
    resolve_null_domain: bool,
    resolve_numeric_domain: bool,
    allow_min_user: bool,
}

/// A recipient with its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Internal form, always with a domain.
    pub(crate) recipient: String,
    pub(crate) class: AddressClass,
    pub(crate) transport: String,
    pub(crate) nexthop: String,
    /// `transport_maps` has something for it.
    pub(crate) is_mapped: bool,
}

impl Resolver {
    /// Opens lists and tables.
    ///
    /// # Errors
    /// One of them cannot be opened.
    pub(crate) fn open(settings: &RoutingSettings, opener: &Opener<'_>) -> Result<Self, OpenError> {
        let relocated = &settings.relocated_maps;
        Ok(Self {
            form: CanonicalForm::new(settings),
            classes: Classes::open(settings, opener)?,
            rule: super::alias::extension_rule(settings),
            transports: TransportMaps::open(settings, opener),
            relocated: Maps::open_or_fail("relocated_maps", relocated, opener),
            myorigin: settings.myorigin.clone(),
            myhostname: scan(&settings.myhostname),
            empty_address_recipient: scan(&settings.empty_address_recipient),
            resolve_dequoted_address: settings.resolve_dequoted_address,
            resolve_null_domain: settings.resolve_null_domain,
            resolve_numeric_domain: settings.resolve_numeric_domain,
            allow_min_user: settings.allow_min_user,
        })
    }

    /// `transport_maps` and `relocated_maps`, for reports.
    pub(crate) fn maps(&self) -> [&Maps; 2] {
        [self.transports.maps(), &self.relocated]
    }

    /// A domain of this machine to complete local names with, if there is one.
    pub(crate) fn local_domain(&self) -> Option<String> {
        let origin = Some(self.myorigin.as_str());
        let listed = self.classes.lists().into_iter().next()?.names();
        let mut candidates = origin.into_iter().chain(listed);
        let is_local = |d: &&str| self.classes.is_local(d, &mut Trace::off()).unwrap_or(false);
        candidates.find(is_local).map(str::to_owned)
    }

    /// A domain whose users may be listed without it (`myorigin`, `mydestination`, our own
    /// addresses).
    ///
    /// # Errors
    /// A table could not answer.
    pub(crate) fn is_own_domain(&self, domain: &str) -> Result<bool, TableError> {
        Ok(self.is_origin(domain) || self.classes.is_local(domain, &mut Trace::off())?)
    }

    /// `myorigin`.
    pub(crate) fn is_origin(&self, domain: &str) -> bool {
        domain.eq_ignore_ascii_case(&self.myorigin)
    }

    /// Resolves an address in internal form.
    ///
    /// # Errors
    /// A table could not answer, or the address has no valid domain.
    pub(crate) fn resolve(&self, address: &str, trace: &mut Trace) -> Result<Resolved, RouteError> {
        let (recipient, is_local) = self.recipient(address, trace)?;
        let domain = domain_of(&recipient).to_owned();
        if recipient != address {
            trace.record(|| Step::Rerouted {
                to: quote_address(&recipient).into_owned(),
            });
        }
        let class = if is_local {
            self.classes.of(&domain, trace)?
        } else {
            self.classes.of_remote(&domain, trace)?
        };
        let resolved = self.transport(recipient, class, &domain, trace)?;
        if !self.allow_min_user && resolved.recipient.starts_with('-') {
            return Err(bad(
                address,
                "it begins with \"-\", like an option of a program",
            ));
        }
        Ok(resolved)
    }

    /// Returns the recipient that an address in internal form means, whatever routes it is written
    /// with, and whether its domain is ours.
    ///
    /// # Errors
    /// A table could not answer, or the address has no valid domain.
    pub(crate) fn recipient(
        &self,
        address: &str,
        trace: &mut Trace,
    ) -> Result<(String, bool), RouteError> {
        let (mut recipient, mut is_local) = self.peel(address)?;
        let mut domain = domain_of(&recipient).to_owned();
        if domain.starts_with('[') {
            if !is_valid_literal(&domain) {
                let cause = "the text in brackets is no network address";
                return Err(bad(address, cause));
            }
        } else if !is_valid_hostname(&domain) {
            if !self.resolve_numeric_domain || !is_address(&domain) {
                return Err(bad(address, "the domain is no domain name"));
            }
            recipient.truncate(recipient.len() - domain.len());
            domain = format!("[{domain}]");
            recipient.push_str(&domain);
            is_local = self.classes.is_local(&domain, trace)?;
        }
        Ok((recipient, is_local))
    }

    fn transport(
        &self,
        recipient: String,
        class: AddressClass,
        domain: &str,
        trace: &mut Trace,
    ) -> Result<Resolved, RouteError> {
        let (mut transport, mut nexthop, mut decided_by) = self.classes.transport(class, domain);
        if transport.is_empty() {
            return Err(RouteError::NoTransport {
                parameter: decided_by,
            });
        }
        let is_mapped = class != AddressClass::VirtualAlias
            && self.transports.apply(
                &recipient,
                domain,
                &self.rule,
                &mut transport,
                &mut nexthop,
                trace,
            )?;
        if is_mapped {
            decided_by = "transport_maps";
        }
        let search = Search {
            rule: &self.rule,
            forms: KeyForms::ExternalThenInternal,
            strategy: Strategy::Address,
            is_own_domain: |domain: &str| self.is_own_domain(domain),
        };
        if let Some(found) = search.find(&self.relocated, &recipient, trace)? {
            transport = "error".into();
            nexthop = format!("5.1.6 User has moved to {}", found.value);
            decided_by = "relocated_maps";
        }
        trace.record(|| Step::Transport {
            transport: transport.clone(),
            nexthop: nexthop.clone(),
            decided_by,
        });
        Ok(Resolved {
            recipient,
            class,
            transport,
            nexthop,
            is_mapped,
        })
    }

    /// Takes our own domains off the address, one by one. Says whether what is left is ours.
    fn peel(&self, address: &str) -> Result<(String, bool), RouteError> {
        let mut tokens = scan(&quote_address(address));
        let mut spacing = Spacing::Spaced;
        let mut own_domain: Option<Vec<Token>> = None;
        // Every turn takes something off the address or ends; the bound is against surprises.
        for _ in 0..address.len() + 100 {
            self.drop_tail(&mut tokens);
            if let Some(at) = tokens.iter().rposition(|token| token.is('@')) {
                let domain = tokens.get(at + 1..).unwrap_or_default();
                if !domain.is_empty() {
                    let domain = internalize(domain, Spacing::Spaced);
                    if !self.classes.is_local(&domain, &mut Trace::off())? {
                        return Ok((internalize(&tokens, spacing), false));
                    }
                }
                own_domain = Some(tokens.split_off(at));
            }
            let text = || tokens.iter().filter_map(operator).collect::<String>();
            if text().contains('@') || self.form.has_route(&text()) {
                spacing = self.form.rewrite(&mut tokens);
                continue;
            }
            if let Some(opened) = self.open_quotes(&tokens) {
                tokens = opened;
                spacing = self.form.rewrite(&mut tokens);
                continue;
            }
            if matches!(tokens.as_slice(), [Token::Quoted(word)] if word.is_empty()) {
                tokens.clear();
            }
            if tokens.is_empty() {
                tokens.clone_from(&self.empty_address_recipient);
                continue;
            }
            match own_domain.take() {
                Some(domain) => {
                    tokens.extend(domain);
                    return Ok((internalize(&tokens, spacing), true));
                }
                None => {
                    tokens.push(Token::Operator('@'));
                    tokens.extend_from_slice(&self.myhostname);
                }
            }
        }
        Err(RouteError::BadAddress {
            address: quote_address(address).into_owned(),
            cause: "its routes do not end",
        })
    }

    /// Drops a dot, and, when asked, an `@`, at the end of the address.
    fn drop_tail(&self, tokens: &mut Vec<Token>) {
        if let [front @ .., before, last] = tokens.as_slice()
            && last.is('.')
            && !before.is('.')
            && !before.is('@')
            && front.iter().any(|token| token.is('@'))
        {
            tokens.pop();
        }
        if self.resolve_null_domain && tokens.last().is_some_and(|token| token.is('@')) {
            tokens.pop();
        }
    }

    /// A quoted local part with a route in it (`"user@far"@here`), without its quotes: were it
    /// delivered elsewhere, the quotes would not keep the next host from following the route.
    fn open_quotes(&self, tokens: &[Token]) -> Option<Vec<Token>> {
        let [Token::Quoted(word)] = tokens else {
            return None;
        };
        if !self.resolve_dequoted_address {
            return None;
        }
        if word.contains('@') {
            return Some(scan(&quote_address(word)));
        }
        for operator in ['%', '!'] {
            let Some(at) = word.rfind(operator) else {
                continue;
            };
            if !self.form.has_route(&operator.to_string()) {
                continue;
            }
            if operator == '!' {
                return Some(scan(word));
            }
            let (user, domain) = (word.get(..at)?, word.get(at + 1..)?);
            return Some(scan(&quote_address(&format!("{user}@{domain}"))));
        }
        None
    }
}

fn bad(address: &str, cause: &'static str) -> RouteError {
    RouteError::BadAddress {
        address: quote_address(address).into_owned(),
        cause,
    }
}

fn operator(token: &Token) -> Option<char> {
    match token {
        Token::Operator(c) => Some(*c),
        Token::Atom(_) | Token::Quoted(_) | Token::Literal(_) | Token::Comment(_) => None,
    }
}

fn domain_of(recipient: &str) -> &str {
    recipient.rsplit_once('@').map_or("", |(_, domain)| domain)
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
