use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locking without the question whether another thread panicked under the lock.
///
/// A panic of any thread ends the VM, and no code here leaves a half-made change behind when it panics, so a poisoned
/// lock tells nothing that is not known already.
pub trait Locked<T: ?Sized> {
    /// Waits for the lock and takes it.
    fn locked(&self) -> MutexGuard<'_, T>;

    /// The value, without locking: the exclusive borrow shows that no thread holds the lock.
    fn unlocked_mut(&mut self) -> &mut T;
}

impl<T: ?Sized> Locked<T> for Mutex<T> {
    fn locked(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unlocked_mut(&mut self) -> &mut T {
        self.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}
