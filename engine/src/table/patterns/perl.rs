//! Perl-compatible regular expressions through the PCRE2 library, as Postfix 3.7 calls it.
//!
//! The safe wrapper crate does not support `ANCHORED`, `DOLLAR_ENDONLY` and `UNGREEDY`, which
//! pcre_table(5) has as flags, nor limits of single searches; hence the C interface. Patterns and
//! subjects are bytes (`PCRE2_UTF` is off, as in Postfix). Patterns are compiled to machine code
//! where the system permits that. Every search ends: it is counted, and given up at a limit.
#![allow(
    unsafe_code,
    reason = "flags of pcre_table(5) that no safe interface offers"
)]

use std::ops::Range;
use std::ptr::{NonNull, null_mut};

use pcre2_sys::{
    PCRE2_ERROR_DEPTHLIMIT, PCRE2_ERROR_HEAPLIMIT, PCRE2_ERROR_JIT_STACKLIMIT,
    PCRE2_ERROR_MATCHLIMIT, PCRE2_ERROR_NOMATCH, PCRE2_INFO_CAPTURECOUNT, PCRE2_JIT_COMPLETE,
    PCRE2_NO_JIT, pcre2_code_8, pcre2_code_free_8, pcre2_compile_8, pcre2_get_error_message_8,
    pcre2_get_ovector_count_8, pcre2_get_ovector_pointer_8, pcre2_jit_compile_8, pcre2_match_8,
    pcre2_match_context_8, pcre2_match_context_create_8, pcre2_match_context_free_8,
    pcre2_match_data_8, pcre2_match_data_create_8, pcre2_match_data_free_8, pcre2_pattern_info_8,
    pcre2_set_depth_limit_8, pcre2_set_heap_limit_8, pcre2_set_match_limit_8,
};

use super::effort::{Effort, Unsearched};
use crate::limits::{PATTERN_BRIEF_STEPS_MAX, PATTERN_HEAP_KIB_MAX, PATTERN_STEPS_MAX};
use crate::sync::LazyLock;

/// Flags of `pcre2_compile`.
pub(in crate::table) use pcre2_sys::{
    PCRE2_ANCHORED, PCRE2_CASELESS, PCRE2_DOLLAR_ENDONLY, PCRE2_DOTALL, PCRE2_EXTENDED,
    PCRE2_MULTILINE, PCRE2_UNGREEDY,
};

/// A compiled pattern.
pub(in crate::table) struct PerlPattern(NonNull<pcre2_code_8>);

// SAFETY: compiled code is plain memory, tied to no thread.
unsafe impl Send for PerlPattern {}
// SAFETY: pcre2api(3) "MULTITHREADING": compiled code, machine code too, is read-only while
// matching; the latter is made before the pattern is shared. What a match writes is in its
// `Scratch`.
unsafe impl Sync for PerlPattern {}

impl PerlPattern {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// PCRE2's text, with the offset.
    pub(in crate::table) fn compile(pattern: &[u8], flags: u32) -> Result<Self, String> {
        let mut error = 0;
        let mut offset = 0;
        // SAFETY: pointer and length describe `pattern`; both out-pointers are valid; a null
        // context asks for the defaults.
        let code = unsafe {
            pcre2_compile_8(
                pattern.as_ptr(),
                pattern.len(),
                flags,
                &raw mut error,
                &raw mut offset,
                null_mut(),
            )
        };
        let Some(code) = NonNull::new(code) else {
            return Err(format!("{} at offset {offset}", error_text(error)));
        };
        // Where there is no memory to be executed, searches are interpreted; the answers are the
        // same.
        // SAFETY: the code is valid and not shared yet.
        unsafe { pcre2_jit_compile_8(code.as_ptr(), PCRE2_JIT_COMPLETE) };
        Ok(Self(code))
    }

    /// How many groups the pattern has.
    pub(in crate::table) fn groups(&self) -> usize {
        let mut count = 0_u32;
        // SAFETY: the code is valid, and this item is written as one u32.
        unsafe {
            pcre2_pattern_info_8(
                self.0.as_ptr(),
                PCRE2_INFO_CAPTURECOUNT,
                (&raw mut count).cast(),
            )
        };
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    /// Searches `subject`; on a match the spans of the groups (as many as `scratch` has room
    /// for) are put into `groups`.
    ///
    /// # Errors
    /// The search takes more than `effort`, or could not be done.
    pub(in crate::table) fn find(
        &self,
        subject: &[u8],
        effort: Effort,
        scratch: &mut Scratch,
        groups: &mut Vec<Option<Range<usize>>>,
    ) -> Result<bool, Unsearched> {
        let mut status = self.search(subject, effort, scratch, 0);
        if status == PCRE2_ERROR_JIT_STACKLIMIT {
            status = self.search(subject, effort, scratch, PCRE2_NO_JIT);
        }
        match status {
            PCRE2_ERROR_NOMATCH => Ok(false),
            PCRE2_ERROR_MATCHLIMIT | PCRE2_ERROR_DEPTHLIMIT | PCRE2_ERROR_HEAPLIMIT => {
                Err(Unsearched::Slow)
            }
            error if error < 0 => Err(Unsearched::Failed(error_text(error))),
            _ => {
                groups.clear();
                groups.extend(scratch.spans(self.groups()));
                Ok(true)
            }
        }
    }

    fn search(&self, subject: &[u8], effort: Effort, scratch: &Scratch, flags: u32) -> i32 {
        let limits = match effort {
            Effort::Brief => &BRIEF,
            Effort::Full => &FULL,
        };
        // Without memory for it there is none for the search.
        let Some(limits) = limits.as_ref() else {
            return PCRE2_ERROR_HEAPLIMIT;
        };
        // SAFETY: code and match data are valid and the latter is ours alone; pointer and length
        // describe `subject`; the context is valid and never changed.
        unsafe {
            pcre2_match_8(
                self.0.as_ptr(),
                subject.as_ptr(),
                subject.len(),
                0,
                flags,
                scratch.0.as_ptr(),
                limits.0.as_ptr(),
            )
        }
    }
}

/// How much a search may take.
struct Limits(NonNull<pcre2_match_context_8>);

// SAFETY: plain memory, tied to no thread.
unsafe impl Send for Limits {}
// SAFETY: never changed once it is made; a search only reads it (no JIT stack is assigned).
unsafe impl Sync for Limits {}

/// Those of [`Effort::Brief`].
static BRIEF: LazyLock<Option<Limits>> = LazyLock::new(|| Limits::new(PATTERN_BRIEF_STEPS_MAX));
/// Those of [`Effort::Full`].
static FULL: LazyLock<Option<Limits>> = LazyLock::new(|| Limits::new(PATTERN_STEPS_MAX));

impl Limits {
    fn new(steps: u32) -> Option<Self> {
        // SAFETY: a null context asks for the default allocator.
        let context = unsafe { pcre2_match_context_create_8(null_mut()) };
        let context = NonNull::new(context)?;
        // SAFETY: the context is valid and ours alone.
        unsafe { pcre2_set_match_limit_8(context.as_ptr(), steps) };
        // SAFETY: as above.
        unsafe { pcre2_set_depth_limit_8(context.as_ptr(), steps) };
        // SAFETY: as above.
        unsafe { pcre2_set_heap_limit_8(context.as_ptr(), PATTERN_HEAP_KIB_MAX) };
        Some(Self(context))
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        // SAFETY: made by pcre2_match_context_create and freed once, here.
        unsafe { pcre2_match_context_free_8(self.0.as_ptr()) };
    }
}

impl Drop for PerlPattern {
    fn drop(&mut self) {
        // SAFETY: made by pcre2_compile and freed once, here.
        unsafe { pcre2_code_free_8(self.0.as_ptr()) };
    }
}

/// Working memory of searches, for one thread at a time.
pub(in crate::table) struct Scratch(NonNull<pcre2_match_data_8>);

impl Scratch {
    /// With room for groups 0 to `groups_max`.
    ///
    /// # Errors
    /// Out of memory.
    pub(in crate::table) fn new(groups_max: usize) -> Result<Self, String> {
        let pairs = u32::try_from(groups_max.saturating_add(1)).unwrap_or(u32::MAX);
        // SAFETY: a null context asks for the default allocator.
        let data = unsafe { pcre2_match_data_create_8(pairs, null_mut()) };
        NonNull::new(data)
            .map(Self)
            .ok_or_else(|| "out of memory".to_owned())
    }

    /// The spans of the last match, which was of a pattern with `groups` groups; unset groups
    /// are `None`.
    fn spans(&self, groups: usize) -> impl Iterator<Item = Option<Range<usize>>> {
        // SAFETY: the match data is valid.
        let pairs = unsafe { pcre2_get_ovector_count_8(self.0.as_ptr()) };
        // SAFETY: the match data is valid.
        let offsets = unsafe { pcre2_get_ovector_pointer_8(self.0.as_ptr()) };
        let room = usize::try_from(pairs).unwrap_or(0);
        let len = room.min(groups.saturating_add(1)).saturating_mul(2);
        // SAFETY: the vector has room for `pairs` pairs of offsets, a match sets those of all
        // groups of its pattern, and it lives as long as the match data, which `self` borrows.
        let offsets = unsafe { std::slice::from_raw_parts(offsets, len) };
        offsets.chunks_exact(2).map(|pair| match pair {
            &[start, end] if start != usize::MAX && start <= end => Some(start..end),
            _ => None,
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: made by pcre2_match_data_create and freed once, here.
        unsafe { pcre2_match_data_free_8(self.0.as_ptr()) };
    }
}

fn error_text(error: libc::c_int) -> String {
    let mut text = [0_u8; 256];
    // SAFETY: pointer and length describe the buffer.
    let len = unsafe { pcre2_get_error_message_8(error, text.as_mut_ptr(), text.len()) };
    match usize::try_from(len).ok().and_then(|len| text.get(..len)) {
        Some(text) if !text.is_empty() => String::from_utf8_lossy(text).into_owned(),
        _ => format!("PCRE2 error {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pattern: &str, flags: u32, subject: &str) -> Option<Vec<String>> {
        let pattern = PerlPattern::compile(pattern.as_bytes(), flags).unwrap();
        let mut scratch = Scratch::new(pattern.groups()).unwrap();
        let mut groups = Vec::new();
        let found = pattern
            .find(subject.as_bytes(), Effort::Brief, &mut scratch, &mut groups)
            .unwrap();
        found.then(|| {
            let text_of = |g: &Option<Range<usize>>| {
                g.clone().map_or("-".to_owned(), |g| subject[g].to_owned())
            };
            groups.iter().map(text_of).collect()
        })
    }

    #[test]
    fn groups_are_counted_and_found() {
        assert_eq!(
            find("^(a+)(b)?-(.*)$", 0, "aa-xyz").unwrap(),
            ["aa-xyz", "aa", "-", "xyz"]
        );
        assert_eq!(find("^(a)$", 0, "b"), None);
        assert_eq!(find("(a)|(b)", 0, "a").unwrap(), ["a", "a", "-"]);
    }

    #[test]
    fn flags_reach_the_library() {
        assert_eq!(find("a", PCRE2_CASELESS, "A").unwrap(), ["A"]);
        assert_eq!(find("b", PCRE2_ANCHORED, "ab"), None);
        assert_eq!(find("a$", PCRE2_DOLLAR_ENDONLY, "a\n"), None);
        assert_eq!(find("a$", 0, "a\n").unwrap(), ["a"]);
        assert_eq!(find("a+", PCRE2_UNGREEDY, "aaa").unwrap(), ["a"]);
        assert_eq!(find("a b", PCRE2_EXTENDED, "ab").unwrap(), ["ab"]);
    }

    #[test]
    fn a_bad_pattern_says_why_and_where() {
        let error = PerlPattern::compile(b"a(b", 0).err().unwrap();
        assert!(error.ends_with("at offset 3"), "{error}");
    }

    #[test]
    fn a_search_that_backtracks_without_end_is_given_up() {
        let pattern = PerlPattern::compile(b"^(a+)+$", 0).unwrap();
        let mut scratch = Scratch::new(1).unwrap();
        let subject = [b'a'; 40].iter().chain(b"b").copied().collect::<Vec<_>>();
        for effort in [Effort::Brief, Effort::Full] {
            let answer = pattern.find(&subject, effort, &mut scratch, &mut Vec::new());
            assert_eq!(answer, Err(Unsearched::Slow), "{effort:?}");
        }
    }

    #[test]
    fn deep_recursion_is_given_up_or_done_without_machine_code() {
        let pattern = PerlPattern::compile(b"^(?:(a)|b)*$", 0).unwrap();
        let mut scratch = Scratch::new(1).unwrap();
        let subject = [b'a'; 1000];
        let mut groups = Vec::new();
        let found = pattern.find(&subject, Effort::Full, &mut scratch, &mut groups);
        assert_eq!(found, Ok(true));
        assert_eq!(groups[1], Some(999..1000));
    }
}
