//! Compares the content of a file with the expected bytes.

use crate::io::Disk;
use crate::mailbox::maildir::{Frame, look_into_frame};
use std::io;

/// Bytes read at once.
pub(super) const READ_BYTES: usize = 256 * 1024;

/// The result of comparing a file with what we wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Every byte is as written.
    Whole,
    /// Some bytes are as written, and the others are zeros that a crash left.
    Torn,
    /// The content differs: another program wrote it, and recovery must not change it.
    Foreign,
}

/// Passes the bytes from `offset` to the end of the file, in pieces, until `take` returns false.
pub(super) fn for_each_piece<D: Disk>(
    disk: &D,
    file: &D::Handle,
    mut offset: u64,
    mut take: impl FnMut(u64, &[u8]) -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = disk.read_at(file, &mut buffer, offset)?;
        let piece = buffer.get(..read).unwrap_or_default();
        if piece.is_empty() || !take(offset, piece) {
            return Ok(());
        }
        offset += piece.len() as u64;
    }
}

/// Compares the bytes from `offset` on, at most as many as `ours` has.
pub(super) fn stands_at<D: Disk>(
    disk: &D,
    file: &D::Handle,
    offset: u64,
    ours: &[u8],
) -> io::Result<bool> {
    let mut rest = ours;
    for_each_piece(disk, file, offset, |_, piece| {
        let length = piece.len().min(rest.len());
        let (expected, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        if piece.get(..length) != Some(expected) {
            return false;
        }
        rest = behind;
        !rest.is_empty()
    })?;
    Ok(rest.is_empty())
}

/// Returns true if every byte from `offset` on is as written, or zero.
pub(super) fn is_torn_at<D: Disk>(
    disk: &D,
    file: &D::Handle,
    offset: u64,
    ours: &[u8],
) -> io::Result<bool> {
    let (mut rest, mut is_ours) = (ours, true);
    for_each_piece(disk, file, offset, |_, piece| {
        let length = piece.len().min(rest.len());
        let (expected, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        let mut pairs = piece.iter().zip(expected);
        is_ours = pairs.all(|(have, want)| have == want || *have == 0);
        rest = behind;
        is_ours && !rest.is_empty()
    })?;
    Ok(is_ours && rest.is_empty())
}

/// Compares a whole file with its expected content.
pub(super) fn compare<D: Disk>(disk: &D, file: &D::Handle, ours: &[u8]) -> io::Result<Standing> {
    let mut standing = Standing::Whole;
    let mut length = 0;
    for_each_piece(disk, file, 0, |offset, piece| {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        length = from + piece.len();
        let Some(expected) = ours.get(from..length) else {
            standing = Standing::Foreign;
            return false;
        };
        if piece != expected {
            let is_torn = |(have, want): (&u8, &u8)| have == want || *have == 0;
            standing = match piece.iter().zip(expected).all(is_torn) {
                true => Standing::Torn,
                false => Standing::Foreign,
            };
        }
        standing != Standing::Foreign
    })?;
    debug_assert!(
        standing == Standing::Foreign || length <= ours.len(),
        "a longer file is another message"
    );
    if standing == Standing::Whole && length < ours.len() {
        standing = Standing::Torn;
    }
    Ok(standing)
}

/// Looks whether a file, of which at most `most` bytes count, is a frame with our message.
///
/// # Errors
/// It begins as a frame does, and this build has no zstd; or it cannot be read.
pub(super) fn look_into<D: Disk>(
    disk: &D,
    file: &D::Handle,
    (ours, most): (&[u8], u64),
) -> io::Result<Frame> {
    let mut bytes = Vec::new();
    for_each_piece(disk, file, 0, |_, piece| {
        bytes.extend_from_slice(piece);
        bytes.len() as u64 <= most
    })?;
    look_into_frame(&bytes, ours)
}
