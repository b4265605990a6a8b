//! Content from a descriptor of the host, of which no more is taken than belongs to the content.
//!
//! What comes behind the line that ends a content is the sender's next command. A file is set back
//! to it; a socket is looked at before bytes are taken; of a pipe, which can do neither, no more is
//! read at a time than must still be content.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::io;
use std::os::fd::BorrowedFd;

/// Bytes looked at together.
const LOOK_BYTES: usize = 64 * 1024;

/// Where content comes from.
#[derive(Debug)]
pub(crate) struct Source<'fd> {
    descriptor: BorrowedFd<'fd>,
    kind: Kind,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were seen last.
    seen: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Everything is content.
    Whole,
    Socket,
    File,
    Pipe,
}

impl<'fd> Source<'fd> {
    /// The content from a descriptor; with `may_end`, more may come behind it.
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

    /// The next bytes, of which [`Source::take`] then says how many are content: at least
    /// `left_min`, if so many come. Waits for them also where the descriptor does not. Empty at the
    /// end.
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

    /// So many of the bytes that were seen last are content; the others stay.
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

    /// Takes bytes out of the socket that were seen there.
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
