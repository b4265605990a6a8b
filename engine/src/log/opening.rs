//! Opens the log on a medium.

use super::appender::Appender;
use super::error::LogError;
use super::log_scan::LogScan;
use super::medium::{Access, LogFile as _, LogMedium, Pacing};
use super::segment::{FileRole, role};
use super::segments::{Prepared, SPARES_MIN, Segments};
use super::settings::LogWriterSettings;
use super::unreadable::{LeftOut, scan_records, scan_setting_aside};
use crate::sync::Arc;

/// Scans the log and begins a new segment, so that nothing is ever written behind a torn tail.
#[expect(
    clippy::type_complexity,
    reason = "the three parts of an open log, named by the caller"
)]
pub(super) fn start<M: LogMedium>(
    medium: &Arc<M>,
    settings: &LogWriterSettings,
) -> Result<(Arc<Segments<M>>, Appender<M>, LogScan<M>), LogError> {
    settings.validate()?;
    flush_tail(medium.as_ref())?;
    let (report, left_out) = match settings.accept_damage {
        true => scan_setting_aside(medium.as_ref())?,
        false => (scan_records(medium.as_ref())?, LeftOut::default()),
    };
    if let Some(error) = report.damage_error()
        && !settings.accept_damage
    {
        return Err(error);
    }
    let segments = Segments::adopt(Arc::clone(medium), settings.clone(), &report)?;
    // One to write into and one in reserve; after a crash with a full log, past its limit. On a
    // disk that is full or nearly so one will do: recovery frees others, and needs space itself.
    for wanted in 1..=SPARES_MIN {
        let is_needed = wanted == 1 || !segments.is_low();
        let prepared = segments.prepare(wanted, is_needed, &|| Pacing::Hurry)?;
        let obstacle = match prepared {
            Prepared::Made | Prepared::Enough => None,
            Prepared::DiskFull => Some(std::io::Error::from(std::io::ErrorKind::StorageFull)),
            Prepared::NotNow => Some(std::io::Error::from_raw_os_error(libc::EMFILE)),
        };
        if let Some(error) = obstacle.filter(|_| wanted == 1) {
            let segment = format!("a segment of {} bytes", settings.segment_bytes);
            return Err(LogError::io("prepare", &segment, error));
        }
    }
    if let Some(scratch) = segments.scratch() {
        medium
            .tune(&scratch)
            .map_err(|error| LogError::io("write", &scratch, error))?;
    }
    let segments = Arc::new(segments);
    let opened = segments.begin_after_open(&report)?;
    segments.free_empty(&report)?;
    let appender = Appender::new(Arc::clone(&segments), opened);
    let found = LogScan::new(Arc::clone(medium), report, left_out);
    Ok((segments, appender, found))
}

/// A process that died may have left bytes that were written and not flushed. Recovery acts on
/// what it reads, so that must not be lost later.
fn flush_tail<M: LogMedium>(medium: &M) -> Result<(), LogError> {
    let names = medium
        .list()
        .map_err(|error| LogError::io("list", "the log directory", error))?;
    for name in names {
        if matches!(role(&name), FileRole::Live(_)) {
            medium
                .open(&name, Access::Read)
                .and_then(|mut file| file.flush())
                .map_err(|error| LogError::io("flush", &name, error))?;
        }
    }
    Ok(())
}
