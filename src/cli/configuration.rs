//! `init` and `config`.

use std::io;

use jiff::SignedDuration;

use super::args::{Config, ConfigCommand, Global, Init, Kind};
use super::exit::{EX_CONFIG, EX_SOFTWARE, Failure, write_once};
use super::privilege;
use super::site::{IfMissing, Site, make, spool_path};
use super::table;
use super::transports::{Maker, mistakes};
use crate::config::{self, Notices, Secret, Transport, Wire};
use crate::message::NoticeKind;
use crate::queue::{Pattern, Phase, Rhythm, Schedule, Schedules};
use crate::smtp::{MinimumTls, Protocol, TlsPolicy};

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
    let site = Site::open(global, IfMissing::Fail)?;
    if let Some(ConfigCommand::Notices { kind }) = args.what {
        return examples(&site, kind);
    }
    if let Some(ConfigCommand::Check) = args.what {
        let mistakes = mistakes(&site);
        if !mistakes.is_empty() {
            return Err(Failure::new(EX_CONFIG, mistakes.join("\nmailspool: ")));
        }
        let (transports, routes) = (site.config.transports.len(), site.config.routes.0.len());
        let count = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        let (transports, routes) = (count(transports, "transport"), count(routes, "route"));
        say(&format!("No mistakes found: {transports}, {routes}.\n"));
        return Ok(());
    }
    say(&in_force(&site));
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
        // Alone, it is a message that can be saved and opened with a mail program.
        Some(kind) => say(&example(kind.into())?),
        None => {
            for kind in [NoticeKind::Bounce, NoticeKind::Delay, NoticeKind::Success] {
                say(&format!("==> {} <==\n{}\n", kind.as_str(), example(kind)?));
            }
        }
    }
    match mistakes.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(EX_CONFIG, mistakes.join("\nmailspool: "))),
    }
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
         timeout = \"{}\"\n\
         max_hold = \"{}s\"\n\
         key_lifetime = \"{}s\"\n\n\
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
        accept.max_hold.as_secs(),
        accept.key_lifetime.as_secs(),
        config.run.jobs,
        config.run.background,
        config.discard_keep.as_secs(),
        quoted(&config.log.to),
        quoted(&config.log.format),
    );
    let servers: Vec<String> = config.dns.servers.iter().map(ToString::to_string).collect();
    text.push_str(&format!(
        "\n[dns]\nservers = {servers:?}\ntimeout = \"{}\"\n",
        humantime::format_duration(config.dns.timeout)
    ));
    text.push_str(&retry(&config.retry));
    text.push_str(&notice_keys(&config.notices));
    let lifetime = match config.frozen_lifetime {
        Some(lifetime) => span(lifetime),
        None => "\"never\"".to_owned(),
    };
    text.push_str(&format!("\n[frozen]\nlifetime = {lifetime}\n"));
    for (name, transport) in &config.transports {
        text.push_str(&format!(
            "\n[transport.{name:?}]\n{}",
            transport_keys(transport)
        ));
        let own = config.retry.transports().find(|(of, _)| of == name);
        if let Some((_, schedule)) = own {
            let keys = schedule_keys(schedule);
            text.push_str(&format!("\n[transport.{name:?}.retry]\n{keys}"));
        }
    }
    for rule in &config.routes.0 {
        let sender = match &rule.sender {
            Pattern::Any => String::new(),
            Pattern::Null => "sender = \"<>\"\n".to_owned(),
            Pattern::Mailbox(one) => format!("sender = {:?}\n", one.as_str()),
            Pattern::Domain(domain) => format!("sender = {:?}\n", format!("@{domain}")),
            Pattern::Subdomains(above) => format!("sender = {:?}\n", format!("@.{above}")),
        };
        let recipient = match &rule.recipient {
            Pattern::Any | Pattern::Null => "domain = \"*\"".to_owned(),
            Pattern::Domain(domain) => format!("domain = {domain:?}"),
            Pattern::Subdomains(above) => format!("domain = {:?}", format!(".{above}")),
            Pattern::Mailbox(one) => format!("recipient = {:?}", one.as_str()),
        };
        text.push_str(&format!(
            "\n[[route]]\n{recipient}\n{sender}transport = {:?}\n",
            rule.transport
        ));
    }
    text
}

/// `[notice]`.
fn notice_keys(notices: &Notices) -> String {
    let toml = |text: String| toml::Value::String(text).to_string();
    let mut keys = format!("\n[notice]\nreturn_whole = {}\n", notices.return_whole);
    for kind in [NoticeKind::Bounce, NoticeKind::Delay, NoticeKind::Success] {
        let wording = notices.templates.of(kind);
        let file = notices.files.iter().find(|file| file.kind == kind);
        let text = match file {
            Some(file) => format!("text_file = {}", toml(file.path.display().to_string())),
            None => format!("text = {}", toml(wording.text())),
        };
        let (from, subject) = (toml(wording.from()), toml(wording.subject()));
        let after = match kind {
            NoticeKind::Delay => {
                let ages: Vec<String> = notices.delays.ages().iter().copied().map(span).collect();
                format!("after = [{}]\n", ages.join(", "))
            }
            _ => String::new(),
        };
        let kind = kind.as_str();
        keys += &format!("\n[notice.{kind}]\n{after}from = {from}\nsubject = {subject}\n{text}\n");
    }
    keys
}

/// `[retry]` but what transports have of their own, and `[bounce]`.
fn retry(schedules: &Schedules) -> String {
    let keys = schedule_keys(schedules.default_schedule());
    let mut text = format!("\n[retry]\n{keys}");
    for (domain, schedule) in schedules.domains() {
        let keys = schedule_keys(schedule);
        text.push_str(&format!("\n[[retry.domain]]\ndomain = {domain:?}\n{keys}"));
    }
    for rule in schedules.rules() {
        text.push_str("\n[[retry.rule]]\n");
        if let Some(status) = &rule.status {
            text.push_str(&format!("status = \"{status}\"\n"));
        }
        if let Some(reply) = &rule.reply {
            text.push_str(&format!("reply = {:?}\n", reply.as_str()));
        }
        text.push_str(&format!("after = {}\n", span(rule.after)));
        if let Some(until) = rule.until {
            text.push_str(&format!("until = {}\n", span(until)));
        }
    }
    let lifetime = span(schedules.null_lifetime());
    text.push_str(&format!("\n[bounce]\nlifetime = {lifetime}\n"));
    text
}

fn schedule_keys(schedule: &Schedule) -> String {
    let mut text = match schedule.rhythm() {
        Rhythm::Phases(phases) => {
            let line = |phase: &Phase| {
                let (until, every) = (span(phase.until), span(phase.every));
                let factor = phase.factor;
                format!("  {{ until = {until}, every = {every}, factor = {factor:?} }},\n")
            };
            let lines: String = phases.iter().map(line).collect();
            format!("phases = [\n{lines}]\n")
        }
        Rhythm::Delays(delays) => {
            let delays: Vec<String> = delays.iter().copied().map(span).collect();
            format!("delays = [{}]\n", delays.join(", "))
        }
    };
    text.push_str(&format!("jitter = {:?}\n", schedule.jitter()));
    if let Some(cap) = schedule.cap() {
        text.push_str(&format!("cap = {}\n", span(cap)));
    }
    text.push_str(&format!("lifetime = {}\n", span(schedule.lifetime())));
    text
}

/// A duration in quotes.
fn span(duration: SignedDuration) -> String {
    format!("\"{}\"", table::span(duration))
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
        Transport::Wire(wire) => wire_keys(wire),
    }
}

/// Everything but secrets.
fn wire_keys(wire: &Wire) -> String {
    let kind = match wire.protocol {
        Protocol::Smtp => "smtp",
        Protocol::Lmtp => "lmtp",
    };
    let hosts: Vec<String> = wire.hosts.iter().map(ToString::to_string).collect();
    let mut text = format!("type = \"{kind}\"\n");
    let mut line = |line: String| text.push_str(&(line + "\n"));
    match hosts.is_empty() {
        true => line("# host: the mail exchanges of the recipient's domain".to_owned()),
        false => line(format!("host = {hosts:?}")),
    }
    line(format!("port = {}", wire.port));
    line(format!("hello = \"{}\"", wire.hello));
    let tls = &wire.tls;
    line(format!("tls = {}", quoted(&tls.policy)));
    if tls.policy != TlsPolicy::None {
        line(format!("tls_implicit = {}", tls.implicit));
        let minimum = match tls.minimum {
            MinimumTls::V1_2 => "1.2",
            MinimumTls::V1_3 => "1.3",
        };
        line(format!("tls_min = {minimum:?}"));
    }
    let (certificate, key) = tls.identity.clone().unzip();
    for (name, path) in [
        ("tls_ca", &tls.ca),
        ("tls_certificate", &certificate),
        ("tls_key", &key),
    ] {
        if let Some(path) = path {
            line(format!("{name} = {:?}", path.display().to_string()));
        }
    }
    if let Some(name) = &tls.name {
        line(format!("tls_name = {name:?}"));
    }
    if let Some(login) = &wire.login {
        line(format!("username = {:?}", login.username));
        match &login.secret {
            Secret::Password(_) => line("# password: not shown".to_owned()),
            Secret::PasswordFile(path) => {
                line(format!("password_file = {:?}", path.display().to_string()));
            }
            Secret::TokenFile(path) => {
                line(format!("token_file = {:?}", path.display().to_string()));
            }
        }
        if let Some(mechanism) = login.mechanism {
            line(format!(
                "auth = {:?}",
                mechanism.name().to_ascii_lowercase()
            ));
        }
        line(format!("auth_in_clear = {}", login.in_clear));
    }
    line(format!("max_recipients = {}", wire.max_recipients));
    line(format!("max_per_connection = {}", wire.max_per_connection));
    line(format!("concurrency = {}", wire.concurrency));
    line(format!("on_unknown = {}", quoted(&wire.on_unknown)));
    let time = |time| humantime::format_duration(time);
    line(format!(
        "connect_timeout = \"{}\"",
        time(wire.connect_timeout)
    ));
    match wire.timeout {
        Some(timeout) => line(format!("timeout = \"{}\"", time(timeout))),
        None => line("# timeout: what RFC 5321 says for each answer".to_owned()),
    }
    text
}

fn quoted(value: &impl std::fmt::Debug) -> String {
    format!("\"{}\"", format!("{value:?}").to_ascii_lowercase())
}

fn say(text: &str) {
    write_once(io::stdout(), text);
}
