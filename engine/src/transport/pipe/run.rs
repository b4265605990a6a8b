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
use std::time::Instant;

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
        return Err(Status::system("nobody to deliver to"));
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
    let limit = clock::now() + service.time_limit;
    let wanted = Wanted {
        argv: &argv,
        environment: &service.environment,
        directory: &service.directory,
        owner: service.owner,
    };
    let started = child::start(&wanted).map_err(|error| not_started(service, &error))?;
    let mut exchange = Exchange::new(started, limit.min(deadline))
        .map_err(|error| not_started(service, &error))?;
    let given = content::render(mail, first, attributes, |piece| exchange.give(piece));
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
        // A command that was given half of the message must not succeed: it is killed.
        Err(Stop::Failed(error)) => {
            let text = format!("cannot give the message to a command: {error}");
            return Err(Status::system(text));
        }
        Err(Stop::Deadline | Stop::Unread) => killed,
    };
    let command = service.command();
    Ok(outcome::status(
        &service.name,
        command,
        end,
        exchange.output(),
    ))
}

/// A command that cannot be started is our trouble, where pipe(8) returns the mail.
fn not_started(service: &Service, error: &std::io::Error) -> Status {
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
        std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => {
            Status::configuration(text)
        }
        _ => Status::system(text),
    }
}
