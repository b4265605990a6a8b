//! What it costs to hand a message to a command, beside starting the same command without anything
//! else.
//!
//! Both run `/bin/sh -c "cat >/dev/null"`, give it the same bytes and wait for its end. Nothing is
//! remembered in a delivery log, so that no disk is measured.
#![expect(missing_docs, reason = "criterion's macros write no docs")]
#![expect(clippy::expect_used, reason = "a bench that fails ends")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailstow_engine::{
    Configuration, Engine, Mail, Recipient, ReversePath, Sources, Target, parse_mailbox,
};
use std::error::Error;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

const SCRIPT: &str = "cat >/dev/null";
/// User and group of the command.
const NOBODY: u32 = 65534;

fn engine(directory: &Path) -> Result<Engine, Box<dyn Error>> {
    fs::write(
        directory.join("main.cf"),
        format!("virtual_mailbox_base = {}\n", directory.display()),
    )?;
    fs::write(
        directory.join("master.cf"),
        format!(
            "drop unix - n n - - pipe\n  flags=q user=nobody argv=/bin/sh -c {{{SCRIPT}}} \
             ${{recipient}}\n"
        ),
    )?;
    let state = directory.join("state").display().to_string();
    let settings = [
        ("transport.enabled", "yes"),
        ("store.durability", "direct"),
        ("state_directory", &state),
    ];
    let sources = Sources {
        postfix: Some(directory.to_owned()),
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        by_program: true,
        ..Sources::default()
    };
    let configuration = Configuration::load(&sources)?;
    Ok(Engine::open(&configuration.settings)?)
}

/// What both give to the command.
fn content(bytes: usize) -> String {
    let line = "The quick brown fox jumps over the lazy dog, as it does in every message.\n";
    format!("Subject: x\n\n{}", line.repeat(bytes / line.len()))
}

fn deliver(engine: &Engine, content: &str) -> Result<(), Box<dyn Error>> {
    let mut message = engine.new_message();
    message.write(content.as_bytes())?;
    let mail = Mail {
        reverse_path: ReversePath::Address(parse_mailbox("sender@example.org")?),
        queue_id: None,
        client: Default::default(),
        dsn: Default::default(),
        message: message.finish()?,
    };
    let recipient = Recipient {
        address: parse_mailbox("user@example.com")?,
        original: None,
    };
    let to = vec![(recipient, Target::transport("drop", "example.com"))];
    let outcomes = engine.deliver(Arc::new(mail), to);
    match outcomes.iter().all(|outcome| outcome.status.is_success()) {
        true => Ok(()),
        false => Err(format!("{outcomes:?}").into()),
    }
}

/// Starts the command, gives it the message and waits for its end. As another user, the standard
/// library forks; as the same one, it lets the new process share the memory of this one until it
/// executes the command.
fn bare(content: &str, user: Option<u32>) -> io::Result<()> {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", SCRIPT, "user@example.com"])
        .stdin(Stdio::piped());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let mut child = command.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(content.as_bytes())?;
    }
    match child.wait()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("the command failed")),
    }
}

fn commands(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let engine = engine(directory.path()).expect("an engine");
    let mut group = criterion.benchmark_group("pipe");
    for bytes in [4096, 1 << 20] {
        let content = content(bytes);
        group.throughput(Throughput::Elements(1));
        group.bench_with_input(BenchmarkId::new("mailstow", bytes), &content, |b, text| {
            b.iter(|| deliver(&engine, text).expect("a delivery"));
        });
        group.bench_with_input(BenchmarkId::new("fork", bytes), &content, |b, text| {
            b.iter(|| bare(text, Some(NOBODY)).expect("a command"));
        });
        group.bench_with_input(BenchmarkId::new("vfork", bytes), &content, |b, text| {
            b.iter(|| bare(text, None).expect("a command"));
        });
    }
    group.finish();
    engine.close();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50);
    targets = commands
}
criterion_main!(benches);
