//! Which files of a crate import which: the graph that the house rules are checked on.
//!
//! An edge leads from a file to the file that defines what it names, in a `use` or in a path;
//! names that a module re-exports are followed to where they are defined. Code that is built for
//! tests alone is left out. Macros that make names are not seen, nor are methods: a call of a
//! method imports nothing.

mod module;

use module::{Module, Path};
use std::collections::{BTreeMap, BTreeSet};

/// The imports of one crate.
pub struct Imports {
    modules: BTreeMap<Path, Module>,
    /// From a file to those it imports, and the names it imports from each.
    files: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

/// What a path leads to.
enum Found {
    Module(Path),
    /// An item, by its file and name.
    Item(String, String),
}

/// Names that are being resolved, each in its module: they may lead in a circle.
type Seen = Vec<(Path, String)>;

impl Imports {
    /// Reads the crate whose root is the file `root`; `text_of` returns the text of a file.
    pub fn read<'t>(root: &str, text_of: impl Fn(&str) -> Option<&'t str>) -> Self {
        let mut modules = BTreeMap::new();
        let folder = root.rsplit_once('/').map_or("", |(folder, _)| folder);
        module::read(root, folder, &text_of, &mut modules);
        let mut imports = Self {
            modules,
            files: BTreeMap::new(),
        };
        imports.connect();
        imports
    }

    fn connect(&mut self) {
        let mut files: BTreeMap<_, BTreeMap<_, BTreeSet<_>>> = BTreeMap::new();
        for (path, module) in &self.modules {
            let imported = files.entry(module.file.clone()).or_default();
            let uses = module.uses.iter().map(|(name, used)| {
                let seen = vec![(path.clone(), name.clone())];
                self.resolve(path, used, &seen)
            });
            let paths = module.paths.iter();
            let paths = paths.map(|named| self.resolve(path, named, &Vec::new()));
            for found in uses.chain(paths).flatten() {
                if let Found::Item(file, name) = found
                    && file != module.file
                {
                    imported.entry(file).or_default().insert(name);
                }
            }
        }
        self.files = files;
    }

    /// Where a path leads that is written in the module `at`; `None` when it leaves the crate.
    fn resolve(&self, at: &Path, path: &[String], seen: &Seen) -> Option<Found> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => return self.walk(Path::new(), rest, seen),
            "self" => return self.walk(at.clone(), rest, seen),
            "super" => {
                let mut at = at.clone();
                at.pop()?;
                return match rest.first().map(String::as_str) {
                    Some("super") => self.resolve(&at, rest, seen),
                    _ => self.walk(at, rest, seen),
                };
            }
            _ => {}
        }
        let module = self.modules.get(at)?;
        match module.knows(first) {
            true => self.walk(at.clone(), path, seen),
            false => self.through_globs(at, path, seen),
        }
    }

    /// Where `path` leads from the module `at` on.
    fn walk(&self, at: Path, path: &[String], seen: &Seen) -> Option<Found> {
        let Some((first, rest)) = path.split_first() else {
            return Some(Found::Module(at));
        };
        let module = self.modules.get(&at)?;
        let key = (at.clone(), first.clone());
        if let Some(used) = module.uses.get(first)
            && !seen.contains(&key)
        {
            let mut seen = seen.clone();
            seen.push(key);
            match self.resolve(&at, used, &seen) {
                Some(Found::Module(at)) => return self.walk(at, rest, &seen),
                Some(item) => return Some(item),
                // Of another crate, unless there is a module or an item of that name as well.
                None => {}
            }
        }
        if module.children.contains(first) {
            let mut at = at;
            at.push(first.clone());
            return self.walk(at, rest, seen);
        }
        if module.items.contains(first) {
            return Some(Found::Item(module.file.clone(), first.clone()));
        }
        self.through_globs(&at, path, seen)
    }

    fn through_globs(&self, at: &Path, path: &[String], seen: &Seen) -> Option<Found> {
        let module = self.modules.get(at)?;
        module.globs.iter().find_map(|glob| {
            let key = (at.clone(), glob.join("::"));
            if seen.contains(&key) {
                return None;
            }
            let mut seen = seen.clone();
            seen.push(key);
            match self.resolve(at, glob, &seen)? {
                Found::Module(at) => self.walk(at, path, &seen),
                Found::Item(..) => None,
            }
        })
    }

    /// Returns the files with the files that each of them imports.
    pub fn graph(&self) -> BTreeMap<String, BTreeSet<String>> {
        let imported = |files: &BTreeMap<String, _>| files.keys().cloned().collect();
        let files = self.files.iter();
        files
            .map(|(file, files)| (file.clone(), imported(files)))
            .collect()
    }

    /// Returns every import: from, to, and the names.
    pub fn edges(&self) -> impl Iterator<Item = (&str, &str, &BTreeSet<String>)> {
        self.files.iter().flat_map(|(from, imported)| {
            let edge = |(to, names)| (from.as_str(), String::as_str(to), names);
            imported.iter().map(edge)
        })
    }
}

/// Returns the shortest way from a file back to itself.
pub fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let cycles = graph.keys().filter_map(|start| {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut next = std::collections::VecDeque::from([start.as_str()]);
        while let Some(at) = next.pop_front() {
            for to in graph.get(at).into_iter().flatten() {
                if to == start {
                    let mut way = vec![start.clone(), at.to_owned()];
                    let mut at = at;
                    while let Some(before) = came_from.get(at) {
                        way.push((*before).to_owned());
                        at = before;
                    }
                    way.reverse();
                    return Some(way);
                }
                if !came_from.contains_key(to.as_str()) {
                    came_from.insert(to, at);
                    next.push_back(to);
                }
            }
        }
        None
    });
    cycles.min_by_key(Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The graph of a crate of these files.
    fn graph(files: &[(&str, &str)]) -> BTreeMap<String, BTreeSet<String>> {
        let text_of = |path: &str| {
            let found = files.iter().find(|(file, _)| *file == path);
            found.map(|(_, text)| *text)
        };
        Imports::read("src/lib.rs", text_of).graph()
    }

    const LIB: &str = "mod room;\nmod io;\n";
    const ROOM: &str = "mod a;\nmod b;\npub use a::A;\nuse b::B;\n";
    const A: &str = "use super::b::{B, C};\npub struct A;\n";
    const IO: &str = "pub struct Disk;\n";

    fn with(b: &str) -> BTreeMap<String, BTreeSet<String>> {
        graph(&[
            ("src/lib.rs", LIB),
            ("src/io.rs", IO),
            ("src/room/mod.rs", ROOM),
            ("src/room/a.rs", A),
            (
                "src/room/b.rs",
                &format!("//! Not `super::a`.\npub struct B;\npub struct C;\n{b}"),
            ),
        ])
    }

    #[test]
    fn files_that_import_downwards_have_no_cycle() {
        let graph = with("use crate::io::Disk;\n");
        assert_eq!(cycle(&graph), None);
        let imported = |file: &str| graph[file].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(
            imported("src/room/mod.rs"),
            ["src/room/a.rs", "src/room/b.rs"]
        );
        assert_eq!(imported("src/room/a.rs"), ["src/room/b.rs"]);
        assert_eq!(imported("src/room/b.rs"), ["src/io.rs"]);
    }

    #[test]
    fn a_cycle_is_found_in_whatever_way_its_imports_are_written() {
        for back in [
            "use super::{\n    a::A,\n    c,\n};\n",
            "use crate::room::a::A;\n",
            "fn f() -> super::a::A {}\n",
            "use super::a;\nfn f(a: a::A) {}\n",
            "use super::A;\n",
            "use super::*;\nfn f(a: A) {}\n",
            "fn f() { assert!(super::A == 1) }\n",
            "impl C {\n    fn f(&self, _: crate::room::A) {}\n}\n",
            "mod inner {\n    use super::super::A;\n}\n",
        ] {
            let cycle = cycle(&with(back)).expect(back);
            assert_eq!(cycle[0], cycle[cycle.len() - 1], "{back}");
        }
    }

    #[test]
    fn tests_may_import_what_they_like() {
        for tests in [
            "#[cfg(test)]\nmod tests {\n    use super::super::a::A;\n}\n",
            "#[cfg(test)]\nuse super::a::A;\n",
            "#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod tests;\n",
            "impl C {\n    #[cfg(test)]\n    pub(super) fn f(_: super::A) {}\n}\n",
        ] {
            assert_eq!(cycle(&with(tests)), None, "{tests}");
        }
    }
}
