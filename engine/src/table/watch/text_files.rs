//! Texts that are no tables, but say who is who: files of domain lists, and of `:include:`.
//!
//! They are watched as tables are, and count under the same rules.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::facts::{line_facts, line_hashes};
use super::guard::Facts;
use super::source;
use super::source::Source;
use super::watched::{Hold, Look, Looked, Reading, Watched};
use crate::sync::{Arc, Mutex};

/// Texts by their paths. May be used from any thread.
#[derive(Debug)]
pub(crate) struct TextFiles {
    open: Mutex<BTreeMap<PathBuf, TextFile>>,
    hold_time: Mutex<Duration>,
}

#[derive(Debug)]
struct TextFile {
    content: Content,
    file: Watched,
    /// A lookup took a new text. Snapshots still have what held the old one back.
    is_taken: bool,
}

#[derive(Debug)]
struct Content {
    text: Arc<str>,
    lines: Vec<u64>,
}

impl Content {
    fn new(source: &Source) -> Self {
        Self {
            text: String::from_utf8_lossy(&source.bytes).into(),
            lines: line_hashes(&source.bytes),
        }
    }
}

/// A text as it is read anew.
struct Reread<'a> {
    had: &'a [u64],
    read: Option<Content>,
}

impl Reading for Reread<'_> {
    fn read(&mut self, source: &Source) -> (Facts, Option<String>) {
        let content = self.read.insert(Content::new(source));
        let facts = Facts {
            is_cut: source.is_cut(),
            is_published: source.is_published,
            ..line_facts(self.had, &content.lines)
        };
        (facts, None)
    }
}

impl TextFile {
    fn open(path: &Path, hold_time: Duration) -> io::Result<Self> {
        let mut source = source::read(path)?;
        let name = path.display();
        let file = Watched::new(&name, &mut source, true, hold_time);
        let content = Content::new(&source);
        Ok(Self {
            content,
            file,
            is_taken: false,
        })
    }

    /// Looks at the file; says whether there is a new text, and what is to be reported.
    fn look(&mut self, path: &Path, at_once: bool, hold_time: Duration) -> (bool, Option<String>) {
        let name = path.display();
        let look = Look {
            name: &name,
            path,
            is_text: true,
            at_once,
            hold_time,
        };
        let mut reread = Reread {
            had: &self.content.lines,
            read: None,
        };
        match self.file.look(look, &mut reread) {
            Looked::Nothing => (false, None),
            Looked::Report(report) => (false, Some(report)),
            Looked::Unreadable(error) => {
                let report = format!("{name}: {error}; its old contents stay in use");
                (false, Some(report))
            }
            Looked::Take(boldly) => {
                if let Some(content) = reread.read {
                    self.content = content;
                }
                (true, boldly)
            }
        }
    }
}

fn known_or_opened<'a>(
    open: &'a mut BTreeMap<PathBuf, TextFile>,
    path: &Path,
    hold_time: Duration,
) -> io::Result<&'a mut TextFile> {
    match open.entry(path.to_owned()) {
        Entry::Occupied(known) => Ok(known.into_mut()),
        Entry::Vacant(place) => Ok(place.insert(TextFile::open(path, hold_time)?)),
    }
}

impl TextFiles {
    /// None yet.
    pub(in crate::table) fn new(hold_time: Duration) -> Self {
        Self {
            open: Mutex::default(),
            hold_time: Mutex::new(hold_time),
        }
    }

    /// Sets how long suspicious files are held back.
    pub(in crate::table) fn set_hold_time(&self, hold_time: Duration) {
        *self.hold_time.lock() = hold_time;
    }

    fn hold_time(&self) -> Duration {
        *self.hold_time.lock()
    }

    /// The text at `path`, as it was when the files were looked at last, and what holds it back.
    ///
    /// # Errors
    /// It is read for the first time, and cannot be.
    pub(crate) fn text(&self, path: &Path) -> io::Result<(Arc<str>, Arc<Hold>)> {
        let hold_time = self.hold_time();
        let mut open = self.open.lock();
        let file = known_or_opened(&mut open, path, hold_time)?;
        Ok((Arc::clone(&file.content.text), Arc::clone(file.file.hold())))
    }

    /// As [`TextFiles::text`], as it is now, for texts of which a part is worse than nothing.
    ///
    /// # Errors
    /// Also, it is being written, and nothing is known of what it was.
    pub(crate) fn whole_text(&self, path: &Path) -> io::Result<Arc<str>> {
        let hold_time = self.hold_time();
        let mut open = self.open.lock();
        let file = known_or_opened(&mut open, path, hold_time)?;
        let (is_new, report) = file.look(path, true, hold_time);
        file.is_taken |= is_new;
        if let Some(report) = report {
            tracing::warn!("{report}");
        }
        if file.file.is_partial() {
            return Err(io::Error::other("the file is being written; try again"));
        }
        Ok(Arc::clone(&file.content.text))
    }

    /// What is not found in these texts may be found soon, for the reasons these have.
    pub(in crate::table) fn holds(&self) -> Vec<Arc<Hold>> {
        let open = self.open.lock();
        open.values()
            .map(|file| Arc::clone(file.file.hold()))
            .collect()
    }

    /// Whether a file is to be looked at again soon.
    pub(in crate::table) fn is_restless(&self) -> bool {
        self.open
            .lock()
            .values()
            .any(|file| file.file.is_restless())
    }

    /// How long until all that was read first is known to be whole.
    pub(in crate::table) fn settle_in(&self) -> Duration {
        let open = self.open.lock();
        let times = open.values().map(|file| file.file.settles_in());
        times.max().unwrap_or_default()
    }

    /// Looks at all files. Calls `changed` with those that have a new text, `reported` with what is
    /// to be reported.
    pub(in crate::table) fn look(
        &self,
        at_once: bool,
        changed: &mut dyn FnMut(&Path),
        reported: &mut dyn FnMut(String),
    ) {
        let hold_time = self.hold_time();
        for (path, file) in self.open.lock().iter_mut() {
            let (is_new, report) = file.look(path, at_once, hold_time);
            if std::mem::take(&mut file.is_taken) || is_new {
                changed(path);
            }
            report.into_iter().for_each(&mut *reported);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_emptied_keeps_its_lines_and_one_that_was_never_whole_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        std::fs::write(&path, "a@x\nb@x\nc@x\n").unwrap();
        let texts = TextFiles::new(Duration::from_secs(3600));
        let whole = || texts.whole_text(&path).map(|text| text.to_string());
        assert_eq!(whole().unwrap().lines().count(), 3);
        std::fs::write(&path, "").unwrap();
        assert_eq!(whole().unwrap().lines().count(), 3);
        assert!(texts.holds()[0].cause().unwrap().contains("is empty"));
        std::fs::write(&path, "a@x\nb@x\nc@x\nd@x\n").unwrap();
        let deadline = crate::clock::now() + Duration::from_secs(20);
        while whole().unwrap().lines().count() < 4 {
            assert!(crate::clock::now() < deadline);
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut changed = Vec::new();
        for _ in 0..2 {
            texts.look(false, &mut |path| changed.push(path.to_owned()), &mut drop);
        }
        assert_eq!(changed, [path], "snapshots get the new text once");
        let other = directory.path().join("other");
        let writer = std::fs::File::create(&other).unwrap();
        std::fs::write(&other, "a@x\n").unwrap();
        assert!(texts.whole_text(&other).is_err(), "somebody writes it");
        drop(writer);
        while texts.whole_text(&other).is_err() {
            assert!(crate::clock::now() < deadline);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
