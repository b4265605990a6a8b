//! The commands of local delivery: those of aliases, `.forward` files and `mailbox_command`.
//!
//! They share threads, as many as master.cf gives the service `local` processes.

use super::super::{CommandTarget, Transport, TransportRequest};
use super::local_command::{Manner, run};
use super::pool::{Job, Pool};
use super::service;
use crate::config::Settings;
use crate::dsn::Disposition;
use crate::status::Status;
use crate::sync::Arc;
use nix::unistd::{getegid, geteuid};

/// `local_destination_concurrency_limit` where master.cf has no service `local`.
const CONCURRENCY_LIMIT: usize = 2;
/// `default_process_limit`, likewise.
const PROCESS_LIMIT: usize = 100;

/// Runs commands for local recipients.
#[derive(Debug)]
pub(in crate::transport) struct LocalCommands {
    manner: Arc<Manner>,
    limits: (usize, usize),
    pool: Pool,
}

impl LocalCommands {
    pub(in crate::transport) fn new(settings: &Settings) -> Self {
        let mut services = settings.transport.services.iter();
        let service = services.find(|service| service.name == "local");
        let limits = service.map_or((PROCESS_LIMIT, CONCURRENCY_LIMIT), |service| {
            (service.process_limit.max(1), service.concurrency_limit)
        });
        let local = &settings.routing.local;
        let shell = local.local_command_shell.split_whitespace();
        Self {
            manner: Arc::new(Manner {
                environment: service::environment(settings),
                directory: service::directory(settings),
                filter: local.command_expansion_filter.clone(),
                shell: shell.map(str::to_owned).collect(),
                time_limit: local.command_time_limit,
                own: (geteuid().as_raw(), getegid().as_raw()),
            }),
            pool: Pool::new(limits),
            limits,
        }
    }

    /// Returns true when both run commands in the same way.
    pub(in crate::transport) fn does_as(&self, other: &Self) -> bool {
        self.manner == other.manner && self.limits == other.limits
    }

    /// Answers the waiting deliveries, and waits until the running commands have ended.
    pub(in crate::transport) fn close(&self) {
        self.pool.close();
    }
}

impl Transport for LocalCommands {
    fn deliver(&self, request: TransportRequest) {
        let Some(target) = CommandTarget::of_transport(&request.target) else {
            let text = "mail system configuration error: local delivery has no nexthop";
            for recipient in &request.recipients {
                let status = Status::configuration(text);
                request.done.answer(recipient.index, status);
            }
            return;
        };
        let (target, deadline) = (Arc::new(target), request.deadline);
        for recipient in request.recipients {
            let manner = Arc::clone(&self.manner);
            let (mail, target) = (Arc::clone(&request.mail), Arc::clone(&target));
            self.pool.push(Job {
                destination: target.user.clone(),
                recipients: vec![recipient],
                deadline,
                done: request.done.clone(),
                disposition: Disposition::Delivered,
                work: Box::new(move |to| match to.first() {
                    Some(recipient) => run(&manner, &mail, &target, recipient, deadline),
                    None => Status::system("a request without recipients"),
                }),
            });
        }
    }
}
