//! A recording as one page on which a reader goes through a request hop by hop. It needs nothing else: no network, no font.

use serde_json::{Value, json};

use super::Recording;
use crate::dataplane::{RequestKind, RequestTimestamps};

const PAGE: &str = include_str!("page/page.html");
/// What each hop says; its line numbers are kept by `tests/docs.rs`.
const HOPS: &str = include_str!("../../../docs/hops.md");

/// Requests that a page can show: more would only make it long.
const MOST: usize = 200;

/// The page; `None` if nothing was recorded.
pub fn page(recording: &Recording) -> Option<String> {
    let mut requests: Vec<(String, RequestTimestamps)> = Vec::new();
    for queue in &recording.queues {
        let name = format!("{} queue {}", queue.device, queue.queue);
        requests.extend(queue.requests.iter().map(|row| (name.clone(), row.timestamps())));
    }
    let all = requests.len();
    let chosen = choose(requests)?;
    let threads: Value = recording.threads.iter().map(|(id, name)| (id.to_string(), json!(name))).collect();
    let shown: Vec<Value> = chosen.iter().map(|(queue, timestamps)| request(queue, timestamps)).collect();
    let data = json!({"requests": shown, "recorded": all, "threads": threads, "hops": hops()});
    // Inside <script>: nothing in a string may end it.
    let data = data.to_string().replace('<', "\\u003c");
    Some(PAGE.replacen("/*DATA*/", &data, 1))
}

fn end(timestamps: &RequestTimestamps) -> u64 {
    timestamps.published.max(timestamps.signalled)
}

/// From the fastest to the slowest, evenly, if there are too many.
fn choose(mut requests: Vec<(String, RequestTimestamps)>) -> Option<Vec<(String, RequestTimestamps)>> {
    requests.sort_by_key(|(_, timestamps)| end(timestamps).saturating_sub(timestamps.seen));
    let last = requests.len().checked_sub(1)?;
    let shown = requests.len().min(MOST);
    let place = |n: usize| if shown == 1 { 0 } else { n * last / (shown - 1) };
    Some((0..shown).map(|n| requests[place(n)].clone()).collect())
}

fn request(queue: &str, timestamps: &RequestTimestamps) -> Value {
    let RequestTimestamps {
        id,
        kind,
        len,
        seen,
        parsed,
        submitted,
        completed,
        ending,
        published,
        signalled,
        thread,
        queued,
        held,
        ..
    } = *timestamps;
    let answered = kind == RequestKind::Answer;
    let interrupt = match (signalled, held, queued) {
        (0, ..) => "none",
        (_, true, _) => "held",
        (_, _, true) => "queued",
        (_, _, false) => "interrupt",
    };
    // Nothing is timed before the first timestamp and after the last, so those hops have no end.
    let mut timed = vec![("wake", seen, timestamps.taken), ("parse", timestamps.taken, parsed)];
    if !answered {
        timed.extend([
            ("submit", parsed, submitted),
            ("work", submitted, completed),
            ("collect", completed, ending),
        ]);
    }
    timed.extend([("publish", ending, published), (interrupt, published, end(timestamps))]);
    let hops: Vec<Value> = timed
        .into_iter()
        .map(|(name, from, to)| json!({"name": name, "at": from.saturating_sub(seen), "ns": to.saturating_sub(from)}))
        .collect();
    let what = if answered { "answer".into() } else { format!("{kind:?}, {len} bytes") };
    json!({"queue": queue, "id": id, "what": what, "thread": thread.to_string(), "ns": end(timestamps).saturating_sub(seen), "hops": hops})
}

/// The sections of [`HOPS`]: name, lane, sentences, and where it happens.
fn hops() -> Value {
    let sections = HOPS.split("\n## ").skip(1);
    let section = |text: &str| {
        let (name, rest) = text.split_once('\n')?;
        let mut paragraphs =
            rest.split("\n\n").map(|text| plain(text.trim())).filter(|text| !text.is_empty());
        let lane = paragraphs.next()?.strip_prefix("lane: ")?.to_string();
        let (says, place) = (paragraphs.next()?, paragraphs.next().unwrap_or_default());
        Some((name.trim().to_string(), json!({"lane": lane, "says": says, "place": place})))
    };
    sections.filter_map(section).collect()
}

/// Markdown without its links, on one line.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, from)) = rest.split_once('[') {
        out.push_str(before);
        match from.split_once("](").and_then(|(word, after)| Some((word, after.split_once(')')?.1))) {
            Some((word, after)) => {
                out.push_str(word);
                rest = after;
            }
            None => {
                out.push('[');
                rest = from;
            }
        }
    }
    out.push_str(rest);
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
