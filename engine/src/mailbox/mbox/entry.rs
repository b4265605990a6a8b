//! A message as it stands in an mbox.

use super::form::Form;
use crate::message::Message;
use std::io;

/// One message to append.
#[derive(Clone, Copy, Debug)]
pub struct MboxEntry<'a> {
    /// `From ` line and trace header.
    pub header: &'a [u8],
    /// The content.
    pub message: &'a Message,
    /// Header fields in which mbox readers keep their state are removed.
    pub without_status: bool,
}

/// Appends a message to `out` as it stands in an mbox, from its `From ` line to the blank line
/// behind it; `without_status` as in [`MboxEntry`]. `each` hands the content over piece by piece.
///
/// # Errors
/// What `each` answers; `out` is as before.
pub fn render<E>(
    (header, without_status): (&[u8], bool),
    out: &mut Vec<u8>,
    each: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
) -> Result<(), E> {
    let mark = out.len();
    out.extend_from_slice(header);
    let mut form = Form::new(without_status);
    if let Err(error) = each(&mut |chunk| form.feed(chunk, out)) {
        out.truncate(mark);
        return Err(error);
    }
    form.finish(out);
    Ok(())
}

impl MboxEntry<'_> {
    /// Shows the bytes that appending it writes, piece by piece.
    ///
    /// # Errors
    /// The content cannot be read.
    pub fn show(&self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        take(self.header);
        let mut form = Form::new(self.without_status);
        let mut piece = Vec::new();
        self.message.for_each_chunk(|chunk| {
            form.feed(chunk, &mut piece);
            take(&piece);
            piece.clear();
            io::Result::Ok(())
        })?;
        form.finish(&mut piece);
        take(&piece);
        Ok(())
    }
}
