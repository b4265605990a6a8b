//! LDAP URLs as values of special result attributes: dynamic groups.
//!
//! Source: RFC 4516. The host is passed over: the search goes to the server that gave the URL, as
//! in Postfix.

use ldap3::Scope;

use super::entry::is_subtype;

/// What a URL says about a search.
#[derive(Debug, PartialEq)]
pub(super) struct SearchUrl {
    pub(super) base: String,
    pub(super) scope: Scope,
    pub(super) filter: String,
    attributes: Vec<String>,
}

impl SearchUrl {
    /// `None` when `text` is no LDAP URL but, then, a name.
    pub(super) fn parse(text: &str) -> Option<Result<Self, &'static str>> {
        let (scheme, rest) = text.split_once("://")?;
        let known = ["ldap", "ldaps", "ldapi"];
        known
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
            .then(|| Self::parse_rest(rest))
    }

    fn parse_rest(rest: &str) -> Result<Self, &'static str> {
        let (_host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut parts = path.split('?').map(decode);
        let mut part = || parts.next().unwrap_or(Some(String::new()));
        let malformed = "not well formed (RFC 4516)";
        let base = part().ok_or(malformed)?;
        let attributes = part().ok_or(malformed)?;
        let scope = match part().ok_or(malformed)?.as_str() {
            "" | "base" => Scope::Base,
            "one" => Scope::OneLevel,
            "sub" => Scope::Subtree,
            _ => return Err("unknown scope"),
        };
        let filter = match part().ok_or(malformed)?.as_str() {
            "" => "(objectClass=*)".to_owned(),
            filter if filter.starts_with('(') => filter.to_owned(),
            filter => format!("({filter})"),
        };
        let attributes = attributes.split(',').filter(|name| !name.is_empty());
        Ok(Self {
            base,
            scope,
            filter,
            attributes: attributes.map(str::to_owned).collect(),
        })
    }

    /// Which attributes to ask for: those of `ours` that the URL lists, or all when it lists
    /// none. Of a name with and without options the one with options counts.
    pub(super) fn wanted(&self, ours: &[String]) -> Vec<String> {
        if self.attributes.is_empty() {
            return ours.to_vec();
        }
        let mut wanted = Vec::new();
        for listed in &self.attributes {
            for our in ours {
                if is_subtype(listed, our) {
                    wanted.push(our.clone());
                } else if is_subtype(our, listed) {
                    wanted.push(listed.clone());
                }
            }
        }
        wanted
    }
}

fn decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let digits = str::from_utf8(digits).ok()?;
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> SearchUrl {
        SearchUrl::parse(text).unwrap().unwrap()
    }

    #[test]
    fn urls_say_where_and_what_to_search() {
        let url = parse("ldap:///ou=a%20b,dc=x?mail,Cn?sub?(a=b)");
        assert_eq!(url.base, "ou=a b,dc=x");
        assert_eq!(url.scope, Scope::Subtree);
        assert_eq!(url.filter, "(a=b)");
        let ours = ["maildrop", "cn", "mail"].map(str::to_owned);
        assert_eq!(url.wanted(&ours), ["mail", "cn"]);
        let url = parse("LDAPS://host/dc=x");
        assert_eq!(url.scope, Scope::Base);
        assert_eq!(url.filter, "(objectClass=*)");
        assert_eq!(url.wanted(&ours), ours);
    }

    #[test]
    fn names_are_no_urls_and_bad_urls_are_told() {
        assert!(SearchUrl::parse("cn=http://x,dc=y").is_none());
        assert!(SearchUrl::parse("dc=y").is_none());
        assert!(SearchUrl::parse("ldap:///dc=x??deep").unwrap().is_err());
        assert!(SearchUrl::parse("ldap:///dc=%zz").unwrap().is_err());
    }
}
