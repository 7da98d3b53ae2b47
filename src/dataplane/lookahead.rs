/// Whether requests complete within their submission: learnt by looking, which costs a system call where they do not.
#[derive(Debug)]
pub(super) struct Lookahead {
    /// The last look found completions.
    found: bool,
    /// Submissions without a look since then.
    since: u8,
}

/// After a look that found nothing, so many submissions go without one.
const PAUSE: u8 = 64;

impl Default for Lookahead {
    /// Looks after the first submission, to learn.
    fn default() -> Lookahead {
        Lookahead { found: true, since: 0 }
    }
}

impl Lookahead {
    /// Whether to look after the next submission, before the thread asks for kicks and sleeps.
    pub fn pays(&mut self) -> bool {
        self.since = if self.found { 0 } else { (self.since + 1) % PAUSE };
        self.since == 0
    }

    /// A look after a submission found completions, or none.
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
