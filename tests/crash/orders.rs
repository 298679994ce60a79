//! Orders.
use super::log::Step;

/// The log with those steps that are of one kind and come before the first of another kind moved
/// right behind it.
pub fn later(
    steps: &[Step],
    what: impl Fn(&Step) -> bool,
    behind: impl Fn(&Step) -> bool,
) -> Vec<Step> {
    let at = steps.iter().position(behind).unwrap();
    let (moved, mut kept): (Vec<Step>, Vec<Step>) = steps[..at].iter().cloned().partition(&what);
    assert!(!moved.is_empty(), "nothing to move");
    kept.push(steps[at].clone());
    kept.extend(moved);
    kept.extend_from_slice(&steps[at + 1..]);
    kept
}
