//! Commands: delivers mail as Postfix's pipe(8) does, and as local(8) does to commands.
//!
//! A command is a service of type pipe in master.cf. It gets the message on its standard input; its
//! exit status and its output give the outcome. Each running command has a thread of the service,
//! which waits for it; so the bounds of the service also bound the threads. Differences from
//! pipe(8): a command that cannot be started defers the mail; the outcome is known once the command
//! itself has ended, whatever processes it left behind; and at most 1 MiB of output is read.

mod arguments;
mod attributes;
mod child;
mod content;
mod exchange;
mod local_command;
mod local_commands;
mod outcome;
mod pool;
mod run;
mod running;
mod service;
#[cfg(test)]
mod tests;

use super::{Transport, TransportRequest};
use crate::config::{Settings, TransportService};
use crate::dsn::Disposition;
use crate::status::Status;
use crate::sync::Arc;
pub(super) use local_commands::LocalCommands;
use pool::{Job, Pool};
pub use running::kill_commands;
use service::Service;

/// A service of type pipe.
#[derive(Debug)]
pub(super) struct Pipe {
    /// The checked service; or why it can deliver no mail.
    service: Result<Arc<Service>, String>,
    name: String,
    pool: Pool,
}

/// Returns why a service of type pipe can deliver no mail; `None` when it can.
pub(crate) fn problem(service: &TransportService, settings: &Settings) -> Option<String> {
    match Service::new(service, settings) {
        Ok(service) => service.missing(),
        Err(problem) => Some(problem),
    }
}

impl Pipe {
    pub(super) fn new(service: &TransportService, settings: &Settings) -> Self {
        let checked = Service::new(service, settings).map(Arc::new);
        let limits = checked.as_ref().map_or((1, 1), |service| {
            (service.process_limit, service.concurrency_limit)
        });
        Self {
            service: checked,
            name: service.name.clone(),
            pool: Pool::new(limits),
        }
    }

    /// Returns true when both services are the same, also in the users, groups and settings that
    /// their configuration names.
    pub(super) fn does_as(&self, other: &Self) -> bool {
        self.service == other.service
    }

    /// Answers the waiting deliveries, and waits until the running commands have ended.
    pub(super) fn close(&self) {
        self.pool.close();
    }
}

impl Transport for Pipe {
    fn deliver(&self, request: TransportRequest) {
        let service = match &self.service {
            Ok(service) => service,
            Err(cause) => {
                tracing::error!("service {} of master.cf: {cause}", self.name);
                let text = format!("mail system configuration error: service {}", self.name);
                for recipient in &request.recipients {
                    let status = Status::configuration(text.clone());
                    request.done.answer(recipient.index, status);
                }
                return;
            }
        };
        let most = match service.recipient_limit {
            0 => usize::MAX,
            most => most,
        };
        let TransportRequest {
            mail,
            target,
            mut recipients,
            deadline,
            done,
        } = request;
        while !recipients.is_empty() {
            let rest = recipients.split_off(recipients.len().min(most));
            let group = std::mem::replace(&mut recipients, rest);
            // As Postfix counts: with one recipient for each run, a recipient is a destination.
            let destination = match (most, group.first()) {
                (1, Some(one)) => one.recipient.address.internal(),
                _ => target.nexthop.clone(),
            };
            let (service, mail) = (Arc::clone(service), Arc::clone(&mail));
            let nexthop = target.nexthop.clone();
            let disposition = match service.attributes.flags.is_final {
                true => Disposition::Delivered,
                false => Disposition::Relayed,
            };
            self.pool.push(Job {
                destination,
                recipients: group,
                deadline,
                done: done.clone(),
                disposition,
                work: Box::new(move |to| run::run(&service, &mail, &nexthop, to, deadline)),
            });
        }
    }
}
