//! Where we are: which spool, which configuration, as which user.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::args::Global;
use super::exit::{EX_CONFIG, EX_NOINPUT, EX_TEMPFAIL, Failure};
use super::privilege::{self, Caller};
use crate::accept::Limits;
use crate::config::{self, Config};
use crate::spool::{self, Spool};

/// The spool of a system.
const SYSTEM_SPOOL: &str = "/var/spool/mailspool";

/// An open spool with its configuration.
pub(super) struct Site {
    pub spool: Spool,
    pub config: Config,
    pub caller: Caller,
    /// Whether pipes may be run as other users: we came as root, and nobody else could have
    /// written the configuration.
    pub may_switch_user: bool,
    /// Whether everybody can read the configuration.
    pub is_config_exposed: bool,
}

/// Who may do what with the configuration's file.
#[derive(Default)]
struct Access {
    only_root_writes: bool,
    everybody_reads: bool,
}

/// No configuration is longer.
const MAX_CONFIG: u64 = 1 << 20;

/// What to do when there is no spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfMissing {
    Make,
    Fail,
}

impl Site {
    /// Opens the spool that the command line, the environment or the defaults name.
    ///
    /// Root drops to the spool's owner before anything in the spool is opened.
    pub fn open(global: &Global, if_missing: IfMissing) -> Result<Site, Failure> {
        let path = spool_path(global)?;
        let caller = Caller::look()?;
        privilege::become_owner(&path)?;
        let spool = match (Spool::open(&path), if_missing) {
            (Err(spool::Error::Missing(_)), IfMissing::Make) => make(&path, global)?,
            (opened, _) => opened?,
        };
        let (config, access) = configuration(global, &path)?;
        let may_switch_user = caller.is_root() && access.only_root_writes;
        privilege::settle(may_switch_user && config_switches_user(&config))?;
        Ok(Site {
            spool,
            config,
            caller,
            may_switch_user,
            is_config_exposed: access.everybody_reads,
        })
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

/// The spool's directory, absolute: background attempts start elsewhere.
pub(super) fn spool_path(global: &Global) -> Result<PathBuf, Failure> {
    let path = match &global.spool {
        Some(path) => path.clone(),
        None if Path::new(SYSTEM_SPOOL).is_dir() => PathBuf::from(SYSTEM_SPOOL),
        None => {
            let state = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty());
            let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
            let Some(state) = state.map(PathBuf::from).or_else(home) else {
                let text = "no spool: set --spool, MAILSPOOL_SPOOL or HOME";
                return Err(Failure::new(EX_NOINPUT, text));
            };
            state.join("mailspool")
        }
    };
    std::path::absolute(&path).map_err(|error| Failure::new(EX_TEMPFAIL, error))
}

/// Makes a spool and puts a configuration in it to begin with, unless one is named elsewhere
/// or is there already.
pub(super) fn make(path: &Path, global: &Global) -> Result<Spool, Failure> {
    let spool = Spool::create(path, None)?;
    if global.config.is_none() {
        spool.write_if_missing(Path::new("config.toml"), config::DEFAULT.as_bytes())?;
    }
    Ok(spool)
}

/// Reads the configuration: the one that is named, else the spool's, else the default. One that
/// is named or linked and missing is an error: without it mail would go elsewhere.
/// Also says who else has access to it.
fn configuration(global: &Global, spool: &Path) -> Result<(Config, Access), Failure> {
    let path = match &global.config {
        Some(path) => path.clone(),
        None => spool.join("config.toml"),
    };
    if global.config.is_none() && is_absent(&path) {
        return Ok((
            Config::parse(config::DEFAULT, "default configuration")?,
            Access::default(),
        ));
    }
    let name = path.display().to_string();
    let unreadable = |error| Failure::new(EX_CONFIG, format!("{name}: {error}"));
    let mut options = std::fs::File::options();
    options.read(true);
    // The one that is named may be the pipe of a shell's `<(...)`; the spool's is a file, and a
    // pipe in its place must not hold anybody.
    if global.config.is_none() {
        options.custom_flags(libc::O_NONBLOCK);
    }
    let file = options.open(&path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if global.config.is_none() && !metadata.is_file() {
        return Err(Failure::new(
            EX_CONFIG,
            format!("{name}: not a regular file"),
        ));
    }
    let access = Access {
        only_root_writes: privilege::only_root_writes(&file),
        everybody_reads: metadata.mode() & 0o004 != 0,
    };
    let mut text = String::new();
    let read = file.take(MAX_CONFIG + 1).read_to_string(&mut text);
    if read.map_err(unreadable)? as u64 > MAX_CONFIG {
        let text = format!("{name}: longer than {MAX_CONFIG} octets");
        return Err(Failure::new(EX_CONFIG, text));
    }
    Ok((Config::parse(&text, &name)?, access))
}

fn is_absent(path: &Path) -> bool {
    let looked = std::fs::symlink_metadata(path);
    looked.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}
