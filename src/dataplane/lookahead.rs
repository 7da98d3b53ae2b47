/// Learns whether requests complete during their submission. It has to look, which costs a system call if they do not.
#[derive(Debug)]
pub(super) struct Lookahead {
    /// Whether the last look found completions.
    found: bool,
    /// The number of submissions without a look since then.
    since: u8,
}

/// After a look that found nothing, this many submissions go without a look.
const PAUSE: u8 = 64;

impl Default for Lookahead {
    /// The first submission is followed by a look.
    fn default() -> Lookahead {
        Lookahead { found: true, since: 0 }
    }
}

impl Lookahead {
    /// Returns whether to look after the next submission, before the thread asks for kicks and sleeps.
    pub fn pays(&mut self) -> bool {
        self.since = if self.found { 0 } else { (self.since + 1) % PAUSE };
        self.since == 0
    }

    /// Records whether a look after a submission found completions.
    pub fn looked(&mut self, found: bool) {
        self.found = found;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_as_long_as_that_finds_something_and_seldom_otherwise() {
        let mut lookahead = Lookahead::default();
        assert!((0..100).all(|_| lookahead.pays()));
        lookahead.looked(false);
        assert_eq!((0..640).filter(|_| lookahead.pays()).count(), 10);
        lookahead.looked(true);
        assert!((0..100).all(|_| lookahead.pays()));
    }
}
