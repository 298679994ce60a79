//! Suspensions: destinations and transports that get no mail until an operator resumes them.
//!
//! Each is a file in `suspended/`. Its existence counts: a file that is unreadable or damaged suspends what
//! its name says until an operator resumes that. The directory is made for the first suspension.
//!
//! A file is replaced or removed only under its lock. So a suspension that was just renewed is never removed
//! as expired.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Spool;
use super::destinations::Destination;
use super::layout::{SUSPENDED, SUSPENDED_ALL, SUSPENDED_TRANSPORT, file_name};
use super::part::Part;
use crate::disk;
use crate::message::{Address, domain};
use crate::queue::By;

/// What can be suspended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// A recipient's domain, or a destination with or without its transport and its port, in the normal
    /// spelling used for comparison: see [`Target::destination`].
    Destination(String),
    /// A transport, by its name.
    Transport(String),
    /// All mail.
    All,
}

/// A suspension. Its JSON form is the content of its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// What is suspended.
    #[serde(flatten)]
    pub target: Target,
    /// When it began.
    pub since: Timestamp,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The operator and the reason.
    #[serde(flatten)]
    pub by: By,
}

/// A file in `suspended/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The file's name.
    pub file: String,
    /// What it suspends.
    pub target: Target,
    /// The content; `None` if it is damaged. A damaged file suspends its target until it is removed.
    pub says: Option<Suspension>,
}

/// The names in `suspended/` at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspended(BTreeSet<String>);

/// Result of [`Spool::suspend`] and [`Spool::resume`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Changed {
    /// The change is made, durably.
    Done,
    /// Nothing to do: no suspension has that name.
    Absent,
    /// Another process is changing it.
    Busy,
}

/// Result of [`Spool::hold`].
enum Held {
    Absent,
    /// This process may replace or remove the file while the lock lives. `None` if the file cannot be locked:
    /// it is not a regular file, or it cannot be opened.
    Ours(Option<disk::File>),
    Busy,
}

/// Most octets read from a file; a larger file counts as damaged. A reason is a single line.
const MOST: u64 = 64 << 10;
/// How often a name is tried while other processes replace its file.
const TRIES: usize = 5;

impl Target {
    /// Returns a destination in its normal spelling: domains in lower case and A-labels, and IPv6 addresses
    /// in their canonical form. The path of a socket is not changed.
    pub fn destination(name: &str) -> Target {
        if name.contains('/') {
            return Target::Destination(name.to_owned());
        }
        if let Ok(address) = name.parse::<IpAddr>() {
            return Target::Destination(address.to_string());
        }
        let mut in_brackets = false;
        let parts = name.split(|c| {
            in_brackets = c == '[' || in_brackets && c != ']';
            c == ':' && !in_brackets
        });
        let parts: Vec<Cow<'_, str>> = parts.map(key).collect();
        Target::Destination(parts.join(":"))
    }

    /// Returns a readable file name that no other target has.
    pub fn file_name(&self) -> String {
        let name = match self {
            Target::Transport(name) => return format!("{SUSPENDED_TRANSPORT}{}", file_name(name)),
            Target::Destination(name) => file_name(name),
            Target::All => return SUSPENDED_ALL.to_owned(),
        };
        if Spool::is_part(&name, "") {
            name.replace('.', "%2e")
        } else {
            name
        }
    }

    /// Returns the target that a file name stands for. Of a very long target, the name has only the
    /// beginning.
    fn of_file(name: &str) -> Target {
        let plain = |text: &str| {
            let mut bytes = Vec::new();
            let mut rest = text.as_bytes();
            while let [first, others @ ..] = rest {
                let code = others.get(..2).filter(|_| *first == b'%');
                let code = code.and_then(|code| std::str::from_utf8(code).ok());
                match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
                    Some(byte) => {
                        bytes.push(byte);
                        rest = &others[2..];
                    }
                    None => {
                        bytes.push(*first);
                        rest = others;
                    }
                }
            }
            String::from_utf8_lossy(&bytes).into_owned()
        };
        match name.strip_prefix(SUSPENDED_TRANSPORT) {
            None if name == SUSPENDED_ALL => Target::All,
            Some(name) => Target::Transport(plain(name)),
            None => Target::Destination(plain(name)),
        }
    }

    /// Returns every target that would suspend mail for this recipient, as far as transport and destination
    /// are known.
    fn all_for(transport: Option<&str>, next_hop: Option<&str>, to: &Address) -> Vec<Target> {
        let mut all = Vec::with_capacity(10);
        all.push(Target::All);
        if let Some(domain) = to.domain() {
            all.push(Target::destination(&domain::key(domain)));
            // An address literal, in the spelling used for hosts.
            if let Some(address) = domain::literal(domain).filter(IpAddr::is_ipv6) {
                all.push(Target::destination(&format!("[{address}]")));
            }
        }
        for next_hop in next_hop.into_iter().flat_map(spellings) {
            let destination = |transport: &str| Destination {
                transport: transport.to_owned(),
                next_hop: next_hop.to_owned(),
            };
            all.push(Target::destination(next_hop));
            all.extend(transport.map(|name| Target::destination(&destination(name).to_string())));
        }
        all.extend(transport.map(|name| Target::Transport(name.to_owned())));
        all
    }

    /// Whether this suspends mail for a recipient, as far as transport and destination are known.
    pub fn is_on_way(&self, transport: Option<&str>, next_hop: Option<&str>, to: &Address) -> bool {
        Target::all_for(transport, next_hop, to).contains(self)
    }
}

/// Returns a name or an address in brackets in the spelling used for comparison. A host's address has no tag,
/// unlike that of a recipient's domain.
fn key(part: &str) -> Cow<'_, str> {
    let inside = part
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match inside.and_then(|inside| inside.parse::<IpAddr>().ok()) {
        Some(address) => format!("[{address}]").into(),
        None => domain::key(part),
    }
}

/// Returns the spellings of a destination: as it is listed, and, for a single host, without the port and
/// without the brackets of an address.
fn spellings(next_hop: &str) -> impl Iterator<Item = &str> {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_host = |host: &str| !host.contains([':', '/', ',']) || host.ends_with(']');
    let host = match next_hop.rsplit_once(':') {
        Some((host, port)) if is_port(port) && is_host(host) => Some(host),
        _ => None,
    };
    let whole = host.unwrap_or(next_hop);
    let address = whole
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .map(|rest| rest.strip_prefix("ipv6:").unwrap_or(rest));
    [Some(next_hop), host, address].into_iter().flatten()
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Destination(name) => f.write_str(name),
            Target::Transport(name) => write!(f, "transport {name}"),
            Target::All => f.write_str("everything"),
        }
    }
}

impl Standing {
    /// When it ends by itself.
    pub fn until(&self) -> Option<Timestamp> {
        self.says.as_ref().and_then(|says| says.until)
    }

    /// Whether it has expired.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until().is_some_and(|until| until <= now)
    }
}

impl Suspended {
    /// Whether nothing is suspended.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a file exists.
    pub fn has(&self, file: &str) -> bool {
        self.0.contains(file)
    }
}

impl Spool {
    /// Suspends a target, replacing an existing suspension. Durable on return (commit point *suspended*).
    pub fn suspend(&self, suspension: &Suspension) -> disk::Result<Changed> {
        let dir = Path::new(SUSPENDED);
        self.disk.mkdir(dir)?;
        let path = dir.join(suspension.target.file_name());
        let mut text = serde_json::to_vec(suspension).unwrap_or_default();
        text.push(b'\n');
        for _ in 0..TRIES {
            let part = Part::write(&self.disk, dir, "", &text)?;
            match self.hold(&path)? {
                Held::Busy => return Ok(Changed::Busy),
                Held::Absent => {
                    // Another process may have linked its file first.
                    if part.link_to(&path)? {
                        return self.make_durable();
                    }
                }
                Held::Ours(_lock) => {
                    part.rename_to(&path)?;
                    return self.make_durable();
                }
            }
        }
        Ok(Changed::Busy)
    }

    /// Syncs both directories: the name of `suspended/` may be new too.
    fn make_durable(&self) -> disk::Result<Changed> {
        let dirs = [Path::new("."), Path::new(SUSPENDED)];
        self.disk.durable(&[], &dirs).map(|()| Changed::Done)
    }

    /// Ends a suspension by removing its file, whatever its content. Durable on return (commit point
    /// *resumed*).
    pub fn resume(&self, file: &str) -> disk::Result<Changed> {
        let path = Path::new(SUSPENDED).join(file);
        let found = match self.hold(&path)? {
            Held::Busy => return Ok(Changed::Busy),
            Held::Absent => false,
            Held::Ours(_lock) => self.disk.unlink(&path)?,
        };
        match self.disk.durable(&[], &[Path::new(SUSPENDED)]) {
            Ok(()) if found => Ok(Changed::Done),
            // The process that removed it may have been killed before the sync.
            Ok(()) => Ok(Changed::Absent),
            Err(error) if error.is_absent() && !found => Ok(Changed::Absent),
            Err(error) => Err(error),
        }
    }

    /// Locks the file that has a name now.
    fn hold(&self, path: &Path) -> disk::Result<Held> {
        for _ in 0..TRIES {
            let file = match self.disk.open_rw(path) {
                Ok(file) => file,
                Err(error) if error.is_absent() => return Ok(Held::Absent),
                Err(error) if error.is_wrong_kind() || error.is_denied() => {
                    return Ok(Held::Ours(None));
                }
                Err(error) => return Err(error),
            };
            if !self.disk.try_lock(&file)? {
                return Ok(Held::Busy);
            }
            if self.is_still(&file, path)? {
                return Ok(Held::Ours(Some(file)));
            }
        }
        Ok(Held::Busy)
    }

    /// Returns the names of all suspensions, including expired ones not yet removed.
    pub fn suspended(&self) -> disk::Result<Suspended> {
        let names = self.names_in(Path::new(SUSPENDED))?;
        let names = names
            .into_iter()
            .map(|name| name.to_string_lossy().into_owned());
        Ok(Suspended(
            names.filter(|name| !Spool::is_part(name, "")).collect(),
        ))
    }

    /// Returns all suspensions by name, including expired ones not yet removed.
    pub fn suspensions(&self) -> disk::Result<Vec<Standing>> {
        let names = self.suspended()?.0;
        Ok(names
            .iter()
            .filter_map(|name| self.standing(name))
            .collect())
    }

    /// Returns the suspension of mail for a recipient, as far as transport and destination are known. If
    /// there are several, returns the last to end.
    pub fn suspension(
        &self,
        suspended: &Suspended,
        (transport, next_hop): (Option<&str>, Option<&str>),
        to: &Address,
        now: Timestamp,
    ) -> Option<Standing> {
        if suspended.is_empty() {
            return None;
        }
        let all = Target::all_for(transport, next_hop, to).into_iter();
        let files: BTreeSet<String> = all.map(|target| target.file_name()).collect();
        let files = files.into_iter().filter(|file| suspended.has(file));
        let standing = files.filter_map(|file| self.standing(&file));
        let standing = standing.filter(|suspension| !suspension.is_over(now));
        standing.max_by_key(|suspension| suspension.until().unwrap_or(Timestamp::MAX))
    }

    /// Reads a file; `None` if it is gone.
    fn standing(&self, file: &str) -> Option<Standing> {
        let bytes = match self
            .disk
            .read_all(&PathBuf::from(SUSPENDED).join(file), MOST)
        {
            Err(error) if error.is_absent() => return None,
            other => other.ok(),
        };
        let says = bytes.and_then(|bytes| serde_json::from_slice::<Suspension>(&bytes).ok());
        let says = says.filter(|says| says.target.file_name() == file);
        Some(Standing {
            file: file.to_owned(),
            target: match &says {
                Some(says) => says.target.clone(),
                None => Target::of_file(file),
            },
            says,
        })
    }

    /// Removes expired suspensions. Returns the removed ones and the errors. Nothing is synced: a suspension
    /// that a power cut brings back is still expired.
    ///
    /// # Errors
    /// If the suspensions cannot be listed.
    pub fn end_suspensions(
        &self,
        now: Timestamp,
    ) -> disk::Result<(Vec<Suspension>, Vec<disk::Error>)> {
        let (mut ended, mut failed) = (Vec::new(), Vec::new());
        for name in self.suspended()?.0 {
            if !self
                .standing(&name)
                .is_some_and(|suspension| suspension.is_over(now))
            {
                continue;
            }
            match self.end_suspension(&name, now) {
                Ok(suspension) => ended.extend(suspension),
                Err(error) => failed.push(error),
            }
        }
        Ok((ended, failed))
    }

    fn end_suspension(&self, name: &str, now: Timestamp) -> disk::Result<Option<Suspension>> {
        let path = Path::new(SUSPENDED).join(name);
        let Held::Ours(_lock) = self.hold(&path)? else {
            return Ok(None);
        };
        // It may have been renewed between the two reads.
        let still = self
            .standing(name)
            .filter(|suspension| suspension.is_over(now));
        match still {
            Some(Standing { says, .. }) if self.disk.unlink(&path)? => Ok(says),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    fn spool() -> (tempfile::TempDir, Spool) {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(&dir.path().join("spool")).unwrap();
        (dir, spool)
    }

    fn now() -> Timestamp {
        "2026-11-22T14:05:00Z".parse().unwrap()
    }

    fn suspension(target: Target, hours: Option<i64>) -> Suspension {
        Suspension {
            target,
            since: now(),
            until: hours.map(|hours| now() + SignedDuration::from_hours(hours)),
            by: By {
                by: "root".into(),
                reason: Some("they asked for it".into()),
            },
        }
    }

    fn ended(spool: &Spool, at: Timestamp) -> Vec<Suspension> {
        let (ended, failed) = spool.end_suspensions(at).unwrap();
        assert!(failed.is_empty());
        ended
    }

    fn found(spool: &Spool, to: &str) -> Option<Standing> {
        let names = spool.suspended().unwrap();
        let way = (Some("Relay"), Some("mx.example.net:587"));
        spool.suspension(&names, way, &Address::parse(to).unwrap(), now())
    }

    #[test]
    fn each_target_suspends_only_its_mail() {
        let targets = [
            (Target::destination("bücher.TEST"), 1),
            (Target::destination("bücher.test."), 1),
            (Target::destination("MX.example.net.:587"), 3),
            (Target::destination("MX.example.net:587"), 3),
            (Target::destination("Relay:mx.example.net:587"), 3),
            (Target::destination("mx.example.net"), 3),
            (Target::destination("Relay:mx.example.net"), 3),
            (Target::destination("Other:mx.example.net"), 0),
            (Target::Transport("Relay".into()), 3),
            (Target::All, 3),
            (Target::destination("all"), 0),
            (Target::destination("all="), 0),
            (Target::destination("*"), 0),
            (Target::destination("test"), 0),
            (Target::destination("relay"), 0),
            (Target::Transport("relay".into()), 0),
            (Target::destination("unix:/run/x"), 0),
            (Target::destination("example.net"), 0),
            (Target::destination(&"x.".repeat(200)), 0),
            (Target::destination(".."), 0),
        ];
        for (target, count) in targets {
            let (_dir, spool) = spool();
            assert!(spool.suspended().unwrap().is_empty());
            let suspended = suspension(target.clone(), None);
            assert_eq!(spool.suspend(&suspended).unwrap(), Changed::Done);
            let all = ["a@xn--bcher-kva.test", "b@other.test", "root"];
            let held = all.iter().filter(|to| found(&spool, to).is_some());
            assert_eq!(held.count(), count, "{target}");
            let all = spool.suspensions().unwrap();
            assert_eq!(all.len(), 1);
            assert_eq!(all[0].says.as_ref(), Some(&suspended));
            assert_eq!(spool.resume(&target.file_name()).unwrap(), Changed::Done);
            assert_eq!(spool.resume(&target.file_name()).unwrap(), Changed::Absent);
            assert_eq!(spool.suspensions().unwrap(), []);
        }
    }

    #[test]
    fn a_host_is_named_with_and_without_its_port() {
        let all = |text| spellings(text).collect::<Vec<_>>();
        assert_eq!(all("mx.test:25"), ["mx.test:25", "mx.test"]);
        assert_eq!(all("mx.test"), ["mx.test"]);
        assert_eq!(
            all("[127.0.0.1]:25"),
            ["[127.0.0.1]:25", "[127.0.0.1]", "127.0.0.1"]
        );
        assert_eq!(all("[::1]:25"), ["[::1]:25", "[::1]", "::1"]);
        assert_eq!(all("[::1]"), ["[::1]", "::1"]);
        assert_eq!(all("[ipv6:::1]"), ["[ipv6:::1]", "::1"]);
        for next_hop in [
            "unix:/run/x:25",
            "a.test:25, b.test:25",
            "",
            ":25:",
            "/var/box",
        ] {
            assert_eq!(all(next_hop), [next_hop]);
        }
    }

    /// Regression: `[IPv6:0::1]` was split at its colons, so its suspension had no effect.
    #[test]
    fn an_address_is_one_destination_in_each_of_its_spellings() {
        let literals = ["a@[IPv6:::1]", "a@[ipv6:0:0::1]", "a@[::1]"];
        for name in [
            "[IPv6:::1]",
            "[IPV6:0::1]",
            "[::1]",
            "[0::0:1]",
            "::1",
            "0::1",
            "relay:[IPv6:0::1]",
        ] {
            let target = Target::destination(name);
            for to in literals {
                let to = Address::parse(to).unwrap();
                let by_exchanges = target.is_on_way(Some("relay"), Some("[ipv6:::1]"), &to);
                assert!(by_exchanges, "{name} {to}");
                let other = Address::parse("a@[IPv6:::2]").unwrap();
                assert!(!target.is_on_way(Some("relay"), Some("[ipv6:::2]"), &other));
            }
        }
        let to = Address::parse("a@b.test").unwrap();
        for name in ["[0::1]:25", "relay:[0::1]:25", "[::1]", "0::1"] {
            let target = Target::destination(name);
            assert!(
                target.is_on_way(Some("relay"), Some("[::1]:25"), &to),
                "{name}"
            );
        }
        for name in ["[IPv6:::1]", "[IPv6:::1]:25", "[::1]:26", "[::1", "::1]:25"] {
            let target = Target::destination(name);
            assert!(
                !target.is_on_way(Some("relay"), Some("[::1]:25"), &to),
                "{name}"
            );
        }
        let to = Address::parse("a@[192.0.2.1]").unwrap();
        let target = Target::destination("[192.0.2.1]");
        assert!(target.is_on_way(None, None, &to));
    }

    #[test]
    fn the_directory_is_optional() {
        let (_dir, spool) = spool();
        assert!(!spool.path().join(SUSPENDED).exists());
        assert_eq!(spool.resume("a.test").unwrap(), Changed::Absent);
        assert_eq!(ended(&spool, now()), []);
        assert!(!spool.path().join(SUSPENDED).exists());
    }

    #[test]
    fn the_last_to_end_applies_and_expired_ones_are_removed() {
        let (_dir, spool) = spool();
        let domain = Target::destination("b.test");
        let transport = Target::Transport("Relay".into());
        for (target, hours) in [(&domain, 1), (&transport, 2)] {
            let suspension = suspension(target.clone(), Some(hours));
            assert_eq!(spool.suspend(&suspension).unwrap(), Changed::Done);
        }
        assert_eq!(found(&spool, "a@b.test").unwrap().target, transport);
        let later = now() + SignedDuration::from_hours(1);
        assert_eq!(ended(&spool, later), [suspension(domain.clone(), Some(1))]);
        // Suspended again, it has not expired.
        let anew = suspension(transport.clone(), None);
        assert_eq!(spool.suspend(&anew).unwrap(), Changed::Done);
        assert_eq!(ended(&spool, Timestamp::MAX), []);
        assert_eq!(found(&spool, "a@b.test").unwrap().says, Some(anew));
    }

    #[test]
    fn a_damaged_file_suspends_until_it_is_resumed() {
        let (_dir, spool) = spool();
        let dir = spool.path().join(SUSPENDED);
        let other = suspension(Target::destination("x.test"), None);
        let other = serde_json::to_vec(&other).unwrap();
        type Damage<'a> = &'a dyn Fn(&Path);
        let write = |bytes: Vec<u8>| move |path: &Path| std::fs::write(path, &bytes).unwrap();
        let damages: [Damage<'_>; 5] = [
            &write(Vec::new()),
            &write(b"{\"destination\":\"b.test\"".to_vec()),
            &write(vec![0; 300]),
            &write(other),
            &|path| std::os::unix::fs::symlink("/dev/null", path).unwrap(),
        ];
        std::fs::create_dir(&dir).unwrap();
        for damage in damages {
            damage(&dir.join("b.test"));
            let standing = found(&spool, "a@b.test").unwrap();
            assert_eq!(standing.says, None);
            assert_eq!(standing.target, Target::destination("b.test"));
            assert_eq!(found(&spool, "a@other.test"), None);
            assert_eq!(ended(&spool, Timestamp::MAX), []);
            let anew = suspension(Target::destination("b.test"), None);
            assert_eq!(spool.suspend(&anew).unwrap(), Changed::Done);
            assert_eq!(found(&spool, "a@b.test").unwrap().says, Some(anew));
            std::fs::remove_file(dir.join("b.test")).unwrap();
            damage(&dir.join("b.test"));
            assert_eq!(spool.resume("b.test").unwrap(), Changed::Done);
            assert_eq!(found(&spool, "a@b.test"), None);
        }
        for text in ["", "{}", "{\"destination\":\"b.test\"}"] {
            std::fs::write(dir.join("all="), text).unwrap();
            let standing = found(&spool, "a@other.test").unwrap();
            assert_eq!((standing.says, standing.target), (None, Target::All));
            assert_eq!(spool.resume("all=").unwrap(), Changed::Done);
        }
        std::fs::write(dir.join("transport=Relay"), "").unwrap();
        let standing = found(&spool, "a@b.test").unwrap();
        assert_eq!(standing.target, Target::Transport("Relay".into()));
    }

    #[test]
    fn a_locked_suspension_is_busy() {
        let (_dir, spool) = spool();
        let held = suspension(Target::destination("b.test"), None);
        assert_eq!(spool.suspend(&held).unwrap(), Changed::Done);
        let Held::Ours(Some(lock)) = spool.hold(Path::new("suspended/b.test")).unwrap() else {
            panic!()
        };
        assert_eq!(spool.suspend(&held).unwrap(), Changed::Busy);
        assert_eq!(spool.resume("b.test").unwrap(), Changed::Busy);
        drop(lock);
        assert_eq!(spool.resume("b.test").unwrap(), Changed::Done);
    }
}
