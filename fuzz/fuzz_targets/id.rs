//! Queue ids, and parts of them as operators type them.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use mailspool::testing::accept::Acceptor;
use mailspool::testing::message::QueueId;
use mailspool::testing::operator::{Found, find};
use mailspool::testing::spool::Spool;

struct Queue {
    spool: Spool,
    ids: Vec<QueueId>,
    _dir: tempfile::TempDir,
}

fn queue() -> &'static Queue {
    static QUEUE: OnceLock<Queue> = OnceLock::new();
    QUEUE.get_or_init(|| {
        let (dir, spool) = help::spool();
        let acceptor = Acceptor::new(spool.clone(), help::limits());
        let accept = |_| {
            let accepted = acceptor.accept(help::request(), &b"Subject: x\n\n"[..]);
            accepted.unwrap()
        };
        // Ids of one millisecond have no order.
        let mut ids: Vec<QueueId> = (0..4).map(accept).collect();
        ids.sort_unstable();
        Queue {
            spool,
            ids,
            _dir: dir,
        }
    })
}

fuzz_target!(|input: &[u8]| {
    let [place, text] = help::parts(input);
    let number = |n: usize| usize::from(place.get(n).copied().unwrap_or(0));
    let (which, from, len) = (number(0), number(1), number(2));
    let text = &*String::from_utf8_lossy(text);
    if let Ok(id) = text.parse::<QueueId>() {
        assert_eq!(id.to_string(), text, "one id has one spelling");
        assert!((0.0..1.0).contains(&id.fraction(7)));
        let _ = id.accepted();
    }
    // A part of an existing id, or any text.
    let queue = queue();
    let one = queue.ids[which % queue.ids.len()].to_string();
    let from = from % one.len();
    let to = (from + len).min(one.len());
    for part in [&one[from..to], text] {
        let wanted = part.trim().to_ascii_lowercase();
        let matching: Vec<QueueId> = queue
            .ids
            .iter()
            .copied()
            .filter(|id| !wanted.is_empty() && id.to_string().contains(&wanted))
            .collect();
        match find(&queue.spool, part).unwrap() {
            Found::None => assert!(matching.is_empty()),
            Found::One(id) => assert_eq!(matching, [id]),
            Found::Several(ids) => assert!(ids.len() > 1 && ids == matching),
        }
    }
});
