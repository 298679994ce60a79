//! Messages: each is delivered unchanged, octet by octet, or refused with the right status.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::guard::{assert_terminal, watched};
use crate::program::{BOX, Site, names, pipe, route};
use crate::proof::count;

type Made = fn(&mut dyn Write) -> std::io::Result<()>;

const KB: &[u8; 1000] = &[b'x'; 1000];

fn repeat(to: &mut dyn Write, bytes: &[u8], times: usize) -> std::io::Result<()> {
    (0..times).try_for_each(|_| to.write_all(bytes))
}

/// Messages that are accepted, however odd.
const TAKEN: &[(&str, Made)] = &[
    ("nul", |to| {
        to.write_all(b"Subject: a\0b\nX: \0\n\n\0\0\nx\0")
    }),
    ("lone cr", |to| {
        to.write_all(b"Subject: a\rb\r\rc\n\r\nbody\r\rx\r")
    }),
    ("mixed ends", |to| {
        to.write_all(b"A: b\r\nC: d\nE: f\r\n\nbody\n\r\n.\r\n..\n")
    }),
    ("not utf-8", |to| {
        to.write_all(b"Subject: \xff\xfe\xc3\x28\n\n\x80\x81\xf5\n")
    }),
    ("no final newline", |to| {
        to.write_all(b"Subject: x\n\nthe end")
    }),
    ("header only", |to| to.write_all(b"Subject: x\n")),
    ("half a header", |to| to.write_all(b"Subject")),
    ("no header", |to| to.write_all(b"just words\nand more\n")),
    ("empty line", |to| to.write_all(b"\n")),
    ("one octet", |to| to.write_all(b"\0")),
    ("escapes", |to| {
        to.write_all(b"Subject: \x1b[2J\x07\x9b31m\xe2\x80\xae\n\n\x1b]0;x\x07\n")
    }),
    ("a line without end", |to| {
        to.write_all(b"Subject: ")?;
        repeat(to, KB, 5_000)
    }),
    ("a name without end", |to| repeat(to, KB, 5_000)),
    ("garbage", |to| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..200_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            to.write_all(&state.to_le_bytes())?;
        }
        Ok(())
    }),
    ("a million fields", |to| {
        repeat(to, b"X: y\n", 1_000_000)?;
        to.write_all(b"\nbody\n")
    }),
    ("100 MB of header", |to| {
        (0..100_000).try_for_each(|_| {
            to.write_all(b"X-Padding: ")?;
            to.write_all(KB)?;
            to.write_all(b"\n")
        })?;
        to.write_all(b"\nbody\n")
    }),
    ("nested multiparts", |to| {
        (0..50_000).try_for_each(|n| {
            write!(
                to,
                "Content-Type: multipart/mixed; boundary=\"b{n}\"\n\n--b{n}\n"
            )
        })
    }),
    ("nested messages", |to| {
        repeat(to, b"Content-Type: message/rfc822\n\n", 50_000)
    }),
];

fn input(site: &Site, name: &str, made: Made) -> PathBuf {
    let path = site.dir().join(format!("input {name}"));
    let mut file = BufWriter::new(File::create(&path).unwrap());
    made(&mut file).unwrap();
    file.flush().unwrap();
    path
}

/// A site that refuses every recipient at `no.test` and delivers all other mail into the box.
fn site() -> Site {
    let refuses = pipe("refuses", "cat >/dev/null; echo no such user; exit 67");
    let accept = "[accept]\nmax_size = \"200M\"\nmin_free = \"0\"\n[log]\nto = \"stderr\"\n";
    Site::new(&format!(
        "{accept}{refuses}{}{BOX}",
        route("domain", "no.test", "refuses")
    ))
}

#[test]
fn every_message_arrives_as_it_came() {
    let site = site();
    for (name, made) in TAKEN {
        let file = input(&site, name, *made);
        let receive = ["receive", "-f", "a@example.org", "--", "b@example.test"];
        let taken = watched(&site, &receive, Some(&file));
        assert_eq!(taken.code, 0, "{name}: {taken}");
        let id = site.row()["id"].as_str().unwrap().to_owned();
        looks(&site, &id, &file, name);
        assert_eq!(watched(&site, &["run"], None).code, 0, "{name}");
        let boxed = names(&site.dir().join("box/new"));
        assert_eq!(boxed.len(), 1, "{name}");
        let copy = site.dir().join("box/new").join(&boxed[0]);
        assert!(ends_with(&copy, &file), "{name}: not as it came");
        fs::remove_file(copy).unwrap();
        assert!(site.is_empty(), "{name}");
        fs::remove_file(file).unwrap();
    }
    count("hostile inputs", TAKEN.len());
}

/// Listed and shown, the message cannot control a terminal. Shown raw, it is unchanged.
fn looks(site: &Site, id: &str, file: &Path, name: &str) {
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["show", id],
        &["show", "--json", id],
    ] {
        let said = watched(site, arguments, None);
        assert_terminal(&said.ok());
    }
    assert_eq!(
        watched(site, &["show", "--headers", id], None).code,
        0,
        "{name}"
    );
    assert_eq!(
        watched(site, &["show", "--message", id], None).code,
        0,
        "{name}"
    );
    assert!(
        ends_with(&site.dir().join("stdout"), file),
        "{name}: not shown as it came"
    );
}

/// The same by the other entrance: recipients come from the header, and the bounce goes back to the sender.
#[test]
fn every_message_can_be_sent_and_comes_back() {
    let site = site();
    for (name, made) in TAKEN {
        let file = input(&site, name, *made);
        let from_header = [
            "send",
            "-t",
            "--queue-only",
            "-f",
            "a@example.org",
            "--",
            "b@no.test",
        ];
        let sent = watched(&site, &from_header, Some(&file));
        if sent.code == 65 {
            let big = fs::metadata(&file).unwrap().len() > 4_000_000;
            assert!(
                big && sent.err.contains("too long to take recipients"),
                "{name}: {sent}"
            );
            let send = [
                "send",
                "--queue-only",
                "-f",
                "a@example.org",
                "--",
                "b@no.test",
            ];
            assert_eq!(watched(&site, &send, Some(&file)).code, 0, "{name}");
        }
        let run = watched(&site, &["run"], None);
        assert_eq!(run.code, 0, "{name}: {run}");
        let boxed = names(&site.dir().join("box/new"));
        assert_eq!(boxed.len(), 1, "{name}: a bounce");
        let bounce = site.dir().join("box/new").join(&boxed[0]);
        let text = String::from_utf8_lossy(&fs::read(&bounce).unwrap()).into_owned();
        assert!(text.len() < 200_000, "{name}: {}", text.len());
        assert!(
            text.contains("\nFinal-Recipient: rfc822; b@no.test\nAction: failed\n"),
            "{name}: {text}"
        );
        assert!(text.trim_end().ends_with("--"), "{name}: no end: {text}");
        fs::remove_file(bounce).unwrap();
        fs::remove_file(file).unwrap();
        assert!(site.is_empty(), "{name}");
    }
    count("hostile inputs", TAKEN.len());
}

#[test]
fn what_is_refused_leaves_nothing_and_says_why() {
    let site = Site::new(&format!(
        "[accept]\nmax_size = \"100k\"\nhop_limit = 5\n{BOX}"
    ));
    let cases: [(&str, Made, [i32; 2], &str); 5] = [
        ("nothing", |_| Ok(()), [75, 65], "empty"),
        ("max_size", |to| repeat(to, KB, 100), [0, 0], ""),
        (
            "one more",
            |to| {
                repeat(to, KB, 100)?;
                to.write_all(b"x")
            },
            [65, 65],
            "5.3.4 ",
        ),
        ("much more", |to| repeat(to, KB, 5_000), [65, 65], "5.3.4 "),
        (
            "hops",
            |to| repeat(to, b"Received: x\n", 6),
            [65, 65],
            "5.4.6 ",
        ),
    ];
    for (name, made, codes, words) in &cases {
        let file = input(&site, name, *made);
        let receive = &["receive", "-f", "a@example.org", "--", "b@example.test"][..];
        let send = &[
            "send",
            "--queue-only",
            "-f",
            "a@example.org",
            "--",
            "b@example.test",
        ][..];
        for (arguments, code) in [receive, send].into_iter().zip(codes) {
            let ended = watched(&site, arguments, Some(&file));
            assert_eq!(ended.code, *code, "{name}: {ended}");
            assert!(
                ended.text().starts_with(words) || ended.err.contains(words),
                "{name}: {ended}"
            );
            assert_eq!(site.is_empty(), *code != 0, "{name}");
            site.run();
            assert!(site.is_empty(), "{name}");
        }
    }
    count("hostile inputs", 2 * cases.len());
}

#[test]
fn ten_thousand_recipients_are_one_message() {
    const MANY: usize = 10_000;
    let site = site();
    let file = input(&site, "crowd", |to| to.write_all(b"Subject: x\n\nb\n"));
    let recipients: Vec<String> = (0..MANY).map(|n| format!("r{n}@no.test")).collect();
    // Half of the recipients come from the command line, half from a header.
    let header = site.dir().join("header");
    fs::write(
        &header,
        format!("To: {}\n\nb\n", recipients[MANY / 2..].join(",\n\t")),
    )
    .unwrap();
    let mut send = vec!["send", "-t", "--queue-only", "-f", "a@example.org", "--"];
    send.extend(recipients[..MANY / 2].iter().map(String::as_str));
    assert_eq!(watched(&site, &send, Some(&header)).code, 0);
    let mut receive = vec!["receive", "-f", "a@example.org", "--"];
    receive.extend(recipients.iter().map(String::as_str));
    assert_eq!(watched(&site, &receive, Some(&file)).code, 0);
    for row in site.rows() {
        assert_eq!(row["recipients"].as_array().unwrap().len(), MANY);
        watched(&site, &["show", row["id"].as_str().unwrap()], None).ok();
        watched(
            &site,
            &["bounce", "--queue-only", row["id"].as_str().unwrap()],
            None,
        )
        .ok();
    }
    watched(&site, &["run"], None).ok();
    let boxed = names(&site.dir().join("box/new"));
    assert_eq!(boxed.len(), 2, "a bounce each");
    for name in boxed {
        let text = fs::read_to_string(site.dir().join("box/new").join(name)).unwrap();
        assert_eq!(text.matches("\nFinal-Recipient: ").count(), MANY);
    }
    assert!(site.is_empty());
    count("hostile inputs", 2);
}

/// Returns whether a file ends with another, without holding either in memory.
fn ends_with(file: &Path, end: &Path) -> bool {
    let (mut file, mut end) = (File::open(file).unwrap(), File::open(end).unwrap());
    let length = end.metadata().unwrap().len();
    let Some(from) = file.metadata().unwrap().len().checked_sub(length) else {
        return false;
    };
    file.seek(SeekFrom::Start(from)).unwrap();
    let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut left = length as usize;
    while left > 0 {
        let some = left.min(a.len());
        file.read_exact(&mut a[..some]).unwrap();
        end.read_exact(&mut b[..some]).unwrap();
        if a[..some] != b[..some] {
            return false;
        }
        left -= some;
    }
    true
}
