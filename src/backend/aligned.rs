/// Length of a page in bytes, the largest alignment that direct I/O requires.
pub(super) const PAGE: usize = 4096;

#[repr(C, align(4096))]
#[derive(Clone)]
struct Page([u8; PAGE]);

/// A buffer of whole, aligned pages, as O_DIRECT requires.
pub(super) struct AlignedBuffer(Vec<Page>);

impl AlignedBuffer {
    /// Returns a buffer of zeroes. `len`, in bytes, is rounded up to pages.
    pub(super) fn new(len: usize) -> AlignedBuffer {
        AlignedBuffer(vec![Page([0; PAGE]); len.div_ceil(PAGE)])
    }

    /// Returns the bytes.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.0.len() * PAGE;
        // SAFETY: the vector's pages are contiguous and consist of bytes; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }
}
