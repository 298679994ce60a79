//! The program without descriptors, memory or threads, and with files that may not grow.
//!
//! What belongs here: limits of the process, each tried from far too little to enough, so that each part of the
//! code meets it once. A command may end in any way, but it must end. What it reported as accepted exists, and what
//! was queued is delivered exactly once after the limit is lifted.

mod program;
mod proof;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::process::{Command, Stdio};

use program::{Ended, Site, ended, names};
use proof::{count, long};
use serde_json::json;

/// A limit: its flag of the shell's `ulimit`, and the values to try.
struct Limit {
    flag: &'static str,
    tries: Vec<u64>,
}

fn descriptors() -> Limit {
    Limit {
        flag: "-n",
        tries: (3..40).collect(),
    }
}

/// Address space in kilobytes, from too little for the kernel to ample.
fn memory() -> Limit {
    let step = if long() { 64 } else { 1024 };
    Limit {
        flag: "-v",
        tries: (2_048..48 << 10).step_by(step).collect(),
    }
}

/// Processes of a user, of which each thread is one, from none to as many as a run needs.
fn threads() -> Limit {
    Limit {
        flag: "-p",
        tries: (1..20).collect(),
    }
}

/// File size in the shell's blocks of 512 octets.
fn file_size() -> Limit {
    Limit {
        flag: "-f",
        tries: (0..12).collect(),
    }
}

impl Limit {
    /// Runs the program under one value of the limit.
    fn program(&self, value: u64, site: &Site, arguments: &[&str], input: &[u8]) -> Ended {
        let inner = site.command(arguments);
        let mut shell = Command::new("/bin/sh");
        let script = format!("ulimit {} {value} && exec \"$@\"", self.flag);
        shell.args(["-c", &script, "sh"]).arg(inner.get_program());
        shell.args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        ended(&mut shell, input)
    }
}

/// Returns a message of several blocks, so that a file-size limit falls into its middle.
fn letter(n: usize) -> Vec<u8> {
    let body = format!("A line of message {n}.\n").repeat(200);
    let header = format!(
        "Date: Sun, 22 Nov 2026 14:05:00 +0000\nMessage-ID: <{n}@example.org>\nFrom: a@example.org"
    );
    format!("{header}\nSubject: {n}\n\n{body}").into_bytes()
}

/// Submits through both entrances under every value. Every accepted message is delivered, and only whole messages
/// are.
fn submitters(limit: &Limit) {
    let site = Site::with_box();
    let (mut accepted, mut refused) = (BTreeSet::new(), 0);
    for (n, value) in limit.tries.iter().enumerate() {
        let send: &[&str] = &[
            "send",
            "--queue-only",
            "-f",
            "a@example.org",
            "b@example.net",
        ];
        let receive: &[&str] = &["receive", "-f", "a@example.org", "b@example.net"];
        for (entrance, arguments) in [send, receive].into_iter().enumerate() {
            let number = 2 * n + entrance;
            let ended = limit.program(*value, &site, arguments, &letter(number));
            assert!(
                limit.flag != "-f" || entrance == 0 || [0, 75].contains(&ended.code),
                "an MTA's pipe that may not write: {ended}"
            );
            match ended.code {
                0 => drop(accepted.insert(number)),
                // Statuses that an MTA takes for "try again": 75, or death by a signal; here also 127 of the
                // dynamic linker and 126 of the shell that cannot start the program.
                75 | 126 | 127 | -1 => refused += 1,
                other => panic!("{} {value}: status {other}: {ended}", limit.flag),
            }
        }
    }
    println!(
        "{}: {} accepted, {refused} refused",
        limit.flag,
        accepted.len()
    );
    assert!(refused > 0 && !accepted.is_empty(), "no limit was met");
    count("limits", 2 * limit.tries.len());

    site.run().ok();
    let mut delivered = BTreeSet::new();
    for copy in site.boxed() {
        let at = copy.find("Subject: ").unwrap();
        let number: usize = copy[at + 9..].lines().next().unwrap().parse().unwrap();
        assert!(copy.as_bytes().ends_with(&letter(number)), "torn: {number}");
        assert!(delivered.insert(number), "{number} was delivered twice");
    }
    let lost: Vec<_> = accepted.difference(&delivered).collect();
    assert!(lost.is_empty(), "accepted and lost: {lost:?}");
    site.is_clean_and_empty();
}

/// Runs under every value, with a new message each time. In the end everything is delivered once.
fn runners(limit: &Limit) {
    runners_of(&Site::new(&patient()), limit);
}

fn patient() -> String {
    let retry = "[retry]\nphases = [{ until = \"1h\", every = \"1m\" }]";
    format!("{retry}\n{}", program::BOX)
}

fn runners_of(site: &Site, limit: &Limit) {
    let mut failed = 0;
    for value in &limit.tries {
        site.queue(&["b@example.net"]);
        let ended = limit.program(*value, site, &["run", "--quiet"], b"");
        match ended.code {
            0 => {}
            75 | 126 | 127 | -1 => failed += 1,
            other => panic!("{} {value}: status {other}: {ended}", limit.flag),
        }
    }
    println!("{}: {failed} runs failed", limit.flag);
    assert!(failed > 0, "no limit was met");
    count("limits", limit.tries.len());
    let frozen = names(&site.spool().join("frozen/never"));
    if !frozen.is_empty() {
        println!("{} had to be held", frozen.len());
        let thaw = ["thaw".to_owned(), "--queue-only".to_owned()];
        site.program(thaw.iter().chain(&frozen), b"").ok();
    }
    site.program(["flush", "--queue-only"], b"").ok();
    site.run().ok();
    assert_eq!(site.boxed().len(), limit.tries.len(), "lost or doubled");
    site.is_clean_and_empty();
}

/// Runs operators' commands under every value. None of them harms the queue.
fn operators(limit: &Limit) {
    let site = Site::with_box();
    let id = site.queue(&["b@example.net"]);
    let commands: [&[&str]; 7] = [
        &["list"],
        &["show", &id],
        &["check", "--repair"],
        &["freeze", &id],
        &["thaw", "--queue-only", &id],
        &["discard", &id],
        &["retry", "--queue-only", &id],
    ];
    for value in &limit.tries {
        for command in commands {
            let ended = limit.program(*value, &site, command, b"");
            // 69: the previous command failed under the limit.
            assert!(
                [0, 69, 75, 126, 127, -1].contains(&ended.code),
                "{} {value} {command:?}: {ended}",
                limit.flag
            );
        }
    }
    count("limits", limit.tries.len() * commands.len());
    let repaired = site.program(["retry", "--queue-only", &id], b"");
    assert!([0, 69].contains(&repaired.code), "{repaired}");
    site.run().ok();
    let copies = site.boxed();
    assert_eq!(copies.len(), 1, "lost or doubled");
    assert!(copies[0].ends_with("\n\nHello.\n"), "torn");
    site.is_clean_and_empty();
}

/// Descriptors that suffice for any message and any number of buckets.
const FEW: u64 = 64;

#[test]
fn many_buckets_need_few_descriptors() {
    let site = Site::with_box();
    for minute in 0..300 {
        let name = format!("2020-01-01T{:02}{:02}Z", minute / 60, minute % 60);
        let bucket = site.spool().join("deferred").join(name);
        std::fs::create_dir(&bucket).unwrap();
        // A foreign file, which keeps the bucket from being removed.
        std::fs::write(bucket.join("kept"), "").unwrap();
    }
    site.queue_many(3, |n| format!("r{n}@example.net"));
    descriptors().program(FEW, &site, &["run"], b"").ok();
    assert_eq!(site.boxed().len(), 3);
}

#[test]
fn a_message_to_many_destinations_needs_few_descriptors() {
    let site = Site::new(&format!(
        "{}{}",
        program::pipe("all", "cat > /dev/null"),
        program::route("domain", "*", "all")
    ));
    let to: Vec<String> = (0..80).map(|n| format!("r@host{n}.test")).collect();
    site.queue(&to.iter().map(String::as_str).collect::<Vec<_>>());
    let ended = descriptors().program(FEW, &site, &["run"], b"").ok();
    assert!(ended.contains("80 delivered"), "{ended}");
    site.is_clean_and_empty();
}

#[test]
fn a_message_to_many_recipients_of_a_maildir_needs_few_descriptors() {
    let site = Site::with_box();
    let to: Vec<String> = (0..200).map(|n| format!("r{n}@example.net")).collect();
    site.queue(&to.iter().map(String::as_str).collect::<Vec<_>>());
    let ended = descriptors().program(FEW, &site, &["run"], b"").ok();
    assert!(ended.contains("200 delivered"), "{ended}");
    assert_eq!(site.boxed().len(), 200);
    site.is_clean_and_empty();
}

#[test]
fn submitters_without_descriptors() {
    submitters(&descriptors());
}

#[test]
fn submitters_without_memory() {
    submitters(&memory());
}

#[test]
fn submitters_with_files_that_may_not_grow() {
    submitters(&file_size());
}

#[test]
fn runners_without_descriptors() {
    runners(&descriptors());
}

/// Root has no such limit, so the spool belongs to another user, which has no other processes.
#[test]
fn runners_without_threads() {
    let site = Site::new(&patient());
    let mut chown = Command::new("chown");
    chown.args(["-R", "54321:54321"]).arg(site.dir());
    assert!(chown.status().unwrap().success(), "it needs root");
    runners_of(&site, &threads());
}

#[test]
fn runners_without_memory() {
    runners(&memory());
}

#[test]
fn runners_with_files_that_may_not_grow() {
    runners(&file_size());
}

#[test]
fn operators_without_descriptors() {
    operators(&descriptors());
}

#[test]
fn operators_without_memory() {
    operators(&memory());
}

/// Returns the peak memory of a listing in kilobytes, after its first rows. There are more rows than a pipe holds,
/// so the listing has not ended then.
fn memory_of_list(site: &Site, arguments: &[&str]) -> u64 {
    let mut child = site
        .command(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 4096]).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let words = line.unwrap_or_else(|| panic!("it has ended: {status}"));
    io::copy(&mut out, &mut io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
    words.trim().trim_end_matches(" kB").parse().unwrap()
}

/// An earlier version kept every row until the last one was read, 3 KB each.
#[test]
fn a_list_takes_no_more_memory_for_more_messages() {
    let site = Site::new("");
    let queue = |count| site.queue_many(count, |n| format!("r{n}@example.test"));
    let measure = |arguments: &[&str]| memory_of_list(&site, arguments);
    queue(1000);
    let few = [measure(&["list"]), measure(&["list", "--json"])];
    queue(1500);
    let many = [measure(&["list"]), measure(&["list", "--json"])];
    for (few, many) in few.into_iter().zip(many) {
        let more = many.saturating_sub(few);
        assert!(more < 2_000, "{more} KB more for 1,500 messages");
    }
}

/// The columns of a page of the table are measured, and the page is written, before the next page is read.
#[test]
fn a_long_list_has_every_row_and_columns_that_only_grow() {
    let site = Site::new("");
    site.queue_many(100, |n| format!("r{n}@example.test"));
    site.queue_many(5, |n| format!("recipient-{n}@much.longer.example.test"));
    let text = site.program(["list"], b"").ok();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "105 messages in queue.");
    assert_eq!(lines.len(), 2 + 105);
    let ids = lines[2..].iter().map(|line| &line[..36]);
    assert!(ids.is_sorted(), "by age");
    let status = ["Active", "Incoming"];
    let column = |line: &str| status.iter().find_map(|word| line.find(word)).unwrap();
    let all: BTreeSet<usize> = lines[2..102].iter().map(|line| column(line)).collect();
    assert_eq!(all, BTreeSet::from([lines[1].find("Status").unwrap()]));
    let page: BTreeSet<usize> = lines[102..].iter().map(|line| column(line)).collect();
    assert!(page.len() == 1 && page.first() > all.first(), "{page:?}");
}

/// Returns the number of instructions that the program executes, as counted by valgrind, which does not depend on
/// the machine's load.
fn instructions(site: &Site, arguments: &[&str], input: &[u8]) -> u64 {
    let version = Command::new("valgrind").arg("--version").output();
    assert!(version.is_ok(), "this test needs valgrind");
    let inner = site.command(arguments);
    let counts = site.dir().join("counts");
    let mut command = Command::new("valgrind");
    command.args(["--tool=cachegrind", "--cache-sim=no"]);
    command.arg("--cachegrind-out-file=/dev/null");
    command.arg(format!("--log-file={}", counts.display()));
    command.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    ended(&mut command, input).ok();
    let said = fs::read_to_string(&counts).unwrap();
    let line = said.lines().find(|line| line.contains(" refs:"));
    let line = line.unwrap_or_else(|| panic!("no count: {said}"));
    let count = line.rsplit(' ').next().unwrap().replace(',', "");
    count.parse().unwrap()
}

/// Asserts that four times as many recipients cost about four times as much, without the fixed cost of a start.
/// Code that compares each recipient with each other one would cost sixteen times as much.
#[track_caller]
fn is_linear(what: &str, cost: impl Fn(usize) -> u64) {
    let [none, few, many] = [1, 1_000, 4_000].map(cost);
    let ratio = (many - none) as f64 / (few - none) as f64;
    println!("{what}: {none}, {few}, {many} instructions: {ratio:.2} times as many");
    assert!(ratio < 5.0, "{what}: {ratio:.2} times as many instructions");
}

/// Returns a header for the recipients.
type Header = fn(&[String]) -> String;

const HEADERS: [(&str, Header); 4] = [
    ("in one line", |to| format!("To: {}\n", to.join(","))),
    // Several addresses per line, as mail programs fold them.
    ("folded", |to| {
        let lines: Vec<String> = to.chunks(8).map(|some| some.join(",")).collect();
        format!("Cc: {}\n", lines.join(",\n "))
    }),
    ("by three fields", |to| {
        let third = to.len().div_ceil(3);
        let fields = ["To", "Cc", "Bcc"].into_iter().zip(to.chunks(third));
        let field = |(name, some): (&str, &[String])| format!("{name}: {}\n", some.join(","));
        fields.map(field).collect()
    }),
    ("each by its own field", |to| {
        to.iter().map(|field| format!("Bcc: {field}\n")).collect()
    }),
];

fn recipients(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("r{n:05x}@x")).collect()
}

const SEND_T: [&str; 5] = ["send", "--queue-only", "-f", "a@example.org", "-t"];

#[test]
fn recipients_in_a_header_cost_as_much_for_each() {
    for (name, header) in HEADERS {
        is_linear(name, |count| {
            let site = Site::new("");
            let letter = format!("{}\nHello.\n", header(&recipients(count)));
            instructions(&site, &SEND_T, letter.as_bytes())
        });
    }
}

#[test]
fn a_header_may_name_a_hundred_thousand() {
    let all = recipients(100_000);
    // With a field for each recipient, the header would be larger than permitted.
    for (name, header) in &HEADERS[..3] {
        let site = Site::new("");
        let letter = format!("{}\nHello.\n", header(&all));
        let id = site.program(SEND_T, letter.as_bytes()).ok();
        let path = site.spool().join("info/recipients").join(id.trim_end());
        let queued = fs::read_to_string(path).unwrap();
        assert_eq!(queued.lines().count(), all.len(), "{name}");
        assert!(queued.lines().eq(all.iter().map(String::as_str)), "{name}");
    }
}

/// A message with a separate attempt for each recipient. In an earlier version, reading each part of its history
/// cost as much as all recipients.
#[test]
fn a_long_history_costs_as_much_for_each_part() {
    is_linear("a history", |count| {
        let site = Site::new("");
        let to = recipients(count);
        let letter = format!("To: {}\n\nHello.\n", to.join(","));
        let id = site.program(SEND_T, letter.as_bytes()).ok();
        let id = id.trim_end();
        let (at, next) = ("2026-11-22T14:05:00Z", "2100-01-01T00:00:00Z");
        let mut history = String::new();
        for one in &to {
            let result = json!({"recipient": one, "status": "deferred", "next": next,
                "reply": {"text": "later"}});
            let outcome = json!({"at": at, "event": "outcome", "began": at, "results": [result]});
            history += &format!("{outcome}\n");
        }
        fs::write(site.spool().join("history").join(id), history).unwrap();
        let shown = site.shown(id);
        assert_eq!(shown["history"].as_array().unwrap().len(), count);
        instructions(&site, &["list"], b"")
    });
}

/// A bounce for many recipients.
#[test]
fn a_bounce_costs_as_much_for_each_recipient() {
    is_linear("a bounce", |count| {
        let site = Site::with_box();
        let letter = format!("To: {}\n\nHello.\n", recipients(count).join(","));
        let id = site.program(SEND_T, letter.as_bytes()).ok();
        let bounce = ["bounce", "--queue-only", id.trim_end()];
        site.program(bounce, b"").ok();
        instructions(&site, &["run", "--quiet"], b"")
    });
}
