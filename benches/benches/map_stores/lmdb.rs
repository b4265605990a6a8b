//! LMDB, filled in key order, which gives its densest and fastest tree.
#![allow(
    unsafe_code,
    reason = "heed opens an environment as unsafe, as it maps a file"
)]

use std::path::{Path, PathBuf};

use heed::types::Bytes;
use heed::{Database, Env, EnvOpenOptions, PutFlags, RoTxn, WithoutTls};

use super::{Recipients, directory};

pub(crate) struct Lmdb {
    pub(crate) env: Env<WithoutTls>,
    pub(crate) table: Database<Bytes, Bytes>,
}

/// The LMDB data file, built unless it is there.
pub(crate) fn build(recipients: &Recipients) -> PathBuf {
    let environment = directory(recipients.count()).join("recipients.lmdb");
    let path = environment.join("data.mdb");
    if !path.exists() {
        std::fs::create_dir_all(&environment).expect("the environment's directory can be made");
        let lmdb = Lmdb::open(&path);
        let mut entries: Vec<(String, String)> = (0..recipients.count())
            .map(|i| (recipients.key(i), recipients.value(i)))
            .collect();
        entries.sort_unstable();
        let mut write = lmdb.env.write_txn().expect("transaction begins");
        for (key, value) in &entries {
            lmdb.table
                .put_with_flags(
                    &mut write,
                    PutFlags::APPEND,
                    key.as_bytes(),
                    value.as_bytes(),
                )
                .expect("entry is taken");
        }
        write.commit().expect("LMDB is built");
    }
    path
}

impl Lmdb {
    /// Opens the environment whose data file is `path`.
    pub(crate) fn open(path: &Path) -> Self {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(8 << 30);
        let directory = path.parent().expect("the file lies in a directory");
        // SAFETY: no other process opens or changes these files while a measurement runs.
        let env = unsafe { options.open(directory) }.expect("LMDB opens");
        let mut write = env.write_txn().expect("transaction begins");
        let table = env.create_database(&mut write, None).expect("table opens");
        write.commit().expect("transaction ends");
        Self { env, table }
    }

    pub(crate) fn read(&self) -> RoTxn<'_, WithoutTls> {
        self.env.read_txn().expect("transaction begins")
    }
}
