//! One module as its tokens say it: what it uses, defines and names.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};

/// The names of a path.
pub(super) type Path = Vec<String>;

/// A module, in a file or inline.
#[derive(Debug, Default)]
pub(super) struct Module {
    pub(super) file: String,
    /// Names that it uses, and where they are.
    pub(super) uses: BTreeMap<String, Path>,
    /// What it uses all names of.
    pub(super) globs: Vec<Path>,
    /// The modules in it.
    pub(super) children: BTreeSet<String>,
    /// What it defines.
    pub(super) items: BTreeSet<String>,
    /// Every path in it.
    pub(super) paths: BTreeSet<Path>,
}

/// A module in a module; its tokens when it is inline.
struct Child {
    name: String,
    tokens: Option<TokenStream>,
}

impl Module {
    /// Returns true for a name that the module itself gives a meaning.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.uses.contains_key(name) || self.children.contains(name) || self.items.contains(name)
    }
}

/// Reads the module in `file` and those below it, whose files are below `folder`.
pub(super) fn read<'t>(
    file: &str,
    folder: &str,
    text_of: &impl Fn(&str) -> Option<&'t str>,
    modules: &mut BTreeMap<Path, Module>,
) {
    let text = text_of(file).unwrap_or_else(|| panic!("{file} is missing"));
    let tokens = text
        .parse()
        .unwrap_or_else(|error| panic!("{file}: {error}"));
    read_module(Path::new(), file, folder, tokens, text_of, modules);
}

fn read_module<'t>(
    path: Path,
    file: &str,
    folder: &str,
    tokens: TokenStream,
    text_of: &impl Fn(&str) -> Option<&'t str>,
    modules: &mut BTreeMap<Path, Module>,
) {
    let mut module = Module {
        file: file.to_owned(),
        ..Module::default()
    };
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut children = Vec::new();
    module.read(&tokens, Some(&mut children));
    modules.insert(path.clone(), module);
    for Child { name, tokens } in children {
        let mut path = path.clone();
        path.push(name.clone());
        let below = format!("{folder}/{name}");
        match tokens {
            Some(tokens) => read_module(path, file, &below, tokens, text_of, modules),
            None => {
                let files = [format!("{below}.rs"), format!("{below}/mod.rs")];
                let found = files.iter().find_map(|file| Some((file, text_of(file)?)));
                let (file, text) = found.unwrap_or_else(|| panic!("{below}.rs is missing"));
                let tokens = text
                    .parse()
                    .unwrap_or_else(|error| panic!("{file}: {error}"));
                read_module(path, file, &below, tokens, text_of, modules);
            }
        }
    }
}

impl Module {
    /// Reads tokens: those of the module itself if there is a place for its children, else those
    /// of a group in it.
    fn read(&mut self, tokens: &[TokenTree], mut children: Option<&mut Vec<Child>>) {
        let mut at = 0;
        let mut is_test = false;
        while let Some(token) = tokens.get(at) {
            let rest = &tokens[at..];
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let (length, attribute) = attribute(rest);
                    is_test |= attribute.is_some_and(is_for_tests);
                    at += length;
                }
                TokenTree::Ident(ident) if is_test && is_item(ident) => {
                    at += item_length(rest);
                    is_test = false;
                }
                TokenTree::Ident(_) => {
                    let is_after_dot = at > 0 && is_punct(tokens.get(at - 1), '.');
                    at += match is_after_dot {
                        true => 1,
                        false => self.read_ident(rest, children.as_deref_mut()),
                    };
                }
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    self.read(&inner, None);
                    at += 1;
                }
                TokenTree::Punct(punct) => {
                    is_test &= ![';', ','].contains(&punct.as_char());
                    at += 1;
                }
                TokenTree::Literal(_) => at += 1,
            }
        }
    }

    /// Reads what begins with an identifier; returns how many tokens that are.
    fn read_ident(&mut self, tokens: &[TokenTree], children: Option<&mut Vec<Child>>) -> usize {
        let word = name(tokens.first()).unwrap_or_default();
        let next = name(tokens.get(1));
        match (word.as_str(), tokens.get(1)) {
            ("pub", Some(TokenTree::Group(group))) if is_visibility(group) => return 2,
            ("use", Some(second)) if !is_punct(Some(second), '<') => {
                let end = item_length(tokens);
                self.read_use(&tokens[1..end - 1], &Path::new());
                return end;
            }
            _ => {}
        }
        if let Some(children) = children {
            if word == "mod"
                && let Some(name) = next
            {
                let tokens = match tokens.get(2) {
                    Some(TokenTree::Group(group)) => Some(group.stream()),
                    _ => None,
                };
                self.children.insert(name.clone());
                children.push(Child { name, tokens });
                return 3;
            }
            if is_definition(&word) {
                let name = next.or_else(|| name(tokens.get(2)));
                self.items.extend(name.filter(|name| name != "fn"));
            }
        }
        let (length, path) = path(tokens);
        // A name alone leads out of the module through a `use` only, unless all names are used.
        if path.len() > 1 || !self.globs.is_empty() {
            self.paths.insert(path);
        }
        length
    }

    /// Reads the tree of a `use` behind the path `before`.
    fn read_use(&mut self, tokens: &[TokenTree], before: &Path) {
        let (mut path, mut renamed) = (before.clone(), None);
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Ident(ident) if ident == "as" => {
                    renamed = name(tokens.get(at + 1));
                    at += 1;
                }
                TokenTree::Ident(ident) => path.push(ident.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    self.globs.push(std::mem::take(&mut path));
                }
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    for part in inner.split(|token| is_punct(Some(token), ',')) {
                        self.read_use(part, &path);
                    }
                    path.clear();
                }
                _ => {}
            }
            at += 1;
        }
        path.pop_if(|last| *last == "self");
        if tokens.is_empty() || path.is_empty() {
            return;
        }
        let name = match renamed {
            // It has no name, and is used all the same.
            Some(name) if name == "_" => Some(path.join("::")),
            Some(name) => Some(name),
            None => path.last().cloned(),
        };
        self.uses.extend(name.map(|name| (name, path)));
    }
}

/// Returns how many tokens an attribute has, and what is between its brackets.
fn attribute(tokens: &[TokenTree]) -> (usize, Option<&Group>) {
    let bang = usize::from(is_punct(tokens.get(1), '!'));
    match tokens.get(1 + bang) {
        Some(TokenTree::Group(group)) => (2 + bang, Some(group)),
        _ => (1, None),
    }
}

fn is_for_tests(attribute: &Group) -> bool {
    let text = attribute.stream().to_string().replace(' ', "");
    let all = text.strip_prefix("cfg(all(");
    text == "cfg(test)" || all.is_some_and(|all| all.split([',', ')']).any(|one| one == "test"))
}

/// Returns true for words that begin an item, not for those that stand before one.
fn is_item(ident: &Ident) -> bool {
    let word = ident.to_string();
    is_definition(&word) || ["use", "mod", "impl", "extern"].contains(&word.as_str())
}

fn is_definition(word: &str) -> bool {
    let words = [
        "struct",
        "enum",
        "union",
        "fn",
        "type",
        "trait",
        "const",
        "static",
        "macro_rules",
    ];
    words.contains(&word)
}

/// Returns how many tokens an item has: up to its braces or its semicolon.
fn item_length(tokens: &[TokenTree]) -> usize {
    let word = name(tokens.first()).unwrap_or_default();
    let has_semicolon = ["use", "const", "static", "type"].contains(&word.as_str())
        && name(tokens.get(1)).is_none_or(|next| next != "fn");
    let ends = |token: &TokenTree| match token {
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Group(group) => !has_semicolon && group.delimiter() == Delimiter::Brace,
        _ => false,
    };
    let last = tokens.iter().position(ends);
    last.map_or(tokens.len(), |last| last + 1)
}

fn is_visibility(group: &Group) -> bool {
    let first = group.stream().into_iter().next();
    let words = ["in", "crate", "super", "self"];
    name(first.as_ref()).is_some_and(|word| words.contains(&word.as_str()))
}

/// Returns how many tokens a path has, and its names.
fn path(tokens: &[TokenTree]) -> (usize, Path) {
    let mut path: Path = name(tokens.first()).into_iter().collect();
    let mut at = 1;
    while is_punct(tokens.get(at), ':')
        && is_punct(tokens.get(at + 1), ':')
        && let Some(name) = name(tokens.get(at + 2))
    {
        path.push(name);
        at += 3;
    }
    (at, path)
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn name(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}
