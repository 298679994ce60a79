//! `init` and `config`.

use std::io;

use super::args::{Config, ConfigCommand, Global, Init};
use super::exit::{Failure, write_once};
use super::privilege;
use super::run::runner;
use super::site::{IfMissing, Site, make, spool_path};
use crate::config::{self, Transport};

/// `mailspool init`.
pub(super) fn init(global: &Global, args: &Init) -> Result<(), Failure> {
    let path = spool_path(global)?;
    match &args.user {
        Some(name) => privilege::make_for(&path, name)?,
        None => privilege::become_owner(&path)?,
    }
    privilege::settle(false)?;
    make(&path, global)?;
    say(&format!("The spool is {}.\n", path.display()));
    Ok(())
}

/// `mailspool config`.
pub(super) fn config(global: &Global, args: &Config) -> Result<(), Failure> {
    if let Some(ConfigCommand::Default) = args.what {
        say(config::DEFAULT);
        return Ok(());
    }
    let site = Site::open(global, IfMissing::Make)?;
    if let Some(ConfigCommand::Check) = args.what {
        // What a run would stumble over: users, placeholders.
        runner(&site.spool, &site.config, site.may_switch_user)?;
        let (transports, routes) = (site.config.transports.len(), site.config.routes.0.len());
        say(&format!(
            "No mistakes found: {transports} transports, {routes} routes.\n"
        ));
        return Ok(());
    }
    say(&in_force(&site));
    Ok(())
}

/// The configuration with every default filled in, as TOML.
fn in_force(site: &Site) -> String {
    let config = &site.config;
    let accept = &config.accept;
    let mut text = format!(
        "# spool: {}\n\
         hostname = {:?}\n\
         postmaster = {:?}\n\n\
         [accept]\n\
         max_size = {}\n\
         min_free = {}\n\
         min_free_inodes = {}\n\
         hop_limit = {}\n\
         attempt = {}\n\
         timeout = \"{}\"\n\n\
         [run]\n\
         jobs = {}\n\
         background = {}\n\n\
         [discard]\n\
         keep = \"{}s\"\n\n\
         [log]\n\
         to = {}\n\
         format = {}\n",
        site.spool.path().display(),
        config.hostname,
        config.postmaster.as_str(),
        accept.max_size,
        accept.min_free,
        accept.min_free_inodes,
        accept.hop_limit,
        quoted(&accept.attempt),
        humantime::format_duration(accept.timeout),
        config.run.jobs,
        config.run.background,
        config.discard_keep.as_secs(),
        quoted(&config.log.to),
        quoted(&config.log.format),
    );
    text.push_str(&format!("\n[retry]\nphases = [\n{}]\n", phases(config)));
    for (name, transport) in &config.transports {
        text.push_str(&format!(
            "\n[transport.{name:?}]\n{}",
            transport_keys(transport)
        ));
    }
    for rule in &config.routes.0 {
        let pattern = match &rule.pattern {
            crate::queue::Pattern::Any => "domain = \"*\"".to_owned(),
            crate::queue::Pattern::Domain(domain) => format!("domain = {domain:?}"),
            crate::queue::Pattern::Recipient(one) => format!("recipient = {:?}", one.as_str()),
        };
        text.push_str(&format!(
            "\n[[route]]\n{pattern}\ntransport = {:?}\n",
            rule.transport
        ));
    }
    text
}

fn phases(config: &config::Config) -> String {
    let line = |phase: &crate::queue::Phase| {
        let (until, every) = (phase.until.as_secs(), phase.every.as_secs());
        let factor = phase.factor;
        format!("  {{ until = \"{until}s\", every = \"{every}s\", factor = {factor:?} }},\n")
    };
    config.retry.phases().iter().map(line).collect()
}

fn transport_keys(transport: &Transport) -> String {
    match transport {
        Transport::Maildir { path } => {
            format!(
                "type = \"maildir\"\npath = {:?}\n",
                path.display().to_string()
            )
        }
        Transport::Pipe {
            command,
            user,
            timeout,
        } => {
            let user = user
                .as_ref()
                .map(|user| format!("user = {user:?}\n"))
                .unwrap_or_default();
            let timeout = humantime::format_duration(*timeout);
            format!("type = \"pipe\"\ncommand = {command:?}\n{user}timeout = \"{timeout}\"\n")
        }
    }
}

fn quoted(value: &impl std::fmt::Debug) -> String {
    format!("\"{}\"", format!("{value:?}").to_ascii_lowercase())
}

fn say(text: &str) {
    write_once(io::stdout(), text);
}
