//! Tables in SQLite, PostgreSQL, MariaDB and OpenLDAP answer as Postfix's `postmap -q` does with
//! the same `*.cf` files.
//!
//! Rows and keys are generated, full of characters that mean something to SQL, to LDAP filters
//! and to Postfix's templates. Replay a failing test with the `POSTMAP_SEED` it prints.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use fastrand::Rng;
use mailstow_tests::databases::{BASE, Database, PASSWORD, Product};
use mailstow_tests::postmap::{Postmap, compare, compare_in, open, seeded};
use mailstow_tests::scratch::Scratch;

const HOSTILE: &[&str] = &[
    "'",
    "\"",
    "\\",
    "%",
    "_",
    "*",
    "(",
    ")",
    ";",
    "--",
    "#",
    "%s",
    "\\'",
    "'' OR ''='",
    "ü",
    "日",
    "привет",
    ",",
    "+",
    "=",
    "<",
    ">",
    "`",
    "$1",
    "{}",
    "\\\\",
    "|",
    "&",
    "!",
    "\\2a",
    "/",
    "?",
    "e\u{301}",
    "$$",
    " ",
    "\t",
    "\u{1a}",
    "E'",
];

/// A local part or value full of what could be taken for syntax.
fn hostile(rng: &mut Rng) -> String {
    let mut text = String::from("k");
    for _ in 0..rng.usize(1..5) {
        text += HOSTILE[rng.usize(..HOSTILE.len())];
        if rng.bool() {
            text += &rng.u8(..10).to_string();
        }
    }
    text
}

fn domain(rng: &mut Rng) -> &'static str {
    const DOMAINS: &[&str] = &[
        "a.example",
        "b.example",
        "deep.sub.a.example",
        "single",
        "x.y.z",
    ];
    DOMAINS[rng.usize(..DOMAINS.len())]
}

/// Address, value, active.
type Row = (String, String, u8);

fn rows(rng: &mut Rng, count: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for number in 0..count {
        let local = match rng.u8(..4) {
            0 => format!("user{number}"),
            _ => hostile(rng),
        };
        let address = match rng.u8(..8) {
            0 => local,
            1 => format!("@{}", domain(rng)),
            _ => format!("{local}@{}", domain(rng)),
        };
        let value = match rng.u8(..6) {
            0 => String::new(),
            1 => hostile(rng),
            2 => format!("@{}", domain(rng)),
            3 => format!("{}@", hostile(rng)),
            _ => format!("{}@{}", hostile(rng), domain(rng)),
        };
        rows.push((address, value, rng.u8(..2)));
    }
    rows
}

/// The addresses of `rows`, and others like them.
fn keys(rng: &mut Rng, rows: &[Row]) -> Vec<Vec<u8>> {
    let mut keys = BTreeSet::new();
    for (address, _, _) in rows {
        keys.insert(address.clone());
        keys.insert(address.to_uppercase());
        keys.insert(format!("{}@{}", hostile(rng), domain(rng)));
        keys.insert(format!("{address}'"));
    }
    for odd in [
        "@",
        "x@",
        "@@",
        "a@.b",
        "a@b.",
        "a@b..c",
        "a@b.c.d.e",
        "'",
        "\\",
        "%",
    ] {
        keys.insert(odd.to_owned());
    }
    let mut keys: Vec<_> = keys.into_iter().map(String::into_bytes).collect();
    rng.shuffle(&mut keys);
    keys
}

/// Queries of all forms, without what says where the database is.
const FORMS: &[(&str, &str)] = &[
    (
        "plain",
        "query = SELECT value FROM mailbox WHERE address = '%s' ORDER BY number\n",
    ),
    (
        "parts",
        "query = SELECT value, number FROM mailbox WHERE address = '%u@%d' AND active = 1\n\
         \x20 ORDER BY number\nresult_format = <%s>(%S)%U/%D%%\n",
    ),
    (
        "older",
        "table = mailbox\nselect_field = value\nwhere_field = address\n\
         additional_conditions = and active = 1 order by number\n",
    ),
    (
        "limited",
        "query = SELECT value FROM mailbox WHERE domain = '%d' AND number < 40 ORDER BY number\n\
         expansion_limit = 7\n",
    ),
    (
        "labels",
        "query = SELECT number FROM mailbox WHERE domain = '%2.%1' AND number < 60\n\
         \x20 ORDER BY number\nresult_format = %s-%1\n",
    ),
    (
        "values",
        "query = SELECT value FROM mailbox WHERE address = '%s' ORDER BY number\n\
         result_format = %u at %d\n",
    ),
    (
        "restricted",
        "query = SELECT value FROM mailbox WHERE address = '%s' ORDER BY number\n\
         domain = A.example, !b.example, @DIR@/domains\n",
    ),
    (
        "nulls",
        "query = SELECT number, NULL, value FROM mailbox WHERE address = '%s' ORDER BY number\n",
    ),
    (
        "fixed",
        "query = SELECT 'fix ''d' FROM mailbox WHERE number = 1\n",
    ),
];

fn create(rows: &[Row], quote: impl Fn(&str) -> String) -> String {
    let mut sql = String::from(
        "CREATE TABLE mailbox (number INTEGER, address VARCHAR(300), domain VARCHAR(99), \
         value VARCHAR(300), active INTEGER);\n",
    );
    for (number, (address, value, active)) in rows.iter().enumerate() {
        let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
        let [address, domain, value] = [address, domain, value.as_str()].map(&quote);
        let _ = writeln!(
            sql,
            "INSERT INTO mailbox VALUES ({number}, '{address}', '{domain}', '{value}', {active});"
        );
    }
    sql
}

/// Compares all forms; `place` are the lines that say where the database is.
fn compare_forms(kind: &str, place: &str, rows: &[Row], rng: &mut Rng) {
    let postmap = Postmap::in_scratch();
    let keys = keys(rng, rows);
    let list = postmap.write("domains", b"x.y.z\n# single\n");
    let directory = list
        .parent()
        .expect("in the directory")
        .display()
        .to_string();
    for (name, form) in FORMS {
        let text = format!("{place}{}", form.replace("@DIR@", &directory));
        let path = postmap.write(&format!("{name}.cf"), text.as_bytes());
        let found = compare(&postmap, &format!("{kind}:{}", path.display()), &keys);
        println!("{kind} {name}: {found} of {} keys found", keys.len());
        assert!(found >= 20, "{kind} {name}: only {found} found");
    }
}

#[test]
fn sqlite_tables_agree() {
    let mut rng = seeded();
    let scratch = Scratch::new("sqlite");
    let rows = rows(&mut rng, 400);
    let path = scratch.join("mail.db");
    sqlite(&path, &create(&rows, |text| text.replace('\'', "''")));
    let place = format!("dbpath = {}\n", path.display());
    compare_forms("sqlite", &place, &rows, &mut rng);
}

/// Without a `*.cf` file the parameters stand in main.cf, behind the name of the table.
#[test]
fn tables_described_in_main_cf_agree() {
    let mut rng = seeded();
    let scratch = Scratch::new("sqlite");
    let rows = rows(&mut rng, 100);
    let path = scratch.join("mail.db");
    sqlite(&path, &create(&rows, |text| text.replace('\'', "''")));
    let postmap = Postmap::in_scratch();
    let keys = keys(&mut rng, &rows);
    let list = postmap.write("domains", b"x.y.z\n# single\n");
    let directory = list
        .parent()
        .expect("in the directory")
        .display()
        .to_string();
    postmap.configure(&format!("mail_directory = {}\n", scratch.path().display()));
    for (name, form) in FORMS {
        let form = format!("dbpath = $mail_directory/mail.db\n{form}");
        let form = form.replace("@DIR@", &directory);
        let lines = form.lines().map(|line| match line.starts_with([' ', '#']) {
            true => format!("{line}\n"),
            false => format!("{name}_{line}\n"),
        });
        postmap.configure(&lines.collect::<String>());
        let table = format!("sqlite:{name}");
        let found = compare_in(postmap.context(), &postmap, &table, &keys);
        println!("{table}: {found} of {} keys found", keys.len());
        assert!(found >= 5, "{table}: only {found} found");
    }
}

fn sqlite(path: &Path, sql: &str) {
    let script = path.with_extension("sql");
    std::fs::write(&script, format!("BEGIN;\n{sql}COMMIT;\n")).expect("write");
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

/// `postmap` 3.7 talks LATIN1, so the database knows no character set, where that is the same.
#[test]
fn pgsql_tables_agree() {
    let mut rng = seeded();
    let rows = rows(&mut rng, 400);
    let database = Database::start(Product::Pgsql);
    let sql = create(&rows, |text| text.replace('\'', "''"));
    database.feed(&format!("\\c mail\nBEGIN;\n{sql}COMMIT;\n"));
    for hosts in [database.host(), database.socket()] {
        let place =
            format!("hosts = {hosts}\nuser = reader\npassword = {PASSWORD}\ndbname = mail\n");
        compare_forms("pgsql", &place, &rows, &mut rng);
    }
}

/// The character set of libmariadb is set as ours is.
#[test]
fn mysql_tables_agree() {
    let mut rng = seeded();
    let rows = rows(&mut rng, 400);
    let database = Database::start(Product::Mariadb);
    let sql = create(&rows, |text| text.replace('\\', "\\\\").replace('\'', "''"));
    database.feed(&format!("USE mail;\nBEGIN;\n{sql}COMMIT;\n"));
    let scratch = Scratch::new("mycnf");
    let options = scratch.write("my.cnf", "[client]\ndefault-character-set=utf8mb4\n");
    for hosts in [database.host(), database.socket()] {
        let place = format!(
            "hosts = {hosts}\nuser = reader\npassword = {PASSWORD}\ndbname = mail\n\
             option_file = {}\noption_group = client\n",
            options.display()
        );
        compare_forms("mysql", &place, &rows, &mut rng);
    }
}

/// Found whatever the encoding of the database, which `postmap` 3.7 does not manage.
#[test]
fn keys_beyond_ascii_are_found_in_a_pgsql_database_in_utf8() {
    let database = Database::start(Product::Pgsql);
    database.feed(
        "CREATE TABLE mailbox (address text, value text);\n\
         INSERT INTO mailbox VALUES ('größe@日.example', 'привет/');\n\
         GRANT SELECT ON mailbox TO reader;\n",
    );
    let scratch = Scratch::new("utf8");
    let place = format!(
        "hosts = postgresql://reader@{}/postgres\npassword = {PASSWORD}\n\
         query = SELECT value FROM mailbox WHERE address = '%s'\n",
        database.host().trim_start_matches("inet:")
    );
    let path = scratch.write("utf8.cf", place);
    let table = open(&format!("pgsql:{}", path.display())).expect("it opens");
    let found = table.lookup("GRÖẞE@日.Example", false).expect("it answers");
    assert!(found.is_none(), "ß is folded to ss");
    let found = table.lookup("größe@日.example", false).expect("it answers");
    assert!(found.is_none(), "ß is folded to ss");
    database.feed("UPDATE mailbox SET address = 'grösse@日.example';\n");
    let found = table
        .lookup("GrÖSSE@日.Example", false)
        .expect("it answers");
    assert_eq!(found.expect("it is there").0, "привет/");
}

/// Filters and results of all forms, without what says where the directory is.
const LDAP_FORMS: &[(&str, &str)] = &[
    (
        "plain",
        "search_base = ou=people,@BASE@\nquery_filter = (cn=%s)\nresult_attribute = sn\n",
    ),
    (
        "bare",
        "search_base = ou=people,@BASE@\nquery_filter = cn=%u@%d\nresult_attribute = sn\n\
         result_format = <%s>%U;%D\nbind = no\n",
    ),
    (
        "several",
        "search_base = @BASE@\nquery_filter = (|(cn=%s)(&(ou=%d)(!(cn=*@*))))\n\
         result_attribute = title, sn\nexpansion_limit = 3\nsize_limit = 50\n",
    ),
    (
        "dynamic",
        "search_base = ou=%d,ou=domains,@BASE@\nquery_filter = (objectClass=*)\n\
         result_attribute = description\nscope = base\n",
    ),
    (
        "groups",
        "search_base = ou=groups,@BASE@\nquery_filter = (cn=%u)\nresult_attribute = sn\n\
         special_result_attribute = member, labeledURI\nscope = one\n",
    ),
    (
        "leaves",
        "search_base = ou=groups,@BASE@\nquery_filter = (cn=%u)\nresult_attribute = o\n\
         leaf_result_attribute = sn, description\nterminal_result_attribute = title\n\
         special_result_attribute = member, labeledURI\n",
    ),
    (
        "shallow",
        "search_base = ou=groups,@BASE@\nquery_filter = (cn=%u)\nresult_attribute = sn\n\
         special_result_attribute = member\nrecursion_limit = 2\n",
    ),
    (
        "restricted",
        "search_base = ou=people,@BASE@\nquery_filter = (cn=%s)\nresult_attribute = sn\n\
         domain = b.example\n",
    ),
];

fn ldif(rng: &mut Rng, rows: &[Row]) -> String {
    let mut ldif = String::new();
    let mut entry = |dn: &str, lines: &[(&str, String)]| {
        let _ = writeln!(ldif, "dn: {dn},{BASE}");
        for (name, value) in lines {
            let _ = writeln!(ldif, "{name}:: {}", base64(value.as_bytes()));
        }
        ldif.push('\n');
    };
    let text = |text: &str| text.to_owned();
    for unit in ["people", "groups", "domains"] {
        entry(
            &format!("ou={unit}"),
            &[("objectClass", text("organizationalUnit"))],
        );
    }
    for domain in ["a.example", "single"] {
        let about = format!("about {domain}");
        let lines = [
            ("objectClass", text("organizationalUnit")),
            ("description", about),
        ];
        entry(&format!("ou={domain},ou=domains"), &lines);
    }
    for (number, (address, value, active)) in rows.iter().enumerate() {
        // An empty value is none in a directory; white space counts once.
        let address = address.replace('\t', " ");
        let value = if value.is_empty() { "none" } else { value };
        let mut lines = vec![
            ("objectClass", text("inetOrgPerson")),
            ("cn", address.clone()),
            ("sn", value.to_owned()),
            (
                "ou",
                text(
                    address
                        .rsplit_once('@')
                        .map_or("none", |(_, domain)| domain),
                ),
            ),
        ];
        if *active == 1 {
            lines.push(("title", format!("title {number}")));
        }
        entry(&format!("uid=u{number},ou=people"), &lines);
    }
    for number in 0..30 {
        let mut lines = vec![
            ("objectClass", text("groupOfNames")),
            ("objectClass", text("extensibleObject")),
            ("cn", format!("group{number}")),
            ("description", format!("group {number}")),
        ];
        for _ in 0..rng.usize(1..4) {
            let member = rng.usize(..rows.len() + 20);
            let line = ("member", format!("uid=u{member},ou=people,{BASE}"));
            // A directory takes no value twice.
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        if number > 0 && rng.bool() {
            let member = rng.usize(..number);
            lines.push(("member", format!("cn=group{member},ou=groups,{BASE}")));
        }
        if rng.u8(..3) == 0 {
            let (from, kind) = (rng.usize(..40), ["sn", "", "title,sn"][rng.usize(..3)]);
            let url = format!("ldap:///ou=people,{BASE}?{kind}?one?(uid=u{from})");
            lines.push(("labeledURI", url));
        }
        lines.dedup();
        entry(&format!("cn=group{number},ou=groups"), &lines);
    }
    ldif
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for digit in 0..4 {
            if digit > chunk.len() {
                text.push('=');
            } else {
                let index = usize::try_from(number >> (18 - 6 * digit) & 63).expect("6 bits");
                text.push(char::from(DIGITS[index]));
            }
        }
    }
    text
}

#[test]
fn ldap_tables_agree() {
    let mut rng = seeded();
    let rows = rows(&mut rng, 300);
    let database = Database::start(Product::Slapd);
    database.feed(&ldif(&mut rng, &rows));
    let postmap = Postmap::in_scratch();
    let mut keys = keys(&mut rng, &rows);
    keys.extend((0..32).map(|number| format!("group{number}@a.example").into_bytes()));
    for server_host in [database.host(), database.socket()] {
        for (name, form) in LDAP_FORMS {
            let text = format!(
                "server_host = {server_host}\nversion = 3\nbind_dn = cn=reader,{BASE}\n\
                 bind_pw = {PASSWORD}\n{}",
                form.replace("@BASE@", BASE)
            );
            let path = postmap.write(&format!("{name}.cf"), text.as_bytes());
            let found = compare(&postmap, &format!("ldap:{}", path.display()), &keys);
            println!("ldap {name}: {found} of {} keys found", keys.len());
            assert!(found >= 5, "ldap {name}: only {found} found");
        }
    }
}
