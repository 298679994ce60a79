//! The keys as they stand in the file, each with its place for error messages.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::value::{Size, Span};
use super::{Attempt, Log};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub hostname: Option<Spanned<String>>,
    pub postmaster: Option<Spanned<String>>,
    #[serde(default)]
    pub accept: RawAccept,
    #[serde(default)]
    pub run: RawRun,
    pub retry: Option<RawRetry>,
    #[serde(default)]
    pub log: Log,
    #[serde(default)]
    pub discard: RawDiscard,
    #[serde(default)]
    pub transport: BTreeMap<Spanned<String>, RawTransport>,
    #[serde(default)]
    pub route: Vec<RawRoute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAccept {
    pub max_size: Size,
    pub min_free: Size,
    pub min_free_inodes: u64,
    pub hop_limit: usize,
    pub attempt: Attempt,
    pub timeout: Span,
}

impl Default for RawAccept {
    fn default() -> RawAccept {
        RawAccept {
            max_size: Size(50_000_000),
            min_free: Size(100_000_000),
            min_free_inodes: 1_000,
            hop_limit: 50,
            attempt: Attempt::default(),
            timeout: Span::from_secs(600),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRun {
    pub jobs: Spanned<usize>,
    pub background: Spanned<usize>,
}

impl Default for RawRun {
    fn default() -> RawRun {
        RawRun {
            jobs: Spanned::new(0..0, 20),
            background: Spanned::new(0..0, 4),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRetry {
    pub phases: Spanned<Vec<RawPhase>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPhase {
    pub until: Span,
    pub every: Span,
    #[serde(default = "one")]
    pub factor: f64,
}

fn one() -> f64 {
    1.0
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDiscard {
    pub keep: Span,
}

impl Default for RawDiscard {
    fn default() -> RawDiscard {
        RawDiscard {
            keep: Span::from_secs(7 * 86_400),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTransport {
    pub r#type: Spanned<String>,
    pub path: Option<Spanned<PathBuf>>,
    pub command: Option<Spanned<Vec<String>>>,
    pub user: Option<Spanned<String>>,
    pub timeout: Option<Spanned<Span>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoute {
    pub recipient: Option<Spanned<String>>,
    pub domain: Option<Spanned<String>>,
    pub transport: Spanned<String>,
}
