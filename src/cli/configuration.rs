//! `init` and `config`.

use super::args::{Config, ConfigCommand, Global, Init, Kind};
use super::exit::{EX_CONFIG, EX_SOFTWARE, Failure};
use super::output::{print, write_once};
use super::privilege;
use super::site::{IfMissing, Site, make, spool_path};
use super::transports::{Maker, mistakes, warnings};
use crate::config;
use crate::message::{NoticeKind, printable};

/// `mailspool init`.
pub(super) fn init(global: &Global, args: &Init) -> Result<(), Failure> {
    let path = spool_path(global)?;
    privilege::make_directory(&path, args.user.as_deref())?;
    privilege::give_up_root(false)?;
    make(&path, global)?;
    print(&format!("The spool is {}.\n", path.display()));
    Ok(())
}

/// `mailspool config`.
pub(super) fn config(global: &Global, args: &Config) -> Result<(), Failure> {
    if let Some(ConfigCommand::Default) = args.what {
        print(config::DEFAULT);
        return Ok(());
    }
    if let Some(ConfigCommand::Check) = args.what {
        let site = Site::open(global, IfMissing::Fail)?;
        let mistakes = mistakes(&site);
        if !mistakes.is_empty() {
            return Err(Failure::new(EX_CONFIG, mistakes.join("\nmailspool: ")));
        }
        for warning in warnings(&site) {
            write_once(
                std::io::stderr(),
                &format!("mailspool: warning: {warning}\n"),
            );
        }
        let (transports, routes) = (site.config.transports.len(), site.config.routes.0.len());
        let count = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        let (transports, routes) = (count(transports, "transport"), count(routes, "route"));
        print(&format!("No mistakes found: {transports}, {routes}.\n"));
        return Ok(());
    }
    let site = Site::look(global)?;
    if let Some(ConfigCommand::Notices { kind }) = args.what {
        return examples(&site, kind);
    }
    print(&in_force(&site)?);
    Ok(())
}

/// `mailspool config notices`.
fn examples(site: &Site, kind: Option<Kind>) -> Result<(), Failure> {
    let (notices, mistakes) = Maker::new(site).notices();
    let example = |kind| {
        let example = notices.example(kind);
        let example = example.map_err(|error| Failure::new(EX_SOFTWARE, error))?;
        Ok::<_, Failure>(String::from_utf8_lossy(&example).into_owned())
    };
    match kind {
        // One kind alone is a complete message, which can be saved and opened with a mail program.
        Some(kind) => print(&example(kind.into())?),
        None => {
            for kind in [NoticeKind::Bounce, NoticeKind::Delay, NoticeKind::Success] {
                print(&format!("==> {} <==\n{}\n", kind.as_str(), example(kind)?));
            }
        }
    }
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(EX_CONFIG, mistakes.join("\nmailspool: ")))
    }
}

/// Returns the configuration as TOML, with every default filled in.
fn in_force(site: &Site) -> Result<String, Failure> {
    let mut text = String::new();
    // A comment ends at the line end, so control characters are escaped.
    let mut comment = |words: &str| text += &format!("# {}\n", printable(words));
    comment(&format!("spool: {}", site.spool.path().display()));
    match (&site.mistake, &site.config_file) {
        (Some(mistake), _) => comment(&format!("the defaults, because of a mistake: {mistake}")),
        (None, Some(file)) => comment(&format!("configuration: {}", file.display())),
        (None, None) => comment("configuration: the default; there is no file"),
    }
    for name in site.config.with_password() {
        comment(&format!("transport.{name}.password: not shown"));
    }
    Ok(text + &site.config.to_toml()?)
}
