//! Where we are: which spool, which configuration, as which user.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::args::Global;
use super::exit::{EX_CONFIG, EX_NOINPUT, EX_TEMPFAIL, Failure, write_once};
use super::privilege::{self, Caller};
use super::trust::{self, Wait};
use crate::accept::Limits;
use crate::config::{self, Config};
use crate::message::printable;
use crate::spool::{self, Spool};

/// The spool of a system.
const SYSTEM_SPOOL: &str = "/var/spool/mailspool";

/// Where a system keeps the configuration of its spool. It is no name in the spool, so root can
/// believe it.
const SYSTEM_CONFIG: &str = "/etc/mailspool/config.toml";

/// An open spool with its configuration.
pub(super) struct Site {
    pub spool: Spool,
    pub config: Config,
    pub caller: Caller,
    /// Where the configuration stands; none: it is the default.
    pub config_file: Option<PathBuf>,
    /// What its file was when it was read.
    pub config_was: Option<Metadata>,
    /// Why the configuration cannot be used. Then `config` has every default, and no route.
    pub mistake: Option<String>,
    /// Why a root that called us runs no command as another user; none: it does.
    pub no_switch: Option<String>,
    /// Whether everybody can read the configuration.
    pub is_config_exposed: bool,
}

/// No configuration is longer.
const MAX_CONFIG: u64 = 1 << 20;

/// What to do when there is no spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfMissing {
    /// Make the default one. One that was named is not made: a slip of the pen would swallow mail.
    MakeDefault,
    Fail,
}

impl Site {
    /// Opens the spool that the command line, the environment or the defaults name.
    ///
    /// Root drops to the spool's owner before anything in the spool is opened.
    ///
    /// # Errors
    /// A configuration that cannot be used is an error, too: this is for what needs it.
    pub fn open(global: &Global, if_missing: IfMissing) -> Result<Site, Failure> {
        let (spool, caller) = spool(global, if_missing)?;
        let read = read(global, &spool, &caller)?;
        privilege::give_up_root(read.no_switch.is_none() && config_switches_user(&read.config))?;
        Ok(Site::of(spool, caller, read))
    }

    /// The same for what needs no configuration: looking at the queue, and acting on it. If it cannot
    /// be used, that is said on standard error.
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
                "mailspool: warning: {}; until it is mended the defaults hold, without a route\n",
                printable(mistake)
            );
            write_once(std::io::stderr(), &text);
        }
        site.mistake = mistake;
        Ok(site)
    }

    /// The same site with its configuration read again, for a process that stays. Users are no longer
    /// switched if the process has given root up since.
    ///
    /// # Errors
    /// A configuration that cannot be used, or that switches users and is no longer root's word
    /// while this one is.
    pub fn reread(&self, global: &Global) -> Result<Site, Failure> {
        let mut read = read(global, &self.spool, &self.caller)?;
        if let (None, Some(why)) = (&self.no_switch, &read.no_switch)
            && config_switches_user(&read.config)
        {
            let text = format!("it runs commands as other users, but {why}");
            return Err(Failure::new(EX_CONFIG, text));
        }
        if read.no_switch.is_none() && !privilege::can_become_root() {
            read.no_switch = Some("root was given up when this process started".to_owned());
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

    /// What acceptance needs of the configuration.
    pub fn limits(&self) -> Limits {
        let accept = &self.config.accept;
        Limits {
            hostname: self.config.hostname.clone(),
            max_size: accept.max_size,
            min_free: accept.min_free,
            min_free_inodes: accept.min_free_inodes,
            hop_limit: accept.hop_limit,
            key_lifetime: accept.key_lifetime,
            max_hold: accept.max_hold,
        }
    }
}

fn config_switches_user(config: &Config) -> bool {
    let switches = |transport: &config::Transport| {
        matches!(transport, config::Transport::Pipe { user: Some(_), .. })
    };
    config.transports.values().any(switches)
}

/// The spool, and who called. Root has become its owner.
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

/// The spool's directory, absolute: background attempts start elsewhere.
pub(super) fn spool_path(global: &Global) -> Result<PathBuf, Failure> {
    let path = match &global.spool {
        Some(path) => path.clone(),
        None if Path::new(SYSTEM_SPOOL).is_dir() => PathBuf::from(SYSTEM_SPOOL),
        None => {
            // A relative one would be another spool in each directory. XDG says to ignore it.
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

/// Makes a spool and puts a configuration in it to begin with, unless there is one elsewhere or in
/// it already.
pub(super) fn make(path: &Path, global: &Global) -> Result<Spool, Failure> {
    let spool = Spool::create(path)?;
    if Source::of(global, &spool)?.is_none() {
        spool.write_if_missing(Path::new("config.toml"), config::DEFAULT.as_bytes())?;
    }
    Ok(spool)
}

/// Where a configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// Where the command line or the environment says.
    Named(PathBuf),
    /// Where the system's is, for the system's spool.
    System(PathBuf),
    /// In the spool.
    InSpool(PathBuf),
}

impl Source {
    /// None if there is no configuration. One that is named or linked and missing is an error in
    /// reading it: without it mail would go elsewhere.
    fn of(global: &Global, spool: &Spool) -> Result<Option<Source>, Failure> {
        if let Some(path) = &global.config {
            return Ok(Some(Source::Named(path.clone())));
        }
        let system = PathBuf::from(SYSTEM_CONFIG);
        if is_systems(spool)? && !is_absent(&system) {
            return Ok(Some(Source::System(system)));
        }
        let path = spool.path().join("config.toml");
        Ok((!is_absent(&path)).then_some(Source::InSpool(path)))
    }

    fn path(&self) -> &Path {
        match self {
            Source::Named(path) | Source::System(path) | Source::InSpool(path) => path,
        }
    }
}

/// Whether a spool is the system's, by whatever name.
fn is_systems(spool: &Spool) -> Result<bool, Failure> {
    let Ok(system) = std::fs::metadata(SYSTEM_SPOOL) else {
        return Ok(false);
    };
    let ours = spool.disk().stat(Path::new("."))?;
    Ok(ours.is_some_and(|ours| ours.identity == (system.dev(), system.ino())))
}

/// A configuration as it was read.
struct Read {
    config: Config,
    file: Option<PathBuf>,
    was: Option<Metadata>,
    no_switch: Option<String>,
    is_exposed: bool,
}

impl Read {
    /// What is in force without a configuration that can be used: nothing is said of where mail goes.
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

/// A configuration's file.
struct Opened {
    file: File,
    /// Why others than root could have put it there.
    doubt: Option<String>,
    no_switch: Option<String>,
}

impl Opened {
    fn open(path: &Path, is_named: bool, caller: &Caller) -> io::Result<Opened> {
        // The one that is named may be the pipe of a shell's `<(...)`; the others are files, and a
        // pipe in their place must hold nothing up.
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

/// Reads the configuration, as the spool's owner: no error and no command can then show the owner
/// what only root can read.
fn read(global: &Global, spool: &Spool, caller: &Caller) -> Result<Read, Failure> {
    let Some(source) = Source::of(global, spool)? else {
        return Ok(Read {
            config: Config::parse(config::DEFAULT, "default configuration")?,
            file: None,
            was: None,
            no_switch: Some("it has no file".to_owned()),
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
        let what = format!("{doubt}; root does not work by a configuration that others can change");
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

/// Whether a configuration that cannot be opened is a mistake of the administrator's, and not a
/// shortage of the system's that may soon be over.
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
