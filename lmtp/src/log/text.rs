//! Events as text, one line each.
//!
//! Imports nothing of the crate. A delivery reads as in a Postfix log:
//! `QUEUEID: to=<user@example.com>, from=<sender@example.org>, ..., status=sent (text)`.
//! Under systemd's journal the lines carry no time of their own.

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

impl Write for Plain<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|b| (b' '..0x7f).contains(&b)) {
            return self.0.write_str(text);
        }
        for c in text.chars() {
            let forges = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
            self.0.write_char(if forges { '?' } else { c })?;
        }
        Ok(())
    }
}

/// Writes an address that cannot end the angle brackets around it: ORCPT and quoted local parts,
/// which anybody in the world chooses, hold what they like.
struct Bracketed<'a, 'w>(&'a mut Plain<'w>);

impl Write for Bracketed<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (n, part) in text.split(['<', '>']).enumerate() {
            if n > 0 {
                self.0.write_char('?')?;
            }
            self.0.write_str(part)?;
        }
        Ok(())
    }
}

/// Writes a path that ends at the next blank or comma: those in it, which may come from an address,
/// as a backslash with three octal digits.
struct OneWord<'a, 'w>(&'a mut Plain<'w>);

impl Write for OneWord<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive([' ', ',']) {
            match part.strip_suffix([' ', ',']) {
                None => self.0.write_str(part)?,
                Some(before) => {
                    let last = part.as_bytes().last().copied().unwrap_or(b' ');
                    write!(self.0, "{before}\\{last:03o}")?;
                }
            }
        }
        Ok(())
    }
}

struct Fields<'w> {
    writer: Plain<'w>,
    delivery: bool,
    count: usize,
    result: fmt::Result,
}

impl Fields<'_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>, is_empty: bool) {
        if self.result.is_err() {
            return;
        }
        self.result = if self.delivery {
            self.write_delivery(field.name(), value, is_empty)
        } else {
            self.write_other(field.name(), value)
        };
        self.count += 1;
    }

    fn write_delivery(
        &mut self,
        name: &str,
        value: fmt::Arguments<'_>,
        is_empty: bool,
    ) -> fmt::Result {
        match name {
            "queue_id" => write!(self.writer, "{value}:"),
            "orig_to" | "mailbox" if is_empty => Ok(()),
            "to" | "from" | "orig_to" => {
                let separator = if name == "to" { "" } else { "," };
                write!(self.writer, "{separator} {name}=<")?;
                write!(Bracketed(&mut self.writer), "{value}")?;
                self.writer.write_char('>')
            }
            "mailbox" => {
                self.writer.write_str(", mailbox=")?;
                write!(OneWord(&mut self.writer), "{value}")
            }
            "text" => write!(self.writer, " ({value})"),
            _ => write!(self.writer, ", {name}={value}"),
        }
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
        self.write(field, format_args!("{value}"), value.is_empty());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.write(field, format_args!("{value}"), false);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, format_args!("{value}"), false);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, format_args!("{value:?}"), false);
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
