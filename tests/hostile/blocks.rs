//! Envelope blocks that the program did not write, in message files of every queue, and blocks that are submitted.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mailspool::testing::message::{Seal, block};
use xxhash_rust::xxh3::xxh3_128;

use crate::guard::{assert_terminal, watched};
use crate::program::{Site, names};
use crate::proof::count;

/// Makes a bad message file from a good one and another message's file.
type Spoil = fn(&[u8], &[u8]) -> Vec<u8>;

/// Splits a message file into the block's text and the message.
fn split(file: &[u8]) -> (String, Vec<u8>) {
    let seal = Seal::parse(file).unwrap();
    let (block, message) = file.split_at(seal.block as usize);
    (String::from_utf8(block.to_vec()).unwrap(), message.to_vec())
}

/// Seals a block, whatever it says, with a correct seal.
fn sealed(text: &str, message: &[u8]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    block::close(&mut bytes, message.len() as u64, xxh3_128(message));
    bytes.extend_from_slice(message);
    bytes
}

fn resealed(file: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (text, message) = split(file);
    assert!(text.contains(from), "{from} in {text}");
    sealed(&text.replacen(from, to, 1), &message)
}

/// Changes the block and keeps the seal.
fn patched(file: &[u8], change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = file.to_vec();
    change(&mut bytes);
    bytes
}

/// Replaces the lengths in its first line.
fn numbered(file: &[u8], block: u64, size: u64) -> Vec<u8> {
    let Seal {
        block: b, size: s, ..
    } = Seal::parse(file).unwrap();
    let line = format!(" {b:010} {s:015} ");
    let text = String::from_utf8_lossy(file).into_owned();
    assert!(text.contains(&line));
    let now = format!(" {block:010} {size:015} ");
    text.replacen(&line, &now, 1).into_bytes()
}

fn lengths(file: &[u8]) -> (u64, u64) {
    let seal = Seal::parse(file).unwrap();
    (seal.block, seal.size)
}

fn to_line(file: &[u8]) -> String {
    let (text, _) = split(file);
    let line = text.split_inclusive('\n').next_back().unwrap();
    assert!(line.starts_with("Mailspool-To: - <"), "{line}");
    line.to_owned()
}

const SPOILS: &[(&str, Spoil)] = &[
    ("empty", |_, _| Vec::new()),
    ("no block", |file, _| split(file).1),
    ("zeroes", |file, _| vec![0; file.len()]),
    ("cut in the first line", |file, _| file[..40].to_vec()),
    ("cut in the block", |file, _| file[..250].to_vec()),
    ("cut at its end", |file, _| file[..file.len() - 1].to_vec()),
    ("only the block", |file, _| split(file).0.into_bytes()),
    ("an octet more", |file, _| [file, b"x"].concat()),
    ("another message's", |_, other| other.to_vec()),
    ("another version's", |file, _| {
        let text = String::from_utf8_lossy(file);
        text.replacen("Seal: 2 ", "Seal: 3 ", 1).into_bytes()
    }),
    ("a huge block", |file, _| {
        numbered(file, 9_999_999_999, lengths(file).1)
    }),
    ("a block of nothing", |file, _| {
        let (block, size) = lengths(file);
        numbered(file, 0, block + size)
    }),
    ("a huge message", |file, _| {
        numbered(file, lengths(file).0, 999_999_999_999_999)
    }),
    ("a block that takes of the message", |file, _| {
        let (block, size) = lengths(file);
        numbered(file, block + 10, size - 10)
    }),
    ("a block without its last line", |file, _| {
        let line = to_line(file);
        resealed(file, &line, "")
    }),
    ("recipients beyond number", |file, _| {
        resealed(file, "Recipients: 1", "Recipients: 18446744073709551615")
    }),
    ("recipients beyond counting", |file, _| {
        resealed(file, "Recipients: 1", "Recipients: 99999999999999999999")
    }),
    ("more recipients than are there", |file, _| {
        resealed(file, "Recipients: 1", "Recipients: 2")
    }),
    ("no recipients", |file, _| {
        let line = to_line(file);
        let without = resealed(file, &line, "");
        resealed(&without, "Recipients: 1", "Recipients: 0")
    }),
    ("a recipient twice", |file, _| {
        let line = to_line(file);
        let twice = resealed(file, &line, &line.repeat(2));
        resealed(&twice, "Recipients: 1", "Recipients: 2")
    }),
    ("a recipient twice, once finished", |file, _| {
        let line = to_line(file);
        let other = line.replace("To: -", "To: +");
        let twice = resealed(file, &line, &format!("{other}{line}"));
        resealed(&twice, "Recipients: 1", "Recipients: 2")
    }),
    ("a NUL in an address", |file, _| {
        resealed(file, "To: - <", "To: - <\0")
    }),
    ("a NUL in the block", |file, _| {
        resealed(file, "Mailspool-Entrance", "\0Mailspool-Entrance")
    }),
    ("zeroes at the block's end", |file, _| {
        let end = lengths(file).0 as usize;
        patched(file, |bytes| bytes[end - 40..end].fill(0))
    }),
    ("a NUL for an octet", |file, _| {
        resealed(file, "To: - ", "To: \0 ")
    }),
    ("another octet", |file, _| {
        resealed(file, "To: - ", "To: ? ")
    }),
    ("another state", |file, _| {
        resealed(file, "idle 000", "busy 000")
    }),
    ("a state of zeroes", |file, _| {
        resealed(file, "idle 000", "\0\0\0\0\0\0\0\0")
    }),
    ("a wider state", |file, _| {
        resealed(file, "idle 000", "idle 0000")
    }),
    ("two states", |file, _| {
        let state = "Mailspool-State: idle 000\n";
        resealed(file, state, &state.repeat(2))
    }),
    ("a parameter of a later version", |file, _| {
        resealed(
            file,
            "Mailspool-To: ",
            "Mailspool-Priority: 5\nMailspool-To: ",
        )
    }),
    ("a flipped bit", |file, _| {
        let at = split(file).0.find("To: - <").unwrap() + 7;
        patched(file, |bytes| bytes[at] ^= 2)
    }),
    ("CR LF", |file, _| {
        let (text, message) = split(file);
        sealed(
            &text.replace('\n', "\r\n").replacen("\r\n", "\n", 1),
            &message,
        )
    }),
    ("an address of two lines", |file, _| {
        resealed(file, "To: - <", "To: - <a@example.test>\nMailspool-To: - <")
    }),
];

/// The queues from which a run reads messages.
const PLACES: [&str; 6] = [
    "incoming",
    "active",
    "deferred/2026-01-01T0000Z",
    "frozen/2026-01-01T0000Z",
    "discarded/2026-01-01T0000Z",
    "staged",
];

fn put(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Bad files go into quarantine unchanged, with a reason. They are neither delivered nor bounced, and do not
/// affect other messages.
#[test]
fn what_is_no_block_of_ours_is_quarantined() {
    let site = Site::with_box();
    let spool = site.spool();
    let bad = SPOILS.len() * PLACES.len();
    site.queue_many(bad + 4, |n| format!("r{n}@example.test"));
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    for dir in ["active", "incoming"] {
        for id in names(&spool.join(dir)) {
            let path = spool.join(dir).join(&id);
            found.push((id, fs::read(&path).unwrap()));
        }
    }
    let mut spoiled: BTreeMap<String, (&str, &str, Vec<u8>)> = BTreeMap::new();
    let other = found.last().unwrap().1.clone();
    for (n, (name, spoil)) in SPOILS.iter().enumerate() {
        for (m, place) in PLACES.iter().enumerate() {
            let (id, bytes) = &found[n * PLACES.len() + m];
            let bytes = spoil(bytes, &other);
            for dir in ["active", "incoming"] {
                let _ = fs::remove_file(spool.join(dir).join(id));
            }
            let dir = spool.join(place);
            if !dir.exists() {
                fs::create_dir(&dir).unwrap();
                fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
            }
            put(&dir.join(id), &bytes);
            spoiled.insert(id.clone(), (name, place, bytes));
        }
    }
    // Read-only commands change nothing, and report each file.
    for command in [&["list"][..], &["count"], &["check"]] {
        assert_terminal(&watched(&site, command, None).text());
    }
    for (id, (name, place, bytes)) in spoiled.iter().step_by(5) {
        assert_terminal(&watched(&site, &["show", id], None).text());
        assert!(
            fs::read(spool.join(place).join(id)).unwrap() == *bytes,
            "{name}"
        );
    }
    let is_quarantined = || names(&spool.join("corrupt")).len() == 2 * bad;
    for _ in 0..6 {
        watched(&site, &["run"], None);
        if is_quarantined() {
            break;
        }
    }
    let judge = |when: &str| {
        assert_eq!(site.boxed().len(), 4, "{when}: delivered or bounced");
        for (id, (name, place, bytes)) in &spoiled {
            let at = spool.join("corrupt").join(id);
            let what = format!("{when}: {name} in {place}");
            let now = fs::read(&at).unwrap_or_else(|_| panic!("{what}: not in quarantine"));
            assert!(now == *bytes, "{what}: changed");
            let reason = fs::read_to_string(at.with_extension("reason"));
            let reason = reason.unwrap_or_else(|_| panic!("{what}: no reason"));
            assert!(
                reason.trim().len() > 10 && reason.lines().count() == 1,
                "{what}: {reason}"
            );
            assert_terminal(&reason);
        }
        assert_eq!(site.rows().len(), bad, "{when}");
    };
    judge("after the runs");
    // A retry moves each back to be read, and it is quarantined again.
    let mut retry = vec!["retry", "--queue-only", "--"];
    retry.extend(spoiled.keys().map(String::as_str));
    watched(&site, &retry, None);
    site.queue(&["more@example.test"]);
    let mut more = 0;
    while !is_quarantined() && more < 6 {
        watched(&site, &["run"], None);
        more += 1;
    }
    let copies = site.boxed();
    assert!(copies.len() <= 5, "delivered or bounced");
    count("hostile inputs", bad);
}

/// A run removes bad files in `new/` and `done/`, except a name of another whole message.
#[test]
fn where_nothing_is_expected_a_bad_block_goes() {
    let site = Site::with_box();
    let spool = site.spool();
    site.queue_many(2 * SPOILS.len(), |n| format!("r{n}@example.test"));
    let ids = |dir: &str| names(&spool.join(dir));
    let (active, incoming) = (ids("active"), ids("incoming"));
    let other = fs::read(spool.join("active").join(&active[0])).unwrap();
    let mut kept = Vec::new();
    for (n, (name, spoil)) in SPOILS.iter().enumerate() {
        for (from, id, to) in [
            ("active", &active[n], "new"),
            ("incoming", &incoming[n], "done"),
        ] {
            let path = spool.join(from).join(id);
            let bytes = spoil(&fs::read(&path).unwrap(), &other);
            fs::remove_file(path).unwrap();
            put(&spool.join(to).join(id), &bytes);
            if *name == "another message's" {
                kept.extend([id.clone(), format!("{id}.reason")]);
            }
        }
    }
    kept.sort();
    watched(&site, &["run"], None).ok();
    assert_eq!(site.boxed(), [] as [String; 0]);
    assert_eq!(names(&spool.join("corrupt")), kept);
    for name in kept {
        fs::remove_file(spool.join("corrupt").join(name)).unwrap();
    }
    site.program(["check", "--repair"], b"").ok();
    site.is_clean_and_empty();
    count("hostile inputs", 2 * SPOILS.len());
}

/// A submitted message file shows its recipients to no recipient, through either entrance.
#[test]
fn a_block_that_is_handed_in_is_lost() {
    let site = Site::with_box();
    let id = site.queue(&["blind@example.test", "secret@example.test"]);
    let file = fs::read(site.spool().join("active").join(&id)).unwrap();
    watched(&site, &["run"], None).ok();
    let before = names(&site.dir().join("box/new"));
    assert_eq!(before.len(), 2);
    for name in before {
        fs::remove_file(site.dir().join("box/new").join(name)).unwrap();
    }
    let (block, _) = split(&file);
    let message = "To: shown@example.test\nSubject: again\n\nMailspool-To: - <body@example.test>\n";
    let crlf = |text: &str| text.replace('\n', "\r\n");
    let torn = |at: usize| &block[..at];
    let last = block.rfind("Mailspool-To").unwrap();
    let cases: Vec<(&str, String)> = vec![
        ("whole", format!("{block}{message}")),
        ("CR LF", crlf(&format!("{block}{message}"))),
        ("LF before CR LF", format!("{block}{}", crlf(message))),
        ("CR LF before LF", format!("{}{message}", crlf(&block))),
        (
            "after a line of an mbox",
            format!("From a@b Sun Nov 22 14:05:00 2026\n{block}{message}"),
        ),
        ("twice", format!("{block}{block}{message}")),
        ("without its last line", format!("{}{message}", torn(last))),
        (
            "of a later version",
            format!("{}{message}", block.replacen("Seal: 2", "Seal: 9", 1)),
        ),
        (
            "without lengths",
            format!("Mailspool-Seal: \n{}{message}", &block[Seal::WIDTH..]),
        ),
    ];
    let letter = site.dir().join("letter");
    let ways: [&[&str]; 3] = [
        &[
            "send",
            "--queue-only",
            "-f",
            "a@example.org",
            "--",
            "r@example.test",
        ],
        &["receive", "-f", "a@example.org", "--", "r@example.test"],
        &["send", "-t", "--queue-only", "-f", "a@example.org"],
    ];
    let mut handed_in = 0;
    for (name, text) in &cases {
        for way in ways {
            fs::write(&letter, text).unwrap();
            watched(&site, way, Some(&letter)).ok();
            handed_in += 1;
            watched(&site, &["run"], None).ok();
            let copies = site.boxed();
            assert_eq!(copies.len(), handed_in, "{name}, {way:?}");
        }
    }
    for copy in site.boxed() {
        assert!(
            !copy.contains("Mailspool-Seal") && !copy.contains("secret@"),
            "{copy}"
        );
        assert!(
            !copy.contains("blind@") && copy.contains("Subject: again"),
            "{copy}"
        );
        // Lines further down that only look like a block belong to the message.
        assert!(
            copy.contains("Mailspool-To: - <body@example.test>"),
            "{copy}"
        );
        assert!(!copy.contains("Delivered-To: body@"), "{copy}");
    }
    // A file that ends within its block is an empty message, except for the beginning of a field name, which
    // reveals nothing.
    let ends = (0..block.len()).step_by(13);
    for at in ends.chain([block.len() - 1, block.len()]) {
        fs::write(&letter, torn(at)).unwrap();
        let named = watched(&site, ways[2], Some(&letter));
        assert_eq!(named.code, 65, "cut at {at}: {named}");
        let received = watched(&site, ways[1], Some(&letter));
        let line = torn(at).rsplit('\n').next().unwrap();
        let name = if torn(at).contains('\n') {
            "Mailspool-"
        } else {
            "Mailspool-Seal: "
        };
        let empty = line.is_empty() || line.starts_with(name);
        assert_eq!(
            received.code,
            if empty { 75 } else { 0 },
            "cut at {at}: {received}"
        );
        handed_in += usize::from(!empty);
    }
    watched(&site, &["run"], None).ok();
    let copies = site.boxed();
    assert_eq!(copies.len(), handed_in);
    assert!(
        copies
            .iter()
            .all(|copy| !copy.contains("secret@") && !copy.contains("blind@"))
    );
    site.is_clean_and_empty();
    count("hostile inputs", handed_in);
}
