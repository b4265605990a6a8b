//! The stores that the recipient map is measured beside, all with the same recipients.
//!
//! `MAILSTOW_MAP_DIR` keeps the files between runs (default: under `target/`); building ten
//! million recipients takes minutes in some of these stores.

pub(crate) mod cdb;
pub(crate) mod lmdb;

use std::path::{Path, PathBuf};

use mailstow_engine::map::{BuildOptions, MapBuilder};

pub(crate) const TABLE: &str = "virtual_mailbox_maps";

/// Recipients as an installation has them: names, a number, some hundred to some ten thousand
/// domains.
pub(crate) struct Recipients {
    count: u64,
    domains: u64,
}

const NAMES: [&str; 16] = [
    "anna",
    "bert",
    "charlotte",
    "dieter",
    "emma",
    "friedrich",
    "greta",
    "hans",
    "ida",
    "jakob",
    "katharina",
    "leo",
    "maximilian",
    "nora",
    "otto",
    "paula",
];

impl Recipients {
    pub(crate) fn new(count: u64) -> Self {
        Self {
            count,
            domains: (count / 200).max(10),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    fn domain(&self, i: u64) -> String {
        let domain = mix(i) % self.domains;
        format!(
            "{}{domain}.example",
            if domain.is_multiple_of(3) {
                "mail"
            } else {
                "firm-"
            }
        )
    }

    fn local(i: u64) -> String {
        let name = NAMES[(mix(i ^ 0xabcd) % 16) as usize];
        format!("{name}.{i}")
    }

    pub(crate) fn key(&self, i: u64) -> String {
        format!("{}@{}", Self::local(i), self.domain(i))
    }

    pub(crate) fn value(&self, i: u64) -> String {
        format!("{}/{}/", self.domain(i), Self::local(i))
    }

    /// A user that does not exist in a domain that does.
    pub(crate) fn absent(&self, i: u64) -> String {
        format!("{}x@{}", Self::local(i), self.domain(i))
    }

    /// `count` keys to ask, in random order, in one piece of memory so that reading them costs
    /// the same for every store.
    pub(crate) fn questions(&self, count: u64, present: bool) -> Questions {
        let mut questions = Questions::default();
        for n in 0..count {
            let i = mix(n ^ 0x5555_0000_0000) % self.count;
            let key = if present { self.key(i) } else { self.absent(i) };
            questions.text.push_str(&key);
            questions.ends.push(questions.text.len());
        }
        questions
    }
}

/// Keys to ask.
#[derive(Default)]
pub(crate) struct Questions {
    text: String,
    ends: Vec<usize>,
}

impl Questions {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let key = &self.text[start..end];
            start = end;
            key
        })
    }
}

/// A fixed permutation-like scramble (splitmix64).
fn mix(i: u64) -> u64 {
    let mut z = i.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Where the stores of `count` recipients lie.
pub(crate) fn directory(count: u64) -> PathBuf {
    let base = std::env::var_os("MAILSTOW_MAP_DIR").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("maps"),
        PathBuf::from,
    );
    let directory = base.join(count.to_string());
    std::fs::create_dir_all(&directory).expect("the directory for the stores can be made");
    directory
}

/// The numbers of recipients to measure: `MAILSTOW_MAP_RECIPIENTS=10000,1000000`.
pub(crate) fn counts() -> Vec<u64> {
    let text = std::env::var("MAILSTOW_MAP_RECIPIENTS").unwrap_or_else(|_| "10000,100000".into());
    text.split(',')
        .map(|count| {
            count
                .trim()
                .parse()
                .expect("MAILSTOW_MAP_RECIPIENTS holds numbers")
        })
        .collect()
}

/// The recipient map, built unless it is there.
pub(crate) fn mailstow(recipients: &Recipients) -> PathBuf {
    let path = directory(recipients.count()).join("recipients.map");
    if !path.exists() {
        let mut builder = MapBuilder::new(&path, BuildOptions::default()).expect("map is begun");
        let table = builder.table(TABLE).expect("table is made");
        for i in 0..recipients.count() {
            builder
                .add(table, &recipients.key(i), &recipients.value(i))
                .expect("entry is taken");
        }
        builder.finish().expect("map is built");
    }
    path
}
