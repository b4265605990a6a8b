//! Lines of a message header, as far as their beginning says what they are.
//!
//! A field name is printable ASCII without the colon (RFC 5322 section 2.2); blanks before the
//! colon are tolerated as in its section 4.5. The header ends with the first empty line; readers
//! differ about lines in it that are no fields, so that fields behind those count too.

/// A name this long is none: the longest line that Postfix takes as one (`line_length_limit`).
pub(super) const NAME_BYTES_MAX: usize = 2048;

/// Fields in which programs that read an mbox keep what they know of a message, in lower case.
/// mutt: Status, X-Status, Content-Length, Lines; c-client and Dovecot: X-UID, X-Keywords, X-IMAP,
/// X-IMAPbase.
const STATUS_FIELDS: [&[u8]; 8] = [
    b"content-length",
    b"lines",
    b"status",
    b"x-imap",
    b"x-imapbase",
    b"x-keywords",
    b"x-status",
    b"x-uid",
];

/// Returns what of a line decides about it: all up to its first colon or line end, that included;
/// or its first [`NAME_BYTES_MAX`] bytes and one more. Of a line that begins with a blank only
/// that. `None` when more of the line must be seen. A CR ends a line, too: see
/// [`super::header_filter`].
pub(super) fn begin_of_line(line: &[u8]) -> Option<&[u8]> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return line.get(..1);
    }
    let looked_at = line.get(..=NAME_BYTES_MAX).unwrap_or(line);
    let Some(at) = memchr::memchr3(b':', b'\n', b'\r', looked_at) else {
        return (looked_at.len() > NAME_BYTES_MAX).then_some(looked_at);
    };
    let is_cr = line.get(at) == Some(&b'\r');
    match line.get(at + 1) {
        None if is_cr => None,
        Some(b'\n') if is_cr => line.get(..at + 2),
        _ => line.get(..=at),
    }
}

/// Returns the field name in the beginning of a line, if it has one. A line too long to be looked
/// at has the name that it begins with, if nothing but blanks follow.
pub(super) fn field_name(begin: &[u8]) -> Option<&[u8]> {
    let name = match begin.strip_suffix(b":") {
        Some(name) => name,
        None if begin.len() > NAME_BYTES_MAX => begin,
        None => return None,
    };
    let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
    let blanks = name.iter().rev().take_while(is_blank).count();
    let name = name.get(..name.len() - blanks)?;
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then_some(name)
}

/// True for a field in which mbox readers keep their state.
pub(super) fn is_status_field(name: &[u8]) -> bool {
    STATUS_FIELDS
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}
