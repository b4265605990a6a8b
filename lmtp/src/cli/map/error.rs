//! What can go wrong with `mailstow map`.

use mailstow_engine::map::MapError;
use mailstow_engine::table::OpenError;
use std::io;
use std::path::Path;

/// Why a command has not done its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum MapCommandError {
    #[error(transparent)]
    Map(#[from] MapError),
    #[error("{path}: {error}")]
    InMap { path: String, error: MapError },
    #[error("there is no map {0}; make it with \"mailstow map build\"")]
    Missing(String),
    #[error("cannot read {path}: {error}; name a text that is there and may be read")]
    Text { path: String, error: io::Error },
    #[error(
        "{path} has just been changed, and the map would have {has} values in the place of {had}: \
         it may be incomplete; build again in {hold_time} s, or use --force"
    )]
    Doubtful {
        path: String,
        had: u64,
        has: u64,
        hold_time: u64,
    },
    #[error("{0}; build again when it is whole")]
    HeldBack(String),
    #[error("\"{0}\": write TABLE=TEXT, as in virtual_mailbox_maps=/etc/postfix/vmailbox")]
    Source(String),
    #[error("{0}: only tables whose entries can be listed, those of postmap(1), can be compiled")]
    NotText(String),
    #[error("the map has no table {table}, only: {tables}")]
    NoTable { table: String, tables: String },
    #[error("name the map with -o FILE")]
    NoMap,
    #[error("nothing to build from; use --postfix DIR, or TABLE=TEXT")]
    NoSource,
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{0}")]
    Configuration(String),
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl MapCommandError {
    /// With the name of the map, unless the text has it already.
    pub(super) fn of(self, map: &Path) -> Self {
        let path = map.display().to_string();
        match self {
            Self::Map(MapError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && !map.exists() =>
            {
                Self::Missing(path)
            }
            Self::Map(error) if !error.to_string().contains(&path) => Self::InMap { path, error },
            other => other,
        }
    }
}
