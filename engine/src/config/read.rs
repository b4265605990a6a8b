//! Reading configuration files: whole, bounded, and as the logical lines of postconf(5).
//!
//! A file that is no regular file is refused before it is opened, so that a FIFO never makes a
//! start hang.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::problem::{Origin, Problem};
use crate::limits::CONFIG_FILE_BYTES_MAX;

/// The content of a configuration file; `Ok(None)` when there is no such file.
pub(super) fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Problem> {
    match read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Problem::anywhere(format!(
            "cannot read {}: {error}{}",
            path.display(),
            remedy(error.kind())
        ))),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file; name a plain file"));
    }
    let mut content = Vec::new();
    fs::File::open(path)?
        .take(CONFIG_FILE_BYTES_MAX + 1)
        .read_to_end(&mut content)?;
    if content.len() as u64 > CONFIG_FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it is larger than {CONFIG_FILE_BYTES_MAX} bytes; this is no configuration file"
        )));
    }
    Ok(content)
}

fn remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::IsADirectory => "; name a file",
        io::ErrorKind::NotADirectory => "; what stands before the last / must be a directory",
        io::ErrorKind::PermissionDenied => "; allow the user that runs mailstow to read it",
        _ => "",
    }
}

/// A logical line: a line with the continuation lines that follow it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LogicalLine {
    /// Line on which it starts, counted from 1.
    pub(super) line: usize,
    /// The joined text, without line ends, leading blanks of continuations kept.
    pub(super) text: String,
}

/// Logical lines and complaints.
#[derive(Debug, Default)]
pub(super) struct LogicalLines {
    pub(super) lines: Vec<LogicalLine>,
    pub(super) warnings: Vec<String>,
    pub(super) problems: Vec<Problem>,
}

/// Splits `content` as Postfix does: empty lines, blank lines and lines whose first character
/// past blanks is `#` are skipped wherever they stand; a line that starts with a blank
/// continues the one before. Comments may hold any bytes, everything else must be UTF-8
/// without NUL.
pub(super) fn logical_lines(path: &Path, content: &[u8]) -> LogicalLines {
    let mut result = LogicalLines::default();
    let mut orphan = false;
    for (index, bytes) in content.split(|byte| *byte == b'\n').enumerate() {
        let line = index + 1;
        let first = bytes.iter().find(|byte| !is_blank(**byte));
        if matches!(first, None | Some(b'#')) {
            continue;
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => text,
            Ok(_) => {
                let text = "a NUL byte in the line; remove it";
                result
                    .problems
                    .push(Problem::at(&Origin::file(path, line), text));
                ""
            }
            Err(_) => {
                let text = "the line is not valid UTF-8; convert the file to UTF-8";
                result
                    .problems
                    .push(Problem::at(&Origin::file(path, line), text));
                ""
            }
        };
        if !bytes.first().is_some_and(|byte| is_blank(*byte)) {
            orphan = false;
            result.lines.push(LogicalLine {
                line,
                text: text.to_owned(),
            });
        } else if let (Some(last), false) = (result.lines.last_mut(), orphan) {
            last.text.push_str(text);
        } else if !orphan {
            orphan = true;
            result.warnings.push(format!(
                "{}:{line}: the line starts with a blank but continues nothing and is ignored; \
                 remove the blank",
                path.display()
            ));
        }
    }
    result.lines.retain(|line| !line.text.is_empty());
    result
}

/// What isspace(3) calls white space.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// [`str::trim`] for what isspace(3) calls white space.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| u8::try_from(c).is_ok_and(is_blank))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(content: &[u8]) -> Vec<(usize, String)> {
        let result = logical_lines(Path::new("main.cf"), content);
        result
            .lines
            .into_iter()
            .map(|line| (line.line, line.text))
            .collect()
    }

    #[test]
    fn comments_and_blank_lines_do_not_end_a_continued_line() {
        let content = b"# head\n\na = 1\n  2\n# note\n\n \t\n  3\nb=4";
        let expected = [(3, "a = 1  2  3".to_owned()), (9, "b=4".to_owned())];
        assert_eq!(lines(content), expected);
    }

    #[test]
    fn a_continuation_of_nothing_is_ignored_with_one_warning() {
        let result = logical_lines(Path::new("main.cf"), b"# c\n  a = 1\n  b\nc = 2\n");
        assert_eq!(result.lines.len(), 1);
        assert_eq!(result.warnings.len(), 1);
        assert!(
            result.warnings[0].starts_with("main.cf:2: "),
            "{:?}",
            result.warnings
        );
    }

    #[test]
    fn comments_hold_any_bytes_but_values_must_be_text() {
        let result = logical_lines(
            Path::new("m"),
            b"# \xe9\0\na = \xe9\nb = \0\nc = \xc3\xa9\n",
        );
        let places: Vec<String> = result.problems.iter().map(ToString::to_string).collect();
        assert_eq!(places.len(), 2);
        assert!(
            places[0].starts_with("m:2: the line is not valid UTF-8"),
            "{places:?}"
        );
        assert!(places[1].starts_with("m:3: a NUL byte"), "{places:?}");
        assert_eq!(result.lines.len(), 1);
    }

    #[test]
    fn what_is_no_regular_file_of_bearable_size_is_refused() {
        let directory = tempfile::tempdir().expect("tempdir");
        let error = read_file(directory.path()).expect_err("a directory");
        assert!(
            error.text.contains("is a directory; name a file"),
            "{error}"
        );
        let large = directory.path().join("large");
        let file = fs::File::create(&large).expect("create");
        file.set_len(CONFIG_FILE_BYTES_MAX + 1).expect("set_len");
        let error = read_file(&large).expect_err("too large");
        assert!(error.text.contains("larger than"), "{error}");
        assert_eq!(read_file(&directory.path().join("none")), Ok(None));
    }
}
