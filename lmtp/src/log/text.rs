//! Events as text, one line each.
//!
//! A delivery reads as in a Postfix log: `QUEUEID: to=<user@example.com>,
//! from=<sender@example.org>, ..., status=sent (text)`. Under systemd's journal the lines have no
//! time stamp.

use super::delivery::TARGET;
use std::fmt::{self, Write};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats events as text lines.
#[derive(Debug)]
pub(super) struct TextLine {
    with_time: bool,
}

impl TextLine {
    pub(super) fn new() -> Self {
        Self {
            with_time: std::env::var_os("JOURNAL_STREAM").is_none(),
        }
    }
}

impl<S, N> FormatEvent<S, N> for TextLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.with_time {
            SystemTime.format_time(&mut writer)?;
            writer.write_char(' ')?;
        }
        let level = *event.metadata().level();
        if level <= tracing::Level::WARN {
            write!(writer, "{level}: ")?;
        }
        let mut fields = Fields {
            writer: Plain(writer),
            delivery: event.metadata().target() == TARGET,
            count: 0,
            result: Ok(()),
        };
        event.record(&mut fields);
        fields.result?;
        fields.writer.0.write_char('\n')
    }
}

/// Writes text whose control characters and line separators cannot end the line.
struct Plain<'w>(Writer<'w>);

impl Plain<'_> {
    /// Writes a text of ours, or one that was looked at.
    fn write_known(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(text)
    }
}

impl Write for Plain<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Looking at all bytes without stopping at the first bad one can be done many at a time.
        let is_plain = |known, byte| known & (b' '..0x7f).contains(&byte);
        if text.bytes().fold(true, is_plain) {
            return self.write_known(text);
        }
        for c in text.chars() {
            let forges = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
            self.0.write_char(if forges { '?' } else { c })?;
        }
        Ok(())
    }
}

/// Writes an address so that it cannot end the angle brackets around it: ORCPT and quoted local
/// parts, which any sender chooses, may contain anything.
fn write_bracketed(writer: &mut Plain<'_>, address: &str) -> fmt::Result {
    let mut rest = address;
    while let Some(at) = memchr::memchr2(b'<', b'>', rest.as_bytes()) {
        writer.write_str(rest.get(..at).unwrap_or_default())?;
        writer.write_known("?")?;
        rest = rest.get(at + 1..).unwrap_or_default();
    }
    writer.write_str(rest)
}

/// Writes a path that ends at the next blank or comma: those in it, which may come from an address,
/// as a backslash with three octal digits.
fn write_one_word(writer: &mut Plain<'_>, path: &str) -> fmt::Result {
    let mut rest = path;
    while let Some(at) = memchr::memchr2(b' ', b',', rest.as_bytes()) {
        writer.write_str(rest.get(..at).unwrap_or_default())?;
        let is_blank = rest.as_bytes().get(at) == Some(&b' ');
        writer.write_known(if is_blank { "\\040" } else { "\\054" })?;
        rest = rest.get(at + 1..).unwrap_or_default();
    }
    writer.write_str(rest)
}

struct Fields<'w> {
    writer: Plain<'w>,
    delivery: bool,
    count: usize,
    result: fmt::Result,
}

impl Fields<'_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if self.result.is_ok() {
            self.result = if self.delivery {
                self.write_named(field.name(), value)
            } else {
                self.write_other(field.name(), value)
            };
        }
        self.count += 1;
    }

    fn write_named(&mut self, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
        for known in [", ", name, "="] {
            self.writer.write_known(known)?;
        }
        self.writer.write_fmt(value)
    }

    /// A text of a delivery. There are a dozen of them in each line, and one line for each
    /// delivery: hence no formatting here.
    fn write_delivery(&mut self, name: &str, value: &str) -> fmt::Result {
        let writer = &mut self.writer;
        let (before, after) = match name {
            "queue_id" => ("", ":"),
            "orig_to" | "mailbox" if value.is_empty() => return Ok(()),
            "to" => (" to=<", ">"),
            "orig_to" => (", orig_to=<", ">"),
            "from" => (", from=<", ">"),
            "text" => (" (", ")"),
            _ => {
                for known in [", ", name, "="] {
                    writer.write_known(known)?;
                }
                ("", "")
            }
        };
        writer.write_known(before)?;
        match name {
            "to" | "orig_to" | "from" => write_bracketed(writer, value)?,
            "mailbox" => write_one_word(writer, value)?,
            _ => writer.write_str(value)?,
        }
        writer.write_known(after)
    }

    fn write_other(&mut self, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
        let blank = if self.count == 0 { "" } else { " " };
        if name == "message" {
            write!(self.writer, "{blank}{value}")
        } else {
            write!(self.writer, "{blank}{name}={value}")
        }
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if !self.delivery {
            return self.write(field, format_args!("{value}"));
        }
        if self.result.is_ok() {
            self.result = self.write_delivery(field.name(), value);
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.write(field, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DeliveryLine, Log};
    use super::*;
    use mailstow_engine::Status;
    use std::io::Read;
    use std::time::Duration;
    use tracing_subscriber::fmt::SubscriberBuilder;

    fn logged(emit: impl FnOnce()) -> String {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let log = Log::start(writer).unwrap();
        let line = TextLine { with_time: false };
        let subscriber = SubscriberBuilder::default()
            .with_writer(log.clone())
            .event_format(line)
            .finish();
        tracing::subscriber::with_default(subscriber, emit);
        log.finish(Duration::from_secs(10));
        let mut bytes = vec![0; 4096];
        let count = reader.read(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    fn delivery(to: &str, orig_to: &str, from: &str, mailbox: &str) -> String {
        let status = Status::ok("delivered to maildir");
        logged(|| {
            DeliveryLine {
                queue_id: "4F1",
                id: "ABC",
                to,
                orig_to,
                from,
                mailbox,
                size: 1505,
                received: Duration::from_millis(12),
                queued: Duration::ZERO,
                stored: Duration::from_micros(3_450),
                status: &status,
                reason: "",
                client: "unix",
                session: "S1",
            }
            .emit();
        })
    }

    #[test]
    fn an_address_cannot_forge_a_field() {
        let forged = "\"a>, status=sent (x)\"@x";
        let line = delivery(forged, "b>, to=<c", forged, "/m/a, status=sent (x)/");
        assert!(
            line.starts_with(
                "4F1: to=<\"a?, status=sent (x)\"@x>, orig_to=<b?, to=?c>, \
                 from=<\"a?, status=sent (x)\"@x>, mailbox=/m/a\\054\\040status=sent\\040(x)/, "
            ),
            "{line}"
        );
    }

    #[test]
    fn a_delivery_reads_as_in_a_postfix_log() {
        let line = delivery("\"a b\"@x", "info@x", "", "/m/x/info/");
        assert_eq!(
            line,
            "4F1: to=<\"a b\"@x>, orig_to=<info@x>, from=<>, mailbox=/m/x/info/, size=1505, \
             delay=0.0155, delays=0.012/0/0.0035, dsn=2.0.0, code=250, client=unix, session=S1, \
             id=ABC, status=sent (delivered to maildir)\n"
        );
    }

    #[test]
    fn no_value_breaks_the_line() {
        let line = logged(|| tracing::warn!(name = "a\nb\u{2028}c", "lost\r\nfound"));
        assert_eq!(line, "WARN: lost??found name=a?b?c\n");
    }
}
