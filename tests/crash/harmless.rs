//! Mutations that cannot lose anything, and why.

/// Returns why a story loses nothing without a sync; none if the sync matters.
pub fn why(label: &str, title: &str) -> Option<&'static str> {
    let fits = |(labels, titles, _): &&(&[&str], &[&str], &str)| {
        labels.iter().any(|one| label.starts_with(one))
            && (titles.is_empty() || titles.iter().any(|one| title.starts_with(one)))
    };
    LIST.iter().find(fits).map(|(.., why)| *why)
}

/// Prefixes of the syncs' labels, prefixes of the titles of the stories concerned (none means all stories),
/// and the reason.
#[allow(clippy::type_complexity)]
const LIST: &[(&[&str], &[&str], &str)] = &[
    (
        &["dir above/spool/info before"],
        &["make a spool"],
        "no code decides by the view, and its directories are made again",
    ),
    (
        &["dir above before"],
        &["make a spool"],
        "synced twice, because the directory may have been made by a process that was killed",
    ),
    (
        &[""],
        &[
            "killed with a message written",
            "killed with a message sealed",
        ],
        "it was never acknowledged",
    ),
    (
        &["file active/* before overwrite active/*"],
        &["no room for octets and names"],
        "the recipient failed, and no notice is wanted: another attempt fails again",
    ),
    (
        &["file new/*"],
        &["killed with a key sealed", "killed with a key written"],
        "it was never acknowledged",
    ),
    (
        &["dir deferred before rename active/*", "dir active before"],
        &["killed with a message entered"],
        "it was never acknowledged, and its acceptor did not make its new name durable",
    ),
    (
        &[
            "file active/* before clear",
            "file history/* with failed before create new",
        ],
        &["tell of a delivery, and not of a failure"],
        "a recipient that failed without a notice fails again",
    ),
    (
        &["file history/* with  before", "dir history with  before"],
        &[],
        "makes durable once more what a killed holder wrote",
    ),
    (
        &[
            "file deferred/<minute>/* before",
            "file active/* before",
            "file history/* with copied",
            "dir history with copied",
        ],
        &["killed with a copy in a Maildir", "into a Maildir"],
        "the Maildir transport finds its own copy",
    ),
    (
        &["dir history with bounce "],
        &[
            "bounce by hand",
            "bounce what is frozen",
            "request to bounce",
        ],
        "the rewritten file says the same as the old one, which was durable",
    ),
    (
        &[
            "dir history with delivered failed before unlink",
            "dir history with delivered before unlink",
        ],
        &["killed with a notice"],
        "the rewritten file says the same as the old one, which was durable",
    ),
    (
        &[
            "file history/* with delivered before create new",
            "dir history with delivered before create new",
            "file history/* with delivered failed before create new",
            "dir history with delivered failed before create new",
        ],
        &["killed with a notice"],
        "the process that wrote it is killed before it depends on it",
    ),
    (
        &[
            "file new/*",
            "dir staged before create history/*.part",
            "dir staged before create new",
        ],
        &[
            "killed with a notice durable",
            "killed with a notice of a delivery durable",
            "killed with a notice of a delay durable",
        ],
        "the next holder writes the notice again",
    ),
    (
        &[
            "dir history with delivered failed notice before rename staged",
            "dir history with delivered notice before rename staged",
        ],
        &[
            "killed with a notice recorded",
            "killed with a notice of a delivery recorded",
        ],
        "a notice that is staged again has the same id and replaces the first",
    ),
    (
        &[
            "file history/* with notice before rename staged/*",
            "dir history with notice before rename staged/*",
            "file history/* with delivered failed notice before rename staged/*",
            "dir history with delivered failed notice before rename staged/*",
        ],
        &[
            "retry what is for later",
            "bounce",
            "fail and bounce",
            "expire",
            "killed with a notice",
            "request to bounce",
            "tell of a delivery, and not of a failure",
        ],
        "the origin's block is durably marked done before the notice can be gone; until then the notice has \
         the same id",
    ),
    (
        &["file history/* with notice before rename staged"],
        &[
            "tell of a delivery and of a failure",
            "fold at a notice of a delivery",
        ],
        "the record of the second notice is in the same file, and is written before either notice is delivered",
    ),
    (
        &["dir done before unlink"],
        &[],
        "it only narrows the time in which a power cut brings the message back, on file systems with atomic \
         renames (`orders.rs`)",
    ),
    (
        &[
            "dir active before write history",
            "dir active before create history/*.part",
        ],
        &[],
        "the removal of the old name is synced too, and persists only together with the new name",
    ),
    (
        &["dir frozen/<minute> before the report"],
        &["an operator freezes what would be discarded"],
        "the new name is synced too, and of two names the later one counts",
    ),
    (
        &["file deferred/<minute>/* before rename active"],
        &["killed at the last attempt"],
        "without its history it is delivered before a delay notice is due",
    ),
    (
        &["dir discarded/<minute> before rmdir"],
        &["discard, for good"],
        "the message was in done/, durably",
    ),
    (
        &["file frozen/<minute>/* before rename frozen/<minute>/* to done"],
        &["frozen for its time", "killed when it is discarded"],
        "it fails again, and is frozen again",
    ),
    (
        &[
            "dir deferred/<minute> before the report",
            "dir deferred/<minute> before unlink requests",
        ],
        &[
            "freeze",
            "fold at a freeze",
            "discard",
            "request to freeze",
            "request to discard",
            "thaw what a request froze",
        ],
        "the history says where it belongs: the next run that reads it moves the message again",
    ),
    (
        &[
            "dir deferred/<minute> before write history",
            "dir deferred/<minute> before create history/*.part",
        ],
        &[
            "flush",
            "fold the record",
            "bounce by hand",
            "request to bounce",
            "request to retry",
            "retry what is for later",
        ],
        "a run finds it in its old bucket, when that bucket is due",
    ),
    (
        &["file history/* with retry", "dir history with retry"],
        &[
            "flush",
            "retry",
            "request to retry",
            "quarantine",
            "take back",
        ],
        "a run finds it in active/, and tries it at its scheduled time at the latest",
    ),
    (
        &["file history/* with thaw before rename frozen/<minute>"],
        &[],
        "a hold that has expired expires again",
    ),
    (
        &["file history/* with freeze before mkdir frozen/<minute>"],
        &["freeze until a time"],
        "it is durably in the bucket of its time before the freeze is reported",
    ),
    (
        &["file history/* with freeze before mkdir frozen/never"],
        &["an operator freezes what would be discarded"],
        "it is durably in frozen/never, where no run looks, before the freeze is reported",
    ),
    (
        &[
            "dir active before rename active/* to staged/*",
            "dir active before create new",
            "dir staged before",
        ],
        &[
            "killed with a key accepted",
            "killed with a keyed message set",
        ],
        "the killed process and the next one both make the name durable",
    ),
    (
        &["dir requests", "file requests/*.part"],
        &["request to retry"],
        "without the request, the message is tried at its scheduled time",
    ),
    (
        &["dir requests before"],
        &["request to"],
        "a request that comes back is served twice, which changes nothing",
    ),
    (
        &["file requests/*.part", "dir requests before create"],
        &["thaw what a request froze"],
        "this story does not report the request, and nothing depends on it",
    ),
    (
        &[
            "dir history with deferred fold before",
            "dir history with deferred fold unknown before clear",
        ],
        &["fold at a deferral", "killed with a fold"],
        "the old history is there, whole, and the message is tried again too early",
    ),
    (
        &["file history/*.part with deferred fold before rmdir"],
        &["killed with a fold durable"],
        "the process that wrote it is killed before it depends on it",
    ),
    (
        &["file history/*.part with  before"],
        &["fold the record"],
        "the fold that follows writes all of it anew",
    ),
    (
        &["file active/* before rename active/* to done/*"],
        &["fold at a thaw", "thaw, and a pass", "retry what is frozen"],
        "a hold that was over is forgotten with the history, and a delivery costs no sync before done/",
    ),
    (
        &["file active/* before unlink history/*.part"],
        &["killed with a fold"],
        "the killed process made the deliveries durable that the block says",
    ),
    (
        &["dir history with failed fold before create history/*"],
        &["fold at a notice of a delivery"],
        "a recipient that failed fails again, and the next sync makes the name durable",
    ),
    (
        &["file history/* with deferred before create new"],
        &["fold at a notice of a delivery"],
        "the outcomes that the notices are about are durable in the fold",
    ),
    (
        &[
            "dir history with fold thaw before the report",
            "dir history with fold retry before",
        ],
        &["fold"],
        "an action syncs history/ once more after its last event",
    ),
    (
        &["dir box before"],
        &[],
        "a process that finds the Maildir incomplete makes it again; the two barriers are for a process that finds \
         it just then",
    ),
];
