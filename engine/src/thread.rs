//! Starts the engine's threads.
//!
//! Invariant: no thread of the engine takes a signal: all are blocked in it, so that the handlers
//! of the program around the engine run on that program's threads, and no system call of a delivery
//! is interrupted.

use nix::sys::signal::{SigSet, SigmaskHow};
use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// Starts a thread; `name` is what tools show, at most 15 bytes of it.
///
/// # Errors
/// The system has no more threads for this user.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    without_signals(|| Builder::new().name(name.to_owned()).spawn(body))
}

/// As [`spawn`], with a stack of so many bytes.
///
/// # Errors
/// As there.
pub(crate) fn spawn_small<T: Send + 'static>(
    name: &str,
    stack_bytes: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let builder = Builder::new().name(name.to_owned());
    without_signals(|| builder.stack_size(stack_bytes).spawn(body))
}

/// As [`spawn`], in a scope.
///
/// # Errors
/// As there.
pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    without_signals(|| {
        Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, body)
    })
}

/// Runs `start` with all signals blocked in the calling thread: the threads it starts inherit
/// that, and the caller gets its own mask back.
pub(crate) fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    /// Gives the mask back also when `start` panics.
    struct Mask(Option<SigSet>);
    impl Drop for Mask {
        fn drop(&mut self) {
            if let Some(mask) = self.0.take() {
                let _ = mask.thread_set_mask();
            }
        }
    }
    let _mask = Mask(SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).ok());
    start()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The signals blocked in the calling thread, as a bit mask.
    fn blocked() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("SigBlk:"));
        let mask = line.and_then(|line| line.split_whitespace().nth(1));
        u64::from_str_radix(mask.unwrap(), 16).unwrap()
    }

    #[test]
    fn a_thread_of_the_engine_takes_no_signal_and_its_starter_all_it_took_before() {
        let before = blocked();
        let inside = spawn("mailstow-test", blocked).unwrap().join().unwrap();
        for signal in [1, 2, 10, 12, 13, 15, 17, 25] {
            assert_ne!(
                inside & (1 << (signal - 1)),
                0,
                "signal {signal}: {inside:x}"
            );
        }
        assert_eq!(blocked(), before);
        let scoped = std::thread::scope(|scope| {
            let thread = spawn_scoped(scope, "mailstow-test", blocked).unwrap();
            thread.join().unwrap()
        });
        assert_eq!(scoped, inside);
        let small = spawn_small("mailstow-test", 64 << 10, blocked).unwrap();
        assert_eq!(small.join().unwrap(), inside);
    }
}
