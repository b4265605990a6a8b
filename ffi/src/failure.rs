//! Why a call did nothing: a number, and for operators the problem, its place and the remedy.
//!
//! Problems that are in the log already are not repeated.

use crate::result::{MAILSTOW_CONFIG, MAILSTOW_MAP, MAILSTOW_STORE, MAILSTOW_TABLE, find};
use crate::result::{MAILSTOW_SYSTEM, mailstow_result};
use mailstow_engine::{ConfigError, EngineError, MapError, Origin, octets};
use std::ffi::CString;

/// A call that did nothing.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) result: mailstow_result,
    /// The problems; empty when the number is sufficient.
    pub(crate) problems: Vec<Problem>,
}

/// One problem, as C reads it.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) text: CString,
    pub(crate) file: Option<CString>,
    /// From 1; 0 when there is none.
    pub(crate) line: u32,
}

impl Failure {
    /// A failure with one text.
    pub(crate) fn new(result: mailstow_result, text: &str) -> Self {
        let problem = Problem {
            text: c_string(text),
            file: None,
            line: 0,
        };
        Self {
            result,
            problems: vec![problem],
        }
    }

    /// Returns the problems; the text of the number when there are no others.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        if !self.problems.is_empty() {
            return self.problems;
        }
        let text = find(self.result).map_or(c"unknown", |(_, text)| text);
        vec![Problem {
            text: text.to_owned(),
            file: None,
            line: 0,
        }]
    }
}

impl From<mailstow_result> for Failure {
    fn from(result: mailstow_result) -> Self {
        Self {
            result,
            problems: Vec::new(),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let problem = |problem: &mailstow_engine::Problem| {
            let (file, line) = match &problem.origin {
                Some(Origin::File { path, line }) => {
                    let file = CString::new(path.as_os_str().as_encoded_bytes()).ok();
                    (file, u32::try_from(*line).unwrap_or(0))
                }
                _ => (None, 0),
            };
            // A place that is no file becomes part of the text.
            let text = match (&file, &problem.origin) {
                (None, Some(origin)) => c_string(&format!("{origin}: {}", problem.text)),
                _ => c_string(&problem.text),
            };
            Problem { text, file, line }
        };
        Self {
            result: MAILSTOW_CONFIG,
            problems: error.problems.iter().map(problem).collect(),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let result = match &error {
            EngineError::Table(_) => MAILSTOW_TABLE,
            EngineError::Store(_) => MAILSTOW_STORE,
            _ => MAILSTOW_SYSTEM,
        };
        Self::new(result, &error.to_string())
    }
}

impl From<MapError> for Failure {
    fn from(error: MapError) -> Self {
        Self::new(MAILSTOW_MAP, &error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(MAILSTOW_SYSTEM, &error.to_string())
    }
}

/// Text in C's form: octets, cut at a NUL.
pub(crate) fn c_string(text: &str) -> CString {
    let mut bytes = octets::octets(text).into_owned();
    if let Some(nul) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(nul);
    }
    CString::new(bytes).unwrap_or_default()
}
