//! Content from a descriptor of the host; takes only bytes of the content.
//!
//! The bytes after the line that ends a content are the sender's next command. A file is set back
//! to them; a socket is peeked at before bytes are taken; a pipe supports neither, so only bytes
//! that must still be content are read from it.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::io;
use std::os::fd::BorrowedFd;

/// Most bytes peeked at once.
const LOOK_BYTES: usize = 64 * 1024;

/// The source of content.
#[derive(Debug)]
pub(crate) struct Source<'fd> {
    descriptor: BorrowedFd<'fd>,
    kind: Kind,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were peeked last.
    seen: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// All bytes are content.
    Whole,
    Socket,
    File,
    Pipe,
}

impl<'fd> Source<'fd> {
    /// Reads content from a descriptor; with `may_end`, other bytes may follow it.
    pub(crate) fn new(descriptor: BorrowedFd<'fd>, may_end: bool) -> Self {
        let look = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let kind = match may_end {
            false => Kind::Whole,
            true if recv(descriptor, &mut [0_u8; 1][..], look) != Err(Errno::NOTSOCK) => {
                Kind::Socket
            }
            true if seek(descriptor, SeekFrom::Current(0)).is_ok() => Kind::File,
            true => Kind::Pipe,
        };
        Self {
            descriptor,
            kind,
            buffer: vec![0; LOOK_BYTES],
            seen: 0,
        }
    }

    /// Returns the next bytes, of which the caller then takes those that are content
    /// ([`Source::take`]): at least `left_min`, if so many arrive. Waits for them also on a
    /// non-blocking descriptor. Empty at the end.
    pub(crate) fn next(&mut self, left_min: usize) -> io::Result<&[u8]> {
        let most = match self.kind {
            Kind::Pipe => left_min.min(LOOK_BYTES),
            Kind::Whole | Kind::Socket | Kind::File => LOOK_BYTES,
        };
        self.seen = loop {
            let place = self.buffer.get_mut(..most).unwrap_or_default();
            let seen = match self.kind {
                Kind::Socket => recv(self.descriptor, place, RecvFlags::PEEK).map(|(_, seen)| seen),
                Kind::Whole | Kind::File | Kind::Pipe => rustix::io::read(self.descriptor, place),
            };
            match seen {
                Ok(seen) => break seen,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait()?,
                Err(error) => return Err(error.into()),
            }
        };
        Ok(self.buffer.get(..self.seen).unwrap_or_default())
    }

    /// Takes so many of the bytes that were peeked last as content; the others stay.
    pub(crate) fn take(&mut self, taken: usize) -> io::Result<()> {
        match self.kind {
            Kind::Socket => self.consume(taken),
            Kind::File if taken < self.seen => {
                let behind = i64::try_from(self.seen - taken).unwrap_or(0);
                seek(self.descriptor, SeekFrom::Current(-behind))?;
                Ok(())
            }
            Kind::Whole | Kind::File | Kind::Pipe => Ok(()),
        }
    }

    /// Takes peeked bytes out of the socket.
    fn consume(&mut self, mut count: usize) -> io::Result<()> {
        while count > 0 {
            let place = self.buffer.get_mut(..count).unwrap_or_default();
            match recv(self.descriptor, place, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((_, taken)) => count = count.saturating_sub(taken),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until there is something to read, an error, or the end.
    fn wait(&self) -> io::Result<()> {
        let mut polled = [PollFd::new(&self.descriptor, PollFlags::IN)];
        match poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
