//! Frames in a build without the zstd library: none is made, and none is judged.

use super::frame::Frame;
use std::convert::Infallible;
use std::io;

/// Is never made.
#[allow(dead_code, reason = "the fields only keep it from being made")]
pub(super) struct Encoder<W>(Infallible, W);

impl<W> Encoder<W> {
    pub(super) fn finish(self) -> io::Result<W> {
        Err(built_without())
    }
}

impl<W> io::Write for Encoder<W> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(built_without())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(built_without())
    }
}

/// As with zstd; here always an error.
pub(super) fn encoder<W: io::Write>(_out: W, _size: u64) -> io::Result<Encoder<W>> {
    Err(built_without())
}

/// Returns the frame of a whole message; `None` in a build without zstd.
///
/// # Errors
/// None; with zstd there are some.
pub fn frame_of(_message: &[u8]) -> io::Result<Option<Vec<u8>>> {
    Ok(None)
}

/// Refuses a file that begins as a frame does: it may be whole, or torn.
pub(super) fn look_into(_file: &[u8], _message: &[u8]) -> io::Result<Frame> {
    Err(built_without())
}

fn built_without() -> io::Error {
    io::Error::other(
        "the file is compressed with zstd, and mailstow was built without it; build \
         mailstow-engine with the feature \"zstd\"",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_zstd_makes_no_frames_and_judges_none() {
        assert_eq!(frame_of(b"Subject: x\n").unwrap(), None);
        let refused = look_into(b"\x28\xb5\x2f\xfd", b"Subject: x\n").unwrap_err();
        assert!(
            refused.to_string().contains("feature \"zstd\""),
            "{refused}"
        );
        assert!(encoder(Vec::<u8>::new(), 1).is_err());
    }
}
