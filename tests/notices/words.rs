//! An administrator's own wording of notices, used by the program.

use std::fs;

use crate::program::{BOX, Site, pipe, route};
use crate::read;

/// Mail for `users.test` fails, all other mail goes into a box.
fn failing() -> String {
    let script = "cat >/dev/null; echo '5.2.2 full'; exit 77";
    pipe("users", script) + &route("domain", "users.test", "users") + BOX
}

#[test]
fn examples_are_notices() {
    let site = Site::new("");
    let example = |kind: &str| site.program(["config", "notices", kind], b"").out;
    let (all, failed) = (
        vec![
            "first@example.com",
            "second@example.com",
            "third@example.org",
        ],
        vec![],
    );
    let bounce = read(&example("bounce"));
    assert_eq!(bounce.flufl(), (failed.clone(), all.clone()));
    let delay = read(&example("delay"));
    assert_eq!(delay.flufl(), (all, failed));
    let success = read(&example("success"));
    assert_eq!(success.flufl(), (vec![], vec![]));
    assert_eq!(success.sisimai(["status"]), [["2.0.0"], ["2.0.0"]]);
    let both = site.program(["config", "notices"], b"").ok();
    for kind in ["bounce", "delay", "success"] {
        let alone = String::from_utf8(example(kind)).unwrap();
        assert!(both.contains(&format!("==> {kind} <==\n{alone}")), "{both}");
    }
}

#[test]
fn words_in_a_file_go_out() {
    let words = "\n[notice.bounce]\nfrom = \"Post <post@mail.test>\"\nsubject = \"Zurück: {subject}\"\n\
                 text_file = \"words.txt\"\n[notice.delay]\ntext = \"\"\"\nbis {until}\n\"\"\"\n";
    let site = Site::new(&(words.to_owned() + &failing()));
    let path = site.spool().join("words.txt");
    let line = "config.toml:6: text_file ";
    let checked = site.program(["config", "check"], b"");
    assert_eq!(checked.code, 78);
    assert!(checked.err.contains(line), "{checked}");
    assert!(checked.err.contains("No such file"), "{checked}");
    // The sender is still notified, in the default words.
    site.queue(&["b@users.test"]);
    site.run().ok();
    let bounce = site.boxed().pop().unwrap();
    let report = read(bounce.as_bytes());
    assert_eq!(report.email["header"]["From"], "Post <post@mail.test>");
    assert!(report.text().contains("The mailbox is full."), "{bounce}");

    fs::write(&path, "gut\n{nonsense}\n").unwrap();
    let checked = site.program(["config", "check"], b"");
    assert_eq!(checked.code, 78);
    let words = "words.txt, line 2: {nonsense} is not one of {hostname}, ";
    assert!(
        checked.err.contains(line) && checked.err.contains(words),
        "{checked}"
    );
    let shown = site.program(["config", "notices", "bounce"], b"");
    assert_eq!(shown.code, 78);
    assert!(shown.err.contains(words) && shown.text().contains("\nSubject: =?utf-8?"));

    fs::write(&path, "Leider kam {subject} nicht an.\n\n{replies}\n").unwrap();
    site.program(["config", "check"], b"").ok();
    let shown = site.program(["config", "notices"], b"").ok();
    assert!(
        shown.contains("\nLeider kam An example of a message nicht an.\n"),
        "{shown}"
    );
    assert!(
        shown.contains("\nbis 26 November 2026, 14:05 UTC\n"),
        "{shown}"
    );
    // The configuration in effect can be used as a configuration.
    let first = site.program(["config"], b"").ok();
    fs::write(site.spool().join("config.toml"), &first).unwrap();
    assert_eq!(site.program(["config"], b"").ok(), first);
    assert!(first.contains("text_file = \"words.txt\""), "{first}");

    for copy in fs::read_dir(site.dir().join("box/new")).unwrap() {
        fs::remove_file(copy.unwrap().path()).unwrap();
    }
    site.queue(&["b@users.test", "c@users.test"]);
    site.run().ok();
    let report = read(site.boxed().pop().unwrap().as_bytes());
    assert_eq!(report.email["header"]["Subject"], "Zurück: hello");
    assert!(
        report
            .text()
            .starts_with("Leider kam hello nicht an.\n\n  b@users.test\n  c@users.test\n")
    );
    assert_eq!(
        report.flufl(),
        (vec![], vec!["b@users.test", "c@users.test"])
    );
    assert_eq!(
        report.sisimai(["recipient", "status", "reason"]),
        [
            ["b@users.test", "5.2.2", "mailboxfull"],
            ["c@users.test", "5.2.2", "mailboxfull"],
        ]
    );
}
