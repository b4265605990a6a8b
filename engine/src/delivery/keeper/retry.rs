//! Mail that recovery could not put into its mailboxes is tried again.
//!
//! Imports `recovery`, `stuck`, `mailbox`, `io`.

use super::super::recovery::{Recovery, Trust};
use super::super::stuck::deliveries;
use super::Keeper;
use crate::io::Disk;
use crate::mailbox::{Known, MailboxSettings};
use std::fmt;

impl<H: fmt::Debug + Send + Sync> Keeper<H> {
    /// Deliveries that recovery could not do are tried again.
    pub(in crate::delivery) fn retry_stuck<D: Disk<Handle = H>>(
        &self,
        disk: &D,
        settings: &MailboxSettings,
        known: &Known,
    ) {
        if self.stuck.count() == 0 {
            return;
        }
        if let Ok(pass) = self.enter() {
            let recovery = Recovery {
                disk,
                settings,
                known,
                journal: pass.journal.as_ref(),
                file_systems: &self.file_systems,
                trust: Trust::WhatIsWhole,
            };
            self.retry_on(&recovery);
        }
    }

    /// As [`Self::retry_stuck`]; true when some were done.
    pub(super) fn retry_on<D: Disk<Handle = H>>(&self, recovery: &Recovery<'_, D>) -> bool {
        let before = self.stuck.deliveries();
        let waiting = self.stuck.take();
        let left = recovery.retry(&waiting).unwrap_or_else(|error| {
            tracing::error!(%error, "mail that waits since recovery was not tried again");
            waiting
        });
        let is_changed = deliveries(&left) < before;
        self.stuck.put(left, is_changed);
        is_changed
    }
}
