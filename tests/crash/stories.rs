//! The stories: every operation that changes a spool.

pub mod destinations;
pub mod fold;
pub mod full;
pub mod keys;
pub mod mail;
pub mod operate;
mod pairs;
pub mod release;
pub mod repair;
pub mod suspend;

use super::moments;
use super::stage::Stage;
use super::story::Story;

pub const A: &str = "a@ok.test";
pub const B: &str = "b@other.test";
/// Delivered after ten minutes, and after an hour.
pub const SLOW: &str = "slow@first.test";
pub const SLOWER: &str = "slower@later.test";
pub const NO: &str = "no@no.test";
/// `TOLD` is delivered, and `told.test` asks for a success notice. `HUSH` fails without a notice.
pub const TOLD: &str = "m@told.test";
pub const HUSH: &str = "n@hush.test";
/// Delivered after two hours, after a delay notice.
pub const LONG: &str = "o@long.test";
/// Delivered at the last attempt.
pub const LATE: &str = "r@late.test";
pub const NEVER: &str = "never@never.test";
pub const BOX: &str = "c@box.test";
pub const PIPE: &str = "d@pipe.test";
/// Three recipients at one host, and one at each of the other hosts: see `net.rs`.
pub const FAR: [&str; 3] = ["e@far.test", "f@far.test", "g@far.test"];
pub const BUSY: &str = "h@busy.test";
pub const GONE: &str = "i@gone.test";
pub const DEAD: &str = "j@dead.test";
pub const LOST: &str = "k@lost.test";
pub const HELD: &str = "l@held.test";
/// A destination with two hosts: the first takes one recipient, the second the other.
pub const TWINS: [&str; 2] = ["p@twin.test", "q@twin.test"];

/// Stories of one kind.
pub type Group = fn() -> Vec<Story>;

/// All groups except the pairs of processes.
pub const GROUPS: &[Group] = &[
    accepting,
    delivering,
    by_all_ways,
    trying_again,
    bouncing,
    bouncing_with_kills,
    confirming,
    warning,
    freezing,
    throwing_away,
    requests,
    forgetting,
    repairing,
    under_a_key,
    for_later,
    in_parts,
    down,
    losing_answers,
    suspending,
    draining,
    not_recording,
    folding,
    living,
];

fn nothing(_: &Stage) {}

/// Sends a message that is delivered in part and deferred.
fn deferred(stage: &Stage) {
    stage.send("one", &[A, SLOW]);
    stage.pass();
}

pub fn accepting() -> Vec<Story> {
    let mut all = mail::move_on();
    all.extend(mail::entrances());
    all.push(mail::break_off());
    all
}

pub fn delivering() -> Vec<Story> {
    vec![mail::deliver(), mail::defer()]
}

/// Stories that kill a process at each of its calls.
pub fn without_a_history() -> Vec<Story> {
    mail::killed_at_each_call()
}

pub fn by_all_ways() -> Vec<Story> {
    vec![mail::boxed(), mail::boxed_killed(), mail::piped()]
}

pub fn trying_again() -> Vec<Story> {
    let mut all = vec![mail::due_again(), mail::put_off(), mail::poison()];
    all.extend(mail::interrupt());
    all.push(mail::last_chance());
    all
}

pub fn bouncing() -> Vec<Story> {
    let mut all = mail::bounce();
    all.push(mail::expire());
    all
}

pub fn bouncing_with_kills() -> Vec<Story> {
    mail::bounce_killed()
}

pub fn confirming() -> Vec<Story> {
    let mut all = mail::confirm();
    all.extend(fewer(mail::confirm_killed()));
    all
}

pub fn warning() -> Vec<Story> {
    let mut all = vec![mail::warn()];
    all.extend(fewer(mail::warn_killed()));
    all
}

/// Judges fewer states, because these stories have much in common with bounces.
fn fewer(mut all: Vec<Story>) -> Vec<Story> {
    all.iter_mut().for_each(|story| story.one_in *= 4);
    all
}

pub fn freezing() -> Vec<Story> {
    let mut all = operate::hold();
    all.push(operate::null_sender());
    all.push(operate::hold_for_a_time());
    let mut lapsing = operate::frozen_for_good();
    lapsing.iter_mut().for_each(|story| story.one_in *= 3);
    all.extend(lapsing);
    all.extend(operate::hold_killed());
    all
}

pub fn throwing_away() -> Vec<Story> {
    operate::throw_away()
}

pub fn requests() -> Vec<Story> {
    operate::ask()
}

pub fn forgetting() -> Vec<Story> {
    mail::forget()
}

pub fn repairing() -> Vec<Story> {
    vec![repair::quarantine(), repair::repair()]
}

pub fn under_a_key() -> Vec<Story> {
    let mut all = keys::all();
    // Similar stories differ only in the moment of the kill.
    all.iter_mut().for_each(|story| story.one_in *= 12);
    all
}

pub fn for_later() -> Vec<Story> {
    let mut all = release::all();
    all.iter_mut().for_each(|story| story.one_in *= 6);
    all
}

/// Judges fewer states: down states and connection slots are never synced, which makes very many states.
fn sampled(mut all: Vec<Story>) -> Vec<Story> {
    all.iter_mut().for_each(|story| story.one_in *= 24);
    all
}

pub fn in_parts() -> Vec<Story> {
    sampled(destinations::in_parts())
}

pub fn down() -> Vec<Story> {
    sampled(destinations::down())
}

pub fn suspending() -> Vec<Story> {
    let mut all = suspend::suspend();
    all.extend(suspend::end());
    all.iter_mut().for_each(|story| story.one_in *= 3);
    all
}

pub fn losing_answers() -> Vec<Story> {
    sampled(destinations::lost())
}

pub fn living() -> Vec<Story> {
    vec![mail::life()]
}

pub fn draining() -> Vec<Story> {
    full::drain()
}

pub fn not_recording() -> Vec<Story> {
    vec![full::unrecorded()]
}

pub fn folding() -> Vec<Story> {
    fold::all()
}

/// Stories of two processes at once, in an order that the seed decides.
pub fn pairs(seed: u64) -> Vec<Story> {
    pairs::all(seed)
}
