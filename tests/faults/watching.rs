//! A long-running run under faults.

use std::time::Duration;

use mailspool::testing::runner::{Budget, RunnerBuilder, Summary};

use super::explore::explore;
use super::inject::{Case, all_cases, sample};
use super::queue::QueueScene;

/// Runs long enough for every due message. The clock that decides what is due stands still.
fn watch(runner: RunnerBuilder) -> Result<Summary, mailspool::testing::runner::Error> {
    let budget = Budget {
        jobs: 1,
        max_messages: None,
        max_time: Some(Duration::from_millis(400)),
    };
    runner.budget(budget).build().watch()
}

#[test]
fn watching() {
    let queue = QueueScene::new();
    let seen = queue.calls(Case::clean());
    let cases = all_cases(&seen, None);
    let all = cases.len();
    let cases = sample(cases, 40);
    let tally = explore("watch", &cases, |case| queue.judge(case, watch));
    tally.print(&format!("watch, {} calls, of {all}", seen.len()));
}
