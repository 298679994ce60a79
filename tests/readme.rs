//! README's tour: every line that it tells the reader to type, in its order, on a machine without a
//! spool, with the output that it shows.
//!
//! What belongs here: nothing but what README promises about its ```console blocks. Their format is:
//!
//! - `$ COMMAND` is typed. With `<<END` in it, it continues up to the line `END`.
//! - The other lines are its output, standard error included. Blanks between words are compared as one.
//! - `…` in a line is any text, and a line of `…` alone any number of lines.
//! - A command exits with 0, unless the next one is `echo $?`.

mod program;

use std::fs;
use std::path::Path;
use std::process::Command;

use program::{Site, ended, files, names, until};

const README: &str = include_str!("../README.md");

/// What the shell prints after each command, before its status. No output has it.
const MARK: &str = "\u{1}";

/// A command of the tour, and the output that README shows for it.
#[derive(Debug, Default)]
struct Line {
    number: usize,
    command: String,
    output: Vec<&'static str>,
}

/// The commands of all console blocks.
fn tour() -> Vec<Line> {
    let mut tour: Vec<Line> = Vec::new();
    let (mut inside, mut continued) = (false, false);
    for (number, text) in (1..).zip(README.lines()) {
        if !inside {
            inside = text == "```console";
        } else if continued {
            let line = tour.last_mut().unwrap();
            line.command += &format!("\n{text}");
            continued = text != "END";
        } else if text == "```" {
            inside = false;
        } else if let Some(command) = text.strip_prefix("$ ") {
            continued = command.contains("<<END");
            tour.push(Line {
                number,
                command: command.to_owned(),
                output: Vec::new(),
            });
        } else {
            let line = tour.last_mut();
            line.expect("a block begins with a command")
                .output
                .push(text);
        }
    }
    assert!(!inside && !continued, "a block has no end");
    tour
}

/// Whether the output is what README shows.
fn are_as_shown(shown: &[&str], said: &[&str]) -> bool {
    match shown {
        [] => said.is_empty(),
        ["…", shown @ ..] => {
            (0..=said.len()).any(|skipped| are_as_shown(shown, &said[skipped..]))
        }
        [line, shown @ ..] => said.split_first().is_some_and(|(first, said)| {
            is_as_shown(&one_blank(line), &one_blank(first)) && are_as_shown(shown, said)
        }),
    }
}

fn is_as_shown(shown: &str, said: &str) -> bool {
    match shown.split_once('…') {
        None => shown == said,
        Some((begin, rest)) => said.strip_prefix(begin).is_some_and(|said| {
            let mut ends = said.char_indices().map(|(at, _)| at).chain([said.len()]);
            ends.any(|at| is_as_shown(rest, &said[at..]))
        }),
    }
}

/// The line with one blank between words and none at its end. Its indentation counts as one blank.
fn one_blank(line: &str) -> String {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    if line.starts_with([' ', '\t']) {
        format!(" {}", words.join(" "))
    } else {
        words.join(" ")
    }
}

/// A shell that runs the commands, in a home directory and without any other setting.
fn shell(home: &Path, tour: &[Line]) -> Command {
    let mut script = String::from("exec 2>&1\n");
    for line in tour {
        script += &format!(
            "{}\nstatus=$?; printf '{MARK}%s{MARK}' $status; (exit $status)\n",
            line.command
        );
    }
    let file = home.join("tour.sh");
    fs::write(&file, script).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_mailspool")).parent().unwrap();
    let mut command = Command::new("/bin/sh");
    command
        .env_clear()
        .env("HOME", home)
        .env("PATH", format!("{}:/usr/bin:/bin", program.display()))
        .env("TZ", "UTC")
        .current_dir(home)
        .arg(file);
    command
}

#[test]
fn the_tour_shows_what_it_says() {
    let home = tempfile::tempdir().unwrap();
    // Its drop ends what the tour has left in the background.
    let site = Site::at(&home.path().join("mailspool-tour"));
    let tour = tour();
    assert!(tour.len() > 40, "{} commands", tour.len());
    // Before the first use of the program: the tour must not touch the machine's own spool.
    let first = tour
        .iter()
        .position(|line| line.command.contains("mailspool "));
    assert_eq!(
        tour[first.unwrap() - 1].command,
        "export MAILSPOOL_SPOOL=~/mailspool-tour/spool"
    );

    let said = ended(&mut shell(home.path(), &tour), b"").ok();
    let mut pieces = said.split(MARK);
    for (at, line) in tour.iter().enumerate() {
        let Line {
            number,
            command,
            output,
        } = line;
        let said: Vec<&str> = pieces.next().unwrap().lines().collect();
        assert!(
            are_as_shown(output, &said),
            "README.md:{number}: $ {command}\nshown: {output:#?}\nsaid: {said:#?}"
        );
        let is_shown = tour
            .get(at + 1)
            .is_some_and(|next| next.command == "echo $?");
        let status = pieces.next().unwrap();
        assert!(
            status == "0" || is_shown,
            "README.md:{number}: $ {command}\nexits with {status}: {said:#?}"
        );
    }

    // README says where the mail is. Six are delivered: the first message, the bounce, the one sent with
    // -t, the one with a success notice, that notice, and one under a key. Five wait: one for the relay,
    // four for later (or four in all, if it has just become 18:00).
    let count = || {
        let delivered = names(&site.spool().join("outbox/new")).len();
        (delivered, files(&site.spool().join("deferred")).len())
    };
    until("what is due is delivered", || {
        let (delivered, waiting) = count();
        delivered >= 6 && delivered + waiting == 11
    });
}

#[test]
fn an_ellipsis_is_any_text_and_nothing_else_is() {
    for (shown, said) in [
        ("The spool is …/spool.", "The spool is /home/me/spool."),
        ("…s  … B  a", "3s   312 B  a"),
        ("a…", "a"),
    ] {
        assert!(is_as_shown(&one_blank(shown), &one_blank(said)), "{shown}");
    }
    for (shown, said) in [("a…b", "a"), ("a", "a b"), ("", "a"), ("…a", "b")] {
        assert!(!is_as_shown(shown, said), "{shown}");
    }
    assert!(are_as_shown(&["…", "b", "…"], &["a", "a", "b"]));
    assert!(!are_as_shown(&["…", "b"], &["b", "a"]));
    assert!(!are_as_shown(&[], &["a"]));
    assert!(!are_as_shown(&["a"], &[]));
}
