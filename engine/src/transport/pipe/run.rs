//! One delivery by a command, from its words to the status of its recipients.

use super::arguments::Delivery;
use super::child::{self, Wanted};
use super::content;
use super::exchange::{Exchange, Stop, exit};
use super::outcome::{self, End};
use super::service::Service;
use crate::clock;
use crate::envelope::Recipient;
use crate::mail::Mail;
use crate::status::{EnhancedCode, Status};
use std::io;
use std::time::{Duration, Instant};

/// Delivers a message to recipients by one run of the command. Waits for it.
pub(super) fn run(
    service: &Service,
    mail: &Mail,
    nexthop: &str,
    recipients: &[&Recipient],
    deadline: Instant,
) -> Status {
    match deliver(service, mail, nexthop, recipients, deadline) {
        Ok(status) | Err(status) => status,
    }
}

fn deliver(
    service: &Service,
    mail: &Mail,
    nexthop: &str,
    recipients: &[&Recipient],
    deadline: Instant,
) -> Result<Status, Status> {
    let attributes = &service.attributes;
    let flags = attributes.flags;
    let Some(first) = recipients.first() else {
        return Err(Status::system("a request without recipients"));
    };
    if (flags.delivered_to || flags.original_to) && recipients.len() > 1 {
        tracing::error!(
            "flags D and O of service {0} need {0}_destination_recipient_limit = 1",
            service.name
        );
        return Err(Status::configuration("mail system configuration error"));
    }
    if attributes.size_limit > 0 && mail.message.wire_size() > attributes.size_limit {
        let code = EnhancedCode::new(5, 2, 3);
        return Err(Status::new(552, code, "message too large"));
    }
    if flags.delivered_to && content::is_loop(mail, first) {
        let text = format!("mail forwarding loop for {}", first.address.internal());
        return Err(Status::new(550, EnhancedCode::new(5, 4, 6), text));
    }
    let argv = service.template.expand(&Delivery {
        mail,
        nexthop,
        recipients,
        flags,
        null_sender: &attributes.null_sender,
        extensions: &service.extensions,
    });
    let wanted = Wanted {
        argv: &argv,
        environment: &service.environment,
        directory: &service.directory,
        owner: service.owner,
    };
    let times = (service.time_limit, deadline);
    let (end, output) = exchange(&wanted, times, |exchange| {
        content::render(mail, first, attributes, |piece| exchange.give(piece))
    })
    .map_err(|failed| match failed {
        Failed::Start(error) => not_started(service, &error),
        Failed::Content(error) => not_given(&error),
    })?;
    let command = service.command();
    Ok(outcome::status(&service.name, command, end, &output))
}

/// Why a command has no exit status.
pub(super) enum Failed {
    /// It cannot be started.
    Start(io::Error),
    /// The message cannot be written to it. It was killed: a command that has a part of the message
    /// must not succeed.
    Content(io::Error),
}

/// Runs a command, to which `give` writes the message, and waits for its end. Returns that, and its
/// output. The command may run for this long, and until the deadline.
pub(super) fn exchange(
    wanted: &Wanted<'_>,
    (time_limit, deadline): (Duration, Instant),
    give: impl FnOnce(&mut Exchange) -> Result<(), Stop>,
) -> Result<(End, Vec<u8>), Failed> {
    let limit = clock::now() + time_limit;
    let started = child::start(wanted).map_err(Failed::Start)?;
    let mut exchange = Exchange::new(started, limit.min(deadline)).map_err(Failed::Start)?;
    let given = give(&mut exchange);
    let killed = match limit <= deadline {
        true => End::OverTimeLimit,
        false => End::OverDeadline,
    };
    let ended = match given {
        Ok(()) | Err(Stop::Unread) => exchange.finish(),
        Err(stop) => Err(stop),
    };
    let end = match ended {
        Ok(status) => match exit(status) {
            Ok(code) => End::Exited(code),
            Err(signal) => End::Killed(signal),
        },
        Err(Stop::Failed(error)) => return Err(Failed::Content(error)),
        Err(Stop::Deadline | Stop::Unread) => killed,
    };
    Ok((end, exchange.output().to_vec()))
}

/// Returns the status of a message that cannot be written to a command.
pub(super) fn not_given(error: &io::Error) -> Status {
    Status::system(format!("cannot give the message to a command: {error}"))
}

/// Returns the status when a command cannot be started: 4xx, where pipe(8) returns the mail.
fn not_started(service: &Service, error: &io::Error) -> Status {
    tracing::error!(
        "service {}: cannot run {}: {error}",
        service.name,
        service.command()
    );
    let text = format!(
        "cannot run the command of service {}: {error}",
        service.name
    );
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Status::configuration(text),
        _ => Status::system(text),
    }
}
