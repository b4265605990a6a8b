//! The meaning of a command's end for the message.
//!
//! Sources: Postfix pipe(8), sysexits(3). The first that applies decides: the time limit, a signal,
//! an enhanced status code at the beginning of the output, the exit status.

use crate::status::{EnhancedCode, Status};

/// Characters of output that a reply quotes.
const REPLY_CHARS_MAX: usize = 200;

/// Characters of output that a reply quotes after a success.
const SUCCESS_CHARS_MAX: usize = 100;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It exited with this status.
    Exited(i32),
    /// This signal ended it.
    Killed(i32),
    /// It was killed because it ran longer than its service allows.
    OverTimeLimit,
    /// It was killed because the caller stopped waiting for its outcome.
    OverDeadline,
}

/// Returns the status for the end of `command`, run by `service`, and its output.
pub(super) fn status(service: &str, command: &str, end: End, output: &[u8]) -> Status {
    let output = printable(output);
    let with_output = |text: String| match output.is_empty() {
        true => text,
        false => {
            let shown: String = output.chars().take(REPLY_CHARS_MAX).collect();
            format!("{text}. Command output: {shown}")
        }
    };
    match end {
        End::OverTimeLimit => permanent(
            (3, 0),
            with_output(format!("Command time limit exceeded: \"{command}\"")),
        ),
        End::OverDeadline => Status::system(format!("Command took too long: \"{command}\"")),
        End::Killed(signal) => Status::system(with_output(format!(
            "Command died with signal {signal}: \"{command}\""
        ))),
        End::Exited(0) => {
            let shown: String = output.chars().take(SUCCESS_CHARS_MAX).collect();
            let delivered = format!("delivered via {service} service");
            Status::ok(match shown.as_str() {
                "" => delivered,
                shown => format!("{delivered} ({shown})"),
            })
        }
        End::Exited(status) => failed(command, status, &output, with_output),
    }
}

fn failed(
    command: &str,
    status: i32,
    output: &str,
    with_output: impl Fn(String) -> String,
) -> Status {
    if let Some((code, text)) = EnhancedCode::split(output) {
        let text: String = text.chars().take(REPLY_CHARS_MAX).collect();
        return match code.class {
            4 => Status::new(451, code, text),
            5 => Status::new(550, code, text),
            // A failure with an enhanced status code of success.
            _ => permanent((0, 0), text),
        };
    }
    let (code, meaning) = match status {
        64 => ((3, 0), "command line usage error"),
        65 => ((6, 0), "data format error"),
        66 => ((3, 0), "cannot open input"),
        67 => ((1, 1), "user unknown"),
        68 => ((1, 2), "host name unknown"),
        69 => ((3, 0), "service unavailable"),
        70 => ((3, 0), "internal software error"),
        71 => return Status::system(with_output("system resource problem".to_owned())),
        72 => ((3, 0), "critical OS file missing"),
        73 => ((2, 0), "can't create user output file"),
        74 => ((3, 0), "input/output error"),
        75 => return Status::system(with_output("temporary failure".to_owned())),
        76 => ((5, 0), "remote error in protocol"),
        77 => ((7, 0), "permission denied"),
        78 => ((3, 5), "local configuration error"),
        status => {
            let text = format!("Command died with status {status}: \"{command}\"");
            return permanent((3, 0), with_output(text));
        }
    };
    permanent(code, with_output(meaning.to_owned()))
}

fn permanent((subject, detail): (u16, u16), text: String) -> Status {
    Status::new(550, EnhancedCode::new(5, subject, detail), text)
}

/// Returns the output for a reply: blanks for tabs and line ends, `_` for unprintable characters.
fn printable(output: &[u8]) -> String {
    let shown = output.iter().map(|byte| match byte {
        b'\t' | b'\n' => ' ',
        b' '..=b'~' => char::from(*byte),
        _ => '_',
    });
    let shown: String = shown.collect();
    shown.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(end: End, output: &str) -> String {
        status("drop", "/bin/x", end, output.as_bytes()).to_string()
    }

    #[test]
    fn exit_statuses_mean_what_they_mean_to_pipe() {
        let table = [
            (64, "5.3.0"),
            (65, "5.6.0"),
            (66, "5.3.0"),
            (67, "5.1.1"),
            (68, "5.1.2"),
            (69, "5.3.0"),
            (70, "5.3.0"),
            (71, "4.3.0"),
            (72, "5.3.0"),
            (73, "5.2.0"),
            (74, "5.3.0"),
            (75, "4.3.0"),
            (76, "5.5.0"),
            (77, "5.7.0"),
            (78, "5.3.5"),
        ];
        for exit in 1..=255 {
            let known = table.iter().find(|(known, _)| *known == exit);
            let wanted = known.map_or("5.3.0", |(_, code)| code);
            let status = status("drop", "/bin/x", End::Exited(exit), b"");
            assert_eq!(status.enhanced.to_string(), wanted, "{exit}");
            assert_eq!(status.is_temporary(), matches!(exit, 71 | 75), "{exit}");
        }
    }

    #[test]
    fn a_command_says_more_of_its_end_by_its_output() {
        assert_eq!(
            said(End::Exited(0), ""),
            "250 2.0.0 delivered via drop service"
        );
        assert_eq!(
            said(End::Exited(0), "a\tb\n\u{7}"),
            "250 2.0.0 delivered via drop service (a b _)"
        );
        assert_eq!(
            said(End::Exited(1), "4.2.2 my own text\n"),
            "451 4.2.2 my own text"
        );
        assert_eq!(said(End::Exited(75), "5.7.1 no"), "550 5.7.1 no");
        assert_eq!(said(End::Exited(1), "2.0.0 odd"), "550 5.0.0 odd");
        assert_eq!(
            said(End::Exited(67), "4.2.2.2 x"),
            "550 5.1.1 user unknown. Command output: 4.2.2.2 x"
        );
        assert_eq!(
            said(End::Exited(200), ""),
            "550 5.3.0 Command died with status 200: \"/bin/x\""
        );
    }

    #[test]
    fn signals_put_mail_off_and_time_limits_return_it() {
        assert_eq!(
            said(End::Killed(9), "5.7.1 no"),
            "451 4.3.0 Command died with signal 9: \"/bin/x\". Command output: 5.7.1 no"
        );
        assert_eq!(
            said(End::OverTimeLimit, ""),
            "550 5.3.0 Command time limit exceeded: \"/bin/x\""
        );
        let late = said(End::OverDeadline, "x");
        assert_eq!(late, "451 4.3.0 Command took too long: \"/bin/x\"");
    }
}
