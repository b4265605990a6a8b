//! Deliveries to servers of threads that do what a test wants, over real sockets.

use super::backend::Outcomes;
use super::*;
use mailstow_engine::config::Limits;
use mailstow_engine::transport::{Client, Disposition};
use mailstow_engine::{ReversePath, Spool, parse_mailbox};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_secs(60);

/// What a server does with its connection of that number.
type Serve = dyn Fn(usize, BufReader<UnixStream>) + Send + Sync;

/// A server on a socket. Its threads end with the test.
struct Server {
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn start(
        path: &Path,
        serve: impl Fn(usize, BufReader<UnixStream>) + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let serve: Arc<Serve> = Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let (serve, stream) = (Arc::clone(&serve), BufReader::new(stream.unwrap()));
                std::thread::spawn(move || serve(number, stream));
            }
        });
        Self { connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Serves like a store until `lines` command lines were read; tells each message.
fn store(mut stream: BufReader<UnixStream>, lines: usize, told: &Sender<String>) {
    let say = |stream: &mut BufReader<UnixStream>, text: &str| {
        let _ = write!(stream.get_mut(), "{text}\r\n");
    };
    say(&mut stream, "220 store");
    let mut recipients = Vec::new();
    for _ in 0..lines {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        match line.split_ascii_whitespace().next().unwrap() {
            "LHLO" => say(&mut stream, "250-store\r\n250-PIPELINING\r\n250 8BITMIME"),
            "RCPT" if line.contains("unknown") => say(&mut stream, "550 5.1.1 unknown"),
            "RCPT" => {
                recipients.push(line.trim_end().to_owned());
                say(&mut stream, "250 2.1.5 ok");
            }
            "DATA" if recipients.is_empty() => say(&mut stream, "503 5.5.1 nobody"),
            "DATA" => {
                say(&mut stream, "354 go");
                let mut content = String::new();
                loop {
                    let mut line = String::new();
                    if stream.read_line(&mut line).unwrap_or(0) == 0 {
                        return;
                    }
                    if line == ".\r\n" {
                        break;
                    }
                    content += line.strip_prefix('.').unwrap_or(&line);
                }
                let _ = told.send(content);
                for _ in recipients.drain(..) {
                    say(&mut stream, "250 2.0.0 stored");
                }
            }
            _ => say(&mut stream, "250 2.0.0 ok"),
        }
    }
}

#[derive(Debug)]
struct Told(Sender<(usize, Status)>);

impl Outcomes for Told {
    fn begin(&self, _index: usize) -> bool {
        true
    }

    fn answer(&self, index: usize, status: Status, _: Disposition) {
        let _ = self.0.send((index, status));
    }
}

struct World {
    directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    relays: Arc<Relays>,
    spool: Spool,
}

impl World {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.transport.enabled = true;
        change(&mut settings);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let relays = Relays::new(&settings, runtime.handle().clone()).unwrap();
        // Longer messages are in a file.
        let limits = Limits {
            message_memory_bytes: 4096,
            ..Limits::default()
        };
        let spool = Spool::open(directory.path(), &limits).unwrap();
        Self {
            directory,
            runtime,
            relays,
            spool,
        }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn nexthop(&self, name: &str) -> String {
        format!("unix:{}", self.socket(name).display())
    }

    /// Begins a delivery.
    fn begin(&self, nexthop: &str, to: &[&str], content: &str) -> Receiver<(usize, Status)> {
        let mut message = self.spool.message();
        message.write(content.as_bytes()).unwrap();
        let (tell, told) = channel();
        let recipients = to.iter().map(|address| Recipient {
            address: parse_mailbox(address).unwrap(),
            original: None,
        });
        let request = Request {
            mail: Arc::new(Mail {
                reverse_path: ReversePath::Null,
                queue_id: Some("4F1".into()),
                client: Client::default(),
                dsn: Default::default(),
                message: message.finish().unwrap(),
            }),
            nexthop: nexthop.to_owned(),
            recipients: recipients.enumerate().collect(),
            forwarded: Forwarded::default(),
            deadline: std::time::Instant::now() + LIMIT,
            outcomes: Box::new(Told(tell)),
        };
        self.relays.deliver(Protocol::Lmtp, request);
        told
    }

    /// The outcome of each recipient, in order.
    fn deliver(&self, nexthop: &str, to: &[&str], content: &str) -> Vec<Status> {
        outcomes(&self.begin(nexthop, to, content), to.len())
    }
}

/// Waits for the outcome of each recipient; then there must be no more.
fn outcomes(told: &Receiver<(usize, Status)>, count: usize) -> Vec<Status> {
    let mut found = vec![None; count];
    for _ in 0..count {
        let (index, status) = told.recv_timeout(LIMIT).unwrap();
        assert!(found[index].replace(status).is_none(), "answered twice");
    }
    let rest = told.recv_timeout(LIMIT);
    assert!(rest.is_err(), "answered too often: {rest:?}");
    found.into_iter().map(Option::unwrap).collect()
}

fn codes(statuses: &[Status]) -> Vec<String> {
    let codes = |status: &Status| format!("{} {}", status.code, status.enhanced);
    statuses.iter().map(codes).collect()
}

const MAIL: &str = "Subject: hello\n\n.dot\nIt works.\n";

#[test]
fn messages_share_a_session_and_each_recipient_has_its_reply() {
    let world = World::new(|_| {});
    let (tell, told) = channel();
    let server = Server::start(&world.socket("s"), move |_, stream| {
        store(stream, usize::MAX, &tell);
    });
    for _ in 0..5 {
        let to = ["a@x", "unknown@x", "b@x"];
        let statuses = world.deliver(&world.nexthop("s"), &to, MAIL);
        assert_eq!(codes(&statuses), ["250 2.0.0", "550 5.1.1", "250 2.0.0"]);
        let statuses = world.deliver(&world.nexthop("s"), &["unknown@x"], MAIL);
        assert_eq!(codes(&statuses), ["550 5.1.1"]);
    }
    assert_eq!(server.connections(), 1);
    let content = told.recv().unwrap();
    let wanted = "Received: by localhost (mailstow) with LMTP id 4F1\r\n\
                  Subject: hello\r\n\r\n.dot\r\nIt works.\r\n";
    assert_eq!(content, wanted);
    let report = world.relays.report();
    assert_eq!(report[0]["state"], "up");
    assert_eq!(report[0]["delivered"], 10);
    assert_eq!(report[0]["refused"], 10);
}

#[test]
fn a_long_message_arrives_as_it_was() {
    let world = World::new(|_| {});
    let (tell, told) = channel();
    let _server = Server::start(&world.socket("s"), move |_, stream| {
        store(stream, usize::MAX, &tell);
    });
    let mut content = "Subject: long\n\n".to_owned();
    for line in 0..40_000 {
        content += &format!(".{line}\n");
    }
    let statuses = world.deliver(&world.nexthop("s"), &["a@x"], &content);
    assert_eq!(codes(&statuses), ["250 2.0.0"]);
    let arrived = told.recv().unwrap();
    let (_, arrived) = arrived.split_once("\r\n").unwrap();
    assert!(arrived.replace("\r\n", "\n") == content, "no byte differs");
}

#[test]
fn a_session_that_was_closed_while_idle_is_replaced() {
    let world = World::new(|_| {});
    let (tell, _told) = channel();
    // LHLO, MAIL, RCPT, DATA: then the server hangs up, or does so when more is said.
    for (name, lines) in [("at-once", 4), ("late", 5)] {
        let tell = tell.clone();
        let server = Server::start(&world.socket(name), move |_, stream| {
            store(stream, lines, &tell);
        });
        for count in 1..=5 {
            let statuses = world.deliver(&world.nexthop(name), &["a@x"], MAIL);
            assert_eq!(codes(&statuses), ["250 2.0.0"]);
            assert_eq!(server.connections(), count);
        }
    }
}

#[test]
fn a_server_may_hang_up_at_every_step_and_its_recipients_are_put_off() {
    let world = World::new(|_| {});
    for lines in 0..4 {
        let name = format!("s{lines}");
        let (tell, _told) = channel();
        let _server = Server::start(&world.socket(&name), move |_, stream| {
            store(stream, lines, &tell);
        });
        let statuses = world.deliver(&world.nexthop(&name), &["a@x", "b@x"], MAIL);
        assert_eq!(codes(&statuses), ["451 4.4.2", "451 4.4.2"], "{lines}");
        // It is left alone for a while.
        let statuses = world.deliver(&world.nexthop(&name), &["a@x"], MAIL);
        assert!(
            statuses[0].text.contains("tried again in"),
            "{}",
            statuses[0]
        );
    }
}

#[test]
fn the_next_server_of_a_list_takes_what_the_first_cannot() {
    let world = World::new(|_| {});
    let (tell, _told) = channel();
    let _server = Server::start(&world.socket("two"), move |_, stream| {
        store(stream, usize::MAX, &tell);
    });
    let both = format!("{}, {}", world.nexthop("one"), world.nexthop("two"));
    for _ in 0..2 {
        let statuses = world.deliver(&both, &["a@x"], MAIL);
        assert_eq!(codes(&statuses), ["250 2.0.0"]);
    }
    let statuses = world.deliver(&world.nexthop("one"), &["a@x"], MAIL);
    assert_eq!(codes(&statuses), ["451 4.4.1"]);
    let report = world.relays.report();
    let states: Vec<_> = report.iter().map(|one| one["state"].as_str()).collect();
    assert_eq!(states, [Some("down"), Some("up")]);
    assert!(
        report[0]["cause"]
            .as_str()
            .unwrap()
            .contains("cannot connect")
    );
}

#[test]
fn silence_nonsense_and_dripped_bytes_are_waited_for_no_longer_than_allowed() {
    let world = World::new(|settings| {
        settings.relay.connect_timeout = Duration::from_millis(200);
    });
    let _silent = Server::start(&world.socket("silent"), |_, mut stream| {
        let _ = stream.read_line(&mut String::new());
    });
    let _odd = Server::start(&world.socket("odd"), |_, mut stream| {
        let _ = stream.get_mut().write_all(b"hello there\r\n");
        let _ = stream.read_line(&mut String::new());
    });
    let _flood = Server::start(&world.socket("flood"), |_, mut stream| {
        while stream.get_mut().write_all(&[b'2'; 8192]).is_ok() {}
    });
    let _drip = Server::start(&world.socket("drip"), |_, mut stream| {
        while stream.get_mut().write_all(b"2").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    for (name, wanted) in [
        ("silent", "451 4.4.2"),
        ("odd", "451 4.5.0"),
        ("flood", "451 4.5.0"),
        ("drip", "451 4.4.2"),
    ] {
        let statuses = world.deliver(&world.nexthop(name), &["a@x"], MAIL);
        assert_eq!(codes(&statuses), [wanted], "{name}");
    }
}

#[test]
fn a_message_whose_reply_never_comes_is_in_doubt_and_the_server_is_still_tried() {
    let world = World::new(|_| {});
    let (tell, _told) = channel();
    let _server = Server::start(&world.socket("s"), move |number, mut stream| {
        if number > 0 {
            return store(stream, usize::MAX, &tell);
        }
        // The first one hangs up when it has the message.
        let _ = write!(
            stream.get_mut(),
            "220 a\r\n250 b\r\n250 c\r\n250 d\r\n354 e\r\n"
        );
        let mut line = String::new();
        while line != ".\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
    });
    let statuses = world.deliver(&world.nexthop("s"), &["a@x"], MAIL);
    assert_eq!(codes(&statuses), ["451 4.4.2"]);
    assert!(
        statuses[0].text.contains("delivered twice"),
        "{}",
        statuses[0]
    );
    let statuses = world.deliver(&world.nexthop("s"), &["a@x"], MAIL);
    assert_eq!(codes(&statuses), ["250 2.0.0"]);
}

#[test]
fn what_waits_for_a_server_is_bounded() {
    let world = World::new(|settings| {
        settings.relay.destination_concurrency_limit = 1;
        settings.relay.destination_queue_limit = 2;
    });
    let (release, released) = channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let (tell, _told) = channel();
    let server = Server::start(&world.socket("s"), move |_, stream| {
        let _ = released.lock().recv();
        store(stream, usize::MAX, &tell);
    });
    let nexthop = world.nexthop("s");
    let waiting = || {
        world
            .relays
            .report()
            .first()
            .map_or(0, |one| one["waiting"].as_u64().unwrap())
    };
    let busy = || {
        world
            .relays
            .report()
            .first()
            .map_or(0, |one| one["busy"].as_u64().unwrap())
    };
    let until = |reached: &dyn Fn() -> bool| {
        let end = std::time::Instant::now() + LIMIT;
        while !reached() {
            assert!(std::time::Instant::now() < end);
            std::thread::yield_now();
        }
    };
    let first = world.begin(&nexthop, &["a@x"], MAIL);
    until(&|| busy() == 1);
    let others: Vec<_> = (0..2)
        .map(|_| world.begin(&nexthop, &["a@x"], MAIL))
        .collect();
    until(&|| waiting() == 2);
    let statuses = world.deliver(&nexthop, &["a@x"], MAIL);
    assert_eq!(codes(&statuses), ["451 4.3.2"]);
    release.send(()).unwrap();
    for told in [first].into_iter().chain(others) {
        assert_eq!(codes(&outcomes(&told, 1)), ["250 2.0.0"]);
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn recipients_share_transactions_up_to_the_limit() {
    let world = World::new(|settings| settings.relay.destination_recipient_limit = 3);
    let (tell, told) = channel();
    let _server = Server::start(&world.socket("s"), move |_, stream| {
        store(stream, usize::MAX, &tell);
    });
    let statuses = world.deliver(&world.nexthop("s"), &["a@x"; 7], MAIL);
    assert_eq!(codes(&statuses), ["250 2.0.0"; 7]);
    assert_eq!(told.try_iter().count(), 3);
}

#[test]
fn loops_end_and_domains_are_left_to_postfix() {
    let world = World::new(|_| {});
    let content = format!("{}\n", "Received: by x\n".repeat(50));
    let statuses = world.deliver(&world.nexthop("s"), &["a@x", "b@x"], &content);
    assert_eq!(codes(&statuses), ["554 5.4.6", "554 5.4.6"]);
    let (tell, told) = channel();
    let request = Request {
        mail: Arc::new(Mail {
            reverse_path: ReversePath::Null,
            queue_id: None,
            client: Client::default(),
            dsn: Default::default(),
            message: world.spool.message().finish().unwrap(),
        }),
        nexthop: "example.com".into(),
        recipients: vec![(
            0,
            Recipient {
                address: parse_mailbox("a@x").unwrap(),
                original: None,
            },
        )],
        forwarded: Forwarded::default(),
        deadline: std::time::Instant::now() + LIMIT,
        outcomes: Box::new(Told(tell)),
    };
    world.relays.deliver(Protocol::Smtp, request);
    let statuses = outcomes(&told, 1);
    assert_eq!(codes(&statuses), ["451 4.3.5"]);
    assert!(statuses[0].text.contains("smtp:[example.com]"));
    drop(world.runtime);
}

#[test]
fn an_idle_session_is_closed_after_its_time() {
    let world = World::new(|settings| {
        settings.relay.connection_idle_time = Duration::from_millis(50);
    });
    let (tell, _told) = channel();
    let (over, is_over) = channel();
    let _server = Server::start(&world.socket("s"), move |_, stream| {
        store(stream, usize::MAX, &tell);
        let _ = over.send(());
    });
    for _ in 0..2 {
        let statuses = world.deliver(&world.nexthop("s"), &["a@x"], MAIL);
        assert_eq!(codes(&statuses), ["250 2.0.0"]);
        is_over.recv_timeout(LIMIT).unwrap();
    }
}
