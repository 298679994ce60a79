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
        &["dir . before mkdir above/spool"],
        &["make a spool, Sync"],
        "a barrier over the whole file system comes before the report",
    ),
    (
        &[
            "file history/* with failed started before write",
            "file history/* with failed before write",
            "dir history with failed started before write",
        ],
        &[],
        "who failed and was not told of fails again",
    ),
    (
        // Where another message is delivered meanwhile.
        &[
            "file history/* with failed started before a delivery",
            "file history/* with failed before a delivery",
            "dir history with failed started before a delivery",
        ],
        &["killed with a notice"],
        "who failed and was not told of fails again",
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
        &["dir history with delivered started before rename deferred/<minute>/* to active"],
        &[
            "a host is probed",
            "killed with a host remembered to be down",
        ],
        "what is written anew says what the old file says, and that was durable",
    ),
    (
        &[
            "dir history with delivered started before rename deferred/<minute>/* to active",
            "dir history with delivered started before create history",
        ],
        &["a suspension runs out", "resumed"],
        "what is written anew says what the old file says, and that was durable",
    ),
    (
        &["dir frozen/<minute> before the report"],
        &["an operator freezes what would be discarded"],
        "the new name, which is synced with it, carries the old name's end",
    ),
    (
        &[
            "dir history with freeze started before mkdir frozen/never",
            "file history/* with freeze before mkdir frozen/never",
        ],
        &["an operator freezes what would be discarded"],
        "it stands in frozen/never, where no run looks, durably, before it is reported",
    ),
    (
        &["file history/*.part with started unknown before rename"],
        &["killed with a host remembered to be down"],
        "nobody has got anything yet: without its history it is tried anew",
    ),
    (
        &[
            "dir history with delivered failed started before unlink",
            "dir history with delivered started before unlink",
        ],
        &["killed with a notice"],
        "what is written anew says what the old file says, and that was durable",
    ),
    (
        &[
            "dir history with delivered failed notice started before rename new",
            "dir history with delivered notice started before rename new",
        ],
        &[
            "killed with a notice recorded",
            "killed with a notice of a delivery recorded",
        ],
        "a notice that is staged again has the same id, and takes the place of the first",
    ),
    (
        &["dir new before unlink"],
        &[
            "bounce",
            "retry what is for later",
            "fail and bounce",
            "killed with a notice",
            "killed between two transactions",
            "expire",
            "request to bounce",
            "tell of a delivery",
            "two lives",
        ],
        "the barrier of what is forgotten with it, or next, covers it",
    ),
    (
        // The part has no outcome but `unknown`: without it the recipient counts as untried, and may be tried
        // earlier. The next sync is that of the other recipient's outcome. It is of the same file, and
        // comes before the message rests. Each try gives the copy the same name in the Maildir.
        &["file history/*.part with started unknown before rename"],
        &["killed with a copy in a Maildir"],
        "the second copy takes the place of the first",
    ),
    (
        // The message was never tried, so the part has only the action. Before it is written, the message
        // stands durably in `active/`, where one without a history is due at once.
        &["file history/*.part with retry before rename"],
        &["quarantine, and out again"],
        "without its history it is due in active/ all the same",
    ),
    (
        &["file history/* with notice before rename new/*"],
        &["tell of a delivery and of a failure"],
        "the record of the second notice is in the same file, and comes before either is delivered",
    ),
    (
        &["dir deferred/<minute> before unlink info/transport"],
        &["tell of a delay", "killed with a notice of a delay"],
        "what is forgotten is the notice, which was in no bucket",
    ),
    (
        &["dir deferred/<minute> before unlink info/transport"],
        &["two lives"],
        "the barrier of what is forgotten with it, or next, covers it",
    ),
    (
        &["file history/* with freeze before mkdir frozen/<minute>"],
        &["freeze until a time"],
        "it stands in the bucket of its time, durably, before it is reported",
    ),
    (
        &[
            "file history/* with delivered before create new",
            "dir history with delivered before create new",
        ],
        &["killed with a notice"],
        "who wrote it is killed before he relies on it",
    ),
    (
        &["dir done before unlink", "dir active before write history"],
        &[],
        "the old name's end, which is synced with it, carries the new name",
    ),
    (
        &[
            "dir active before unlink",
            "dir deferred/<minute> before unlink",
        ],
        &["forget what was left half forgotten"],
        "who was killed made that barrier, and it is repeated",
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
        ],
        "the history says it: the next run that looks moves the message again",
    ),
    (
        &[
            "file history/* with deferred ",
            "dir history with deferred ",
        ],
        &[],
        "who lost a deferral is taken for interrupted, and tried later",
    ),
    (
        &["file history/* with unknown ", "dir history with unknown "],
        &[],
        "it is found to be interrupted again",
    ),
    (
        &["file history/* with started ", "dir history with started "],
        &[],
        "only the count of an attempt is lost",
    ),
    (
        &["file history/* with  before", "dir history with  before"],
        &[],
        "what a killed holder wrote, made durable once more",
    ),
    (
        &["file history/* with copied", "dir history with copied"],
        &[],
        "the Maildir transport finds its own copy",
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
        &[
            "file history/* with notice before rename new/*",
            "dir history with notice before rename new/*",
        ],
        &[
            "retry what is for later",
            "bounce",
            "fail and bounce",
            "expire",
            "killed with a notice",
            "killed between two transactions",
            "request to bounce",
            "tell of a delivery, and not of a failure",
            "two lives",
        ],
        "its origin is in done/, durably, before the notice can be gone; until then it has the same id",
    ),
    (
        &[
            "file new/*",
            "file info/sender",
            "file info/recipients",
            "file info/transport",
            "dir new before create",
            "dir info/sender",
            "dir info/recipients",
            "dir info/transport",
        ],
        &[
            "killed with a notice durable",
            "killed with a notice of a delivery durable",
            "killed with a notice of a delay durable",
        ],
        "who comes next repeats the barrier",
    ),
    (
        &[
            "file new/*",
            "file info/sender",
            "file info/recipients",
            "file info/transport",
            "file keys/new",
            "dir new before",
            "dir info/sender",
            "dir info/recipients",
            "dir info/transport",
        ],
        &["killed with a key durable", "move on what is for later"],
        "the barrier is made twice, by who was killed and by who comes next",
    ),
    (
        &["dir history with freeze thaw"],
        &["thaw what is for later"],
        "what is written anew says what the old file says, and that was durable",
    ),
    (
        &["file history/*.part with "],
        &["thaw what is for later", "retry what is for later"],
        "without its history it is released at its time",
    ),
    (
        &[""],
        &["move on what was cut off"],
        "it was never acknowledged",
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
    (
        &["dir above before"],
        &["make a spool"],
        "made twice: the directory may have been there, made by somebody who was killed",
    ),
];
