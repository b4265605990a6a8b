//! POSIX regular expressions through regcomp(3) and regexec(3), the functions Postfix calls.
//!
//! Imports nothing of the engine. They follow the process's `LC_CTYPE`; a program that never
//! calls setlocale(3), as mailstow and Postfix, runs in the C locale, where a character is a
//! byte.
#![allow(
    unsafe_code,
    reason = "the C library's regular expressions have no safe interface"
)]

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Flags of `regcomp`.
pub(super) use libc::{REG_EXTENDED, REG_ICASE, REG_NEWLINE, REG_NOSUB};

/// The beginning of `regex_t`, down to the one member POSIX names, `re_nsub`, which the libc
/// crate keeps private.
#[cfg(target_env = "gnu")]
#[repr(C)]
struct Head {
    buffer: *mut libc::c_void,
    allocated: libc::size_t,
    used: libc::size_t,
    syntax: libc::c_ulong,
    fastmap: *mut libc::c_char,
    translate: *mut libc::c_char,
    re_nsub: libc::size_t,
}

#[cfg(not(target_env = "gnu"))]
#[repr(C)]
struct Head {
    re_nsub: libc::size_t,
}

const _: () = assert!(size_of::<Head>() <= size_of::<libc::regex_t>());
const _: () = assert!(align_of::<Head>() <= align_of::<libc::regex_t>());

/// A compiled pattern.
pub(super) struct PosixPattern(Box<libc::regex_t>);

// SAFETY: a compiled pattern is plain memory, tied to no thread.
unsafe impl Send for PosixPattern {}
// SAFETY: POSIX lets several threads call regexec(3) with one compiled pattern; regcomp(3) and
// regfree(3) are called by the owner alone, before and after it is shared.
unsafe impl Sync for PosixPattern {}

impl PosixPattern {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// The text of regerror(3).
    pub(super) fn compile(pattern: &CStr, flags: libc::c_int) -> Result<Self, String> {
        let mut compiled = Box::new(MaybeUninit::<libc::regex_t>::zeroed());
        // SAFETY: the pattern ends in NUL, and regcomp initialises what the first argument
        // points to, memory of the right size and alignment.
        let status = unsafe { libc::regcomp(compiled.as_mut_ptr(), pattern.as_ptr(), flags) };
        if status != 0 {
            // On failure regcomp has freed what it allocated; there is nothing to regfree.
            return Err(error_text(status));
        }
        // SAFETY: regcomp succeeded, so the structure is initialised.
        Ok(Self(unsafe { compiled.assume_init() }))
    }

    /// How many groups the pattern has.
    pub(super) fn groups(&self) -> usize {
        let head: *const Head = (&raw const *self.0).cast();
        // SAFETY: `Head` is a prefix of the initialised regex_t (sizes and alignment asserted
        // above), and usize has no invalid values.
        unsafe { (*head).re_nsub }
    }

    /// Searches `subject`; on a match the spans of groups 0 to `groups_max` are put into
    /// `groups` (none when `groups_max` is 0).
    ///
    /// # Errors
    /// The text of regerror(3): the search could not be done.
    pub(super) fn find(
        &self,
        subject: &CStr,
        groups_max: usize,
        groups: &mut Vec<Option<Range<usize>>>,
    ) -> Result<bool, String> {
        let count = if groups_max == 0 { 0 } else { groups_max + 1 };
        let unset = libc::regmatch_t {
            rm_so: -1,
            rm_eo: -1,
        };
        let mut spans = vec![unset; count];
        // SAFETY: the pattern is compiled, the subject ends in NUL, and `spans` has room for
        // `count` spans (regexec writes no more).
        let status = unsafe {
            libc::regexec(
                &raw const *self.0,
                subject.as_ptr(),
                count,
                spans.as_mut_ptr(),
                0,
            )
        };
        match status {
            0 => {
                groups.clear();
                groups.extend(spans.iter().map(|span| {
                    let start = usize::try_from(span.rm_so).ok()?;
                    Some(start..usize::try_from(span.rm_eo).ok()?)
                }));
                Ok(true)
            }
            libc::REG_NOMATCH => Ok(false),
            status => Err(error_text(status)),
        }
    }
}

impl Drop for PosixPattern {
    fn drop(&mut self) {
        // SAFETY: compiled by regcomp and freed once, here.
        unsafe { libc::regfree(&raw mut *self.0) };
    }
}

fn error_text(status: libc::c_int) -> String {
    let mut text = [0_u8; 256];
    // SAFETY: a null pattern is allowed, and the buffer has the length that is passed.
    unsafe {
        libc::regerror(
            status,
            std::ptr::null(),
            text.as_mut_ptr().cast(),
            text.len(),
        )
    };
    match CStr::from_bytes_until_nul(&text) {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => format!("regular expression error {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pattern: &CStr, flags: libc::c_int, subject: &CStr, max: usize) -> Option<Vec<String>> {
        let pattern = PosixPattern::compile(pattern, flags).unwrap();
        let mut groups = Vec::new();
        let found = pattern.find(subject, max, &mut groups).unwrap();
        let text = subject.to_str().unwrap();
        found.then(|| {
            let text_of =
                |g: &Option<Range<usize>>| g.clone().map_or("-".to_owned(), |g| text[g].to_owned());
            groups.iter().map(text_of).collect()
        })
    }

    #[test]
    fn groups_are_counted_and_found() {
        let pattern = PosixPattern::compile(c"^(a+)(b)?-(.*)$", REG_EXTENDED).unwrap();
        assert_eq!(pattern.groups(), 3);
        assert_eq!(
            find(c"^(a+)(b)?-(.*)$", REG_EXTENDED, c"aa-xyz", 3).unwrap(),
            ["aa-xyz", "aa", "-", "xyz"]
        );
        assert_eq!(find(c"^(a)$", REG_EXTENDED, c"b", 1), None);
        assert_eq!(find(c"a", REG_EXTENDED | REG_ICASE, c"A", 0), Some(vec![]));
        assert_eq!(
            find(c"\\(a\\)", 0, c"xa", 1),
            Some(vec!["a".to_owned(), "a".to_owned()])
        );
    }

    #[test]
    fn a_bad_pattern_says_why() {
        for bad in [c"(", c"[a", c"a{2,1}"] {
            assert!(
                !PosixPattern::compile(bad, REG_EXTENDED)
                    .err()
                    .unwrap()
                    .is_empty()
            );
        }
    }

    #[test]
    fn one_pattern_serves_many_threads() {
        let pattern = PosixPattern::compile(c"^u([0-9]+)@", REG_EXTENDED).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut groups = Vec::new();
                    for _ in 0..200 {
                        assert!(pattern.find(c"u42@d", 1, &mut groups).unwrap());
                        assert_eq!(groups[1], Some(1..3));
                    }
                });
            }
        });
    }
}
