//! Seccomp filters: system calls, and where it matters their arguments.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::SandboxMode;

/// A system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub number: i64,
    /// The name of the constant: "SYS_openat".
    pub constant: &'static str,
}

impl Call {
    /// "openat".
    pub fn name(&self) -> &'static str {
        self.constant.trim_start_matches("SYS_")
    }
}

/// The system calls of these constants of libc, with their names.
macro_rules! calls {
    ($($constant:ident)*) => {
        [$($crate::host::sandbox::Call { number: libc::$constant, constant: stringify!($constant) }),*]
    };
}
pub(crate) use calls;

/// Which arguments a system call may have. The filter sees numbers only, not what a pointer points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    /// Any.
    Any,
    /// Argument n, of 32 bits, is one of these.
    OneOf(u8, Vec<u64>),
    /// Argument n has none of these bits.
    Without(u8, u64),
    /// Argument n has all of these bits.
    With(u8, u64),
}

/// A system call that a thread may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed(pub Call, pub Arguments);

/// The program for `allowed`.
///
/// # Panics
/// A table of ours is malformed: an argument number above 5, or too many system calls. No guest and no user can cause it.
pub(super) fn program(allowed: &[Allowed], mode: SandboxMode) -> BpfProgram {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let rule = |condition| SeccompRule::new(vec![condition]).expect("one condition");
    for Allowed(call, arguments) in allowed {
        let of_call = rules.entry(call.number).or_default();
        let condition = |&argument: &u8, op, value| {
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value).expect("0 to 5")
        };
        match arguments {
            // No condition: the call is allowed whatever other lines say of it.
            Arguments::Any => of_call.clear(),
            Arguments::OneOf(n, values) => {
                of_call.extend(values.iter().map(|&value| rule(condition(n, SeccompCmpOp::Eq, value))))
            }
            Arguments::Without(n, bits) => of_call.push(rule(condition(n, SeccompCmpOp::MaskedEq(*bits), 0))),
            Arguments::With(n, bits) => {
                of_call.push(rule(condition(n, SeccompCmpOp::MaskedEq(*bits), *bits)))
            }
        }
    }
    let otherwise = if mode == SandboxMode::Log { SeccompAction::Log } else { SeccompAction::Trap };
    let filter = SeccompFilter::new(rules, otherwise, SeccompAction::Allow, TargetArch::x86_64);
    filter.and_then(BpfProgram::try_from).expect("a table of system calls")
}
