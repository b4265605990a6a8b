//! `lmdb:` and `cdb:` without their text answer out of the index as `postmap -q` does.
//!
//! postmap makes the index, the text is taken away, and both sides are asked for every key and
//! for others. A failing test prints its seed.

use std::fs;
use std::time::Duration;

use mailstow_engine::table::{TableCache, TableContext, TableList};
use mailstow_tests::postmap::{Postmap, compare, open, seeded};
use mailstow_tests::{Mailstow, eventually};

/// Postfix without the index of a table finds nothing; so it is asked while both have it only.
fn without_text(postmap: &Postmap, kind: &str, name: &str, text: &str) -> String {
    let path = postmap.write(name, text.as_bytes());
    let table = format!("{kind}:{}", path.display());
    postmap.index(&table);
    fs::remove_file(path).expect("the text can go");
    table
}

#[test]
fn every_key_of_an_index_is_answered_as_postmap_answers_it() {
    let mut rng = seeded();
    let postmap = Postmap::in_scratch();
    for kind in ["lmdb", "cdb"] {
        for (round, entries) in [1_usize, 3, 200, 5000, 30_000].into_iter().enumerate() {
            let (mut text, mut keys) = (String::new(), Vec::new());
            for number in 0..entries {
                let user = ["Info", "ünï", "\"two words\"", "x"][rng.usize(..4)];
                let key = format!("{user}{number}@Dom{}.example", rng.u8(..));
                // postmap 3.7 forgets to fold keys once a file outgrows 16 MiB, and then does not
                // find them; the large tables are to be found.
                let key = match entries {
                    ..10_000 => key,
                    _ => key.to_lowercase(),
                };
                let value = match rng.u8(..20) {
                    // On separate pages in LMDB.
                    0 => "long ".repeat(rng.usize(300..3000)),
                    1 => "two  words # and more".to_owned(),
                    _ => format!("example.com/box{}/", rng.u16(..)),
                };
                text += &format!("{key} {value}\n");
                keys.push(key.to_uppercase().into_bytes());
                keys.push(format!("{number}@nowhere.example").into_bytes());
            }
            let table = without_text(&postmap, kind, &format!("{kind}{round}"), &text);
            let found = compare(&postmap, &table, &keys);
            assert_eq!(found, entries, "{table}");
        }
    }
}

#[test]
fn an_index_of_nothing_has_no_keys() {
    let postmap = Postmap::in_scratch();
    for kind in ["lmdb", "cdb"] {
        let table = without_text(&postmap, kind, kind, "# nothing\n");
        assert_eq!(compare(&postmap, &table, &[b"a".to_vec()]), 0);
    }
}

#[test]
fn the_text_is_read_where_it_is_and_the_index_when_it_goes() {
    let postmap = Postmap::in_scratch();
    for kind in ["lmdb", "cdb"] {
        let table = without_text(&postmap, kind, kind, "k index\n");
        let list = TableList::parse(&table, "hash").expect("a name");
        let cache = TableCache::new(TableContext::default());
        let ask = || {
            let set = cache.open_all(&list).expect("it opens");
            let found = set.lookup("k", false).expect("it answers");
            found.map(|(value, _)| value)
        };
        assert_eq!(ask().as_deref(), Some("index"));
        let path = postmap.write(kind, b"k text\n");
        eventually("the text is read", Duration::from_secs(60), || {
            cache.refresh();
            (ask().as_deref() == Some("text")).then_some(())
        });
        fs::remove_file(path).expect("the text can go");
        eventually("the index is read", Duration::from_secs(60), || {
            cache.refresh();
            (ask().as_deref() == Some("index")).then_some(())
        });
    }
}

#[test]
fn a_damaged_index_is_refused_with_cause_and_remedy() {
    let postmap = Postmap::in_scratch();
    for kind in ["lmdb", "cdb"] {
        let text: String = (0..2000)
            .map(|n| format!("user{n}@example.com x/\n"))
            .collect();
        let table = without_text(&postmap, kind, kind, &text);
        let index = format!("{}.{kind}", table.split_once(':').expect("type:name").1);
        let sound = fs::read(&index).expect("postmap made it");
        let mut damaged = sound.clone();
        damaged.truncate(sound.len() / 2);
        for bytes in [damaged, b"garbage".to_vec(), vec![0xff; 20_000]] {
            fs::write(&index, bytes).expect("write");
            assert!(open(&table).is_none());
            let asked =
                mailstow_tests::mailstow::run(&["table", "query", "user1@example.com", &table]);
            assert_eq!(asked.status.code(), Some(75), "{asked:?}");
            let said = String::from_utf8_lossy(&asked.stderr).into_owned();
            assert!(said.contains("run postmap again"), "{said}");
        }
    }
}

#[test]
fn a_server_delivers_by_an_index_and_keeps_it_when_a_damaged_one_comes() {
    let server = Mailstow::example("index")
        .main_cf("virtual_mailbox_maps = lmdb:@DIR@/boxes")
        .table("boxes", "info@example.com example.com/info/\n");
    let postmap = Postmap::in_scratch();
    let text = server.scratch().join("conf/boxes");
    postmap.index(&format!("lmdb:{}", text.display()));
    fs::remove_file(&text).expect("the text can go");
    let server = server.start();
    let mut client = server.client();
    let mut code = |recipient: &str| {
        client.command("RSET");
        client.command("MAIL FROM:<s@client.example>");
        client.command(format!("RCPT TO:<{recipient}>")).code
    };
    assert_eq!(code("info@example.com"), 250);
    assert_eq!(code("nobody@example.com"), 550);
    let before = server.log().len();
    let damaged = server.scratch().write("damaged", [7; 9000]);
    fs::rename(damaged, server.scratch().join("conf/boxes.lmdb")).expect("rename");
    server.log_line_after(before, "old contents stay in use");
    assert_eq!(code("info@example.com"), 250);
}
