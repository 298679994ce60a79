//! Mutations after which nothing can be lost, and why.

/// Why nothing is lost without a sync in a story, if that is so.
pub fn why(label: &str, title: &str) -> Option<&'static str> {
    let fits = |(labels, titles, _): &&(&[&str], &[&str], &str)| {
        labels.iter().any(|one| label.starts_with(one))
            && (titles.is_empty() || titles.iter().any(|one| title.starts_with(one)))
    };
    LIST.iter().find(fits).map(|(.., why)| *why)
}

/// Labels (how they begin), the stories for which that holds (how their titles begin; all if there
/// are none), and the reason.
#[allow(clippy::type_complexity)]
const LIST: &[(&[&str], &[&str], &str)] = &[
    (
        &["dir above/spool/info before"],
        &["make a spool"],
        "nothing decides by the view, and its directories are made again",
    ),
    (
        &["dir above before"],
        &["make a spool"],
        "made twice: the directory may have been there, made by a process that was killed",
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
        "it failed, and nobody wants to hear of that: tried again it fails again",
    ),
    (
        &["file new/*"],
        &["killed with a key sealed", "killed with a key written"],
        "it was never acknowledged",
    ),
    (
        &["dir deferred before rename active/*", "dir active before"],
        &["killed with a message entered"],
        "nobody was told that it is accepted, and its acceptor did not see to its new name",
    ),
    (
        &[
            "file active/* before clear",
            "file history/* with failed before create new",
        ],
        &["tell of a delivery, and not of a failure"],
        "who failed and was not told of fails again",
    ),
    (
        &["file history/* with  before", "dir history with  before"],
        &[],
        "what a killed holder wrote, made durable once more",
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
        "what is written anew says what the old file says, and that was durable",
    ),
    (
        &[
            "dir history with delivered failed before unlink",
            "dir history with delivered before unlink",
        ],
        &["killed with a notice"],
        "what is written anew says what the old file says, and that was durable",
    ),
    (
        &[
            "file history/* with delivered before create new",
            "dir history with delivered before create new",
            "file history/* with delivered failed before create new",
            "dir history with delivered failed before create new",
        ],
        &["killed with a notice"],
        "the process that wrote it is killed before it relies on it",
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
        "a notice that is staged again has the same id, and takes the place of the first",
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
        "the block of its origin says that it is done, durably, before the notice can be gone; until then it \
         has the same id",
    ),
    (
        &["file history/* with notice before rename staged"],
        &["tell of a delivery and of a failure"],
        "the record of the second notice is in the same file, and comes before either is delivered",
    ),
    (
        &["dir done before unlink"],
        &[],
        "it only narrows the time in which a power cut brings the message back, where a rename is the old name or \
         the new one (`orders.rs`)",
    ),
    (
        &["dir active before write history"],
        &[],
        "the old name's end, which is synced with it, carries the new name",
    ),
    (
        &["dir frozen/<minute> before the report"],
        &["an operator freezes what would be discarded"],
        "the new name, which is synced with it, carries the old name's end",
    ),
    (
        &["file deferred/<minute>/* before rename active"],
        &["killed at the last attempt"],
        "without its history it is delivered before anybody is told of a delay",
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
            "discard",
            "request to freeze",
            "request to discard",
            "thaw what a request froze",
        ],
        "the history says it: the next run that looks moves the message again",
    ),
    (
        &["dir deferred/<minute> before write history"],
        &[
            "flush",
            "bounce by hand",
            "request to bounce",
            "request to retry",
            "retry what is for later",
        ],
        "it is looked at in its bucket, at its time at the latest",
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
        "in active/ it is looked at, and tried at its time at the latest",
    ),
    (
        &["file history/* with thaw before rename frozen/<minute>"],
        &[],
        "a hold that ran out has run out again",
    ),
    (
        &["file history/* with freeze before mkdir frozen/<minute>"],
        &["freeze until a time"],
        "it stands in the bucket of its time, durably, before it is reported",
    ),
    (
        &["file history/* with freeze before mkdir frozen/never"],
        &["an operator freezes what would be discarded"],
        "it stands in frozen/never, where no run looks, durably, before it is reported",
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
        "the name is made durable twice, by the killed process and by the next one",
    ),
    (
        &["dir requests", "file requests/*.part"],
        &["request to retry"],
        "without it, it is tried at its time",
    ),
    (
        &["dir requests before"],
        &["request to"],
        "a request that comes back is served twice, which changes nothing",
    ),
    (
        &["file requests/*.part", "dir requests before create"],
        &["thaw what a request froze"],
        "that request is not reported in this story, and nothing depends on it",
    ),
    (
        &["dir box before"],
        &[],
        "who finds it incomplete makes it again; two barriers are for who finds it at that moment",
    ),
];
