//! A table that hangs, or a pattern that takes for ever, defers the recipients that ask it and no
//! others, however many ask.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use mailstow_tests::databases::{Database, PASSWORD, Product};
use mailstow_tests::{Client, Mailstow};

/// Sessions that ask the hung table; far more than any thread pool has threads.
const ASKING: usize = 600;
/// Sessions that find their recipient elsewhere.
const OTHERS: usize = 100;
/// How long a recipient of another table may take: a quarter of the hung table's timeout. Those
/// who ask that one have asked the others before, and keep these busy for a moment.
const SOON: Duration = Duration::from_secs(10);

fn session(server: &Mailstow) -> Client {
    let mut client = Client::lmtp(&server.unix());
    assert_eq!(client.command("MAIL FROM:<>").code, 250);
    client
}

/// Asks for `slow` in many sessions, then for each of `others` in others, which are all answered
/// soon, before any of the first.
fn others_are_served(server: &Mailstow, slow: &str, others: &[&str]) -> Vec<Client> {
    let mut asking: Vec<Client> = (0..ASKING).map(|_| session(server)).collect();
    for client in &mut asking {
        let command = format!("RCPT TO:<{slow}>\r\n");
        client.send(command.as_bytes()).expect("it reads");
    }
    for number in 0..OTHERS {
        let mut client = session(server);
        let recipient = others[number % others.len()];
        let start = Instant::now();
        let reply = client.command(format!("RCPT TO:<{recipient}>"));
        let taken = start.elapsed();
        assert_eq!(reply.code, 250, "{recipient}: {reply}");
        assert!(taken < SOON, "{recipient} took {taken:?} beside {slow}");
    }
    asking
}

/// Tables that never answer, by their names; each listens and reads nothing.
struct Hung {
    tcp: TcpListener,
    _unix: UnixListener,
    directory: tempfile::TempDir,
}

impl Hung {
    fn listen() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self {
            tcp: TcpListener::bind("127.0.0.1:0").expect("a port"),
            _unix: UnixListener::bind(directory.path().join("map")).expect("a socket"),
            directory,
        }
    }

    fn tables(&self) -> Vec<(&'static str, String)> {
        let port = self.tcp.local_addr().expect("a port").port();
        let sql = |name: &str| {
            format!(
                "hosts = inet:127.0.0.1:{port}\nuser = reader\npassword = x\ndbname = mail\n\
                 timeout = 40\nquery = SELECT 'd' FROM {name} WHERE address = '%s'\n"
            )
        };
        let ldap = format!(
            "server_host = ldap://127.0.0.1:{port}\nsearch_base = dc=x\n\
             query_filter = (cn=%s)\ntimeout = 40\n"
        );
        let file = |name: &str, text: String| {
            let path = self.directory.path().join(name);
            std::fs::write(&path, text).expect("write");
            path.display().to_string()
        };
        vec![
            (
                "pgsql",
                format!("pgsql:{}", file("pgsql.cf", sql("mailbox"))),
            ),
            (
                "mysql",
                format!("mysql:{}", file("mysql.cf", sql("mailbox"))),
            ),
            ("ldap", format!("ldap:{}", file("ldap.cf", ldap))),
            ("tcp", format!("tcp:127.0.0.1:{port}")),
            (
                "socketmap",
                format!("socketmap:unix:{}/map:x", self.directory.path().display()),
            ),
        ]
    }
}

#[test]
fn a_table_that_never_answers_slows_no_recipient_of_another_table() {
    let healthy = Database::start(Product::Pgsql);
    healthy.feed(
        "\\c mail\nCREATE TABLE mailbox (address VARCHAR(99), value VARCHAR(99));\n\
         INSERT INTO mailbox VALUES ('db@example.com', 'example.com/db/');\n",
    );
    let hung = Hung::listen();
    for (kind, table) in hung.tables() {
        let cf = format!(
            "hosts = {}\npassword = {PASSWORD}\nuser = reader\ndbname = mail\n\
             query = SELECT value FROM mailbox WHERE address = '%s'\n",
            healthy.host()
        );
        let server = Mailstow::build(&format!("hung-{kind}"));
        let cf = server.scratch().write("healthy.cf", cf);
        let server = server
            .main_cf(&format!(
                "virtual_mailbox_domains = example.com\nvirtual_mailbox_base = @ROOT@/vhosts\n\
                 virtual_mailbox_maps = texthash:@DIR@/vmailbox, pgsql:{}, {table}\n\
                 virtual_uid_maps = static:5000\nvirtual_gid_maps = static:5000\n",
                cf.display()
            ))
            .table("vmailbox", "text@example.com example.com/text/\n");
        server.scratch().mkdir_owned("vhosts", 5000, 5000);
        let server = server.start();
        let others = ["text@example.com", "db@example.com"];
        let mut asking = others_are_served(&server, "slow@example.com", &others);
        // They were not answered meanwhile, and the server ends although they never are.
        for client in &mut asking {
            client.set_timeouts(Duration::from_millis(1));
            let error = client.read_reply().expect_err("no answer is there");
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{kind}: {error}");
        }
    }
}

#[test]
fn a_slow_pattern_defers_its_own_recipients_is_named_and_slows_no_other() {
    for (kind, pattern) in [
        ("pcre", "/^((a+)+)+x@/ slow/"),
        ("regexp", "/^(a*)(a*)(a*)(a*)(a*)\\1\\2\\3\\4\\5b@/ slow/"),
    ] {
        let server = Mailstow::build(&format!("slow-{kind}"))
            .main_cf(&format!(
                "virtual_mailbox_domains = example.com\nvirtual_mailbox_base = @ROOT@/vhosts\n\
                 virtual_mailbox_maps = texthash:@DIR@/vmailbox, {kind}:@DIR@/patterns\n\
                 virtual_uid_maps = static:5000\nvirtual_gid_maps = static:5000\n"
            ))
            .table("vmailbox", "text@example.com example.com/text/\n");
        let patterns = format!("/^quick@/ example.com/quick/\n{pattern}\n");
        server.scratch().write("conf/patterns", patterns);
        server.scratch().mkdir_owned("vhosts", 5000, 5000);
        let server = server.start();
        let others = ["text@example.com", "quick@example.com"];
        let slow = format!("{}@example.com", "a".repeat(60));
        let asking = others_are_served(&server, &slow, &others);
        for mut client in asking {
            let reply = client.reply();
            assert_eq!((reply.code, reply.enhanced()), (451, "4.3.0"), "{reply}");
        }
        let log = server.log();
        let named = |line: &str| line.contains("patterns") && line.contains("line 2");
        assert!(log.lines().any(named), "{log}");
    }
}
