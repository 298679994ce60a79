//! Spools that contain foreign objects. Every command ends clearly, nothing outside changes, and the other
//! messages are delivered.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use crate::guard::{Snapshot, assert_terminal, watched};
use crate::obstacles::{FILES, Immutable, THINGS, Thing, clear, sparse, strangers};
use crate::program::{Ended, Site};
use crate::proof::{count, long};

/// Every operator command, for this message.
const COMMANDS: &[&[&str]] = &[
    &["list"],
    &["list", "--json"],
    &["count", "--json"],
    &["show", "ID"],
    &["show", "--json", "ID"],
    &["show", "--headers", "ID"],
    &["check"],
    &["check", "--repair", "--dry-run"],
    &["freeze", "ID"],
    &["retry", "--queue-only", "ID"],
    &["run"],
    &["discard", "ID"],
    &["retry", "--queue-only", "ID"],
    &["flush", "--queue-only"],
    &["check", "--json"],
    &["check", "--repair"],
    &["run"],
];

struct Scene {
    site: Site,
    outside: PathBuf,
    letter: PathBuf,
    /// The message that is attacked.
    victim: String,
}

impl Scene {
    /// A spool with two messages, and a file outside that must not be touched.
    fn new() -> Scene {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test needs root, for devices and owners"
        );
        let site = Site::with_box();
        let outside = site.dir().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("treasure"), "not to be\ntouched").unwrap();
        let letter = site.dir().join("letter");
        fs::write(&letter, "Subject: x\n\nb\n").unwrap();
        let victim = site.queue(&["victim@example.test"]);
        site.queue(&["good@example.test"]);
        // The target of anything done through a link.
        fs::write(outside.join(&victim), "Subject: outside\n\n").unwrap();
        fs::set_permissions(outside.join(&victim), fs::Permissions::from_mode(0o600)).unwrap();
        Scene {
            site,
            outside,
            letter,
            victim,
        }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.site.spool().join(below.replace("ID", &self.victim))
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let arguments: Vec<&str> = arguments
            .iter()
            .map(|word| {
                if *word == "ID" {
                    self.victim.as_str()
                } else {
                    word
                }
            })
            .collect();
        let ended = watched(&self.site, &arguments, None);
        if !arguments.contains(&"--headers") {
            assert_terminal(&ended.text());
        }
        ended
    }

    /// Runs every command in turn, and submits new mail by both entrances.
    fn use_everything(&self, what: &str) {
        let outside = Snapshot::of(&self.outside);
        for command in COMMANDS {
            self.run(command);
            outside.assert_untouched(&self.outside, &format!("{what}: {command:?}"));
        }
        let send = [
            "send",
            "--queue-only",
            "-f",
            "a@b",
            "--",
            "new@example.test",
        ];
        let receive = ["receive", "-f", "a@b", "--", "new@example.test"];
        for arguments in [&send[..], &receive] {
            watched(&self.site, arguments, Some(&self.letter));
            outside.assert_untouched(&self.outside, &format!("{what}: {arguments:?}"));
        }
        self.run(&["run"]);
        outside.assert_untouched(&self.outside, what);
    }

    fn delivered(&self, to: &str) -> usize {
        let field = format!("Delivered-To: {to}\n");
        self.site
            .boxed()
            .iter()
            .filter(|copy| copy.contains(&field))
            .count()
    }
}

/// Replaces one path by each object in turn, and runs every command; the other messages are unaffected.
fn in_place_of(below: &str, things: &[Thing]) {
    for (name, put) in things {
        let scene = Scene::new();
        let what = format!("{name} as {below}");
        let path = scene.path(below);
        clear(&path);
        put(&path, &scene.outside);
        scene.use_everything(&what);
        assert_eq!(scene.delivered("good@example.test"), 1, "{what}");
        assert_eq!(scene.delivered("new@example.test"), 2, "{what}");
        // A second repair changes nothing.
        let again = scene.run(&["check", "--repair", "--json"]).text();
        assert!(!again.contains("\"mended\":true"), "{what}: {again}");
        clear(&path);
    }
    count("hostile inputs", things.len());
}

fn all() -> Vec<Thing> {
    THINGS.iter().chain(FILES).copied().collect()
}

#[test]
fn a_message_file_that_is_something_else() {
    in_place_of("active/ID", &all());
}

#[test]
fn a_sender_that_is_something_else() {
    in_place_of("info/sender/ID", &all());
}

#[test]
fn recipients_that_are_something_else() {
    in_place_of("info/recipients/ID", &all());
}

#[test]
fn submission_facts_that_are_something_else() {
    in_place_of("info/transport/ID", &all());
}

#[test]
fn a_history_that_is_something_else() {
    in_place_of("history/ID", &all());
}

#[test]
fn a_request_that_is_something_else() {
    in_place_of("requests/ID", &all());
}

#[test]
fn names_of_ours_that_are_something_else() {
    const ID: &str = "01a201cc-662b-77ed-897a-de904870b4d3";
    for place in [
        "new",
        "incoming",
        "done",
        "corrupt",
        "frozen/never",
        "info/sender",
        "requests",
    ] {
        let scene = Scene::new();
        for (n, (_, put)) in THINGS.iter().enumerate() {
            fs::create_dir_all(scene.path(place)).unwrap();
            put(
                &scene.path(place).join(format!("{}{n:02x}", &ID[..34])),
                &scene.outside,
            );
        }
        scene.use_everything(place);
        assert_eq!(scene.delivered("good@example.test"), 1, "{place}");
        count("hostile inputs", THINGS.len());
    }
}

#[test]
fn buckets_that_are_something_else() {
    for kept in ["deferred", "frozen", "discarded"] {
        let scene = Scene::new();
        for (n, (_, put)) in THINGS.iter().enumerate() {
            // Long past, and far in the future.
            for year in [2020, 2999] {
                put(
                    &scene.path(&format!("{kept}/{year}-01-01T00{n:02}Z")),
                    &scene.outside,
                );
            }
        }
        clear(&scene.path("deferred/never"));
        symlink(&scene.outside, scene.path("frozen/never")).unwrap();
        scene.use_everything(kept);
        assert_eq!(scene.delivered("good@example.test"), 1, "{kept}");
        count("hostile inputs", 2 * THINGS.len() + 1);
    }
}

/// Parts that every command needs: each command reports the damage, and the mail waits until it is repaired.
#[test]
fn parts_of_the_spool_that_are_something_else() {
    let parts = [
        "new",
        "active",
        "deferred",
        "corrupt",
        "info",
        "info/sender",
        "requests",
        "state",
        "version",
        "config.toml",
    ];
    for (turn, part) in parts.into_iter().enumerate() {
        let scene = Scene::new();
        let (path, aside) = (scene.path(part), scene.site.dir().join("aside"));
        fs::rename(&path, &aside).unwrap();
        // Only a third of them for each part, each time a different third; all in a long run.
        let step = if long() { 1 } else { 3 };
        for (name, put) in THINGS.iter().skip(turn % step).step_by(step) {
            put(&path, &scene.outside);
            let what = format!("{name} as {part}");
            let outside = Snapshot::of(&scene.outside);
            for command in COMMANDS {
                scene.run(command);
                outside.assert_untouched(&scene.outside, &what);
            }
            let receive = ["receive", "-f", "a@b", "--", "new@example.test"];
            // An empty directory may work like the original.
            let code = watched(&scene.site, &receive, Some(&scene.letter)).code;
            assert!(code == 75 || name.contains("directory"), "{what}: {code}");
            outside.assert_untouched(&scene.outside, &what);
            clear(&path);
        }
        // Missing, as if the disk were not mounted. (Without a configuration, mail goes to the outbox.)
        for command in COMMANDS {
            if part != "config.toml" || *command != ["run"] {
                scene.run(command);
            }
        }
        clear(&path);
        fs::rename(&aside, &path).unwrap();
        scene.run(&["retry", "--queue-only", "ID"]);
        scene.run(&["run"]);
        let left = scene.delivered("good@example.test");
        let queued = scene.site.rows().len();
        assert!(left == 1 || queued > 0, "{part}: the message is gone");
        count("hostile inputs", THINGS.len().div_ceil(step) + 1);
    }
}

#[test]
fn strangers_are_left_alone_and_do_not_matter() {
    let scene = Scene::new();
    let dirs = [
        "active",
        "new",
        "done",
        "corrupt",
        "deferred",
        "info/sender",
        "history",
        "state",
        "",
    ];
    for dir in dirs {
        strangers(&scene.path(dir));
    }
    let before = fs::read_dir(scene.path("state")).unwrap().count();
    scene.use_everything("strangers");
    assert_eq!(scene.delivered("good@example.test"), 1);
    assert_eq!(scene.delivered("victim@example.test"), 1);
    let said = scene.run(&["check"]).ok();
    assert!(
        said.contains("state/: 2") && said.lines().count() < 400,
        "{said}"
    );
    assert!(fs::read_dir(scene.path("state")).unwrap().count() >= before);
    let all = scene.run(&["check", "--json"]).ok();
    assert!(all.lines().count() > 3000 * dirs.len());
    count("hostile inputs", dirs.len());
}

#[test]
fn files_that_are_too_large_or_cannot_be_changed() {
    // Ten gigabytes of zeros, and a second name elsewhere.
    let scene = Scene::new();
    sparse(&scene.path("active/ID"), 10 << 30);
    fs::hard_link(scene.path("active/ID"), scene.site.dir().join("elsewhere")).unwrap();
    scene.use_everything("10 GB");
    assert_eq!(scene.delivered("good@example.test"), 1);
    assert!(scene.path("corrupt/ID").exists(), "quarantined");

    // The right content, and a second name outside: it is delivered, and the other name stays.
    let scene = Scene::new();
    let other = scene.site.dir().join("elsewhere");
    fs::hard_link(scene.path("active/ID"), &other).unwrap();
    let content = fs::read(&other).unwrap();
    scene.run(&["check"]);
    scene.run(&["run"]);
    assert_eq!(scene.delivered("victim@example.test"), 1);
    assert_eq!(fs::read(&other).unwrap(), content);

    for below in ["active/ID", "info/sender/ID", "info/transport/ID", "active"] {
        let scene = Scene::new();
        let immutable = Immutable::make(&scene.path(below));
        scene.use_everything(below);
        drop(immutable);
        scene.run(&["retry", "--queue-only", "ID"]);
        scene.run(&["run"]);
        assert_eq!(scene.delivered("good@example.test"), 1, "{below}");
        scene.run(&["check", "--repair"]);
    }
    count("hostile inputs", 6);
}

/// A spool of an unprivileged user, to which modes and owners apply.
#[test]
fn modes_and_owners_that_keep_the_owner_out() {
    let modes: [(&str, u32); 9] = [
        ("active/ID", 0),
        ("active/ID", 0o400),
        ("active/ID", 0o666),
        ("info/sender/ID", 0),
        ("info/recipients/ID", 0o222),
        ("info/transport/ID", 0o777),
        ("history", 0),
        ("active", 0),
        ("deferred", 0o500),
    ];
    for (below, mode) in modes {
        let scene = Scene::new();
        give_away(&scene);
        let path = scene.path(below);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        for command in &COMMANDS[..8] {
            scene.run(command);
        }
        let said = scene.run(&["check", "--repair"]);
        assert!(
            said.text().contains("set its mode to"),
            "{below} {mode:o}: {said}"
        );
        assert_eq!(scene.run(&["check"]).code, 0, "{below} {mode:o}");
        scene.run(&["run"]).ok();
        for to in ["victim@example.test", "good@example.test"] {
            assert_eq!(scene.delivered(to), 1, "{below} {mode:o}");
        }
    }
    // Files that belong to root can be neither read nor taken over.
    for below in ["active/ID", "history/ID"] {
        let scene = Scene::new();
        if below.starts_with("history") {
            fs::write(scene.path(below), "").unwrap();
        }
        give_away(&scene);
        chown(scene.path(below), Some(0), Some(0)).unwrap();
        fs::set_permissions(scene.path(below), fs::Permissions::from_mode(0o600)).unwrap();
        scene.use_everything(below);
        let said = scene.run(&["check"]);
        assert_eq!(said.code, 65, "{below}: {said}");
        assert!(said.text().contains("belongs to user 0"), "{below}: {said}");
        assert_eq!(scene.delivered("good@example.test"), 1, "{below}");
    }
    // Views are never read, and the owner of the directory may remove them.
    for below in ["info/sender/ID", "info/transport/ID"] {
        let scene = Scene::new();
        give_away(&scene);
        chown(scene.path(below), Some(0), Some(0)).unwrap();
        let said = scene.run(&["check", "--repair"]);
        assert!(said.text().contains("belongs to user 0"), "{below}: {said}");
        scene.run(&["run"]).ok();
        for to in ["victim@example.test", "good@example.test"] {
            assert_eq!(scene.delivered(to), 1, "{below}");
        }
        scene.site.is_clean_and_empty();
    }
    count("hostile inputs", modes.len() + 4);
}

fn give_away(scene: &Scene) {
    fn walk(path: &Path) {
        chown(path, Some(65534), Some(65534)).unwrap();
        if path.is_dir() {
            fs::read_dir(path)
                .unwrap()
                .for_each(|entry| walk(&entry.unwrap().path()));
        }
    }
    walk(scene.site.dir());
}
