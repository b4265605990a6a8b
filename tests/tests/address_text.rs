//! Text of an address stays data in every query, and no database, directory or server puts it
//! into a path or an owner in which it steers. One test for each row of the table in
//! `mailstow_engine::manual::address_text` that needs a real server; the others are the engine's.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use mailstow_engine::address::Address;
use mailstow_engine::config::RoutingSettings;
use mailstow_engine::route::{Router, table_context};
use mailstow_engine::table::TableCache;
use mailstow_tests::databases::{BASE, Database, PASSWORD, Product};
use mailstow_tests::postmap::open;
use mailstow_tests::scratch::Scratch;

/// Local parts that mean something to a database, a directory, a shell or a file system.
const STEERING: &[&str] = &[
    "' or '1'='1",
    "\\' or 1=1 -- ",
    "\" or \"\"=\"",
    "x'/**/or/**/1=1/*",
    "');drop table mailbox;--",
    "$$or$$",
    "*)(cn=*",
    "*",
    "%",
    "a,ou=x+cn=y",
    "\\2a",
    "../../x",
    "bob/.sent",
    "bob/new",
    ".sent",
    "/",
    "x\ny",
    "`x`",
    "$(x)",
];

/// A row for each of [`STEERING`] and one that no key names, which none of them may find.
fn rows() -> Vec<(String, String)> {
    let mut rows = vec![("victim@d.example".to_owned(), "victims".to_owned())];
    for (number, local_part) in STEERING.iter().enumerate() {
        rows.push((format!("{local_part}@d.example"), format!("own{number}")));
    }
    rows
}

fn create(quote: impl Fn(&str) -> String) -> String {
    let mut sql =
        "CREATE TABLE mailbox (number INT, address VARCHAR(99), value VARCHAR(99));\n".to_owned();
    for (number, (address, value)) in rows().iter().enumerate() {
        let address = quote(address);
        sql += &format!("INSERT INTO mailbox VALUES ({number}, '{address}', '{value}');\n");
    }
    sql
}

fn doubled(text: &str) -> String {
    text.replace('\'', "''")
}

fn sqlite(path: &Path) {
    let script = path.with_extension("sql");
    std::fs::write(&script, create(doubled)).expect("write");
    let output = Command::new("sqlite3")
        .arg(path)
        .arg(format!(".read {}", script.display()))
        .output()
        .expect("install sqlite3");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

/// Every key finds its own row and no other.
fn keys_find_their_own_rows(scratch: &Scratch, kind: &str, place: &str, forms: &[&str]) {
    for form in forms {
        let path = scratch.write("t.cf", format!("{place}{form}\n"));
        let table = open(&format!("{kind}:{}", path.display())).expect("the table opens");
        for (key, value) in rows() {
            let found = table.lookup(&key, false).expect("it answers");
            let found = found.map(|(found, _)| found);
            assert_eq!(found.as_ref(), Some(&value), "{kind} {form}: {key:?}");
        }
        for local_part in STEERING {
            let key = format!("{local_part}{local_part}@d.example");
            let found = table.lookup(&key, false).expect("it answers");
            assert_eq!(
                found.map(|(found, _)| found),
                None,
                "{kind} {form}: {key:?}"
            );
        }
    }
}

#[test]
fn keys_stay_data_in_sqlite() {
    let scratch = Scratch::new("address-text");
    let path = scratch.join("mail.db");
    sqlite(&path);
    let place = format!("dbpath = {}\n", path.display());
    let forms = ["query = SELECT value FROM mailbox WHERE address = '%s'"];
    keys_find_their_own_rows(&scratch, "sqlite", &place, &forms);
}

#[test]
fn keys_stay_data_in_pgsql() {
    let scratch = Scratch::new("address-text");
    let database = Database::start(Product::Pgsql);
    database.feed(&format!("\\c mail\n{}", create(doubled)));
    let place = format!(
        "hosts = {}\nuser = reader\npassword = {PASSWORD}\ndbname = mail\n",
        database.host()
    );
    let forms = [
        "query = SELECT value FROM mailbox WHERE address = '%s'",
        "query = SELECT value FROM mailbox WHERE address = E'%s'",
        "query = SELECT value FROM mailbox /* it's */ WHERE address = '%u@%d' -- it's",
    ];
    keys_find_their_own_rows(&scratch, "pgsql", &place, &forms);
}

#[test]
fn keys_stay_data_in_mysql() {
    let scratch = Scratch::new("address-text");
    let database = Database::start(Product::Mariadb);
    let quoted = create(|text| doubled(text).replace('\\', "\\\\"));
    database.feed(&format!("USE mail;\n{quoted}"));
    let place = format!(
        "hosts = {}\nuser = reader\npassword = {PASSWORD}\ndbname = mail\n",
        database.host()
    );
    let forms = [
        "query = SELECT value FROM mailbox WHERE address = '%s'",
        "query = SELECT value FROM `mailbox` WHERE address = \"%s\" # it's",
    ];
    keys_find_their_own_rows(&scratch, "mysql", &place, &forms);
}

#[test]
fn keys_stay_data_in_ldap() {
    let scratch = Scratch::new("address-text");
    let database = Database::start(Product::Slapd);
    let mut ldif = String::new();
    for (number, (address, value)) in rows().iter().enumerate() {
        let address = base64(address.as_bytes());
        ldif += &format!(
            "dn: uid=u{number},{BASE}\nobjectClass: inetOrgPerson\ncn:: {address}\n\
             sn: {value}\n\n"
        );
    }
    database.feed(&ldif);
    let place = format!(
        "server_host = {}\nbind_dn = cn=reader,{BASE}\nbind_pw = {PASSWORD}\n\
         result_attribute = sn\n",
        database.host()
    );
    let forms = [
        format!("search_base = {BASE}\nquery_filter = (cn=%s)"),
        format!("search_base = {BASE}\nquery_filter = (|(cn=%u@%d)(uid=%s))"),
    ];
    keys_find_their_own_rows(
        &scratch,
        "ldap",
        &place,
        &forms.each_ref().map(String::as_str),
    );
    // In a name, too: none of these is one.
    let form = format!("{place}search_base = cn=%u,{BASE}\nquery_filter = (objectClass=*)\n");
    let path = scratch.write("t.cf", form);
    let table = open(&format!("ldap:{}", path.display())).expect("the table opens");
    for (key, _) in rows() {
        let found = table.lookup(&key, false).expect("it answers");
        assert_eq!(found.map(|(found, _)| found), None, "{key:?}");
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = three
            .iter()
            .chain([&0; 2])
            .take(3)
            .fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        for at in 0..4 {
            let digit = DIGITS[number >> (18 - 6 * at) & 63];
            text.push(if at > three.len() {
                '='
            } else {
                char::from(digit)
            });
        }
    }
    text
}

#[test]
fn an_expansion_outside_of_a_string_takes_nothing_but_digits() {
    let scratch = Scratch::new("address-text");
    let path = scratch.join("mail.db");
    sqlite(&path);
    let form = format!(
        "dbpath = {}\nquery = SELECT value FROM mailbox WHERE number = %u\n",
        path.display()
    );
    let path = scratch.write("t.cf", form);
    let table = open(&format!("sqlite:{}", path.display())).expect("the table opens");
    let warnings: Vec<_> = table.warnings().collect();
    assert!(warnings[0].contains("outside of a string"), "{warnings:?}");
    let found = table.lookup("0@d", false).expect("it answers");
    assert_eq!(found.map(|(value, _)| value).as_deref(), Some("victims"));
    for steering in ["7/**/or/**/1=1", "number", "-1", "1e1", "value"] {
        let said = table.lookup(&format!("{steering}@d"), false);
        let said = said.expect_err("it is no number").to_string();
        assert!(said.contains("write quotes around the expansion"), "{said}");
    }
}

fn settings(virtual_mailbox_maps: &str) -> RoutingSettings {
    RoutingSettings {
        virtual_mailbox_domains: "d.example".into(),
        virtual_mailbox_maps: virtual_mailbox_maps.into(),
        virtual_mailbox_base: "/var/mail/vhosts".into(),
        virtual_uid_maps: "static:5000".into(),
        virtual_gid_maps: "static:5000".into(),
        ..RoutingSettings::default()
    }
}

fn router(settings: &RoutingSettings) -> Router {
    let cache = TableCache::new(table_context(settings));
    Router::open(settings, &cache).expect("the tables open")
}

/// Path, or status, of the mailbox of a local part at `d.example`.
fn ask(router: &Router, local_part: &str) -> String {
    match router.mailbox(&Address::new(local_part, Some("d.example"))) {
        Ok(target) => target.path.to_string(),
        Err(error) => error.status().to_string(),
    }
}

/// A catch-all whose path has the local part in it.
fn steers_nobody(table: &str) {
    let router = router(&settings(table));
    assert_eq!(ask(&router, "Bob"), "d.example/bob", "{table}");
    for local_part in STEERING {
        let said = ask(&router, local_part);
        let component = said.strip_prefix("d.example/");
        let is_name = component.is_some_and(|name| !name.contains('/') && !name.starts_with('.'));
        let is_deferred = said.starts_with("451 4.3.5") && said.contains("from the address");
        assert!(is_name || is_deferred, "{table}: {local_part:?}: {said}");
    }
    for steering in ["bob/new", "bob/.sent", ".sent", "/", "../../x"] {
        let said = ask(&router, steering);
        assert!(said.starts_with("451 4.3.5"), "{table}: {steering}: {said}");
    }
}

#[test]
fn a_path_that_a_database_makes_of_the_address_does_not_steer() {
    let scratch = Scratch::new("address-text");
    let path = scratch.join("mail.db");
    sqlite(&path);
    for (name, form) in [
        ("query.cf", "query = SELECT '%d/%u/'"),
        ("result.cf", "query = SELECT 'x'\nresult_format = %D/%U/"),
    ] {
        let form = format!("dbpath = {}\n{form}\n", path.display());
        let file = scratch.write(name, form);
        let table = format!("sqlite:{}", file.display());
        steers_nobody(&table);
        steers_nobody(&format!("unionmap:{{proxy:{table}}}"));
        steers_nobody(&format!("pipemap:{{unionmap:{{{table}}}}}"));
    }
}

#[test]
fn a_path_that_is_written_down_may_have_any_text() {
    let scratch = Scratch::new("address-text");
    let path = scratch.join("mail.db");
    sqlite(&path);
    let form = format!("dbpath = {}\nquery = SELECT '%d/%u/'\n", path.display());
    let file = scratch.write("query.cf", form);
    let listed = scratch.write("listed", "a/b@d.example d.example/a/b/\n");
    let table = format!("texthash:{}, sqlite:{}", listed.display(), file.display());
    let router = router(&settings(&table));
    assert_eq!(ask(&router, "a/b"), "d.example/a/b");
    assert!(ask(&router, "a/c").starts_with("451 4.3.5"));
}

#[test]
fn a_path_that_a_server_makes_of_the_address_does_not_steer() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("a port").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let lines = BufReader::new(stream.try_clone().expect("clone")).lines();
            for line in lines.map_while(Result::ok) {
                let key = line.strip_prefix("get ").unwrap_or_default();
                let user = key.rsplit_once('@').map_or("", |(user, _)| user);
                let user = user.trim_matches('"');
                if stream
                    .write_all(format!("200 d.example/{user}/\n").as_bytes())
                    .is_err()
                {
                    break;
                }
            }
        }
    });
    steers_nobody(&format!("tcp:{address}"));
}

#[test]
fn an_owner_is_never_made_of_the_address() {
    let scratch = Scratch::new("address-text");
    let path = scratch.join("mail.db");
    sqlite(&path);
    let form = format!(
        "dbpath = {}\nquery = SELECT 'x'\nresult_format = %U\n",
        path.display()
    );
    let file = scratch.write("t.cf", form);
    for parameter in ["virtual_uid_maps", "virtual_gid_maps"] {
        let mut settings = settings("static:x/");
        let maps = match parameter {
            "virtual_uid_maps" => &mut settings.virtual_uid_maps,
            _ => &mut settings.virtual_gid_maps,
        };
        *maps = format!("sqlite:{}", file.display());
        let router = router(&settings);
        let error = router
            .mailbox(&Address::new("5001", Some("d.example")))
            .expect_err("the owner is the sender's");
        assert!(
            error.status().to_string().starts_with("451 4.3.5"),
            "{error}"
        );
        assert!(error.to_string().contains(parameter), "{error}");
    }
}
