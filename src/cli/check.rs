//! `check`.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::args::{Check, Global};
use super::exit::{EX_DATAERR, Failure};
use super::output::{finish, json_line, put};
use super::site::Site;
use super::table;
use crate::message::printable;
use crate::operator::{Finding, Level, RowStatus, Tallied, Tally, check as look, tally};

/// The most foreign names that are shown of one directory; the rest is only counted. `--json` lists all.
const MAX_ALIKE: usize = 10;

/// `mailspool check`.
pub(super) fn check(global: &Global, args: &Check) -> Result<u8, Failure> {
    let site = Site::for_changes(global)?;
    let findings = look(&site.spool, args.repair && !args.dry_run)?;
    let now = Timestamp::now();
    let Tallied { tallies, unread } = tally(&site.spool, now);
    let mut sums = Sums::of(&findings, &tallies);
    // A remaining problem explains what cannot be read. Without one, the failure itself is the error.
    sums.uncounted = unread.len();
    if let (Some(error), false) = (unread.into_iter().next(), findings.iter().any(is_left)) {
        return Err(error.into());
    }
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        objects(&mut out, &findings, &tallies, &sums)?
    } else {
        put(&mut out, &paragraphs(&findings))?;
        if !findings.is_empty() && !tallies.is_empty() {
            put(&mut out, "\n")?;
        }
        put(&mut out, &table_of(&tallies, now))?;
        put(&mut out, &sums.text())?;
    }
    finish(out)?;
    Ok(match sums.problems {
        0 => 0,
        _ => EX_DATAERR,
    })
}

/// The totals of a check.
#[derive(Serialize)]
struct Sums {
    /// Messages that could be counted.
    messages: usize,
    /// Messages and directories that could not be read; how many messages they hold is unknown.
    uncounted: usize,
    /// Problems that remain.
    problems: usize,
    repaired: usize,
}

impl Sums {
    fn of(findings: &[Finding], tallies: &[Tally]) -> Sums {
        Sums {
            messages: tallies.iter().map(|tally| tally.messages).sum(),
            uncounted: 0,
            problems: findings.iter().filter(|finding| is_left(finding)).count(),
            repaired: findings
                .iter()
                .filter(|finding| finding.repaired == Some(true))
                .count(),
        }
    }

    fn text(&self) -> String {
        let messages = match self.uncounted {
            0 => table::messages(self.messages),
            _ => format!(
                "{} and some that cannot be counted",
                table::messages(self.messages)
            ),
        };
        let problems = match self.problems {
            0 => "no problems".to_owned(),
            1 => "1 problem".to_owned(),
            many => format!("{many} problems"),
        };
        let repaired = match self.repaired {
            0 => String::new(),
            count => format!(", {count} repaired"),
        };
        let left = if self.repaired > 0 && self.problems > 0 {
            " left"
        } else {
            ""
        };
        format!("{}, {problems}{left}{repaired}.\n", messages)
    }
}

/// Whether a finding is a problem that remains.
fn is_left(finding: &Finding) -> bool {
    finding.level == Level::Problem && finding.repaired != Some(true)
}

/// Formats the findings: a line with the path, and the explanation on the line below.
fn paragraphs(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut alike: BTreeMap<(&Path, &str), usize> = BTreeMap::new();
    for finding in findings {
        let dir = finding.path.parent().unwrap_or(Path::new(""));
        if finding.level == Level::Note && finding.repair.is_none() {
            let count = alike.entry((dir, &finding.what)).or_default();
            *count += 1;
            if *count > MAX_ALIKE {
                continue;
            }
        }
        text.push_str(&paragraph(finding));
    }
    for ((dir, what), count) in alike {
        if count > MAX_ALIKE {
            let (dir, more) = (printable(&dir.to_string_lossy()), count - MAX_ALIKE);
            text.push_str(&format!(
                "note     {dir}/: {more} more\n         {}\n",
                printable(what)
            ));
        }
    }
    text
}

fn paragraph(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Note => "note",
        Level::Problem => "problem",
    };
    let path = printable(&finding.path.to_string_lossy());
    let what = printable(&finding.what);
    let repair = repair(finding).map(|repair| format!("\n         {repair}"));
    format!(
        "{level:<9}{path}\n         {what}{}\n",
        repair.unwrap_or_default()
    )
}

/// What the repair did, would do, or could not do.
fn repair(finding: &Finding) -> Option<String> {
    let repair = finding.repair.as_ref()?;
    Some(match finding.repaired {
        None => format!("--repair {}", repair.does()),
        Some(true) => repair.done(),
        Some(false) => "not repaired: it has changed or is in use".to_owned(),
    })
}

/// Formats how many messages each queue and status has.
fn table_of(tallies: &[Tally], now: Timestamp) -> String {
    if tallies.is_empty() {
        return String::new();
    }
    let next = |tally: &Tally| match (tally.status, tally.next) {
        (_, Some(next)) => table::soon(next, now),
        (RowStatus::InProgress, None) => "now".to_owned(),
        (RowStatus::Incoming | RowStatus::Active | RowStatus::WillBeBounced, None) => {
            "next run".to_owned()
        }
        (_, None) => "on request".to_owned(),
    };
    let cells = |tally: &Tally| {
        let cells = [
            tally.messages.to_string(),
            tally.queue.to_owned(),
            tally.status.label().to_owned(),
            next(tally),
        ];
        (cells.to_vec(), None)
    };
    let rows = tallies.iter().map(cells).collect();
    table::table(&["Messages", "Queue", "Status", "Next"], rows)
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Object<'a> {
    Finding {
        level: &'static str,
        path: String,
        what: String,
        repair: Option<String>,
        #[serde(rename = "mended")]
        repaired: Option<bool>,
    },
    State(&'a Tally),
    Sums(&'a Sums),
}

fn objects(
    out: &mut impl Write,
    findings: &[Finding],
    tallies: &[Tally],
    sums: &Sums,
) -> Result<(), Failure> {
    for finding in findings {
        let object = Object::Finding {
            level: match finding.level {
                Level::Note => "note",
                Level::Problem => "problem",
            },
            path: finding.path.to_string_lossy().into_owned(),
            what: printable(&finding.what),
            repair: finding
                .repair
                .as_ref()
                .map(|repair| match finding.repaired {
                    Some(true) => repair.done(),
                    _ => repair.does(),
                }),
            repaired: finding.repaired,
        };
        json_line(out, &object)?;
    }
    for tally in tallies {
        json_line(out, &Object::State(tally))?;
    }
    json_line(out, &Object::Sums(sums))
}
