use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Most frames shown of one stack; the outermost ones are cut.
const MAX_FRAMES: usize = 40;

/// The sampled stacks of one function, merged from the outermost caller inwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StackTree {
    /// The sampled function: the innermost frame of all stacks.
    pub function: String,
    /// Stacks sampled.
    pub samples: u64,
    /// Outermost callers, most frequent first.
    pub roots: Vec<Frame>,
}

/// A function in the stacks, and the functions that it called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// Function.
    pub name: String,
    /// Stacks through here.
    pub samples: u64,
    /// Callees, most frequent first.
    pub calls: Vec<Frame>,
}

/// Parses the stacks in the text of a `trace` file and merges them per function. The frames of the probe itself, inside
/// the function, are left out.
pub(super) fn trees(trace: &str, functions: &[&str]) -> Vec<StackTree> {
    let mut stacks: BTreeMap<&str, Vec<Vec<&str>>> = BTreeMap::new();
    for stack in stacks_of(trace) {
        let found = stack.iter().position(|frame| functions.contains(frame));
        if let Some(at) = found {
            let mut outer: Vec<_> = stack[at..].iter().copied().take(MAX_FRAMES).collect();
            outer.reverse();
            stacks.entry(stack[at]).or_default().push(outer);
        }
    }
    let tree = |&function: &&str| {
        let stacks = stacks.get(function)?;
        let slices: Vec<_> = stacks.iter().map(Vec::as_slice).collect();
        Some(StackTree { function: function.into(), samples: stacks.len() as u64, roots: merge(&slices) })
    };
    functions.iter().filter_map(tree).collect()
}

/// Every stack, innermost frame first.
fn stacks_of(trace: &str) -> Vec<Vec<&str>> {
    let mut stacks: Vec<Vec<&str>> = Vec::new();
    for line in trace.lines() {
        if let Some(frame) = line.trim_start().strip_prefix("=> ") {
            // "name", "name+0x10/0x20" or "name [module]".
            let name = frame.split([' ', '+']).next().unwrap_or(frame);
            if let Some(stack) = stacks.last_mut() {
                stack.push(name);
            }
        } else if line.ends_with("<stack trace>") {
            stacks.push(Vec::new());
        }
    }
    stacks
}

fn merge(stacks: &[&[&str]]) -> Vec<Frame> {
    let mut by_name: BTreeMap<&str, Vec<&[&str]>> = BTreeMap::new();
    for (name, rest) in stacks.iter().filter_map(|stack| stack.split_first()) {
        by_name.entry(name).or_default().push(rest);
    }
    let frame = |(name, rest): (&str, Vec<&[&str]>)| Frame {
        name: name.into(),
        samples: rest.len() as u64,
        calls: merge(&rest),
    };
    let mut frames: Vec<_> = by_name.into_iter().map(frame).collect();
    frames.sort_by_key(|frame| std::cmp::Reverse(frame.samples));
    frames
}

impl fmt::Display for StackTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: the first {} stacks, outermost caller first", self.function, self.samples)?;
        self.roots.iter().try_for_each(|root| root.print(f, 1, true))
    }
}

impl Frame {
    /// A chain of single calls keeps its indent; only a fork is indented further.
    fn print(&self, f: &mut fmt::Formatter<'_>, depth: usize, counted: bool) -> fmt::Result {
        let indent = "  ".repeat(depth);
        match counted {
            true => writeln!(f, "{indent}{:>5}  {}", self.samples, self.name)?,
            false => writeln!(f, "{indent}       {}", self.name)?,
        }
        match &self.calls[..] {
            [only] if only.samples == self.samples => only.print(f, depth, false),
            calls => calls.iter().try_for_each(|call| call.print(f, depth + 1, true)),
        }
    }
}

#[cfg(test)]
#[path = "stacks_tests.rs"]
mod tests;
