//! The `%` expansions of queries, filters and results.
//!
//! Source: pgsql_table(5), mysql_table(5), ldap_table(5) on `query`, `query_filter`, `search_base`
//! and `result_format`. Small letters are replaced by what is being formatted (the key in a query,
//! the value in a result), capital ones and digits for the key. A key that lacks a part which any
//! of the table's templates wants is not looked up.

use super::place::{Place, Reader, Syntax};

/// What a template is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Asks for the key.
    Query,
    /// Formats a value that was found.
    Result,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Whole,
    User,
    Domain,
    KeyWhole,
    KeyUser,
    KeyDomain,
    /// A label of the key's domain, 1 being the last.
    KeyLabel(usize),
}

/// A text with `%` expansions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

/// What all templates of one table together want of keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    key_user: bool,
    key_domain: bool,
    value_user: bool,
    value_domain: bool,
    labels: usize,
}

/// Adds text to a query so that it stays data there.
pub(super) type Quote = fn(&str, &mut String);

/// Why a text cannot be put into a query; the text.
pub(super) type Unsafe = (&'static str, String);

impl Template {
    /// Parses `text`; adds to `needs` what it wants.
    ///
    /// # Errors
    /// A `%` with another letter.
    pub(super) fn parse(text: &str, role: Role, needs: &mut Needs) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                plain.push(c);
                continue;
            }
            let piece = match chars.next() {
                Some('%') => {
                    plain.push('%');
                    continue;
                }
                Some('s') => Piece::Whole,
                Some('u') => Piece::User,
                Some('d') => Piece::Domain,
                Some('S') => Piece::KeyWhole,
                Some('U') => Piece::KeyUser,
                Some('D') => Piece::KeyDomain,
                Some(digit @ '1'..='9') => {
                    let label = digit.to_digit(10).and_then(|n| usize::try_from(n).ok());
                    Piece::KeyLabel(label.unwrap_or(1))
                }
                other => {
                    let letter = other.map(String::from).unwrap_or_default();
                    return Err(format!(
                        "\"%{letter}\" in \"{text}\"; known are %s %u %d %S %U %D %1 to %9 %%"
                    ));
                }
            };
            needs.add(&piece, role);
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// The places of the expansions in a query, in order.
    pub(super) fn places(&self, syntax: Syntax) -> Vec<Place> {
        let mut reader = Reader::new(syntax);
        let mut places = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => reader.read(text),
                _ => {
                    places.push(reader.place());
                    reader.pass_expansion();
                }
            }
        }
        places
    }

    /// Puts text of the key into the result.
    pub(super) fn has_key(&self) -> bool {
        self.0.iter().any(|piece| {
            matches!(
                piece,
                Piece::KeyWhole | Piece::KeyUser | Piece::KeyDomain | Piece::KeyLabel(_)
            )
        })
    }

    /// Has expansions.
    pub(super) fn is_dynamic(&self) -> bool {
        let fixed = |piece: &Piece| matches!(piece, Piece::Text(_));
        !self.0.iter().all(fixed)
    }
}

impl Needs {
    fn add(&mut self, piece: &Piece, role: Role) {
        match (piece, role) {
            (Piece::Text(_) | Piece::Whole | Piece::KeyWhole, _) => {}
            (Piece::User, Role::Query) | (Piece::KeyUser, _) => self.key_user = true,
            (Piece::Domain, Role::Query) | (Piece::KeyDomain, _) => self.key_domain = true,
            (Piece::User, Role::Result) => self.value_user = true,
            (Piece::Domain, Role::Result) => self.value_domain = true,
            (&Piece::KeyLabel(label), _) => {
                self.key_domain = true;
                self.labels = self.labels.max(label);
            }
        }
    }

    /// The query for `key`; `None` when the key lacks a part that some template wants.
    #[cfg(any(test, feature = "ldap"))]
    pub(super) fn query(&self, template: &Template, key: &str, quote: Quote) -> Option<String> {
        self.filled(template, key, quote)
    }

    fn filled(
        &self,
        template: &Template,
        key: &str,
        quote: impl FnMut(&str, &mut String),
    ) -> Option<String> {
        let parts = Parts::of(key, self.key_user, self.key_domain)?;
        let labels = self.labels_of(&parts)?;
        let mut query = String::new();
        template.fill(&parts, &parts, &labels, quote, &mut query);
        Some(query)
    }

    /// As [`Needs::query`], for a query in which `places` are those of the expansions.
    ///
    /// # Errors
    /// A part of the key would be more than data in its place.
    pub(super) fn query_at(
        &self,
        template: &Template,
        key: &str,
        places: &[Place],
    ) -> Result<Option<String>, Unsafe> {
        let mut places = places.iter();
        let mut bad = None;
        let query = self.filled(template, key, |text, out| {
            let place = places.next().copied().unwrap_or(Place::Bare);
            if let Err(cause) = place.add(text, out) {
                bad.get_or_insert((cause, text.to_owned()));
            }
        });
        bad.map_or(Ok(query), Err)
    }

    /// Adds `value`, which was found under `key`, to `result`; `false` when the value (an empty
    /// one, or one without the part wanted) adds nothing.
    pub(super) fn add_value(
        &self,
        template: &Template,
        value: &str,
        key: &str,
        result: &mut String,
    ) -> bool {
        let found = Parts::of(value, self.value_user, self.value_domain);
        let Some((found, key)) = found.zip(Parts::of(key, self.key_user, self.key_domain)) else {
            return false;
        };
        let Some(labels) = self.labels_of(&key) else {
            return false;
        };
        if !result.is_empty() {
            result.push(',');
        }
        template.fill(
            &found,
            &key,
            &labels,
            |text, out| out.push_str(text),
            result,
        );
        true
    }

    /// The labels of the key's domain, last first, where templates want some.
    fn labels_of<'a>(&self, key: &Parts<'a>) -> Option<Vec<&'a str>> {
        if self.labels == 0 {
            return Some(Vec::new());
        }
        let labels = key.domain?.rsplit('.');
        let labels: Vec<_> = labels.filter(|label| !label.is_empty()).collect();
        (labels.len() >= self.labels).then_some(labels)
    }
}

/// A key or value, split at its last `@`.
struct Parts<'a> {
    whole: &'a str,
    user: &'a str,
    domain: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// `None` when it is empty, or a part that is wanted is. A text without `@` is all user.
    fn of(whole: &'a str, user_wanted: bool, domain_wanted: bool) -> Option<Self> {
        let (user, domain) = match whole.rsplit_once('@') {
            Some((user, domain)) => (user, Some(domain)),
            None => (whole, None),
        };
        let has_domain = domain.is_some_and(|domain| !domain.is_empty());
        let lacks = (domain_wanted && !has_domain) || (user_wanted && user.is_empty());
        (!whole.is_empty() && !lacks).then_some(Self {
            whole,
            user,
            domain,
        })
    }
}

impl Template {
    fn fill(
        &self,
        subject: &Parts<'_>,
        key: &Parts<'_>,
        labels: &[&str],
        mut quote: impl FnMut(&str, &mut String),
        out: &mut String,
    ) {
        for piece in &self.0 {
            let text = match piece {
                Piece::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Piece::Whole => Some(subject.whole),
                Piece::User => Some(subject.user),
                Piece::Domain => subject.domain,
                Piece::KeyWhole => Some(key.whole),
                Piece::KeyUser => Some(key.user),
                Piece::KeyDomain => key.domain,
                Piece::KeyLabel(label) => labels.get(label - 1).copied(),
            };
            quote(text.unwrap_or_default(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(template: &str, key: &str) -> Option<String> {
        let mut needs = Needs::default();
        let template = Template::parse(template, Role::Query, &mut needs).unwrap();
        needs.query(&template, key, |text, out| {
            *out += &text.replace('\'', "''")
        })
    }

    fn result(query: &str, template: &str, value: &str, key: &str) -> Option<String> {
        let mut needs = Needs::default();
        Template::parse(query, Role::Query, &mut needs).unwrap();
        let template = Template::parse(template, Role::Result, &mut needs).unwrap();
        let mut result = String::new();
        needs
            .add_value(&template, value, key, &mut result)
            .then_some(result)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn queries_are_filled_with_quoted_parts_of_the_key() {
        let all = "%s|%u|%d|%S|%U|%D|%1|%2|%%";
        let key = "o'b@c@b.a.example";
        assert_eq!(
            query(all, key),
            some(
                "o''b@c@b.a.example|o''b@c|b.a.example|o''b@c@b.a.example|o''b@c|b.a.example|example|a|%"
            )
        );
        assert_eq!(query("x", "k"), some("x"));
        assert_eq!(query("%u", "k"), some("k"));
    }

    #[test]
    fn keys_that_lack_a_part_are_not_asked_for() {
        assert_eq!(query("%u", "@d"), None);
        assert_eq!(query("%d", "u"), None);
        assert_eq!(query("%D", "u@"), None);
        assert_eq!(query("%3", "u@a.b"), None);
        assert_eq!(query("%2", "u@.a..b."), some("a"));
        assert_eq!(query("%s", "@d"), some("@d"));
        assert_eq!(query("x", ""), None);
    }

    #[test]
    fn results_have_parts_of_value_and_key() {
        let key = "U@k.example";
        assert_eq!(
            result("", "%s %u %d %S %U %D %1", "v@w", key),
            some("v@w v w U@k.example U k.example example")
        );
        assert_eq!(result("", "%d", "v", key), None);
        assert_eq!(result("", "%u", "@w", key), None);
        assert_eq!(result("", "%s", "", key), None);
        assert_eq!(result("", "%U", "v", "@d"), None);
    }

    #[test]
    fn what_a_result_wants_of_the_key_holds_for_the_query_too() {
        let mut needs = Needs::default();
        let ask = Template::parse("%s", Role::Query, &mut needs).unwrap();
        Template::parse("%s at %D", Role::Result, &mut needs).unwrap();
        assert_eq!(needs.query(&ask, "u", |t, o| o.push_str(t)), None);
        assert!(
            !Template::parse("x%%", Role::Query, &mut needs)
                .unwrap()
                .is_dynamic()
        );
        assert!(ask.is_dynamic());
    }

    #[test]
    fn other_letters_are_refused() {
        for bad in ["%", "%x", "%0", "a%"] {
            assert!(Template::parse(bad, Role::Query, &mut Needs::default()).is_err());
        }
    }
}
