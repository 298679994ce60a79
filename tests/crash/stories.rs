//! The stories: every operation that changes a spool.

pub mod hops;
pub mod keys;
pub mod mail;
pub mod mend;
pub mod operate;
mod pairs;
pub mod release;
pub mod suspend;

use mailspool::disk::Method;

use super::moments;
use super::stage::Stage;
use super::story::Story;

pub const A: &str = "a@ok.test";
pub const B: &str = "b@other.test";
/// Delivered after ten minutes, and after an hour.
pub const SLOW: &str = "slow@first.test";
pub const SLOWER: &str = "slower@later.test";
pub const NO: &str = "no@no.test";
/// Delivered, and the sender wants to hear of it; failed, and he does not.
pub const TOLD: &str = "m@told.test";
pub const HUSH: &str = "n@hush.test";
/// Delivered after two hours, when the sender was told that it takes long.
pub const LONG: &str = "o@long.test";
pub const NEVER: &str = "never@never.test";
pub const BOX: &str = "c@box.test";
pub const PIPE: &str = "d@pipe.test";
/// Three with one host, and one with each of the others: see `net.rs`.
pub const FAR: [&str; 3] = ["e@far.test", "f@far.test", "g@far.test"];
pub const BUSY: &str = "h@busy.test";
pub const GONE: &str = "i@gone.test";
pub const DEAD: &str = "j@dead.test";
pub const LOST: &str = "k@lost.test";
pub const HELD: &str = "l@held.test";
/// With two hosts: the first takes one of them, the second the other.
pub const TWINS: [&str; 2] = ["p@twin.test", "q@twin.test"];

/// In minutes after the beginning: the first age at which the schedule has a recipient tried again whose first
/// attempt was interrupted. Jitter only adds to it.
const AGAIN: i64 = 30;

/// Stories of one kind, told with a method.
pub type Group = fn(Method) -> Vec<Story>;

/// All but those of two at once.
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
    mending,
    under_a_key,
    for_later,
    in_parts,
    down,
    losing_answers,
    suspending,
    living,
];

fn nothing(_: &Stage) {}

/// A deferred message.
fn deferred(stage: &Stage) {
    stage.send("one", &[A, SLOW]);
    stage.pass();
}

pub fn accepting(method: Method) -> Vec<Story> {
    let mut all = mail::move_on(method);
    all.extend(mail::doors(method));
    all.push(mail::break_off(method));
    all
}

pub fn delivering(method: Method) -> Vec<Story> {
    vec![mail::deliver(method), mail::defer(method)]
}

pub fn by_all_ways(method: Method) -> Vec<Story> {
    let mut all = vec![mail::boxed(method), mail::boxed_killed(method)];
    // A command makes nothing durable in the spool, by whatever method.
    if method == Method::Each {
        all.push(mail::piped(method));
    }
    all
}

pub fn trying_again(method: Method) -> Vec<Story> {
    let mut all = vec![
        mail::due_again(method),
        mail::put_off(method),
        mail::poison(method),
    ];
    all.extend(mail::interrupt(method));
    all
}

pub fn bouncing(method: Method) -> Vec<Story> {
    let mut all = mail::bounce(method);
    all.push(mail::expire(method));
    all
}

pub fn bouncing_with_kills(method: Method) -> Vec<Story> {
    mail::bounce_killed(method)
}

pub fn confirming(method: Method) -> Vec<Story> {
    let mut all = mail::confirm(method);
    all.extend(fewer(mail::confirm_killed(method)));
    all
}

pub fn warning(method: Method) -> Vec<Story> {
    let mut all = vec![mail::warn(method)];
    all.extend(fewer(mail::warn_killed(method)));
    all
}

/// Much of it is as with bounces.
fn fewer(mut all: Vec<Story>) -> Vec<Story> {
    all.iter_mut().for_each(|story| story.one_in *= 4);
    all
}

pub fn freezing(method: Method) -> Vec<Story> {
    let mut all = operate::hold(method);
    all.push(operate::null_sender(method));
    all.push(operate::hold_for_a_time(method));
    let mut lapsing = operate::frozen_for_good(method);
    lapsing.iter_mut().for_each(|story| story.one_in *= 3);
    all.extend(lapsing);
    all.extend(operate::hold_killed(method));
    all
}

pub fn throwing_away(method: Method) -> Vec<Story> {
    operate::throw_away(method)
}

pub fn requests(method: Method) -> Vec<Story> {
    operate::ask(method)
}

pub fn forgetting(method: Method) -> Vec<Story> {
    mail::forget(method)
}

pub fn mending(method: Method) -> Vec<Story> {
    vec![mend::quarantine(method), mend::repair(method)]
}

pub fn under_a_key(method: Method) -> Vec<Story> {
    let mut all = keys::all(method);
    // Each is told eight times, with a kill somewhere else.
    all.iter_mut().for_each(|story| story.one_in *= 12);
    all
}

pub fn for_later(method: Method) -> Vec<Story> {
    let mut all = release::all(method);
    all.iter_mut().for_each(|story| story.one_in *= 6);
    all
}

/// What is remembered of hosts, and their slots, are never synced: that makes very many states.
fn sampled(mut all: Vec<Story>) -> Vec<Story> {
    all.iter_mut().for_each(|story| story.one_in *= 24);
    all
}

pub fn in_parts(method: Method) -> Vec<Story> {
    sampled(hops::in_parts(method))
}

pub fn down(method: Method) -> Vec<Story> {
    sampled(hops::down(method))
}

pub fn suspending(method: Method) -> Vec<Story> {
    let mut all = suspend::suspend(method);
    all.extend(suspend::end(method));
    all.iter_mut().for_each(|story| story.one_in *= 3);
    all
}

pub fn losing_answers(method: Method) -> Vec<Story> {
    sampled(hops::lost(method))
}

pub fn living(method: Method) -> Vec<Story> {
    vec![mail::life(method)]
}

/// Two processes at once, in an order that the seed decides.
pub fn pairs(method: Method, seed: u64) -> Vec<Story> {
    pairs::all(method, seed)
}
