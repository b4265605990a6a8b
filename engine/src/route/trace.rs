//! How an answer came about: every key that was looked up, and what was made of the results.
//!
//! A trace that is off costs one comparison per step; look-ups for mail are made with it off.

use super::types::AddressClass;
use crate::status::Status;
use crate::table::LookupTable;
use std::fmt;

/// The steps of one resolution, in order.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    steps: Option<Vec<Step>>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The address was brought into canonical form.
    Canonical {
        /// As it was asked for.
        from: String,
        /// With a domain, without source routes.
        to: String,
    },
    /// A key was looked up in the tables of a parameter.
    Lookup {
        /// The parameter, such as `virtual_alias_maps`.
        parameter: &'static str,
        /// The key.
        key: String,
        /// The tables that were asked and did not have it.
        missed: Vec<String>,
        /// The table that decided.
        answer: Answer,
    },
    /// An alias was replaced by its members.
    Expanded {
        /// How many aliases led here.
        depth: usize,
        /// The alias.
        from: String,
        /// Its members, completed, with the extension that was propagated.
        to: Vec<String>,
    },
    /// An alias that contains itself is a member of itself, and is not expanded again.
    SelfMember {
        /// The alias.
        address: String,
    },
    /// Aliases that lead back to the first of them.
    Cycle {
        /// The first address, and those it leads to, ending with the first again.
        path: Vec<String>,
    },
    /// The address class of a domain.
    Class {
        /// The domain.
        domain: String,
        /// Its class.
        class: AddressClass,
        /// The parameter that lists it; none for the default class.
        listed_in: Option<&'static str>,
    },
    /// The address was changed while its transport was determined (`user%site@here`).
    Rerouted {
        /// The new recipient.
        to: String,
    },
    /// Transport and nexthop.
    Transport {
        /// Service name in `master.cf`.
        transport: String,
        /// Where it delivers to.
        nexthop: String,
        /// The parameter that decided.
        decided_by: &'static str,
    },
    /// From here on it is about this final recipient.
    Recipient(String),
    /// The reply for a client.
    Reply(Status),
}

/// What a table said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No table has the key.
    Nothing,
    /// A table has it.
    Value {
        /// `type:name`
        table: String,
        /// Line of its source, where it has one.
        line: Option<u32>,
        /// What it says.
        value: String,
    },
    /// A table failed.
    Error(String),
}

impl Trace {
    /// A trace that records nothing.
    pub const fn off() -> Self {
        Self { steps: None }
    }

    /// A trace that records every step.
    pub const fn on() -> Self {
        Self {
            steps: Some(Vec::new()),
        }
    }

    /// What was recorded.
    pub fn steps(&self) -> &[Step] {
        self.steps.as_deref().unwrap_or_default()
    }

    pub(crate) fn is_on(&self) -> bool {
        self.steps.is_some()
    }

    pub(crate) fn record(&mut self, step: impl FnOnce() -> Step) {
        if let Some(steps) = &mut self.steps {
            steps.push(step());
        }
    }
}

impl Answer {
    pub(crate) fn value(table: &dyn LookupTable, key: &str, value: &str) -> Self {
        Self::Value {
            table: table.name().to_owned(),
            line: table.line_of(key),
            value: value.to_owned(),
        }
    }
}

impl fmt::Display for Step {
    /// One line, as `mailstow resolve --explain` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Canonical { from, to } => write!(f, "canonical  {from} is {to}"),
            Self::Lookup {
                parameter,
                key,
                missed,
                answer,
            } => {
                write!(f, "lookup     {parameter}: \"{key}\" ")?;
                match answer {
                    Answer::Nothing => write!(f, "not in {}", missed.join(", ")),
                    Answer::Value {
                        table,
                        line: Some(line),
                        value,
                    } => {
                        write!(f, "is \"{value}\" in {table}, line {line}")
                    }
                    Answer::Value {
                        table,
                        line: None,
                        value,
                    } => {
                        write!(f, "is \"{value}\" in {table}")
                    }
                    Answer::Error(error) => write!(f, "failed: {error}"),
                }
            }
            Self::Expanded { depth, from, to } => {
                write!(
                    f,
                    "alias      {}{from} -> {}",
                    "  ".repeat(*depth),
                    to.join(", ")
                )
            }
            Self::SelfMember { address } => {
                write!(f, "alias      {address} is a member of itself and stays")
            }
            Self::Cycle { path } => write!(f, "cycle      {}", path.join(" -> ")),
            Self::Class {
                domain,
                class,
                listed_in: Some(parameter),
            } => {
                write!(f, "class      {domain} is {class}: it is in {parameter}")
            }
            Self::Class {
                domain,
                class,
                listed_in: None,
            } => {
                write!(f, "class      {domain} is {class}: no list has it")
            }
            Self::Rerouted { to } => write!(f, "rerouted   to {to}"),
            Self::Transport {
                transport,
                nexthop,
                decided_by,
            } => {
                write!(f, "transport  {transport}:{nexthop} by {decided_by}")
            }
            Self::Recipient(address) => write!(f, "recipient  {address}"),
            Self::Reply(status) => write!(f, "reply      {status}"),
        }
    }
}
