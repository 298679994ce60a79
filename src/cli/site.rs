//! The site of a command: the spool, the configuration and the user.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::args::Global;
use super::exit::{EX_CONFIG, EX_NOINPUT, EX_TEMPFAIL, EX_USAGE, Failure};
use super::log::{self, Quiet};
use super::output::write_once;
use super::privilege::{self, Caller};
use super::trust::{self, Wait};
use crate::config::{self, Config};
use crate::message::{Address, ReversePath, printable};
use crate::queue::By;
use crate::spool::layout::CONFIG_FILE;
use crate::spool::{self, Spool};

/// The system's spool.
const SYSTEM_SPOOL: &str = "/var/spool/mailspool";

/// The configuration of the system's spool. It is outside the spool, so that root can trust it.
const SYSTEM_CONFIG: &str = "/etc/mailspool/config.toml";

/// An open spool with its configuration.
pub(super) struct Site {
    pub spool: Spool,
    pub config: Config,
    pub caller: Caller,
    /// The configuration's file; none if it is the default.
    pub config_file: Option<PathBuf>,
    /// The metadata of the file when it was read.
    pub config_was: Option<Metadata>,
    /// Why the configuration cannot be used. Then `config` has every default and no route.
    pub mistake: Option<String>,
    /// Why pipes may not run commands as another user for root; none if they may.
    pub no_switch: Option<String>,
    /// Whether the configuration is world-readable.
    pub is_config_exposed: bool,
}

/// The most octets of a configuration; a longer one is an error.
const MAX_CONFIG: u64 = 1 << 20;

/// What to do when there is no spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfMissing {
    /// Create the default spool. A spool that was named is not created: with a typing mistake in the name,
    /// mail would vanish in a wrong spool.
    MakeDefault,
    Fail,
}

impl Site {
    /// Opens the spool that the command line, the environment or the defaults name.
    ///
    /// Root drops to the spool's owner before anything in the spool is opened.
    ///
    /// # Errors
    /// Also if the configuration cannot be used: this is for commands that need it.
    pub fn open(global: &Global, if_missing: IfMissing) -> Result<Site, Failure> {
        let (spool, caller) = spool(global, if_missing)?;
        let read = read(global, &spool, &caller)?;
        privilege::give_up_root(read.no_switch.is_none() && config_switches_user(&read.config))?;
        Ok(Site::of(spool, caller, read))
    }

    /// The same for commands that need no configuration, which show the queue or act on it. If the
    /// configuration cannot be used, a warning goes to standard error.
    pub fn look(global: &Global) -> Result<Site, Failure> {
        let (spool, caller) = spool(global, IfMissing::Fail)?;
        let (read, mistake) = match read(global, &spool, &caller) {
            Ok(read) => (read, None),
            Err(mistake) => (Read::without(&spool)?, Some(mistake.text)),
        };
        privilege::give_up_root(read.no_switch.is_none() && config_switches_user(&read.config))?;
        let mut site = Site::of(spool, caller, read);
        if let Some(mistake) = &mistake {
            let text = format!(
                "mailspool: warning: {}; until it is corrected, the defaults apply, without a route\n",
                printable(mistake)
            );
            write_once(std::io::stderr(), &text);
        }
        site.mistake = mistake;
        Ok(site)
    }

    /// The same for commands that change the queue: these are logged.
    pub fn for_changes(global: &Global) -> Result<Site, Failure> {
        let site = Site::look(global)?;
        log::start(&site.config.log, Quiet::UnlessAsked);
        Ok(site)
    }

    /// Returns the same site with its configuration read again, for a resident process. Commands no
    /// longer switch users if the process has dropped root since.
    ///
    /// # Errors
    /// If the configuration cannot be used, or if it switches users and others than root can now change
    /// it, while only root could change the present one.
    pub fn reread(&self, global: &Global) -> Result<Site, Failure> {
        let mut read = read(global, &self.spool, &self.caller)?;
        if let (None, Some(why)) = (&self.no_switch, &read.no_switch)
            && config_switches_user(&read.config)
        {
            let text = format!("it runs commands as other users, but {why}");
            return Err(Failure::new(EX_CONFIG, text));
        }
        if read.no_switch.is_none() && !privilege::can_become_root() {
            read.no_switch = Some("this process dropped root when it started".to_owned());
        }
        Ok(Site::of(self.spool.clone(), self.caller.clone(), read))
    }

    fn of(spool: Spool, caller: Caller, read: Read) -> Site {
        Site {
            spool,
            caller,
            config: read.config,
            config_file: read.file,
            config_was: read.was,
            mistake: None,
            no_switch: read.no_switch,
            is_config_exposed: read.is_exposed,
        }
    }

    /// Returns the calling user and the reason, for the history.
    pub fn by(&self, reason: Option<&str>) -> By {
        let reason = reason.map(printable);
        By {
            by: self.caller.with_sudo(),
            reason: reason.filter(|reason| !reason.is_empty()),
        }
    }

    /// Parses an address of the command line. A bare name gets our hostname.
    pub fn address(&self, given: &OsString) -> Result<Address, Failure> {
        let parsed = Address::from_bytes(given.as_bytes());
        let whole = parsed.and_then(|address| address.qualified(&self.config.hostname));
        whole.map_err(|error| Failure::new(EX_USAGE, format!("{given:?}: {error}")))
    }

    /// Returns the sender of the command line, or the caller.
    pub fn sender(&self, given: Option<&OsString>) -> Result<ReversePath, Failure> {
        let Some(given) = given else {
            return self.caller_as_sender();
        };
        let parsed = ReversePath::parse(given.as_bytes());
        let whole = parsed.and_then(|address| address.qualified(&self.config.hostname));
        whole.map_err(|error| Failure::new(EX_USAGE, format!("{given:?}: {error}")))
    }

    /// Returns the calling user as a sender.
    pub fn caller_as_sender(&self) -> Result<ReversePath, Failure> {
        let name = &self.caller.name;
        let whole = Address::of_user(name)
            .and_then(|address| address.qualified(&self.config.hostname))
            .map(ReversePath::Mailbox);
        whole.map_err(|error| Failure::new(EX_USAGE, format!("{name:?}: {error}")))
    }
}

fn config_switches_user(config: &Config) -> bool {
    let switches = |transport: &config::Transport| {
        matches!(transport, config::Transport::Pipe { user: Some(_), .. })
    };
    config.transports.values().any(switches)
}

/// Opens the spool and returns it with the caller. Root becomes the spool's owner.
fn spool(global: &Global, if_missing: IfMissing) -> Result<(Spool, Caller), Failure> {
    let path = spool_path(global)?;
    let caller = Caller::look()?;
    let is_there = privilege::become_owner(&path)?;
    let opened = if is_there {
        Spool::open(&path)
    } else {
        Err(spool::Error::Missing(path.clone()))
    };
    let spool = match (opened, if_missing) {
        (Err(spool::Error::Missing(_)), IfMissing::MakeDefault) if global.spool.is_none() => {
            privilege::make_directory(&path, None)?;
            make(&path, global)?
        }
        (opened, _) => opened?,
    };
    Ok((spool, caller))
}

/// Returns the spool's directory as an absolute path, because background attempts run in another
/// working directory.
pub(super) fn spool_path(global: &Global) -> Result<PathBuf, Failure> {
    let path = match &global.spool {
        Some(path) => path.clone(),
        None if Path::new(SYSTEM_SPOOL).is_dir() => PathBuf::from(SYSTEM_SPOOL),
        None => {
            // Ignore a relative path, as XDG requires: it would be another spool in each directory.
            let absolute = |name| {
                let path = PathBuf::from(std::env::var_os(name)?);
                path.is_absolute().then_some(path)
            };
            let home = || Some(absolute("HOME")?.join(".local/state"));
            let Some(state) = absolute("XDG_STATE_HOME").or_else(home) else {
                let text = "no spool: set --spool, MAILSPOOL_SPOOL or HOME";
                return Err(Failure::new(EX_NOINPUT, text));
            };
            state.join("mailspool")
        }
    };
    std::path::absolute(&path).map_err(|error| Failure::new(EX_TEMPFAIL, error))
}

/// Creates a spool, and the default configuration in it unless a configuration exists in it or
/// elsewhere.
pub(super) fn make(path: &Path, global: &Global) -> Result<Spool, Failure> {
    let spool = Spool::create(path)?;
    if Source::of(global, &spool)?.is_none() {
        spool.write_if_missing(Path::new(CONFIG_FILE), config::DEFAULT.as_bytes())?;
    }
    Ok(spool)
}

/// The place of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// Named by the command line or the environment.
    Named(PathBuf),
    /// The system's configuration, for the system's spool.
    System(PathBuf),
    /// In the spool.
    InSpool(PathBuf),
}

impl Source {
    /// Returns where the configuration is; none if there is none. A configuration that is named, or a
    /// dangling link, is returned although it is missing. Reading it then fails, because mail would go
    /// elsewhere without it.
    fn of(global: &Global, spool: &Spool) -> Result<Option<Source>, Failure> {
        if let Some(path) = &global.config {
            return Ok(Some(Source::Named(path.clone())));
        }
        let system = PathBuf::from(SYSTEM_CONFIG);
        if is_systems(spool)? && !is_absent(&system) {
            return Ok(Some(Source::System(system)));
        }
        let path = spool.path().join(CONFIG_FILE);
        Ok((!is_absent(&path)).then_some(Source::InSpool(path)))
    }

    fn path(&self) -> &Path {
        match self {
            Source::Named(path) | Source::System(path) | Source::InSpool(path) => path,
        }
    }
}

/// Whether a spool is the system's, under any name.
fn is_systems(spool: &Spool) -> Result<bool, Failure> {
    let Ok(system) = std::fs::metadata(SYSTEM_SPOOL) else {
        return Ok(false);
    };
    let ours = spool.disk().stat(Path::new("."))?;
    Ok(ours.is_some_and(|ours| ours.identity == (system.dev(), system.ino())))
}

/// A configuration and how it was read.
struct Read {
    config: Config,
    file: Option<PathBuf>,
    was: Option<Metadata>,
    no_switch: Option<String>,
    is_exposed: bool,
}

impl Read {
    /// Returns what applies if the configuration cannot be used: the defaults, without a route.
    fn without(spool: &Spool) -> Result<Read, Failure> {
        let name = spool.path().display().to_string();
        Ok(Read {
            config: Config::parse("", &name)?,
            file: None,
            was: None,
            no_switch: Some("the configuration cannot be used".to_owned()),
            is_exposed: false,
        })
    }
}

/// An opened configuration file.
struct Opened {
    file: File,
    /// Why others than root could have put the file there.
    doubt: Option<String>,
    no_switch: Option<String>,
}

impl Opened {
    fn open(path: &Path, is_named: bool, caller: &Caller) -> io::Result<Opened> {
        // A named configuration may be the pipe of a shell's `<(...)`. The others are files, and a pipe in
        // their place must not block.
        let wait = if is_named { Wait::Allowed } else { Wait::Never };
        if !caller.is_root() && !nix::unistd::geteuid().is_root() {
            let mut options = File::options();
            options.read(true);
            if wait == Wait::Never {
                options.custom_flags(libc::O_NONBLOCK);
            }
            return Ok(Opened {
                file: options.open(path)?,
                doubt: None,
                no_switch: Some("only root switches users".to_owned()),
            });
        }
        let reached = trust::open(path, wait)?;
        Ok(Opened {
            no_switch: reached.not_roots_word().map(str::to_owned),
            doubt: reached.doubt,
            file: reached.fd.into(),
        })
    }
}

/// Reads the configuration as the spool's owner, so that neither an error nor a command shows the owner
/// what only root can read.
fn read(global: &Global, spool: &Spool, caller: &Caller) -> Result<Read, Failure> {
    let Some(source) = Source::of(global, spool)? else {
        return Ok(Read {
            config: Config::parse(config::DEFAULT, "default configuration")?,
            file: None,
            was: None,
            no_switch: Some("the configuration has no file".to_owned()),
            is_exposed: false,
        });
    };
    let path = source.path();
    let name = path.display().to_string();
    let wrong = |what: &dyn std::fmt::Display| Failure::new(EX_CONFIG, format!("{name}: {what}"));
    let is_named = matches!(source, Source::Named(_));
    let Opened {
        file,
        doubt,
        no_switch,
    } = Opened::open(path, is_named, caller).map_err(|error| {
        if is_ours(&error) {
            wrong(&error)
        } else {
            Failure::new(EX_TEMPFAIL, format!("{name}: {error}"))
        }
    })?;
    let is_root = nix::unistd::geteuid().is_root();
    if let Some(doubt) = doubt.filter(|_| is_root && !is_named) {
        let what = format!("{doubt}; root does not use a configuration that others can change");
        return Err(wrong(&what));
    }
    let metadata = file.metadata().map_err(|error| wrong(&error))?;
    if !is_named && !metadata.is_file() {
        return Err(wrong(&"not a regular file"));
    }
    let size = usize::try_from(metadata.len().min(MAX_CONFIG)).unwrap_or(0);
    let mut text = String::with_capacity(size + 1);
    let got = file.take(MAX_CONFIG + 1).read_to_string(&mut text);
    if got.map_err(|error| wrong(&error))? as u64 > MAX_CONFIG {
        return Err(wrong(&format!("longer than {MAX_CONFIG} octets")));
    }
    Ok(Read {
        config: Config::parse(&text, &name)?,
        file: Some(path.to_owned()),
        no_switch,
        is_exposed: metadata.mode() & 0o004 != 0,
        was: Some(metadata),
    })
}

/// Whether the failure to open a configuration is the administrator's mistake. Otherwise it is a
/// shortage of the system, which may be temporary.
fn is_ours(error: &io::Error) -> bool {
    use libc::{EINTR, EIO, EMFILE, ENFILE, ENOMEM};
    let shortages = [EINTR, EIO, EMFILE, ENFILE, ENOMEM];
    !error
        .raw_os_error()
        .is_some_and(|code| shortages.contains(&code))
}

fn is_absent(path: &Path) -> bool {
    let looked = std::fs::symlink_metadata(path);
    looked.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}
