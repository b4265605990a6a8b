//! What a database cannot answer now is deferred, never taken for "no such user"; and it delays
//! only recipients that ask it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mailstow_engine::table::{TableError, TableSet};
use mailstow_tests::client::Reply;
use mailstow_tests::databases::{BASE, Database, PASSWORD, Product};
use mailstow_tests::postmap::open;
use mailstow_tests::scratch::Scratch;
use mailstow_tests::{Client, Mailstow, eventually};
use nix::sys::signal::Signal;

/// A server with one user, and a table that asks it.
struct Site {
    database: Database,
    scratch: Scratch,
    kind: &'static str,
    /// Lines of the table's file that do not change.
    lines: String,
}

impl Site {
    fn start(product: Product) -> Self {
        let database = Database::start(product);
        let create = "CREATE TABLE mailbox (address VARCHAR(99), value VARCHAR(99));\n\
                      INSERT INTO mailbox VALUES ('u@d.example', 'd/u/');\n";
        let sql = "user = reader\ndbname = mail\ntimeout = 1\n\
                   query = SELECT value FROM mailbox WHERE address = '%s'\n"
            .to_owned();
        let (kind, lines) = match product {
            Product::Pgsql => {
                database.feed(&format!("\\c mail\n{create}"));
                ("pgsql", sql)
            }
            Product::Mariadb => {
                database.feed(&format!("USE mail;\n{create}"));
                ("mysql", sql)
            }
            Product::Slapd => {
                database.feed(&format!(
                    "dn: uid=u,{BASE}\nobjectClass: inetOrgPerson\ncn: u@d.example\nsn: d/u/\n"
                ));
                let lines = format!(
                    "search_base = {BASE}\nquery_filter = (cn=%s)\nresult_attribute = sn\n\
                     bind_dn = cn=reader,{BASE}\ntimeout = 1\n"
                );
                ("ldap", lines)
            }
        };
        Self {
            database,
            scratch: Scratch::new("failures"),
            kind,
            lines,
        }
    }

    fn table(&self, name: &str, hosts: &str, password: &str) -> TableSet {
        let [host, secret] = match self.kind {
            "ldap" => ["server_host", "bind_pw"],
            _ => ["hosts", "password"],
        };
        let text = format!("{}{host} = {hosts}\n{secret} = {password}\n", self.lines);
        let path = self.scratch.write(name, text);
        open(&format!("{}:{}", self.kind, path.display())).expect("the table opens")
    }
}

fn found(table: &TableSet) -> bool {
    let found = table.lookup("u@d.example", false);
    found.is_ok_and(|found| found.is_some_and(|(value, _)| value == "d/u/"))
}

/// The error's text; it never holds the password.
fn deferred(table: &TableSet) -> String {
    let error = table
        .lookup("u@d.example", false)
        .expect_err("it cannot answer");
    assert!(matches!(error, TableError::Unavailable { .. }), "{error:?}");
    assert!(error.status().is_temporary());
    let text = error.to_string();
    assert!(!text.contains("secret"), "{text}");
    text
}

fn fails_and_comes_back(product: Product) {
    let mut site = Site::start(product);
    let host = site.database.host();
    let table = site.table("good.cf", &host, PASSWORD);
    assert!(found(&table));
    assert_eq!(
        table
            .lookup("v@d.example", false)
            .expect("it answers")
            .map(|_| ()),
        None
    );

    let wrong = site.table("wrong.cf", &host, "another secret");
    println!("{}", deferred(&wrong));
    // No server listens on that host.
    let dead = match product {
        Product::Slapd => "ldap://127.0.2.1:10389",
        Product::Pgsql | Product::Mariadb => "inet:127.0.2.1:10389",
    };
    println!("{}", deferred(&site.table("dead.cf", dead, PASSWORD)));
    for hosts in [format!("{dead} {host}"), format!("{host} {dead}")] {
        let table = site.table("both.cf", &hosts, PASSWORD);
        assert!((0..8).all(|_| found(&table)), "{hosts}");
    }

    site.database.stop();
    println!("{}", deferred(&table));
    site.database.run();
    eventually("lookups after a restart", Duration::from_secs(20), || {
        found(&table).then_some(())
    });

    // It hangs: the lookup is given up, and the next ones fail at once.
    site.database.daemon().signal(Signal::SIGSTOP);
    let error = eventually("a lookup that is given up", Duration::from_secs(20), || {
        table.lookup("u@d.example", false).err()
    });
    println!("{error}");
    assert!(
        error.to_string().contains("no answer within") || error.to_string().contains("timeout")
    );
    println!("{}", deferred(&table));
    site.database.daemon().signal(Signal::SIGCONT);
    eventually("lookups after a pause", Duration::from_secs(20), || {
        found(&table).then_some(())
    });
}

#[test]
fn a_mysql_server_that_cannot_answer_defers_and_comes_back() {
    fails_and_comes_back(Product::Mariadb);
}

#[test]
fn a_directory_server_that_cannot_answer_defers_and_comes_back() {
    fails_and_comes_back(Product::Slapd);
}

/// Each connection of PostgreSQL has a separate process, which the pause of the first does not
/// stop: a query that takes too long simulates that.
#[test]
fn a_pgsql_server_that_cannot_answer_defers_and_comes_back() {
    let mut site = Site::start(Product::Pgsql);
    let host = site.database.host();
    let table = site.table("good.cf", &host, PASSWORD);
    assert!(found(&table));
    println!(
        "{}",
        deferred(&site.table("wrong.cf", &host, "another secret"))
    );
    let both = format!("inet:127.0.2.1:10389 {host}");
    let both = site.table("both.cf", &both, PASSWORD);
    assert!((0..8).all(|_| found(&both)));
    let query = "SELECT value FROM mailbox, pg_sleep(30) WHERE address = '%s'";
    let good = std::mem::take(&mut site.lines);
    site.lines = format!("{good}query = {query}\n");
    let slow = site.table("slow.cf", &host, PASSWORD);
    assert!(deferred(&slow).contains("no answer within 1 s"));
    site.lines = format!("{good}query = SELECT nonsense FROM mailbox WHERE '%s' = ''\n");
    assert!(deferred(&site.table("nonsense.cf", &host, PASSWORD)).contains("nonsense"));
    site.database.stop();
    println!("{}", deferred(&table));
    site.database.run();
    eventually("lookups after a restart", Duration::from_secs(20), || {
        found(&table).then_some(())
    });
}

#[test]
fn a_slow_database_holds_up_only_those_who_ask_it() {
    let site = Site::start(Product::Pgsql);
    let text = format!(
        "hosts = {}\npassword = {PASSWORD}\nuser = reader\ndbname = mail\ntimeout = 40\n\
         query = SELECT value FROM mailbox, pg_sleep(60) WHERE address = '%s' or true\n",
        site.database.host()
    );
    let slow = site.scratch.write("slow.cf", text);
    let server = Mailstow::build("slow")
        .main_cf(&format!(
            "virtual_mailbox_domains = example.com\nvirtual_mailbox_base = @ROOT@/vhosts\n\
             virtual_mailbox_maps = texthash:@DIR@/vmailbox, pgsql:{}\n\
             virtual_uid_maps = static:5000\nvirtual_gid_maps = static:5000\n",
            slow.display()
        ))
        .table("vmailbox", "info@example.com example.com/info/\n");
    server.scratch().mkdir_owned("vhosts", 5000, 5000);
    let server = server.start();
    let session = || {
        let mut client = Client::lmtp(&server.unix());
        assert_eq!(client.command("MAIL FROM:<>").code, 250);
        client
    };
    // More than there are threads for sessions.
    let mut waiting: Vec<Client> = (0..8).map(|_| session()).collect();
    for client in &mut waiting {
        client
            .send(b"RCPT TO:<who@example.com>\r\n")
            .expect("it reads");
    }
    for _ in 0..20 {
        let mut client = session();
        assert_eq!(client.command("RCPT TO:<info@example.com>").code, 250);
    }
    // No client of the database has an answer yet: its queries are ended only now, each as soon as
    // it has begun.
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                site.database.feed(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
                     WHERE usename = 'reader' AND state = 'active';\n",
                );
            }
        });
        let replies: Vec<Reply> = waiting.iter_mut().map(Client::reply).collect();
        is_over.store(true, Ordering::Relaxed);
        for reply in replies {
            assert_eq!((reply.code, reply.enhanced()), (451, "4.3.0"), "{reply}");
        }
    });
}

/// A query that finds everybody is given up before it fills the memory, and the table goes on.
fn too_many_values_are_refused(product: Product, many: &str) {
    let mut site = Site::start(product);
    let host = site.database.host();
    site.lines = format!("user = reader\ndbname = mail\ntimeout = 20\nquery = {many}\n");
    let table = site.table("many.cf", &host, PASSWORD);
    for _ in 0..2 {
        let said = deferred(&table);
        assert!(said.contains("narrow the query"), "{said}");
    }
    let few = "SELECT value FROM mailbox WHERE address = '%s'";
    site.lines = format!("user = reader\ndbname = mail\ntimeout = 20\nquery = {few}\n");
    assert!(found(&site.table("few.cf", &host, PASSWORD)));
}

#[test]
fn a_pgsql_query_with_too_many_results_is_given_up() {
    // More than all memory there is, from a join that has its first rows at once.
    let many = "SELECT repeat('%u', 1000) FROM generate_series(1, 1000), \
                generate_series(1, 1000) b, generate_series(1, 1000) c";
    too_many_values_are_refused(Product::Pgsql, many);
}

#[test]
fn a_mysql_query_with_too_many_results_is_given_up() {
    let many = "SELECT REPEAT('%u', 1000) FROM seq_1_to_1000000000";
    too_many_values_are_refused(Product::Mariadb, many);
}
