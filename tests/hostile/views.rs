//! View files in `info/`, changed by hand or by a power cut: `check` reports them, a repair rewrites them,
//! and there is no other effect.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::sys::stat::Mode;
use serde_json::Value;

use crate::guard::Snapshot;
use crate::program::{BOX, Site, pipe, route};
use crate::proof::count;

/// What is done to a view file, and whether a file exists after it.
type Change = (&'static str, bool, fn(&Path, &Path));

fn put(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

const CHANGES: &[Change] = &[
    ("missing", true, |path, _| fs::remove_file(path).unwrap()),
    ("empty", true, |path, _| put(path, b"")),
    ("edited", true, |path, _| put(path, b"hand@example.test\n")),
    ("as long as it was", true, |path, _| {
        let mut bytes = fs::read(path).unwrap();
        bytes[0] ^= 1;
        put(path, &bytes);
    }),
    ("torn", true, |path, _| {
        let bytes = fs::read(path).unwrap();
        put(path, &bytes[..bytes.len() - 2]);
    }),
    ("zeroes", true, |path, _| {
        let bytes = fs::read(path).unwrap();
        put(path, &vec![0; bytes.len()]);
    }),
    ("longer", true, |path, _| {
        let bytes = fs::read(path).unwrap();
        put(path, &[&bytes[..], b"more@example.test\n"].concat());
    }),
    ("a second name of a file outside", true, |path, outside| {
        fs::remove_file(path).unwrap();
        fs::hard_link(outside.join("treasure"), path).unwrap();
    }),
    ("a link", false, |path, outside| {
        fs::remove_file(path).unwrap();
        symlink(outside.join("treasure"), path).unwrap();
    }),
    ("a pipe", false, |path, _| {
        fs::remove_file(path).unwrap();
        nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o600)).unwrap();
    }),
    ("a directory", false, |path, _| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }),
];

/// The findings about the view, with what was done about each.
fn findings(site: &Site, arguments: &[&str]) -> Vec<(String, Value)> {
    let mut command = vec!["check", "--json"];
    command.extend(arguments);
    let ended = site.program(command, b"");
    assert_eq!(ended.code, 0, "a view is no problem: {ended}");
    let text = ended.text();
    let all = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found = all.filter(|line| line["kind"] == "finding");
    let found: Vec<Value> = found.collect();
    assert!(
        found.iter().all(|finding| finding["level"] == "note"),
        "{found:?}"
    );
    found
        .into_iter()
        .map(|finding| (finding["path"].as_str().unwrap().to_owned(), finding))
        .collect()
}

#[test]
fn a_view_that_was_changed_has_no_effect() {
    let mut turns = 0;
    for info in ["sender", "recipients", "transport"] {
        for (name, is_file, change) in CHANGES {
            let what = format!("{name}: {info}");
            let later = pipe("later", "cat >/dev/null; echo busy; exit 75");
            let site = Site::new(&format!(
                "{later}{}{BOX}",
                route("domain", "later.test", "later")
            ));
            let outside = site.dir().join("outside");
            fs::create_dir(&outside).unwrap();
            put(&outside.join("treasure"), b"not to be\ntouched");
            let send = [
                "send",
                "--queue-only",
                "-f",
                "s@example.org",
                "--envid",
                "mark",
                "--",
            ];
            let id = site.program(
                send.iter().chain(&["r@example.test", "l@later.test"]),
                b"Subject: s\n\nb\n",
            );
            let id = id.ok().trim().to_owned();
            // So that the next run is not the first one after the boot.
            site.configure("");
            site.run();
            site.configure(&format!(
                "{later}{}{BOX}",
                route("domain", "later.test", "later")
            ));
            let path = format!("info/{info}/{id}");
            let view = fs::read(site.spool().join(&path)).unwrap();
            let (row, shown) = (site.row(), site.shown(&id));
            change(&site.spool().join(&path), &outside);
            let (untouched, around) = (Snapshot::of(&site.spool()), Snapshot::of(&outside));

            let found = findings(&site, &[]);
            assert!(
                matches!(&found[..], [(at, _)] if *at == path),
                "{what}: {found:?}"
            );
            let announced = findings(&site, &["--repair", "--dry-run"]);
            assert_eq!(announced, found, "{what}");
            let without_age = |mut row: Value| {
                row.as_object_mut().unwrap().remove("age");
                row
            };
            assert_eq!(without_age(site.row()), without_age(row), "{what}");
            assert_eq!(without_age(site.shown(&id)), without_age(shown), "{what}");
            untouched.assert_untouched(&site.spool(), &what);
            around.assert_untouched(&outside, &what);

            let repaired = findings(&site, &["--repair"]);
            assert_eq!(
                repaired[0].1["mended"] == true,
                *is_file,
                "{what}: {repaired:?}"
            );
            around.assert_untouched(&outside, &what);
            if *is_file {
                assert_eq!(fs::read(site.spool().join(&path)).unwrap(), view, "{what}");
                assert_eq!(findings(&site, &[]), [], "{what}");
            } else {
                untouched.assert_untouched(&site.spool(), &what);
            }
            // Changed again, it affects neither the attempt nor the end of the message.
            if *is_file {
                change(&site.spool().join(&path), &outside);
            }
            site.program(["flush", "--queue-only"], b"").ok();
            let run = site.run();
            assert_eq!((run.code, site.boxed().len()), (0, 1), "{what}: {run}");
            assert!(
                site.boxed()[0].contains("Delivered-To: r@example.test\n"),
                "{what}"
            );
            site.configure(BOX);
            site.program(["flush", "--queue-only"], b"").ok();
            site.run().ok();
            assert_eq!(site.boxed().len(), 2, "{what}");
            around.assert_untouched(&outside, &what);
            let is_left = fs::symlink_metadata(site.spool().join(&path)).is_ok();
            assert_eq!(is_left, *name == "a directory", "{what}");
            assert_eq!(site.rows(), [] as [Value; 0], "{what}");
            turns += 1;
        }
    }
    count("hostile inputs", turns);
}
