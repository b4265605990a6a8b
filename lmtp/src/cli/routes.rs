//! `mailstow routes`: the servers that mail goes on to, as the running server sees them.
//!
//! Exit status: 0 all of them take mail; 75 (EX_TEMPFAIL) one is down, or the server does not
//! answer; 69 and 78 as `mailstow health`.

use super::common::complain;
use super::health::{HealthArgs, answer};
use super::sysexits;
use serde_json::Value;
use std::io::{self, Write};
use std::process::ExitCode;

/// Runs the subcommand.
pub(super) fn run(args: &HealthArgs) -> ExitCode {
    let (health, status) = match answer(args) {
        Ok(answered) => answered,
        Err(status) => return status,
    };
    let Some(routes) = health.get("routes").and_then(Value::as_array) else {
        let text = health.get("text").and_then(Value::as_str);
        complain(format_args!("mailstow: {}", text.unwrap_or("no answer")));
        // A server that only begins or ends has no routes to show.
        return ExitCode::from(match status {
            0 => sysexits::TEMPORARY_FAILURE,
            status => status,
        });
    };
    let mut out = io::stdout().lock();
    // The exit status says it too, if this cannot be written.
    let _ = if args.json {
        writeln!(out, "{}", Value::Array(routes.clone()))
    } else {
        write!(out, "{}", table(routes))
    };
    if out.flush().is_err() {
        complain("mailstow: the answer could not be written");
    }
    match routes.iter().any(is_down) {
        true => ExitCode::from(sysexits::TEMPORARY_FAILURE),
        false => ExitCode::SUCCESS,
    }
}

fn is_down(route: &Value) -> bool {
    text(route, "state") == "down"
}

fn text<'a>(route: &'a Value, key: &str) -> &'a str {
    route.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The servers, one a line, for people.
fn table(routes: &[Value]) -> String {
    if routes.is_empty() {
        return "no mail was sent to other servers since the start\n".to_owned();
    }
    const COLUMNS: [(&str, &str); 7] = [
        ("busy", "BUSY"),
        ("idle", "IDLE"),
        ("waiting", "WAITING"),
        ("delivered_last_minute", "LAST-MINUTE"),
        ("delivered", "DELIVERED"),
        ("deferred", "DEFERRED"),
        ("refused", "REFUSED"),
    ];
    let servers = routes.iter().map(|route| text(route, "server").len());
    let width = servers.max().unwrap_or(0).max("SERVER".len());
    let mut out = format!("{:width$}  STATE", "SERVER");
    for (_, title) in COLUMNS {
        out += &format!("  {title}");
    }
    out.push('\n');
    for route in routes {
        out += &format!(
            "{:width$}  {:5}",
            text(route, "server"),
            text(route, "state")
        );
        for (key, title) in COLUMNS {
            let number = route.get(key).and_then(Value::as_u64).unwrap_or(0);
            let width = title.len();
            out += &format!("  {number:width$}");
        }
        out.push('\n');
        if is_down(route) {
            let number = |key| route.get(key).and_then(Value::as_f64).unwrap_or(0.0);
            let (since, next) = (number("down_for_s"), number("next_attempt_in_s").ceil());
            let cause = text(route, "cause");
            let next = match next > 0.0 {
                true => format!("in {next} s"),
                false => "with the next mail".to_owned(),
            };
            out += &format!("  down for {since} s, tried again {next}: {cause}\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_has_a_line_for_each_server_and_why_it_is_down() {
        let up = json!({"server": "lmtp:unix:/run/a", "state": "up", "delivered": 12});
        let down = json!({"server": "lmtp:[b]:24", "state": "down", "cause": "refused",
            "down_for_s": 3, "next_attempt_in_s": 0.5});
        let text = table(&[up, down]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[1].starts_with("lmtp:unix:/run/a  up  "), "{text}");
        assert_eq!(lines[3], "  down for 3 s, tried again in 1 s: refused");
        let due = json!({"server": "smtp:[b]:25", "state": "down", "cause": "refused",
            "down_for_s": 9, "next_attempt_in_s": 0});
        let text = table(&[due]);
        let end = "  down for 9 s, tried again with the next mail: refused\n";
        assert!(text.ends_with(end), "{text}");
        assert!(table(&[]).starts_with("no mail"));
    }
}
