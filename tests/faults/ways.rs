//! Delivery into a Maildir, through the same seam, and by a command.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use mailspool::testing::disk::Seam;
use mailspool::testing::message::{Entrance, QueueId};
use mailspool::testing::queue::{Pattern, Routes, Rule};
use mailspool::testing::runner::{Error, Runner};
use mailspool::testing::spool::{Queue, Spool};
use mailspool::testing::transport::{Maildir, Pipe};
use tempfile::TempDir;

use super::explore::explore;
use super::inject::{Case, Fault, Injector, all_cases, sample};
use super::scratch::Scratch;
use super::world::{
    Clock, HOST, Ledger, accept, configured, files, findings, is_whole, tempdir, text,
};

/// Saves its input, whole or not at all.
const COMMAND: &str = r#"cat > "$1/part.$$" && mv "$1/part.$$" "$1/$MAILSPOOL_ID $RECIPIENT.$$""#;

struct Ways {
    dir: TempDir,
    start: Timestamp,
    messages: Vec<(QueueId, &'static str, Vec<&'static str>)>,
}

impl Ways {
    fn new() -> Ways {
        let dir = tempdir();
        let spool = Spool::create(&dir.path().join("spool")).unwrap();
        let new = |name, to: &[&'static str]| {
            let id = accept(&spool, Entrance::Active, name, "s@sender.test", to);
            (id, name, to.to_vec())
        };
        let messages = vec![
            new("boxed", &["a@box.test", "b@box.test"]),
            new("piped", &["c@command.test"]),
            new("each", &["d@box.test", "e@command.test", "f@ok.test"]),
        ];
        Ways {
            dir,
            start: Timestamp::now(),
            messages,
        }
    }

    /// A runner with all three transports. The Maildir and the command's files are in `dir`.
    fn runner(
        &self,
        spool: Spool,
        dir: &Path,
        seam: Option<Arc<dyn Seam>>,
        ledger: &Ledger,
        clock: &Clock,
    ) -> Runner {
        let rule = |pattern, transport: &str| Rule::new(pattern, transport);
        let routes = Routes(vec![
            rule(Pattern::Domain("box.test".into()), "box"),
            rule(Pattern::Domain("command.test".into()), "command"),
            rule(Pattern::Any, "relay"),
        ]);
        let words = [
            "/bin/sh",
            "-c",
            COMMAND,
            "sh",
            &piped(dir).display().to_string(),
        ];
        let command = Pipe::new(words.map(str::to_owned).to_vec()).unwrap();
        configured(spool, ledger, clock, self.start)
            .transport(
                "box",
                Maildir::new(dir.join("box"), HOST.into()).with_seam(seam),
            )
            .transport("command", command)
            .routes(routes)
            .build()
    }

    /// Runs a pass under the case's fault.
    fn faulted(
        &self,
        dir: &Path,
        seam: &Arc<Injector>,
        ledger: &Ledger,
        clock: &Clock,
    ) -> Result<u64, String> {
        fs::create_dir(piped(dir)).unwrap();
        let through = || Some(Arc::clone(seam) as Arc<dyn Seam>);
        let spool =
            Spool::open_through(&dir.join("spool"), through()).map_err(|e| e.to_string())?;
        let pass = self.runner(spool, dir, through(), ledger, clock).pass();
        pass.map(|summary| summary.delivered)
            .map_err(|error| match error {
                Error::NotRecorded { id, .. } => format!("{id} not recorded"),
                error => error.to_string(),
            })
    }

    fn judge(&self, case: &Case) -> String {
        let dir = Scratch::copy(&self.dir.path().join("spool"));
        let (ledger, clock) = (Ledger::default(), Clock::at(self.start));
        clock.forward(1);
        let ended = self.faulted(dir.path(), &Injector::new(*case), &ledger, &clock);
        let unrecorded = ended
            .as_ref()
            .is_err_and(|why| why.ends_with("not recorded"));

        let spool = Spool::open(&dir.spool()).unwrap();
        let held = spool.listing().messages;
        let held: Vec<_> = held
            .iter()
            .filter(|(_, queue)| matches!(queue, Queue::Frozen(_)))
            .collect();
        // Only an unrecorded outcome freezes a message. An operator thaws it.
        assert!(
            held.len() <= usize::from(unrecorded),
            "{held:?}, but {ended:?}"
        );
        for (id, _) in held {
            let thaw = mailspool::testing::queue::Action::Thaw(super::queue::by("looked at"));
            let acted =
                mailspool::testing::operator::act(&spool, &[*id], &thaw, clock.now()).unwrap();
            assert_eq!(acted, [(*id, mailspool::testing::operator::Acted::Done)]);
        }
        let mut rounds = 0;
        while !files(spool.path()).is_empty() {
            let runner = self.runner(spool.clone(), dir.path(), None, &ledger, &clock);
            let summary = runner.pass().unwrap();
            assert_eq!(summary.trouble, 0);
            // A command that another case is forking has this case's descriptors, and with them the locks,
            // until its exec.
            if summary.busy > 0 {
                std::thread::yield_now();
                continue;
            }
            clock.forward(150);
            rounds += 1;
            assert!(rounds < 8, "no end of it: {:?}", files(spool.path()));
        }
        assert_eq!(files(spool.path()), Vec::<std::path::PathBuf>::new());
        assert_eq!(findings(&spool), []);
        let twice = self.verify(dir.path(), &ledger);
        let stopped = matches!(
            case.fault,
            Fault::Stop | Fault::ForGood(_) | Fault::AndThen(_)
        );
        assert!(!twice || unrecorded || stopped, "doubled: {ended:?}");
        drop(spool);
        dir.end();
        match (&ended, twice) {
            (_, true) => "one in flight doubled",
            (Ok(6), _) => "through",
            (Ok(_), _) => "through, some deferred",
            (Err(_), _) => "stopped",
        }
        .to_owned()
    }

    /// Asserts that every recipient has the whole message. Returns whether any recipient has it twice, which
    /// never happens in a Maildir.
    fn verify(&self, dir: &Path, ledger: &Ledger) -> bool {
        let mut got: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut add = |id: &str, to: &str, bytes: &[u8], fields: usize| {
            let (id, name, _) = self
                .messages
                .iter()
                .find(|message| message.0.to_string() == id)
                .unwrap();
            let lines: Vec<&[u8]> = bytes.splitn(fields + 1, |byte| *byte == b'\n').collect();
            assert!(is_whole(lines[fields], &text(name)), "torn: {name} to {to}");
            *got.entry((id.to_string(), to.to_owned())).or_default() += 1;
        };
        for path in ["new", "cur"].map(|name| dir.join("box").join(name)) {
            for entry in fs::read_dir(path).unwrap() {
                let path = entry.unwrap().path();
                let bytes = fs::read(&path).unwrap();
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let to = text.lines().nth(1).unwrap();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let id = name.split('Q').nth(1).unwrap().split('R').next().unwrap();
                add(id, to.strip_prefix("Delivered-To: ").unwrap(), &bytes, 2);
            }
        }
        for entry in fs::read_dir(piped(dir)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if let Some((id, to)) = name.split_once(' ') {
                add(id, to, &fs::read(&path).unwrap(), 1);
            }
        }
        for one in ledger.all() {
            add(&one.id.to_string(), &one.recipient, &one.bytes, 0);
        }
        for (id, name, recipients) in &self.messages {
            for to in recipients {
                let count = got.remove(&(id.to_string(), (*to).to_owned())).unwrap_or(0);
                assert!(count >= 1, "{name} to {to}: lost");
                assert!(
                    count == 1 || count == 2 && !to.ends_with("@box.test"),
                    "{name} to {to}: {count}"
                );
                got.extend((count > 1).then(|| ((String::new(), (*to).to_owned()), count)));
            }
        }
        assert!(got.keys().all(|(id, _)| id.is_empty()), "{got:?}");
        !got.is_empty()
    }
}

fn piped(dir: &Path) -> std::path::PathBuf {
    dir.join("piped")
}

#[test]
fn maildir_and_command() {
    let ways = Ways::new();
    let seen = {
        let dir = Scratch::copy(&ways.dir.path().join("spool"));
        let (ledger, clock) = (Ledger::default(), Clock::at(ways.start));
        let seam = Injector::new(Case::clean());
        assert_eq!(ways.faulted(dir.path(), &seam, &ledger, &clock), Ok(6));
        dir.end();
        seam.seen()
    };
    let cases = all_cases(&seen, None);
    let all = cases.len();
    let cases = sample(cases, 80);
    let tally = explore("ways", &cases, |case| ways.judge(case));
    tally.print(&format!("ways, {} calls, of {all}", seen.len()));
}
