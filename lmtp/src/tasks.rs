//! Tasks of the server that must run as long as it does: begun again after a panic.
//!
//! A session that panics ends alone; a task that accepts connections, serves signals or answers for
//! the health of the server must not be missing.

use mailstow_engine::supervisor::Supervisor;
use std::future::Future;

/// Runs what `make` makes until that ends by itself; after a panic it is made anew. Must be called
/// in a tokio runtime with time.
pub(crate) fn keep<F>(supervisor: &Supervisor, name: &str, make: impl Fn() -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let supervisor = supervisor.clone();
    let watch = supervisor.watch(name);
    tokio::spawn(async move {
        while let Err(lost) = tokio::spawn(make()).await {
            // Else the runtime is being shut down.
            if !lost.is_panic() {
                return;
            }
            let Some(pause) = watch.panicked() else {
                return;
            };
            tokio::time::sleep(pause).await;
        }
        supervisor.forget(&watch);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_task_that_panics_is_made_anew_and_the_failure_shows() {
        let supervisor = Supervisor::default();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let runs = Arc::new(AtomicUsize::new(0));
        let make = move || {
            let (runs, tell) = (Arc::clone(&runs), tell.clone());
            async move {
                let run = runs.fetch_add(1, Ordering::SeqCst);
                tell.send(run).unwrap();
                assert!(run > 0, "planted");
                std::future::pending().await
            }
        };
        keep(&supervisor, "accept", make);
        assert_eq!(told.recv().await, Some(0));
        assert_eq!(told.recv().await, Some(1));
        let failures = supervisor.failures();
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].name, "accept");
    }
}
