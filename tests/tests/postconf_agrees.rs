//! main.cf means to mailstow what it means to Postfix.
//!
//! Files are read by mailstow and by the real postconf(1), and the expanded values compared:
//! whole files for every routing parameter, then generated expressions, some of them broken on
//! purpose, where both must agree on the value or both refuse. A failing case prints its seed.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use mailstow_engine::config::{Configuration, Fallback, PARAMETERS, Sources};

fn directory_with(main_cf: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("main.cf");
    fs::write(&path, main_cf).expect("main.cf");
    // Postfix waits for a second when a file was changed just now.
    let file = fs::File::options().write(true).open(path).expect("main.cf");
    file.set_modified(SystemTime::now() - Duration::from_secs(60))
        .expect("utimes");
    fs::write(directory.path().join("master.cf"), "").expect("master.cf");
    directory
}

fn postconf(directory: &Path, names: &[&str]) -> Output {
    Command::new("postconf")
        .arg("-c")
        .arg(directory)
        .arg("-xh")
        .args(names)
        .output()
        .expect("postconf runs; install Postfix with tests/run")
}

fn load(directory: &Path) -> Result<Configuration, String> {
    let sources = Sources {
        postfix: Some(directory.to_owned()),
        ..Sources::default()
    };
    Configuration::load(&sources).map_err(|error| error.to_string())
}

/// postconf prints runs of blanks as one; so do we before comparing.
fn words(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// Compares every routing parameter.
fn assert_agreement(main_cf: &str) {
    let directory = directory_with(main_cf);
    let ours = load(directory.path()).unwrap_or_else(|error| panic!("{main_cf}\n{error}"));
    let routing = PARAMETERS.iter().filter(|p| p.section == "routing");
    let names: Vec<&str> = routing.map(|p| p.name).collect();
    let output = postconf(directory.path(), &names);
    let theirs = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<&str> = theirs.lines().collect();
    assert_eq!(lines.len(), names.len(), "{theirs}");
    for (name, line) in names.iter().zip(lines) {
        let entry = ours.entry("routing", name).expect(name);
        assert_eq!(words(&entry.value), words(line), "{name} of\n{main_cf}");
    }
}

#[test]
fn defaults_are_those_of_postconf() {
    let names: Vec<&str> = PARAMETERS
        .iter()
        .filter(|p| p.section == "routing" && matches!(p.fallback, Fallback::Text(_)))
        .map(|p| p.name)
        .collect();
    let output = Command::new("postconf")
        .arg("-dh")
        .args(&names)
        .output()
        .expect("postconf runs");
    let theirs = String::from_utf8(output.stdout).expect("UTF-8");
    for (name, line) in names.iter().zip(theirs.lines()) {
        let ours = PARAMETERS
            .iter()
            .find(|p| p.name == *name)
            .map(|p| p.fallback);
        let Some(Fallback::Text(text)) = ours else {
            panic!("{name}")
        };
        assert_eq!(text, line, "{name}");
    }
}

#[test]
fn whole_files_mean_the_same() {
    for main_cf in [
        "",
        "# nothing\n\n   \n# more\n",
        "mydomain = example.org\n",
        "myhostname = mail.example.org\nmyorigin = $mydomain\n",
        "myhostname = bare\n",
        "compatibility_level = 3.6\nmyhostname = a.b.c\nmydestination =\n",
        "compatibility_level = 1\nrelay_domains = $mydestination, other.example\n",
        // Comments and blank lines within a continued value, a later setting, trailing blanks.
        "mydestination = a.example,\n# comment\n  b.example,\n\n \t\n\tc.example   \n\
         relayhost=first\nrelayhost =\tsecond \t\n#end",
        "  orphaned = 1\n  more\nrelayhost = kept\n",
        "virtual_mailbox_domains = example.com, more.example\nvirtual_mailbox_base = /var/mail/v\n\
         virtual_mailbox_maps = hash:$config_directory/vmailbox\nvirtual_minimum_uid = 100\n\
         virtual_uid_maps = static:5000\nvirtual_gid_maps = static:5000\n\
         virtual_alias_maps = hash:${config_directory}/virtual\n",
        "vroot = /srv\nvirtual_mailbox_base = $vroot/$mydomain\nvirtual_mailbox_maps = \
         inline:{{a@b = c/}}\nmydomain = ${nosuch:{d.example}}\n",
        "relayhost = ${{$compatibility_level} <level {3} ? {old} : {new}}\n",
        "deliver_lock_delay = 2s\nstale_lock_time = 10m\nvirtual_mailbox_lock = dotlock\n",
        "recipient_delimiter = +-\nrelayhost = $$price $(mydomain)\nproxy_interfaces =\n 1.2.3.4\n",
    ] {
        assert_agreement(main_cf);
    }
}

#[test]
fn lines_that_postconf_refuses_are_refused() {
    for main_cf in [
        "a\n",
        "= b\n",
        "a b = c\n",
        "x = 1\nnothing here\n",
        "relayhost = $relayhost\n",
    ] {
        let directory = directory_with(main_cf);
        assert!(
            !postconf(directory.path(), &["relayhost"]).status.success(),
            "{main_cf}"
        );
        assert!(load(directory.path()).is_err(), "{main_cf}");
    }
}

const MACROS: &str = "compatibility_level = 3.6\na = x\nempty =\nrefers = $empty\nnine = 9\n\
                      ten = 10\nnested = ${nosuch:{d$a}}\nback = ${relayhost}\n";

/// One expression of the language of postconf(5), nested to `depth`.
fn expression(random: &mut fastrand::Rng, depth: u32) -> String {
    const NAMES: [&str; 10] = [
        "a",
        "empty",
        "refers",
        "nine",
        "ten",
        "nested",
        "nosuch",
        "mydomain",
        "queue_directory",
        "mail_owner",
    ];
    const LITERALS: [&str; 9] = ["", "x", "9", "10", "010", "a b", "yes:no", "$$", "3.6"];
    const OPERATORS: [&str; 9] = ["==", "!=", "<", "<=", ">", ">=", "==level", "<level", "=~"];
    const BLANKS: [&str; 3] = ["", " ", "  "];
    let name = NAMES[random.usize(..NAMES.len())];
    if depth == 0 {
        return match random.u8(..4) {
            0 => format!("${name}"),
            1 => format!("${{{name}}}"),
            2 => format!("$({name})"),
            _ => LITERALS[random.usize(..LITERALS.len())].to_owned(),
        };
    }
    let one = expression(random, depth - 1);
    let two = expression(random, depth - 1);
    let blank = BLANKS[random.usize(..BLANKS.len())];
    match random.u8(..8) {
        0 => format!("{one}{two}"),
        1 => format!("${{{name}?{one}}}"),
        2 => format!("${{{name}:{one}}}"),
        3 => format!("${{{blank}{name}{blank}?{blank}{{{one}}}{blank}:{blank}{{{two}}}{blank}}}"),
        4 => format!("${{{name}?{{{one}}}:{two}}}"),
        5 => format!("$({name}?{{{one}}}:{{{two}}})"),
        6 => {
            let operator = OPERATORS[random.usize(..OPERATORS.len())];
            format!(
                "${{{blank}{{{one}}}{blank}{operator}{blank}{{{two}}}{blank}?{{{name}}}:{{n}}}}"
            )
        }
        _ => format!("${{{{{one}}} == {{{two}}}}}"),
    }
}

/// The expression with one character removed, doubled or replaced.
fn broken(random: &mut fastrand::Rng, text: &str) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    if characters.is_empty() {
        return "$".to_owned();
    }
    let at = random.usize(..characters.len());
    match random.u8(..3) {
        0 => drop(characters.remove(at)),
        1 => characters.insert(at, characters[at]),
        _ => {
            characters[at] = *random
                .choice(&['{', '}', '$', '(', ')', '?', ':', '=', '.'])
                .unwrap()
        }
    }
    characters.into_iter().collect()
}

#[test]
fn generated_expressions_have_the_same_value_or_are_refused_by_both() {
    const SEEDS: u64 = 400;
    const THREADS: u64 = 32;
    // Where postconf refuses a file it sleeps for a second, so many run at once.
    let refused: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|first| {
                scope.spawn(move || {
                    (first..SEEDS)
                        .step_by(THREADS as usize)
                        .filter(agree)
                        .count()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("agreement"))
            .sum()
    });
    assert!(
        (20..300).contains(&refused),
        "{refused} of {SEEDS} were refused"
    );
}

/// Compares the value of one generated expression; true when both refuse it.
fn agree(seed: &u64) -> bool {
    let mut random = fastrand::Rng::with_seed(*seed);
    let depth = random.u32(..4);
    let mut text = expression(&mut random, depth);
    if random.bool() {
        text = broken(&mut random, &text);
    }
    let main_cf = format!("{MACROS}relayhost = |{text}|\n");
    let directory = directory_with(&main_cf);
    let output = postconf(directory.path(), &["relayhost"]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    match load(directory.path()) {
        Ok(ours) => {
            assert!(output.status.success(), "seed {seed}: {text}\n{complaint}");
            let ours = &ours.entry("routing", "relayhost").expect("relayhost").value;
            let theirs = String::from_utf8(output.stdout).expect("UTF-8");
            assert_eq!(words(ours), words(&theirs), "seed {seed}: {text}");
            false
        }
        Err(error) => {
            assert!(!output.status.success(), "seed {seed}: {text}\n{error}");
            true
        }
    }
}
