/// How the driver broke the rules of the ring. The device needs a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// A ring is not in RAM, or not aligned.
    #[error("a ring lies outside guest memory or is misaligned")]
    Layout,
    /// The available index is more than one queue size ahead.
    #[error("the available index ran more than one queue size ahead")]
    AvailIndex,
    /// Packed ring: more descriptors are available than the ring has.
    #[error("more descriptors are available than the ring has")]
    Overrun,
    /// A descriptor index is beyond the table.
    #[error("a descriptor index is beyond the table")]
    DescriptorIndex,
    /// A chain is longer than its table, so it loops.
    #[error("a descriptor chain loops")]
    Loop,
    /// An indirect descriptor was not negotiated, is nested, has NEXT set, or has a bad length.
    #[error("an indirect descriptor breaks the rules")]
    Indirect,
    /// A buffer is outside guest memory.
    #[error("a buffer lies outside guest memory")]
    Address,
    /// A device-readable buffer follows a device-writable one.
    #[error("a readable buffer follows a writable one")]
    Order,
    /// The chain has no room for the header or the status byte.
    #[error("a request has no header or no status byte")]
    Shape,
}
