//! What a check found.

use std::fmt;

/// What a check found: errors keep mail from being stored, warnings do not.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<String>,
    pub(super) warnings: Vec<String>,
    /// What was not looked at, and why that is no fault.
    pub(super) notes: Vec<String>,
    /// A setting that could not be read is missing: what is empty may be so for that reason.
    pub(super) partial: bool,
}

impl Findings {
    pub(super) fn error(&mut self, text: impl fmt::Display) {
        add(&mut self.errors, text.to_string());
    }

    /// An error about something that is not set at all.
    pub(super) fn unset(&mut self, text: impl fmt::Display) {
        if !self.partial {
            self.error(text);
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    pub(super) fn warning(&mut self, text: impl fmt::Display) {
        add(&mut self.warnings, text.to_string());
    }

    pub(super) fn note(&mut self, text: impl fmt::Display) {
        add(&mut self.notes, text.to_string());
    }
}

/// One line per finding, each once.
fn add(findings: &mut Vec<String>, text: String) {
    let text = text.replace('\n', " ");
    if !findings.contains(&text) {
        findings.push(text);
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(f, "error: {error}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let plural = |count: usize, word: &str| match count {
            1 => format!("1 {word}"),
            _ => format!("{count} {word}s"),
        };
        let errors = plural(self.errors.len(), "error");
        let warnings = plural(self.warnings.len(), "warning");
        match (self.errors.len(), self.warnings.len()) {
            (0, 0) => writeln!(f, "everything is in order"),
            (0, _) => writeln!(f, "{warnings}; mailstow serve works"),
            (_, _) => writeln!(f, "{errors}, {warnings}; fix the errors first"),
        }
    }
}
