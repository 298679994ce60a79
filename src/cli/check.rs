//! `check`.

use std::io::{self, BufWriter};
use std::process::ExitCode;

use super::args::{Check, Global};
use super::exit::{EX_DATAERR, Failure};
use super::list::{finish, put};
use super::log::{self, Quiet};
use super::site::{IfMissing, Site};
use super::table;
use crate::message::printable;
use crate::operator::{Finding, Level, check as look};

/// `mailspool check`.
pub(super) fn check(global: &Global, args: &Check) -> Result<ExitCode, Failure> {
    let site = Site::open(global, IfMissing::Fail)?;
    log::start(&site.config.log, Quiet::UnlessAsked);
    let findings = look(&site.spool, args.repair)?;
    let mut out = BufWriter::new(io::stdout().lock());
    for finding in &findings {
        put(&mut out, &line(finding, args.repair))?;
    }
    let left = |finding: &&Finding| {
        finding.level == Level::Problem && !(args.repair && finding.mend.is_some())
    };
    let problems = findings.iter().filter(left).count();
    let count = site.spool.listing()?.messages.len();
    let found = match problems {
        0 => "no problems".to_owned(),
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    };
    put(&mut out, &format!("{}, {found}.\n", table::messages(count)))?;
    finish(out)?;
    Ok(match problems {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(EX_DATAERR),
    })
}

fn line(finding: &Finding, repair: bool) -> String {
    let level = match finding.level {
        Level::Note => "note",
        Level::Problem => "problem",
    };
    let path = printable(&finding.path.to_string_lossy());
    let mend = match (finding.mend, repair) {
        (Some(mend), true) => format!("; {mend}"),
        (Some(mend), false) => format!(" (--repair: {mend})"),
        (None, _) => String::new(),
    };
    format!("{level}: {path}: {}{mend}\n", printable(&finding.what))
}
