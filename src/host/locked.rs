use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Locking that ignores poisoning, that is, whether a thread panicked while it held the lock.
///
/// A panic of any thread ends the VM, and no code here leaves an incomplete change behind when it panics. So the
/// poisoning adds no information.
pub trait Locked<T: ?Sized> {
    /// Waits for the lock, takes it, and returns the guard.
    fn locked(&self) -> MutexGuard<'_, T>;

    /// Returns the value without locking: the exclusive borrow proves that no thread holds the lock.
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

/// The same for a lock with many readers.
pub trait LockedRw<T: ?Sized> {
    /// Waits for the lock, takes it for reading, and returns the guard.
    fn reading(&self) -> RwLockReadGuard<'_, T>;

    /// Waits for the lock, takes it for writing, and returns the guard.
    fn writing(&self) -> RwLockWriteGuard<'_, T>;
}

impl<T: ?Sized> LockedRw<T> for RwLock<T> {
    fn reading(&self) -> RwLockReadGuard<'_, T> {
        self.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> RwLockWriteGuard<'_, T> {
        self.write().unwrap_or_else(PoisonError::into_inner)
    }
}
