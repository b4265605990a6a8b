//! `benches/peers/compare`: how fast mail is taken and stored, beside Dovecot and Postfix.
//!
//! Method: servers take turns; each gets messages from smtp-source(1), spread over the same
//! mailboxes, and the time runs until the last reply is read (for Postfix until its queue is
//! empty: it answers before virtual(8) stores anything). A window lasts about `--seconds`: a short
//! run tells how many messages fill it. A window of a few seconds flatters a server that lets the
//! kernel write late. Then the messages in the mailboxes are counted: all of them must be there.

mod load;
mod options;
mod servers;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use mailstow_tests::Scratch;
use mailstow_tests::scratch::needs_root;
use mailstow_tests::volume::Volume;

use options::Options;
use servers::{Kind, Server};

/// Set for the process that runs on the volume.
const INSIDE: &str = "MAILSTOW_COMPARE_INSIDE";

/// A run at least this long tells the rate of a server well enough to size the window.
const PROBE: Duration = Duration::from_secs(2);

/// Messages per second over one window.
fn measure(kind: Kind, options: &Options) -> f64 {
    let server = Server::start(kind, options);
    let mut sent = options.mailboxes;
    server.take(options, sent);
    let rate = probe(&server, options, &mut sent);
    let messages = (rate * options.seconds as f64).ceil() as usize;
    let seconds = timed(&server, options, messages);
    sent += messages;
    let stored = server.stored(options);
    assert_eq!(stored, sent, "{} answered for all of them", kind.name());
    messages as f64 / seconds
}

/// Messages per second over a short run.
fn probe(server: &Server, options: &Options, sent: &mut usize) -> f64 {
    let mut messages = options.sessions * 4;
    loop {
        let seconds = timed(server, options, messages);
        *sent += messages;
        if seconds >= PROBE.as_secs_f64() {
            return messages as f64 / seconds;
        }
        messages *= 2;
    }
}

fn timed(server: &Server, options: &Options, messages: usize) -> f64 {
    let start = Instant::now();
    server.take(options, messages);
    start.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

fn compare(options: &Options) {
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); options.servers.len()];
    for _ in 0..options.rounds {
        for (kind, rates) in options.servers.iter().zip(&mut rates) {
            rates.push(measure(*kind, options));
        }
    }
    let format = if options.is_mbox { "mbox" } else { "Maildir" };
    println!(
        "{format}, messages of {} bytes, {} sessions, {} mailboxes, windows of about {} s, \
         median of {}:\n",
        options.bytes, options.sessions, options.mailboxes, options.seconds, options.rounds
    );
    let ours = options.servers.iter().position(|k| *k == Kind::Mailstow);
    let ours = ours.and_then(|at| rates.get(at)).map(|r| median(r.clone()));
    println!("| server | messages/s | lowest | highest | mailstow does |\n|---|---|---|---|---|");
    for (kind, rates) in options.servers.iter().zip(rates) {
        let low = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let high = rates.iter().copied().fold(0.0, f64::max);
        let rate = median(rates);
        let times = ours.map_or_else(String::new, |ours| {
            format!("{:.1} times as many", ours / rate)
        });
        println!(
            "| {} | {rate:.0} | {low:.0} | {high:.0} | {times} |",
            kind.described()
        );
    }
}

/// Runs this program again, with its temporary files on a journalled file system.
fn on_a_volume(options: &Options) -> ExitCode {
    needs_root("a file system is mounted");
    let scratch = Scratch::new("compare");
    let volume = Volume::mount(&scratch, options.gib as u64 * 1024);
    let program = std::env::current_exe().expect("the path of this program");
    let status = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env("TMPDIR", volume.path())
        .env(INSIDE, "1")
        .status()
        .expect("this program can be run again");
    drop(volume);
    if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn main() -> ExitCode {
    let options = match Options::read() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    if std::env::var_os(INSIDE).is_none() {
        return on_a_volume(&options);
    }
    compare(&options);
    ExitCode::SUCCESS
}
