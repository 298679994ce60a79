use super::*;
use crate::message::{NoticeKind, ReversePath};
use crate::notice::Wording;
use crate::queue::Pattern;
use crate::smtp::TlsPolicy;

fn error(text: &str) -> String {
    Config::parse(text, "config.toml").unwrap_err().to_string()
}

#[test]
fn the_default_delivers_everything_to_the_outbox() {
    let config = Config::parse(DEFAULT, "default").unwrap();
    let recipient = Address::parse("x@example.org").unwrap();
    let name = config
        .routes
        .transport_for(&ReversePath::Null, &recipient)
        .unwrap();
    let expected = Transport::Maildir {
        concurrency: 20,
        path: "outbox".into(),
    };
    assert_eq!(config.transports.get(name), Some(&expected));
    assert_eq!(config.retry, Schedules::default());
    assert_eq!(config.accept.limits.max_size, 50_000_000);
}

#[test]
fn the_documented_example_can_be_read() {
    let config = Config::parse(
        r#"
        hostname = "mail.example.net"
        postmaster = "root"
        [accept]
        max_size = "10k"
        min_free = "0"
        hop_limit = 20
        attempt = "now"
        [retry]
        phases = [ { until = "2h", every = "15m" }, { until = "4d", every = "6h", factor = 1.5 } ]
        [transport.tickets]
        type = "pipe"
        command = ["/bin/cat", "{recipient}"]
        user = "tickets"
        timeout = "30s"
        [[route]]
        recipient = "support@example.org"
        transport = "tickets"
        [[route]]
        domain = "*"
        transport = "tickets"
        "#,
        "config.toml",
    )
    .unwrap();
    assert_eq!(config.accept.limits.max_size, 10_000);
    assert_eq!(config.accept.limits.min_free, 0);
    assert_eq!(config.accept.attempt, Attempt::Now);
    assert_eq!(config.postmaster.as_str(), "root@mail.example.net");
    let lifetime = config.retry.default_schedule().lifetime();
    assert_eq!(lifetime, SignedDuration::from_hours(96));
}

#[test]
fn errors_name_their_line() {
    for (text, line, words) in [
        ("hostnam = 'x'", 1, "unknown field"),
        ("\n[accept]\nmax_sise = '1k'", 3, "unknown field"),
        ("[accept]\nmax_size = '1 parsec'", 2, "size"),
        ("[accept]\ntimeout = '5 moons'", 2, "duration"),
        ("hostname = 'a b'", 1, "not a host name"),
        ("[transport.x]\ntype = 'carrier-pigeon'", 2, "unknown type"),
        ("[transport.x]\ntype = 'maildir'", 2, "needs `path`"),
        (
            "[transport.x]\ntype = 'maildir'\npath = 'x'\nuser = 'y'",
            4,
            "not a key of type",
        ),
        ("[transport.'a b']\ntype = 'maildir'\npath = 'x'", 1, "name"),
        (
            "[[route]]\ndomain = '*'\ntransport = 'x'",
            3,
            "there is no transport",
        ),
        ("[retry]\nphases = []", 2, "at least one phase"),
        ("[retry]\ndelays = []", 2, "at least one phase or delay"),
        ("[retry]\ndelays = ['1h', '30s']", 2, "at least a minute"),
        ("[retry]\ndelays = ['soon']", 2, "not a duration"),
        (
            "[retry]\ndelays = ['1m']\nlifetime = '30d'",
            2,
            "more than 10000",
        ),
        (
            "[retry]\ndelays = ['1h']\nphases = []",
            2,
            "either `phases` or `delays`",
        ),
        ("[retry]\njitter = 1.5", 2, "from 0 to 1"),
        ("[retry]\njitter = '10%'", 2, "f64"),
        ("[retry]\ndelays = ['1h']\ncap = '0s'", 3, "a cap must be"),
        ("[retry]\nphases = []\nlifetime = '0s'", 2, ""),
        ("[retry]\nlifetime = '0s'", 2, "a lifetime must be"),
        ("[retry]\nlifetime = '200y'", 2, "a lifetime must be"),
        ("[retry]\nfactor = 2", 2, "unknown field"),
        ("[bounce]\nlifetime = '5s'", 2, "at least a minute"),
        ("[bounce]\nlifetimes = '5d'", 2, "unknown field"),
        ("[frozen]\nlifetime = '5s'", 2, "at least a minute"),
        ("[frozen]\nlifetime = 'ever'", 2, "or \"never\""),
        ("[[retry.domain]]\nlifetime = '1d'", 2, "needs `domain`"),
        (
            "[[retry.domain]]\ndomain = 'a b'\ncap = '1h'",
            2,
            "host name",
        ),
        (
            "[[retry.domain]]\ndomain = 'a.test'",
            2,
            "a key of a schedule",
        ),
        (
            "[[retry.domain]]\ndomain = 'a.test'\ncap = '0s'",
            3,
            "a cap must be",
        ),
        (
            "[[retry.domain]]\ndomain = 'a.test'\ncap = '1h'\n\
             [[retry.domain]]\ndomain = 'A.test'\ncap = '2h'",
            5,
            "a second schedule",
        ),
        (
            "[[retry.rule]]\nafter = '5m'",
            2,
            "needs `status` or `reply`",
        ),
        ("[[retry.rule]]\nstatus = '4.7'", 1, "missing field `after`"),
        (
            "[[retry.rule]]\nstatus = '450'\nafter = '5m'",
            2,
            "not an enhanced status code",
        ),
        (
            "[[retry.rule]]\nstatus = '4.7'\nafter = '5s'",
            3,
            "at least a minute",
        ),
        (
            "[[retry.rule]]\nstatus = '4.7'\nafter = '5m'\nuntil = '0s'",
            4,
            "too short",
        ),
        (
            "[retry]\ncap = '1h'\n[[retry.rule]]\nstatus = '4.7'\nafter = '2h'",
            5,
            "longer than `cap`",
        ),
        (
            "[transport.x]\ntype = 'maildir'\npath = 'x'\n[transport.x.retry]\ndelays = []",
            5,
            "at least one phase or delay",
        ),
        (
            "[transport.x]\ntype = 'maildir'\npath = 'x'\nretry.rule = []",
            4,
            "unknown field",
        ),
        ("[run]\njobs = 0", 2, "at least 1"),
        ("[log]\nto = 'printer'", 2, "unknown variant"),
        ("a = = b", 1, ""),
    ] {
        let message = error(text);
        assert!(
            message.starts_with(&format!("config.toml:{line}: ")),
            "{text}: {message}"
        );
        assert!(message.contains(words), "{text}: {message}");
    }
}

/// Each schedule takes what it does not set from `[retry]`. Ages are in minutes.
#[test]
fn schedules_inherit_missing_keys() {
    let config = Config::parse(
        r#"
        [retry]
        delays = ["5m", "15m", "1h"]
        lifetime = "3h"
        jitter = 0
        cap = "2h"
        [[retry.domain]]
        domain = "Short.test"
        lifetime = "30m"
        [[retry.domain]]
        domain = "phases.test"
        phases = [ { until = "1h", every = "20m" }, { until = "3h", every = "30m", factor = 2 } ]
        [[retry.domain]]
        domain = "longer.test"
        phases = [ { until = "1h", every = "20m" } ]
        lifetime = "80m"
        [[retry.rule]]
        status = "4.7"
        reply = "*Greylist*"
        after = "5m"
        until = "1h"
        [[retry.rule]]
        status = "4.2.2"
        after = "2h"
        [bounce]
        lifetime = "20m"
        [transport.out]
        type = "smtp"
        retry.cap = "10m"
        "#,
        "config.toml",
    )
    .unwrap();
    let schedules = config.retry;
    let minutes = |null, domain, transport| {
        let (schedule, _) = schedules.choose(null, Some(domain), transport);
        assert_eq!(schedule.jitter(), 0.0);
        let ages = schedule.ages().iter();
        ages.map(|age| age.as_secs() / 60).collect::<Vec<_>>()
    };
    assert_eq!(minutes(false, "x.test", None), [5, 20, 80, 140, 180]);
    assert_eq!(minutes(true, "x.test", None), [5, 20]);
    let out: Vec<i64> = [5].into_iter().chain((15..180).step_by(10)).collect();
    let out = [&out[..], &[180]].concat();
    assert_eq!(minutes(false, "x.test", Some("out")), out);
    assert_eq!(minutes(false, "short.TEST", Some("out")), [5, 20, 30]);
    assert_eq!(
        minutes(false, "phases.test", Some("out")),
        [20, 40, 60, 90, 150, 180]
    );
    assert_eq!(minutes(false, "longer.test", None), [20, 40, 60, 80]);
    let rules: Vec<_> = schedules
        .rules()
        .iter()
        .map(|rule| {
            (
                rule.status.as_ref().unwrap().to_string(),
                rule.until.is_some(),
            )
        })
        .collect();
    assert_eq!(
        rules,
        [("4.7".to_owned(), true), ("4.2.2".to_owned(), false)]
    );
    for (none, lifetime) in [("0", 0), ("0s", 0), ("1d", 86_400)] {
        let config = Config::parse(&format!("[bounce]\nlifetime = '{none}'"), "x").unwrap();
        assert_eq!(
            config.frozen_lifetime,
            Some(SignedDuration::from_hours(14 * 24))
        );
        assert_eq!(config.retry.null_lifetime().as_secs(), lifetime);
    }
}

/// `smtp` with these keys.
fn wire(keys: &str) -> Wire {
    let text = format!("[transport.x]\ntype = 'smtp'\n{keys}");
    let config = Config::parse(&text, "config.toml").unwrap();
    let Some(Transport::Wire(wire)) = config.transports.get("x").cloned() else {
        panic!("{text}");
    };
    *wire
}

#[test]
fn the_default_of_tls_depends_on_host_port_and_login() {
    use TlsPolicy::{None, Opportunistic, Required, Verified};
    let login = "username = 'u'\npassword_file = 'p'";
    for (keys, policy, implicit, port) in [
        ("", Opportunistic, false, 25),
        ("port = 26", Opportunistic, false, 26),
        ("port = 465", Required, true, 465),
        ("host = 'a.test'", Opportunistic, false, 25),
        ("host = 'a.test:465'", Required, true, 465),
        ("host = ['a.test:465', 'b.test:465']", Required, true, 465),
        ("host = 'a.test'\nport = 465", Required, true, 465),
        ("host = 'a.test'\ntls_implicit = true", Required, true, 465),
        ("host = 'a.test:465'\ntls = 'none'", None, false, 25),
        (
            "host = 'a.test:465'\ntls_implicit = false",
            Opportunistic,
            false,
            25,
        ),
        ("host = 'unix:/run/x'", None, false, 25),
        ("host = ['unix:/run/x', 'a.test']", Opportunistic, false, 25),
        ("host = 'a.test'\ntls = 'required'", Required, false, 25),
        (login, Verified, false, 25),
        (
            &format!("host = 'a.test:465'\n{login}"),
            Verified,
            true,
            465,
        ),
        (&format!("host = 'unix:/run/x'\n{login}"), None, false, 25),
    ] {
        let wire = wire(keys);
        let got = (wire.tls.policy, wire.tls.implicit, wire.port);
        assert_eq!(got, (policy, implicit, port), "{keys}");
    }
}

#[test]
fn credentials_go_in_clear_only_if_configured_or_to_a_local_socket() {
    let login = "username = 'u'\npassword = 'geheim'\n";
    for (keys, in_clear) in [
        ("host = 'a.test'", false),
        ("host = 'a.test'\nauth_in_clear = true", true),
        ("host = 'a.test'\ntls = 'none'\nauth_in_clear = true", true),
        ("host = 'unix:/run/x'", true),
    ] {
        let wire = wire(&format!("{login}{keys}"));
        assert_eq!(wire.login.as_ref().unwrap().in_clear, in_clear, "{keys}");
        let shown = format!("{wire:?}");
        assert!(!shown.contains("geheim"), "{shown}");
    }
}

#[test]
fn mistakes_about_hosts_tls_and_credentials_name_their_line() {
    let login = "username = 'u'\npassword = 'geheim'";
    for (keys, line, words) in [
        ("path = 'x'", 3, "not a key of type \"smtp\""),
        ("user = 'x'", 3, "not a key of type \"smtp\""),
        ("host = 'a b'", 3, "\"a b\": not a host name"),
        ("host = 'ü..b'", 3, "not a valid internationalised domain"),
        ("hello = 'ü..b'", 3, "not a valid internationalised domain"),
        ("host = ['a', 'b:0']", 3, "a port is a number"),
        ("host = 'unix:lmtp'", 3, "begins with a slash"),
        ("host = []", 3, "`host` is empty"),
        ("host = 5", 3, "a string or a list of strings"),
        ("host = ['a:465', 'b:25']", 3, "tls_implicit"),
        ("port = 0", 3, "from 1 to 65535"),
        ("port = 65536", 3, ""),
        ("tls = 'maybe'", 3, "unknown variant"),
        ("tls = 'none'\ntls_implicit = true", 4, "contradicts"),
        ("tls = 'none'\ntls_min = '1.3'", 4, "`tls_min` needs TLS"),
        ("tls_min = '1.1'", 3, "unknown variant"),
        ("tls_ca = 'x'", 3, "`tls_ca` needs tls = \"verified\""),
        ("tls_key = 'x'", 3, "`tls_key` needs `tls_certificate`"),
        ("tls_certificate = 'x'", 3, "needs `tls_key`"),
        ("password_file = 'x'", 3, "needs `username`"),
        ("auth_in_clear = true", 3, "needs `username`"),
        ("username = 'u'", 3, "needs one of"),
        (&format!("{login}\ntoken_file = 'x'"), 5, "needs one of"),
        (&format!("{login}\nauth = 'xoauth2'"), 5, "token_file"),
        (&format!("{login}\nauth = 'oauthbearer'"), 5, "token_file"),
        (&format!("{login}\nauth = 'cram-md5'"), 5, "unknown variant"),
        (&format!("{login}\ntls = 'none'"), 3, "need TLS"),
        ("username = 'u'\npassword = 4711", 4, "a string in quotes"),
        ("username = 'u'\npassword = geheim", 4, ""),
        ("hello = 'a b'", 3, "EHLO"),
        ("max_recipients = 0", 3, "at least 1"),
        ("max_per_connection = 0", 3, "at least 1"),
        ("concurrency = 0", 3, "at least 1"),
        ("connect_timeout = '0s'", 3, "too short"),
        ("on_unknown = 'bounce'", 3, "unknown variant"),
        ("timeout = 'soon'", 3, "not a duration"),
    ] {
        let message = error(&format!("[transport.x]\ntype = 'smtp'\n{keys}"));
        let place = format!("config.toml:{line}: ");
        assert!(message.starts_with(&place), "{keys}: {message}");
        assert!(message.contains(words), "{keys}: {message}");
        let secret = message.contains("geheim") || message.contains("4711");
        assert!(!secret, "{keys}: {message}");
    }
    let message = error("[transport.x]\ntype = 'lmtp'");
    assert!(
        message.contains(":2: type \"lmtp\" needs `host`"),
        "{message}"
    );
    for servers in ["'dns.test'", "'192.0.2.53:x'", "53"] {
        let message = error(&format!("[dns]\nservers = [{servers}]"));
        assert!(message.starts_with("config.toml:2: "), "{message}");
    }
}

#[test]
fn names_may_be_spelled_in_any_way() {
    let text = "hostname = 'bücher.test'\n[transport.x]\ntype = 'smtp'\nhost = 'MX.bücher.test'\n\
                [[route]]\ndomain = 'Bücher.test'\ntransport = 'x'";
    let config = Config::parse(text, "config.toml").unwrap();
    let Transport::Wire(wire) = &config.transports["x"] else {
        panic!("{config:?}");
    };
    assert_eq!(config.hostname, "xn--bcher-kva.test");
    assert_eq!(wire.hello.to_string(), "xn--bcher-kva.test");
    assert_eq!(wire.hosts[0].to_string(), "mx.xn--bcher-kva.test");
    let to = Address::parse("a@xn--bcher-kva.test").unwrap();
    assert_eq!(
        config.routes.transport_for(&ReversePath::Null, &to),
        Some("x")
    );
    let message =
        error("[transport.x]\ntype = 'smtp'\n[[route]]\ndomain = 'ü..b'\ntransport = 'x'");
    let words = "config.toml:4: ü..b is not a valid internationalised domain name";
    assert!(message.starts_with(words), "{message}");
}

#[test]
fn servers_have_port_53_unless_they_name_another() {
    let text =
        "[dns]\nservers = ['192.0.2.53', '[2001:db8::53]:54', '2001:db8::53']\ntimeout = '1s'";
    let dns = Config::parse(text, "config.toml").unwrap().dns;
    let servers: Vec<String> = dns.servers.iter().map(ToString::to_string).collect();
    let expected = ["192.0.2.53:53", "[2001:db8::53]:54", "[2001:db8::53]:53"];
    assert_eq!(servers, expected);
    assert_eq!(dns.timeout, Duration::from_secs(1));
    assert!(!dns.local_mx);
    let dns = Config::parse("[dns]\nlocal_mx = true", "config.toml")
        .unwrap()
        .dns;
    assert!(dns.local_mx);
}

/// The examples in the comments are valid: each can be read without its `#`.
#[test]
fn the_examples_of_the_default_can_be_read() {
    let mut text = String::new();
    let mut in_text = false;
    for line in DEFAULT.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let bare = if in_text && bare == "#" { "" } else { bare };
        let is_example = in_text || bare.starts_with(['[', ' ']) || bare.contains(" = ");
        let is_other_way = bare.starts_with("token_file") || bare.starts_with("text_file");
        in_text ^= bare.matches("\"\"\"").count() == 1;
        if is_example && !is_other_way {
            text.push_str(bare);
        }
        text.push('\n');
    }
    let config = Config::parse(&text, "default.toml").unwrap();
    assert_eq!(config.transports.len(), 5, "{config:?}");
    let bounce = &config.notices.templates.bounce;
    assert!(bounce.text().ends_with("help you, {sender}.\n"));
    let as_usual = bounce
        .clone()
        .with_text(&Wording::of(NoticeKind::Bounce).text());
    assert_eq!(as_usual.unwrap(), Wording::of(NoticeKind::Bounce));
}

#[test]
fn words_of_notices_are_read_and_their_mistakes_found() {
    let text = "[notice]\nreturn_whole = '5K'\n[notice.delay]\nsubject = 'Noch: {subject}'\n\
                text_file = 'delay.txt'\n[notice.success]\nfrom = 'Post <{postmaster}>'\n";
    let notices = Config::parse(text, "config.toml").unwrap().notices;
    assert_eq!(notices.return_whole, 5_000);
    assert_eq!(notices.templates.delay.subject(), "Noch: {subject}");
    assert_eq!(notices.templates.success.from(), "Post <{postmaster}>");
    assert_eq!(notices.templates.bounce, Wording::of(NoticeKind::Bounce));
    let file = TextFile {
        kind: NoticeKind::Delay,
        path: "delay.txt".into(),
        place: "config.toml:5".to_owned(),
    };
    assert_eq!(notices.files, [file]);
    for (text, message) in [
        (
            "bounce]\nsubject = '{until}'",
            ":2: subject: {until} is not one of {hostname},",
        ),
        (
            "bounce]\nsubject = \"a\\nBcc: b\"",
            ":2: subject: a header field must be one line",
        ),
        (
            "bounce]\nfrom = 'post'",
            ":2: from: \"post\" has no local part or no domain",
        ),
        (
            "delay]\ntext = '''\na\nb {c}'''",
            ":4: text: {c} is not one of",
        ),
        (
            "delay]\n\ntext = \"\"\"a\nb {\n\"\"\"",
            ":4: text: a brace is not closed",
        ),
        (
            "delay]\ntext = \"a\\nb\\n{c}\"",
            ":2: text: {c} is not one of",
        ),
        (
            "delay]\ntext = 'x'\ntext_file = 'y'",
            ":3: a notice has either `text` or `text_file`",
        ),
        ("delay]\ntext = ' '", ":2: text: it is empty"),
        ("other]\ntext = ' '", ":1: unknown field `other`"),
    ] {
        let found = error(&format!("[notice.{text}"));
        let expected = format!("config.toml{message}");
        assert!(found.starts_with(&expected), "{text}: {found}");
    }
}

#[test]
fn frozen_mail_may_be_kept_for_ever() {
    let frozen = |lifetime: &str| {
        let text = format!("[frozen]\nlifetime = '{lifetime}'");
        Config::parse(&text, "x").unwrap().frozen_lifetime
    };
    assert_eq!(frozen("never"), None);
    assert_eq!(frozen("3d"), Some(SignedDuration::from_hours(72)));
}

#[test]
fn routes_name_domains_below_one_and_senders() {
    let head = "[transport.x]\ntype = 'maildir'\npath = 'x'\n[[route]]\ntransport = 'x'\n";
    let parsed = |keys: &str| {
        let config = Config::parse(&format!("{head}{keys}"), "config.toml").unwrap();
        let rule = config.routes.0[0].clone();
        (rule.recipient, rule.sender)
    };
    let (below, one) = (
        Pattern::Subdomains("corp.test".into()),
        Pattern::Mailbox(Address::parse("boss@example.org").unwrap()),
    );
    for (keys, recipient, sender) in [
        ("domain = '.corp.test'", below.clone(), Pattern::Any),
        ("domain = '*.corp.test'", below.clone(), Pattern::Any),
        ("sender = 'boss@example.org'", Pattern::Any, one.clone()),
        ("domain = '*'\nsender = '<>'", Pattern::Any, Pattern::Null),
        ("sender = '@.corp.test'", Pattern::Any, below.clone()),
        (
            "recipient = 'boss@example.org'\nsender = '@corp.test'",
            one,
            Pattern::Domain("corp.test".into()),
        ),
    ] {
        assert_eq!(parsed(keys), (recipient, sender), "{keys}");
    }
    for wrong in [
        "",
        "domain = '.'",
        "domain = '*.'",
        "sender = '@'",
        "sender = ''",
    ] {
        let message = error(&format!("{head}{wrong}"));
        assert!(message.starts_with("config.toml:"), "{wrong}: {message}");
    }
}

#[test]
fn comments_are_left_out_and_their_lines_counted() {
    let read = |text: &str| Config::parse(text, "c").map_err(|error| error.to_string());
    assert!(without_comments(DEFAULT).len() < DEFAULT.len() / 4);
    let one = "# é\n\n#\n[accept]\n# more\nhop_limit = 3 # a few\n#";
    assert_eq!(read(one).unwrap().accept.limits.hop_limit, 3);
    let wrong = read("# one\n#two\nhostname = \"a b\"\n").unwrap_err();
    assert!(wrong.starts_with("c:3: "), "{wrong}");
    let wrong = read("#\n#\nnonsense = 1\n").unwrap_err();
    assert!(wrong.starts_with("c:3: "), "{wrong}");
    let text = "[notice.bounce]\ntext = '''\n# no comment\n{replies}'''\n";
    let words = read(text).unwrap().notices.templates.bounce.text();
    assert_eq!(words, "# no comment\n{replies}");
    assert!(read("# a\rb\n").is_err());
    assert!(read("# a\r\nhostname = \"x\"\r\n").is_ok());
}
