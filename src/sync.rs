//! Chooses between std's atomics and loom's model of them, so that the tested code is the code that runs.
//!
//! Build with `--cfg proxyrunner_loom` for loom. The cfg has its own name because `--cfg loom` would also switch
//! tokio.

#[cfg(proxyrunner_loom)]
pub use loom::{cell::UnsafeCell, sync::Arc, sync::MutexGuard, sync::atomic};
#[cfg(not(proxyrunner_loom))]
pub use parking_lot::{Mutex, MutexGuard};
#[cfg(not(proxyrunner_loom))]
pub use std::sync::{Arc, atomic};

/// loom's lock behind parking_lot's interface.
#[cfg(proxyrunner_loom)]
#[derive(Debug)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(proxyrunner_loom)]
impl<T> Mutex<T> {
    /// Creates a lock around `value`.
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// std's cell behind loom's interface, which passes pointers to a closure so that loom can see where an access begins
/// and ends.
#[cfg(not(proxyrunner_loom))]
#[derive(Debug)]
pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(proxyrunner_loom))]
impl<T> UnsafeCell<T> {
    /// Creates a cell that holds `value`.
    pub fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Passes a pointer for reading to `read`.
    #[inline(always)]
    pub fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    /// Passes a pointer for writing to `write`.
    #[inline(always)]
    pub fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

/// The waker of one waiting task. Registering and waking may race.
#[derive(Debug)]
pub struct AtomicWaker {
    #[cfg(not(proxyrunner_loom))]
    inner: atomic_waker::AtomicWaker,
    #[cfg(proxyrunner_loom)]
    inner: loom::future::AtomicWaker,
}

impl AtomicWaker {
    /// Creates a cell without a waker.
    pub fn new() -> Self {
        Self { inner: Default::default() }
    }

    /// Registers a copy of `waker`, or wakes it at once if a wake-up is in progress.
    #[inline]
    pub fn register(&self, waker: &std::task::Waker) {
        #[cfg(not(proxyrunner_loom))]
        self.inner.register(waker);
        #[cfg(proxyrunner_loom)]
        self.inner.register_by_ref(waker);
    }

    /// Wakes the task that registered last, unless it was woken since.
    #[inline]
    pub fn wake(&self) {
        self.inner.wake();
    }

    /// Drops the registered waker without waking it.
    pub fn clear(&self) {
        #[cfg(not(proxyrunner_loom))]
        drop(self.inner.take());
        #[cfg(proxyrunner_loom)]
        drop(self.inner.take_waker());
    }
}

impl Default for AtomicWaker {
    fn default() -> Self {
        Self::new()
    }
}
