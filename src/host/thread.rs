//! Threads whose failure is reported and ends the VM.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

/// Called with one sentence when a thread fails. It ends the VM that the thread works for.
pub type OnDeath = Arc<dyn Fn(String) + Send + Sync>;

/// Starts a thread that runs `body`. If `body` returns `Err` or panics, the thread calls `on_death`.
///
/// # Errors
/// The host cannot start a thread (EAGAIN: a limit on threads or memory).
pub fn spawn(
    name: &str,
    on_death: OnDeath,
    body: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let thread = name.to_string();
    Builder::new().name(name.into()).spawn(move || watched(&thread, &*on_death, body))
}

/// Runs `body` on the calling thread, which the messages call `name`. An `Err` or a panic calls `on_death`.
pub fn watched(name: &str, on_death: &dyn Fn(String), body: impl FnOnce() -> Result<(), String>) {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => {}
        Ok(Err(why)) => on_death(format!("thread {name} died: {why}")),
        // The panic hook has already printed where.
        Err(_) => on_death(format!("thread {name} died: a bug in doorbell (see above)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_and_an_error_are_deaths_and_an_end_is_not() {
        let (sender, deaths) = crossbeam_channel::unbounded();
        let on_death: OnDeath = Arc::new(move |why| sender.send(why).unwrap());
        let bodies: [fn() -> Result<(), String>; 3] =
            [|| Ok(()), || Err("no epoll".into()), || panic!("this panic belongs to a test")];
        for (n, body) in bodies.into_iter().enumerate() {
            spawn(&format!("t{n}"), on_death.clone(), body).unwrap().join().unwrap();
        }
        drop(on_death);
        let deaths: Vec<_> = deaths.iter().collect();
        assert_eq!(deaths[0], "thread t1 died: no epoll");
        assert!(deaths.len() == 2 && deaths[1].starts_with("thread t2 died: a bug"), "{deaths:?}");
    }
}
