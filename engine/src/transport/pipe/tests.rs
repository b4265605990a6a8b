//! Goal: commands are run, bounded and understood as pipe(8) does. Method: badly behaved shell
//! commands, run as an ordinary user.

use super::super::registry::Transports;
use super::super::{Client, TransportRecipient, TransportTarget, answers};
use super::*;
use crate::address::{Address, parse_address};
use crate::config::{Limits, Settings};
use crate::dsn::Dsn;
use crate::envelope::Recipient;
use crate::io::StateDirectory;
use crate::mail::Mail;
use crate::message::Spool;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest time a command of a test may take.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn mail(sender: &str, content: &str) -> Mail {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDirectory::open(dir.path()).unwrap();
    let spool = Spool::new(Arc::new(state), &Limits::default(), Arc::new(|| false));
    let mut message = spool.message();
    message.write(content.as_bytes()).unwrap();
    Mail {
        reverse_path: parse_address(sender).unwrap(),
        queue_id: Some("4XyZ".into()),
        client: Client {
            name: "client.example".into(),
            address: "192.0.2.1".into(),
            port: "25".into(),
            helo: "helo.example".into(),
            protocol: "ESMTP".into(),
            sasl_sender: "auth@ex.example".into(),
        },
        dsn: Dsn {
            envelope_id: Some("env $id".into()),
            ..Dsn::default()
        },
        message: message.finish().unwrap(),
    }
}

pub(super) fn recipient(internal: &str) -> Recipient {
    Recipient {
        address: Address::from_internal(internal),
        original: Some("o@ex.example".into()),
    }
}

/// The user that root runs commands as; others run them as themselves.
fn user() -> String {
    let user = match nix::unistd::geteuid().is_root() {
        true => nix::unistd::User::from_name("nobody"),
        false => nix::unistd::User::from_uid(nix::unistd::geteuid()),
    };
    user.unwrap().unwrap().name
}

fn service(words: &[&str], change: impl FnOnce(&mut TransportService)) -> Pipe {
    let (service, settings) = configuration(words, change);
    Pipe::new(&service, &settings)
}

fn configuration(
    words: &[&str],
    change: impl FnOnce(&mut TransportService),
) -> (TransportService, Settings) {
    let mut arguments = vec![format!("user={}", user())];
    arguments.extend(words.iter().map(|word| (*word).to_owned()));
    let mut service = TransportService {
        name: "drop".into(),
        command: "pipe".into(),
        arguments,
        is_chrooted: false,
        line: 1,
        recipient_limit: 50,
        concurrency_limit: 20,
        process_limit: 4,
        time_limit: TIMEOUT,
        recipient_delimiter: "+".into(),
    };
    change(&mut service);
    let mut settings = Settings::default();
    settings.transport.environment = [
        vec!["LANG=C".into()],
        vec!["LANG".into(), "SHOWN=yes".into(), "HOME".into()],
    ];
    (service, settings)
}

/// Delivers, and returns the status of each recipient.
fn deliver(pipe: &dyn Transport, mail: Mail, to: &[&str], limit: Duration) -> Vec<String> {
    let (sender, statuses) = mpsc::channel();
    let (done, _claims) = answers(to.len(), move |index, status, _| {
        let _ = sender.send((index, status.to_string()));
    });
    let recipients = to.iter().enumerate().map(|(index, to)| TransportRecipient {
        recipient: recipient(to),
        index,
    });
    pipe.deliver(TransportRequest {
        mail: Arc::new(mail),
        target: TransportTarget {
            transport: "drop".into(),
            nexthop: "Hop.example".into(),
        },
        recipients: recipients.collect(),
        deadline: Instant::now() + limit,
        done,
    });
    let mut all: Vec<_> = to
        .iter()
        .map(|_| statuses.recv_timeout(TIMEOUT * 2).unwrap())
        .collect();
    all.sort();
    all.into_iter().map(|(_, status)| status).collect()
}

/// Returns the result of a shell command with a small message.
fn shell(script: &str) -> String {
    let pipe = service(&["argv=/bin/sh", "-c", script], |_| {});
    let mail = mail("s@ex.example", "Subject: x\n\nbody\n");
    deliver(&pipe, mail, &["u@vm.example"], TIMEOUT).remove(0)
}

const DELIVERED: &str = "250 2.0.0 delivered via drop service";

#[test]
fn a_command_reads_the_message_and_its_output_is_told() {
    let said = shell("tr '\\n' '|'");
    assert_eq!(said, format!("{DELIVERED} (Subject: x||body|)"));
    assert_eq!(shell("echo 4.2.2 full >&2; exit 75"), "451 4.2.2 full");
    assert_eq!(shell("exit 67"), "550 5.1.1 user unknown");
    let killed = shell("kill -TERM $$$$");
    assert_eq!(killed, "451 4.3.0 Command died with signal 15: \"/bin/sh\"");
}

#[test]
fn the_envelope_line_has_a_sender_and_a_date() {
    let pipe = service(
        &["flags=F", "argv=/bin/sh", "-c", "head -n 1 | cut -c 1-17"],
        |_| {},
    );
    let mail = mail("s@ex.example", "Subject: x\n\nbody\n");
    let said = deliver(&pipe, mail, &["u@vm.example"], TIMEOUT).remove(0);
    assert_eq!(said, format!("{DELIVERED} (From s@ex.example)"));
}

#[test]
fn every_word_is_expanded_once_and_repeated_for_each_recipient() {
    let print = [
        "flags=qhu",
        "argv=/bin/sh",
        "-c",
        "printf '%s|' \"$$@\"",
        "x",
    ];
    let run = |words: &[&str]| {
        let pipe = service(&[&print, words].concat(), |_| {});
        let mail = mail("\"a b\"@ex.example", "A: b\n\n");
        let said = deliver(
            &pipe,
            mail,
            &["A+x$user@VM.example", "two words@b"],
            TIMEOUT,
        );
        assert_eq!(said[0], said[1]);
        let told = said[0]
            .strip_prefix(DELIVERED)
            .map(|told| told.trim_matches([' ', '(', ')']));
        told.expect(&said[0]).to_owned()
    };
    assert_eq!(
        run(&["${sender}", "$recipient", "$mailbox"]),
        "\"a b\"@ex.example|a+x$user@vm.example|\"two words\"@b|a+x$user|two words|"
    );
    assert_eq!(
        run(&["-$(user)/${extension}@$domain", "${nexthop}"]),
        "-a/x$user@vm.example|-two words/@b|hop.example|"
    );
    assert_eq!(
        run(&[
            "$$${queue_id} $client_address $client_helo",
            "$client_hostname$client_port"
        ]),
        "$4XyZ 192.0.2.1 helo.example|client.example25|"
    );
    assert_eq!(
        run(&[
            "$client_protocol",
            "$size",
            "$original_recipient",
            "$sasl_username",
            "{ x }"
        ]),
        "ESMTP|8|o@ex.example|o@ex.example||{ x }|"
    );
    assert_eq!(
        run(&["${envid}", "$sasl_sender", "<$sasl_method$sasl_username>"]),
        "env $id|auth@ex.example|<>|"
    );
}

#[test]
fn a_command_gets_nothing_but_what_it_is_given() {
    let said = shell("env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= | sort | tr '\\n' ' '");
    assert_eq!(
        said,
        format!("{DELIVERED} (LANG=C PATH=/usr/bin:/bin SHOWN=yes)")
    );
    // Its three descriptors, and the one that lists them; a session without a terminal; no signal
    // blocked.
    let (reader, _writer) = std::io::pipe().unwrap();
    rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::empty()).unwrap();
    assert_eq!(
        shell("ls /proc/self/fd | tr '\\n' ' '"),
        format!("{DELIVERED} (0 1 2 3)")
    );
    assert_eq!(
        shell("cut -d' ' -f5-7 /proc/$$$$/stat | sed s/$$$$/me/g"),
        format!("{DELIVERED} (me me 0)")
    );
    assert_eq!(
        shell("grep SigBlk /proc/$$$$/status | tr -d '\\n\\t'; umask; id -u | grep -cx 0 || true"),
        format!("{DELIVERED} (SigBlk:00000000000000000077 0)")
    );
}

#[test]
fn commands_that_behave_badly_hold_nobody_up() {
    let large = format!(
        "Subject: x\n\n{}",
        "x".repeat(70).as_str().to_owned() + "\n"
    )
    .repeat(20_000);
    let run = |script: &str| {
        let pipe = service(&["argv=/bin/sh", "-c", script], |_| {});
        deliver(
            &pipe,
            mail("s@ex.example", &large),
            &["u@vm.example"],
            TIMEOUT,
        )
        .remove(0)
    };
    // Reads nothing; writes before it reads; closes its output; leaves a process behind that holds
    // all of its pipes.
    assert_eq!(run("exit 0"), DELIVERED);
    assert_eq!(
        run("head -c 300000 /dev/zero; cat >/dev/null").get(..20),
        DELIVERED.get(..20)
    );
    assert_eq!(
        run("exec >&- 2>&-; cat; exit 75"),
        "451 4.3.0 temporary failure"
    );
    assert_eq!(
        run("sleep 300 & cat >/dev/null; echo done"),
        format!("{DELIVERED} (done)")
    );
    assert_eq!(
        run("(exec <&3; sleep 300) 3<&0 & exit 65"),
        "550 5.6.0 data format error"
    );
    // Endless output.
    assert_eq!(
        run("exec yes").get(..43),
        "451 4.3.0 Command died with signal 13: \"/bin/sh\"".get(..43)
    );
}

#[test]
fn a_command_that_runs_too_long_is_killed_with_all_it_started() {
    let words = ["argv=/bin/sh", "-c", "echo $$$$; sleep 300 & sleep 300"];
    let limited = service(&words, |service| {
        service.time_limit = Duration::from_secs(2)
    });
    let said = deliver(&limited, mail("", "x\n"), &["u@vm.example"], TIMEOUT).remove(0);
    let prefix = "550 5.3.0 Command time limit exceeded: \"/bin/sh\". Command output: ";
    let group = said.strip_prefix(prefix).expect(&said);
    let deadline = Instant::now() + TIMEOUT;
    let is_gone = || {
        let group: i32 = group.trim().parse().unwrap();
        let group = rustix::process::Pid::from_raw(group).unwrap();
        rustix::process::test_kill_process_group(group).is_err()
    };
    while !is_gone() {
        assert!(Instant::now() < deadline, "something of it is left");
        std::thread::yield_now();
    }
    // The deadline of this delivery defers the mail.
    let pipe = service(&words, |_| {});
    let limit = Duration::from_millis(300);
    let said = deliver(&pipe, mail("", "x\n"), &["u@vm.example"], limit).remove(0);
    assert_eq!(said, "451 4.3.0 Command took too long: \"/bin/sh\"");
}

#[test]
fn what_cannot_be_run_puts_mail_off() {
    let run = |words: &[&str]| {
        let pipe = service(words, |_| {});
        deliver(&pipe, mail("", "x\n"), &["u@vm.example"], TIMEOUT).remove(0)
    };
    let missing = run(&["argv=/nonexistent/command"]);
    assert!(
        missing.starts_with("451 4.3.5 cannot run the command of service drop"),
        "{missing}"
    );
    let wrong = "451 4.3.5 mail system configuration error: service drop";
    assert_eq!(run(&["argv=/bin/cat", "${unknown}"]), wrong);
    assert_eq!(run(&["chroot=/tmp", "argv=/bin/cat"]), wrong);
    assert_eq!(run(&["user=root", "argv=/bin/cat"]), wrong);
    assert_eq!(
        run(&["size=1", "argv=/bin/cat"]),
        "552 5.2.3 message too large"
    );
    let pipe = service(&["flags=D", "argv=/bin/cat"], |_| {});
    let both = deliver(
        &pipe,
        mail("", "x\n"),
        &["u@vm.example", "v@vm.example"],
        TIMEOUT,
    );
    assert_eq!(both, ["451 4.3.5 mail system configuration error"; 2]);
    let again = mail("", "Delivered-To: u@vm.example\n\nx\n");
    let again = deliver(&pipe, again, &["u@vm.example"], TIMEOUT).remove(0);
    assert_eq!(again, "550 5.4.6 mail forwarding loop for u@vm.example");
}

#[test]
fn a_service_that_is_configured_again_follows_all_settings() {
    let words = ["argv=/bin/sh", "-c", "echo $$SHOWN"];
    let (service, mut settings) = configuration(&words, |_| {});
    settings.transport.enabled = true;
    settings.transport.services = vec![service];
    let transports = Transports::default();
    for shown in ["yes", "no"] {
        let [_, exported] = &mut settings.transport.environment;
        *exported = vec![format!("SHOWN={shown}")];
        transports.configure(&settings);
        let pipe = transports.get("drop").unwrap();
        let said = deliver(&*pipe, mail("", "x\n"), &["u@vm.example"], TIMEOUT);
        assert_eq!(said, [format!("{DELIVERED} ({shown})")]);
    }
    let before = transports.get("drop").unwrap();
    transports.configure(&settings);
    let after = transports.get("drop").unwrap();
    assert!(Arc::ptr_eq(&before, &after), "nothing was changed");
    transports.close();
}

/// Set where SIGCHLD is ignored.
const IGNORES: &str = "MAILSTOW_TEST_IGNORES_SIGCHLD";

#[test]
fn no_command_is_run_where_its_exit_status_would_be_lost() {
    if std::env::var_os(IGNORES).is_some() {
        let said = shell("cat >/dev/null");
        assert!(said.starts_with("451 4.3.0 cannot run"), "{said}");
        return;
    }
    // Ignored signals are inherited.
    let own = std::env::current_exe().unwrap();
    let name = "no_command_is_run_where_its_exit_status_would_be_lost";
    let run = std::process::Command::new("env")
        .arg("--ignore-signal=CHLD")
        .arg(own)
        .args(["--exact", &format!("transport::pipe::tests::{name}")])
        .env(IGNORES, "yes")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn no_more_commands_run_at_once_than_the_service_allows() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    // Fails while another one runs.
    let script = format!(
        "mkdir {0}/lock || exit 75; sleep 0.05; rmdir {0}/lock",
        dir.path().display()
    );
    let words = ["argv=/bin/sh", "-c", &script, "${recipient}"];
    let to = ["a@x.example", "b@x.example", "c@x.example", "d@x.example"];
    for (recipient_limit, process_limit, concurrency_limit) in [(1, 1, 20), (2, 4, 1)] {
        let pipe = service(&words, |service| {
            service.recipient_limit = recipient_limit;
            service.process_limit = process_limit;
            service.concurrency_limit = concurrency_limit;
        });
        assert_eq!(
            deliver(&pipe, mail("", "x\n"), &to, TIMEOUT),
            [DELIVERED; 4]
        );
        pipe.close();
    }
}
