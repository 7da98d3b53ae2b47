//! The buffers of requests in flight, without an allocation for each request.

use std::cell::RefCell;
use std::mem;
use std::ops::{Deref, DerefMut};

/// Lists that a thread keeps for its next requests. More requests than that at once allocate.
const KEPT: usize = 1024;
/// A longer list is freed: a guest that once sent long chains must not hold that memory for good.
const LONGEST: usize = 256;

thread_local! {
    /// A request starts and completes on the thread that owns its queue, so its list comes back to where it was taken.
    static SPARE: RefCell<Vec<Vec<libc::iovec>>> = const { RefCell::new(Vec::new()) };
}

/// Address and length of guest buffers. The list is used again by a later request of the thread that drops it.
#[derive(Debug, Default)]
pub struct Buffers(Vec<libc::iovec>);

impl Buffers {
    /// Takes what is in `list`, and leaves an empty list there, which has room.
    pub fn take(list: &mut Vec<libc::iovec>) -> Buffers {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
        Buffers(mem::replace(list, spare.unwrap_or_default()))
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if !(1..=LONGEST).contains(&self.0.capacity()) {
            return;
        }
        let mut list = mem::take(&mut self.0);
        list.clear();
        // A thread that ends has none any more.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < KEPT {
                spare.push(list);
            }
        });
    }
}

impl Deref for Buffers {
    type Target = Vec<libc::iovec>;

    fn deref(&self) -> &Vec<libc::iovec> {
        &self.0
    }
}

impl DerefMut for Buffers {
    fn deref_mut(&mut self) -> &mut Vec<libc::iovec> {
        &mut self.0
    }
}

impl FromIterator<libc::iovec> for Buffers {
    fn from_iter<I: IntoIterator<Item = libc::iovec>>(buffers: I) -> Buffers {
        Buffers(buffers.into_iter().collect())
    }
}

impl From<Vec<libc::iovec>> for Buffers {
    fn from(list: Vec<libc::iovec>) -> Buffers {
        Buffers(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(len: usize) -> Vec<libc::iovec> {
        vec![libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 1 }; len]
    }

    #[test]
    fn a_list_is_used_again_and_empty() {
        let mut chain = list(3);
        let address = chain.as_ptr();
        let first = Buffers::take(&mut chain);
        assert!(first.len() == 3 && chain.is_empty());
        drop(first);
        drop(Buffers::take(&mut chain));
        assert!(chain.is_empty() && chain.as_ptr() == address);
    }

    #[test]
    fn long_lists_and_too_many_are_freed() {
        drop(Buffers::from(list(LONGEST + 1)));
        let mut chain = Vec::new();
        drop(Buffers::take(&mut chain));
        assert_eq!(chain.capacity(), 0);
        let many: Vec<_> = (0..KEPT + 9).map(|_| Buffers::from(list(1))).collect();
        drop(many);
        assert_eq!(SPARE.with(|spare| spare.borrow().len()), KEPT);
    }
}
