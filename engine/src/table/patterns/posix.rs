//! POSIX regular expressions through regcomp(3) and regexec(3), the functions Postfix calls.
//!
//! They follow the process's `LC_CTYPE`; a program that never calls setlocale(3), as mailstow and
//! Postfix, runs in the C locale, where a character is a byte. A search cannot be given up: where
//! it may take long it is not begun, unless that was asked for.
#![allow(
    unsafe_code,
    reason = "the C library's regular expressions have no safe interface"
)]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ops::Range;

use super::effort::{Effort, Unsearched};
use super::posix_size::{refers_back, weight};
use crate::sync::Mutex;

/// Flags of `regcomp`.
pub(in crate::table) use libc::{REG_EXTENDED, REG_ICASE, REG_NEWLINE, REG_NOSUB};

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

/// Bytes that one compiled form is searched in before it is made anew: the states that it keeps
/// of earlier searches would fill the memory, for some patterns one for each byte.
const SEARCHED_BYTES_MAX: usize = 32 * 1024;

/// Cost of a search, as estimated here, that may be done at once; a few milliseconds.
const BRIEF_COST_MAX: u64 = 200_000_000;

/// A pattern.
pub(in crate::table) struct PosixPattern {
    text: CString,
    flags: libc::c_int,
    groups: usize,
    weight: u64,
    refers_back: bool,
    /// Compiled forms that no thread uses: two threads in one would wait for each other.
    idle: Mutex<Vec<Compiled>>,
}

/// A compiled form of a pattern, for one thread at a time.
struct Compiled {
    regex: Box<libc::regex_t>,
    searched_bytes: usize,
}

// SAFETY: a compiled pattern is plain memory, tied to no thread.
unsafe impl Send for Compiled {}

impl PosixPattern {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// The text of regerror(3), or why it is not compiled.
    pub(in crate::table) fn compile(pattern: &CStr, flags: libc::c_int) -> Result<Self, String> {
        let is_extended = flags & REG_EXTENDED != 0;
        let weight = weight(pattern.to_bytes(), is_extended)
            .map_err(|cause| format!("{cause}; simplify it"))?;
        let compiled = Compiled::new(pattern, flags)?;
        Ok(Self {
            text: pattern.to_owned(),
            flags,
            groups: compiled.groups(),
            weight,
            refers_back: refers_back(pattern.to_bytes()),
            idle: Mutex::new(vec![compiled]),
        })
    }

    /// How many groups the pattern has.
    pub(in crate::table) fn groups(&self) -> usize {
        self.groups
    }

    /// True when a search may take for ever, and cannot be given up.
    pub(in crate::table) fn is_unbounded(&self) -> bool {
        self.refers_back
    }

    /// The set of places a match can be in costs its square to make, at worst at each byte of the
    /// subject, and a search begins at each byte.
    fn is_brief(&self, subject_bytes: usize) -> bool {
        let bytes = u64::try_from(subject_bytes).unwrap_or(u64::MAX);
        let states = self.weight.saturating_add(bytes);
        let cost = self.weight.saturating_mul(bytes).saturating_mul(states);
        !self.refers_back && cost <= BRIEF_COST_MAX
    }

    /// Searches `subject`; on a match the spans of groups 0 to `groups_max` are put into
    /// `groups` (none when `groups_max` is 0).
    ///
    /// # Errors
    /// The search may take more than `effort`, or could not be done (the text of regerror(3)).
    pub(in crate::table) fn find(
        &self,
        subject: &CStr,
        effort: Effort,
        groups_max: usize,
        groups: &mut Vec<Option<Range<usize>>>,
    ) -> Result<bool, Unsearched> {
        let bytes = subject.to_bytes().len();
        if effort == Effort::Brief && !self.is_brief(bytes) {
            return Err(Unsearched::Slow);
        }
        let idle = self.idle.lock().pop();
        let mut compiled = match idle {
            Some(compiled) => compiled,
            None => Compiled::new(&self.text, self.flags).map_err(Unsearched::Failed)?,
        };
        let found = compiled.find(subject, groups_max, groups);
        compiled.searched_bytes += bytes;
        if compiled.searched_bytes < SEARCHED_BYTES_MAX {
            self.idle.lock().push(compiled);
        }
        found.map_err(Unsearched::Failed)
    }
}

impl Compiled {
    fn new(pattern: &CStr, flags: libc::c_int) -> Result<Self, String> {
        let mut compiled = Box::new(MaybeUninit::<libc::regex_t>::zeroed());
        // SAFETY: the pattern ends in NUL, and regcomp initialises what the first argument
        // points to, memory of the right size and alignment.
        let status = unsafe { libc::regcomp(compiled.as_mut_ptr(), pattern.as_ptr(), flags) };
        if status != 0 {
            // On failure regcomp has freed what it allocated; there is nothing to regfree.
            return Err(error_text(status));
        }
        Ok(Self {
            // SAFETY: regcomp succeeded, so the structure is initialised.
            regex: unsafe { compiled.assume_init() },
            searched_bytes: 0,
        })
    }

    fn groups(&self) -> usize {
        let head: *const Head = (&raw const *self.regex).cast();
        // SAFETY: `Head` is a prefix of the initialised regex_t (sizes and alignment asserted
        // above), and usize has no invalid values.
        unsafe { (*head).re_nsub }
    }

    fn find(
        &mut self,
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
                &raw const *self.regex,
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

impl Drop for Compiled {
    fn drop(&mut self) {
        // SAFETY: compiled by regcomp and freed once, here.
        unsafe { libc::regfree(&raw mut *self.regex) };
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
        let found = pattern
            .find(subject, Effort::Brief, max, &mut groups)
            .unwrap();
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
                        let found = pattern.find(c"u42@d", Effort::Brief, 1, &mut groups);
                        assert_eq!(found, Ok(true));
                        assert_eq!(groups[1], Some(1..3));
                    }
                });
            }
        });
    }

    #[test]
    fn a_search_that_may_take_long_is_not_begun_unless_that_is_asked_for() {
        let subject = CString::new("a".repeat(40)).unwrap();
        let mut groups = Vec::new();
        for (pattern, brief) in [
            (c"^(.*)@([a-z.]+)$", true),
            (c"(^|.*[.])(some|other)[.]example$", true),
            (c"(a?)(a*)\\2", false),
            (c"(a{0,30}){0,30}", false),
        ] {
            let pattern = PosixPattern::compile(pattern, REG_EXTENDED).unwrap();
            let found = pattern.find(&subject, Effort::Brief, 0, &mut groups);
            assert_eq!(found == Err(Unsearched::Slow), !brief, "{:?}", pattern.text);
        }
        let pattern = PosixPattern::compile(c"^(a?)a*\\1$", REG_EXTENDED).unwrap();
        let found = pattern.find(&subject, Effort::Full, 0, &mut groups);
        assert_eq!(found, Ok(true));
    }

    #[test]
    fn a_compiled_form_is_made_anew_before_its_states_fill_the_memory() {
        let pattern = PosixPattern::compile(c"(a|b)*a(a|b){14}c", REG_EXTENDED).unwrap();
        let mut groups = Vec::new();
        let mut searched = 0;
        for number in 0..200_u32 {
            let text: String = (0..1000_u32)
                .map(|at| {
                    let bit = (at * 7 + number * 13 + at * at * number) % 3;
                    if bit == 0 { 'b' } else { 'a' }
                })
                .collect();
            let text = CString::new(text).unwrap();
            let found = pattern.find(&text, Effort::Full, 0, &mut groups);
            assert_eq!(found, Ok(false));
            searched += 1000;
            let kept: usize = pattern.idle.lock().iter().map(|c| c.searched_bytes).sum();
            assert!(kept < SEARCHED_BYTES_MAX && kept <= searched, "{kept}");
        }
    }
}
