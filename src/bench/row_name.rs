//! The name of a row.

use super::Row;

/// The job of the floors.
pub const FLOOR: &str = "floor";

/// The name of a row among those of its job.
pub fn row_name(row: &Row) -> String {
    let path = [row.notify.as_deref(), row.complete.as_deref()];
    let path = path.into_iter().flatten().collect::<Vec<_>>().join(" + ");
    let mut parts: Vec<String> =
        row.peer.iter().cloned().chain([path]).filter(|part| !part.is_empty()).collect();
    parts.extend(row.backend.clone());
    parts.extend(row.device.clone());
    match row.poll_us {
        Some(us @ 1..) => parts.push(format!("polls {us} \u{b5}s")),
        // All our disks wait in the same way unless they poll. Floors and a reference VMM's disks wait in several ways.
        _ if row.job == FLOOR || row.peer.is_some() => parts.extend(row.wait.clone()),
        _ => {}
    }
    parts.extend(row.moderate.as_ref().filter(|how| *how != "off").map(|how| format!("moderate={how}")));
    parts.extend(row.ring.as_ref().filter(|ring| *ring == "packed").map(|_| "packed ring".into()));
    parts.extend(row.queues.filter(|&n| n > 1).map(|n| format!("{n} queues")));
    parts.join(", ")
}

/// The name as `--filter` of the probe takes it, without what `differs` says all rows share.
pub(super) fn of_filter(row: &Row, differs: impl Fn(&str) -> bool) -> String {
    let path = [("notify", &row.notify), ("complete", &row.complete)];
    let path = path.into_iter().filter(|(name, _)| differs(name)).filter_map(|(_, value)| value.as_deref());
    let mut parts: Vec<String> = vec![path.collect::<Vec<_>>().join("+")];
    let named = |name, value: &Option<String>| value.clone().filter(|_| differs(name));
    parts.insert(0, named("peer", &row.peer).unwrap_or_default());
    parts.extend(named("backend", &row.backend));
    parts.extend(named("device", &row.device));
    match row.poll_us {
        Some(1..) if differs("poll us") => parts.push("poll".into()),
        _ if row.job == FLOOR || row.peer.is_some() => parts.extend(named("wait", &row.wait)),
        _ => {}
    }
    let moderated = |how: String| if how == "auto" { "moderated".into() } else { format!("moderate={how}") };
    parts.extend(named("moderate", &row.moderate).filter(|how| how != "off").map(moderated));
    parts.extend(row.queues.filter(|&n| n > 1 && differs("queues")).map(|n| format!("{n} queues")));
    parts.retain(|part| !part.is_empty());
    // Nothing differs: there is one row.
    if parts.is_empty() { row_name(row) } else { parts.join(" ") }
}
