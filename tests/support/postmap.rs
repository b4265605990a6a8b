//! Postfix's `postmap -q`, asked beside our own tables.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use mailstow_engine::config::{Configuration, Sources};
use mailstow_engine::route::table_context;
use mailstow_engine::table::{TableCache, TableContext, TableList, TableName, TableSet};

use crate::scratch::Scratch;

/// A seed for each test, from `POSTMAP_SEED` or random.
pub fn seeded() -> Rng {
    let seed = match std::env::var("POSTMAP_SEED") {
        Ok(seed) => seed.parse().expect("POSTMAP_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("replay with POSTMAP_SEED={seed}");
    Rng::with_seed(seed)
}

/// Postfix's side: a separate configuration directory, and tables in files.
pub struct Postmap {
    scratch: Scratch,
}

impl Postmap {
    /// A separate configuration.
    pub fn in_scratch() -> Self {
        let scratch = Scratch::new("postmap");
        let main_cf = format!(
            "compatibility_level = 3.6\nsmtputf8_enable = yes\nqueue_directory = {0}/queue\n\
             data_directory = {0}/data\n",
            scratch.path().display()
        );
        scratch.mkdir("queue");
        scratch.mkdir("data");
        scratch.write("main.cf", main_cf);
        Self { scratch }
    }

    /// Writes a table's text; old, since Postfix waits for a young texthash file to settle.
    pub fn write(&self, name: &str, text: &[u8]) -> PathBuf {
        let path = self.scratch.write(name, text);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60))
            .unwrap();
        path
    }

    /// Adds lines to `main.cf`.
    pub fn configure(&self, lines: &str) {
        let path = self.scratch.join("main.cf");
        let text = std::fs::read_to_string(&path).expect("our main.cf");
        self.scratch.write("main.cf", text + lines);
    }

    /// What our tables know of this configuration.
    pub fn context(&self) -> TableContext {
        let sources = Sources {
            postfix: Some(self.scratch.path().to_owned()),
            ..Sources::default()
        };
        let configuration = Configuration::load(&sources).expect("main.cf of a test");
        table_context(&configuration.settings.routing)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("postmap");
        command.arg("-c").arg(self.scratch.path());
        command
    }

    /// Builds the index of a table.
    pub fn index(&self, table: &str) {
        let mut command = self.command();
        command.arg(table);
        let output = command
            .output()
            .expect("postmap starts; is postfix installed?");
        assert!(output.status.success(), "postmap {table}: {output:?}");
    }

    /// `postmap -q -` with one key a line.
    pub fn ask(&self, table: &str, keys: &[Vec<u8>]) -> Output {
        let mut command = self.command();
        command.args(["-q", "-", table]);
        let mut input = Vec::new();
        for key in keys {
            input.extend_from_slice(key);
            input.push(b'\n');
        }
        // From a file: input and output are too large for pipes that wait for each other.
        let file = self.scratch.write("keys", &input);
        command.stdin(File::open(file).unwrap());
        command
            .output()
            .expect("postmap starts; is postfix installed?")
    }
}

/// Whether postmap gave up.
pub fn fatal(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stderr).contains("fatal:")
}

/// Our table of that name.
pub fn open(table: &str) -> Option<TableSet> {
    open_in(TableContext::default(), table)
}

fn open_in(context: TableContext, table: &str) -> Option<TableSet> {
    let list: TableList = [TableName::parse(table, "hash").ok()?]
        .into_iter()
        .collect();
    TableCache::new(context).open_all(&list).ok()
}

/// Our answers, as postmap prints them, and the keys that are table errors.
pub fn ours(tables: &TableSet, keys: &[Vec<u8>]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut output, mut failed) = (Vec::new(), Vec::new());
    for key in keys {
        let Ok(text) = str::from_utf8(key) else {
            continue;
        };
        match tables.query(text) {
            Ok(None) => {}
            Ok(Some((value, _))) => output.extend(format!("{text}\t{value}\n").bytes()),
            Err(_) => failed.push(key.clone()),
        }
    }
    (output, failed)
}

/// Asks both and compares; returns how many keys were found.
pub fn compare(postmap: &Postmap, table: &str, keys: &[Vec<u8>]) -> usize {
    compare_in(TableContext::default(), postmap, table, keys)
}

/// As [`compare`], for a table that needs to know the configuration.
pub fn compare_in(
    context: TableContext,
    postmap: &Postmap,
    table: &str,
    keys: &[Vec<u8>],
) -> usize {
    let Some(tables) = open_in(context, table) else {
        let output = postmap.ask(table, keys);
        assert!(
            fatal(&output),
            "we cannot open {table}, postmap can: {output:?}"
        );
        return 0;
    };
    let (answers, failed) = ours(&tables, keys);
    for key in failed.iter().take(3) {
        let output = postmap.ask(table, std::slice::from_ref(key));
        let key = String::from_utf8_lossy(key);
        assert!(
            fatal(&output),
            "{table}: \"{key}\" fails here alone: {output:?}"
        );
    }
    let keys: Vec<_> = keys
        .iter()
        .filter(|key| !failed.contains(key))
        .cloned()
        .collect();
    let output = postmap.ask(table, &keys);
    assert!(
        !fatal(&output),
        "{table}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = |bytes: &[u8]| -> Vec<String> {
        let text = String::from_utf8(bytes.to_vec()).expect("values are UTF-8");
        text.split_terminator('\n').map(str::to_owned).collect()
    };
    let (theirs, answers) = (lines(&output.stdout), lines(&answers));
    for (theirs, ours) in theirs.iter().zip(&answers) {
        assert_eq!(theirs, ours, "{table}: postmap says the left");
    }
    assert_eq!(
        theirs.get(answers.len()),
        answers.get(theirs.len()),
        "{table}: one side found more keys"
    );
    theirs.len()
}
