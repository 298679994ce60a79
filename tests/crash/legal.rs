//! The legal states of `spool-layout.md`: each message that a cut leaves is in one of them, and some cut leaves
//! each of them.
//!
//! Nothing is locked after a cut: S1 becomes S2, and S6 becomes S8.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use mailspool::testing::message::{Block, QueueId, Seal};
use mailspool::testing::queue::{Action, Bucket, History, Hold, QueueUntil, State, What};
use mailspool::testing::spool::Queue;

use super::explore::Cases;

use super::moments::begun;
use super::proof;
use super::stage::Stage;
use super::stories::{self, A};
use super::story::Story;
use super::tree::Tree;

/// What a tree contains of one message.
#[derive(Default)]
struct Found<'a> {
    /// Its queues, the latest last, with the octets and the in-use bit of the file.
    named: BTreeMap<Queue, (&'a Arc<Vec<u8>>, bool)>,
    history: Option<&'a Arc<Vec<u8>>>,
    /// It has a view or a request.
    beside: bool,
}

/// Returns all messages of which the tree contains something.
fn found(tree: &Tree) -> BTreeMap<QueueId, Found<'_>> {
    let mut all: BTreeMap<QueueId, Found<'_>> = BTreeMap::new();
    for (path, node) in tree.names() {
        let id = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        let (Some(id), Some(node)) = (id, node) else {
            continue;
        };
        let dir = path.parent().and_then(|dir| dir.strip_prefix("spool").ok());
        let Some(dir) = dir else { continue };
        let (bytes, is_marked) = tree.content(node);
        let one = all.entry(id).or_default();
        match Queue::of_dir(dir) {
            Some(queue) => drop(one.named.insert(queue, (bytes, *is_marked))),
            None if dir == Path::new("history") => one.history = Some(bytes),
            None => one.beside = true,
        }
    }
    all
}

/// Returns the number of the state that a message is in, or why it is in none.
fn state(id: QueueId, one: &Found<'_>, all: &BTreeMap<QueueId, Found<'_>>) -> Result<u8, String> {
    let Some((queue, (bytes, is_marked))) = one.named.last_key_value() else {
        return Ok(18);
    };
    match queue {
        Queue::New => return Ok(2),
        Queue::Done => return Ok(16),
        Queue::Corrupt => return Ok(17),
        _ => {}
    }
    let block = Seal::parse(bytes)
        .ok()
        .and_then(|seal| Block::parse(bytes.get(..seal.block as usize)?).ok());
    let block = block.ok_or("is not whole outside new/")?;
    if block.seal.file_size() != bytes.len() as u64 || block.id != id {
        return Err("is not whole outside new/".to_owned());
    }
    let history = one.history.map(|bytes| History::parse(bytes));
    let history = history.transpose().map_err(|error| error.to_string())?;
    let events = history.unwrap_or_default().events;
    let mut state = State::read(&block, &events);
    state.in_use = *is_marked;
    if *queue == Queue::Staged {
        let origin = block.envelope.submission.origin;
        let origin = origin.and_then(|origin| all.get(&origin.id));
        let awaits = origin.is_some_and(|origin| {
            let events = origin.history.map(|bytes| History::parse(bytes));
            let events = events.and_then(Result::ok).unwrap_or_default().events;
            let records = events.iter().any(
                |event| matches!(event.what, What::Notice { id: Some(notice), .. } if notice == id),
            );
            origin.history.is_some() && !origin.named.is_empty() && !records
        });
        return Ok(if awaits { 3 } else { 4 });
    }
    if state.done {
        return Ok(15);
    }
    let actions: Vec<&Action> = (events.iter())
        .filter_map(|event| match &event.what {
            What::Action(action) => Some(action),
            _ => None,
        })
        .collect();
    let was_frozen = actions
        .iter()
        .any(|one| matches!(one, Action::Freeze { .. }));
    let is_new = events.is_empty() && !block.finished.contains(&true);
    let due = |due| Queue::from(QueueUntil::Deferred(due)) == *queue;
    match (queue, &state.hold) {
        (Queue::Incoming | Queue::Active | Queue::Deferred(_), _)
            if *is_marked && state.next_attempt().is_some() =>
        {
            Ok(8)
        }
        (Queue::Incoming | Queue::Active, _) if is_new => Ok(5),
        (Queue::Incoming | Queue::Active, _) => Ok(7),
        (Queue::Deferred(_), _) if is_new && state.release.is_some_and(due) => Ok(5),
        (Queue::Deferred(_), _) if state.next_due().is_some_and(due) => Ok(9),
        (Queue::Deferred(_), _) => Ok(10),
        (Queue::Frozen(_), Hold::Frozen { .. }) => Ok(11),
        (Queue::Frozen(Bucket::At(_)), _) if was_frozen => Ok(12),
        (Queue::Frozen(Bucket::Never), _) if !was_frozen => Ok(13),
        (Queue::Discarded(_), Hold::Discarded { .. }) => Ok(14),
        (queue, hold) => Err(format!("is in {queue:?}, {hold:?}")),
    }
}

/// S8: the interruption is counted in the state line before the in-use bit is cleared, wherever the process that
/// finds it is killed.
#[test]
fn an_interruption_is_counted_even_if_its_finder_is_killed() {
    for number in 1.. {
        let mut stage = Stage::new();
        stage.send("one", &[A]);
        stage.begin();
        stage.killed_at(begun, || drop(stage.try_pass()));
        stage.forward(1);
        if !stage.killed_after(number, || drop(stage.try_pass())) {
            assert!(number > 5, "after {number} calls nothing was left to do");
            return;
        }
        let tree = Tree::read(stage.dir());
        let all = found(&tree);
        let (id, one) = all.first_key_value().unwrap();
        let (_, (bytes, is_marked)) = one.named.last_key_value().unwrap();
        let seal = Seal::parse(bytes).unwrap();
        let block = Block::parse(&bytes[..seal.block as usize]).unwrap();
        let counted = block.mark.interrupted;
        assert!(
            counted == 1 || *is_marked,
            "after {number} calls {id} is not interrupted"
        );
    }
}

#[test]
fn every_cut_leaves_a_legal_state() {
    let (mut seen, mut wrong) = (BTreeMap::<u8, usize>::new(), BTreeSet::new());
    let step = if proof::long() { 1 } else { 3 };
    let stories = stories::GROUPS.iter().flat_map(|group| group());
    // A message that a story damages on purpose is in no state.
    let is_sound =
        |story: &Story| !story.title.contains("quarantine") && !story.title.contains("repair");
    let mut corrupt = 0;
    for story in stories {
        let cases = Cases::of(&story.base, &story.known, &story.steps, story.renames);
        for case in cases.step_by(step) {
            let all = found(&case.tree);
            for (id, one) in &all {
                match state(*id, one, &all) {
                    Ok(17) => corrupt += 1,
                    Ok(number) => *seen.entry(number).or_default() += 1,
                    Err(why) if is_sound(&story) => {
                        let (title, last) = (&story.title, &case.last);
                        wrong.insert(format!("{title}: after {last}: {id} {why}"));
                    }
                    Err(_) => {}
                }
            }
        }
    }
    seen.insert(17, corrupt);
    println!("legal states: {seen:?}");
    let wrong: Vec<String> = wrong.into_iter().take(5).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // An outcome that cannot be recorded (S13) takes more than a cut: `tests/faults`.
    let missing: Vec<u8> = (2..=18)
        .filter(|number| ![6, 13].contains(number))
        .filter(|number| seen.get(number).is_none_or(|count| *count == 0))
        .collect();
    assert!(missing.is_empty(), "no cut leaves {missing:?}");
}
