//! Every course of an opening.

use super::super::reply::ReplyParser;
use super::super::sasl::Credentials;
use super::*;
use crate::queue::Status;

fn reply(text: &str) -> ServerReply {
    let text = format!("{}\r\n", text.replace('|', "\r\n"));
    let (_, reply) = ReplyParser::default().push(text.as_bytes()).unwrap();
    reply.unwrap()
}

fn password(needs: Protection) -> Login {
    Login {
        needs,
        ..Login::new(Credentials::Password {
            user: "u".into(),
            password: "p".into(),
        })
    }
}

/// Plays the server's lines, with TLS established whenever it is asked for. Returns what the client sent,
/// with `<TLS>` where it asked for TLS, and the result.
fn play(
    protocol: Protocol,
    start_tls: StartTls,
    login: Option<&Login>,
    script: &[&str],
) -> (String, Result<Capabilities, OpenError>) {
    let hello = HelloName::parse("me.example").unwrap();
    let terms = Terms {
        protocol,
        hello: &hello,
        start_tls,
        login,
        remote: "mx",
    };
    let mut out = Vec::new();
    let (mut opening, mut next) = Opening::new(terms, Protection::Clear);
    let mut script = script.iter();
    let mut said = String::new();
    loop {
        out.clear();
        next = match next {
            OpeningNext::Ready => {
                assert_eq!(script.next(), None);
                return (said, Ok(opening.finish().0));
            }
            OpeningNext::Encrypt => {
                said.push_str("<TLS> ");
                opening.on_encrypted(Protection::Encrypted, &mut out)
            }
            OpeningNext::Reply(_) => {
                let line = script.next().expect("another line");
                match opening.on_reply(&reply(line), &mut out) {
                    Ok(next) => next,
                    Err(error) => return (said, Err(error)),
                }
            }
        };
        said.push_str(&String::from_utf8_lossy(&out).replace("\r\n", "; "));
    }
}

#[test]
fn the_ways_to_the_first_mail() {
    use Protocol::*;
    use StartTls::*;
    for (protocol, start_tls, script, said) in [
        (
            Smtp,
            Never,
            &["220 hi", "250-mx|250 STARTTLS"][..],
            "EHLO me.example; ",
        ),
        (Lmtp, Never, &["220 hi", "250 mx"], "LHLO me.example; "),
        (
            Smtp,
            IfOffered,
            &["220 hi", "500 what", "250 mx"],
            "EHLO me.example; HELO me.example; ",
        ),
        (Smtp, IfOffered, &["220 hi", "250 mx"], "EHLO me.example; "),
        (
            Smtp,
            IfOffered,
            &["220 hi", "250-mx|250 STARTTLS", "220 go", "250-mx|250 SIZE"],
            "EHLO me.example; STARTTLS; <TLS> EHLO me.example; ",
        ),
        (
            Smtp,
            IfOffered,
            &["220 hi", "250-mx|250 STARTTLS", "454 4.7.0 no TLS now"],
            "EHLO me.example; STARTTLS; ",
        ),
    ] {
        let (got, end) = play(protocol, start_tls, None, script);
        assert_eq!(got, said);
        end.unwrap();
    }
}

#[test]
fn what_was_said_before_tls_is_forgotten() {
    let (_, caps) = play(
        Protocol::Smtp,
        StartTls::Always,
        None,
        &[
            "220 hi",
            "250-mx|250-STARTTLS|250-AUTH PLAIN|250 SIZE 1",
            "220 go",
            "250 mx",
        ],
    );
    assert_eq!(caps.unwrap(), Capabilities::default());
}

#[test]
fn refusals_are_the_hosts_and_defer() {
    use StartTls::*;
    let tls = "250-mx|250 STARTTLS";
    for (start_tls, script, text) in [
        (Never, &["554 5.7.1 go away"][..], "554 5.7.1 go away"),
        (Never, &["521 no mail here"], "521 no mail here"),
        (Never, &["421 busy"], "421 busy"),
        (Never, &["220 hi", "421 busy"], "421 busy"),
        (Never, &["220 hi", "451 later"], "451 later"),
        (
            Never,
            &["220 hi", "502 no", "550 not welcome"],
            "550 not welcome",
        ),
        (
            Always,
            &["220 hi", "250 mx"],
            "4.7.4 TLS is required, and the server does not offer it",
        ),
        (
            Always,
            &["220 hi", "502 no", "250 mx"],
            "4.7.4 TLS is required, and the server does not offer it",
        ),
        (
            Always,
            &["220 hi", tls, "454 4.7.0 not now"],
            "454 4.7.0 not now",
        ),
        (IfOffered, &["220 hi", tls, "421 bye"], "421 bye"),
        (
            Never,
            &["354 go"],
            "4.5.0 the server gave an answer that does not belong here: \"354 go\" \
                              while waiting for the greeting",
        ),
    ] {
        let error = play(Protocol::Smtp, start_tls, None, script).1.unwrap_err();
        let verdict = error.verdict();
        assert_eq!(verdict.outcome.reply.to_string(), text);
        assert_eq!(verdict.outcome.status, Status::Deferred, "{text}");
        assert_eq!(verdict.scope, Scope::Host);
    }
    let lmtp = play(Protocol::Lmtp, Never, None, &["220 hi", "500 what"]);
    assert!(lmtp.1.is_err(), "LMTP knows no HELO");
}

#[test]
fn authentication() {
    let clear = password(Protection::Clear);
    let script = &["220 hi", "250-mx|250 AUTH PLAIN", "235 2.7.0 ok"];
    let (said, end) = play(Protocol::Smtp, StartTls::Never, Some(&clear), script);
    assert_eq!(said, "EHLO me.example; AUTH PLAIN AHUAcA==; ");
    end.unwrap();

    let script = &[
        "220 hi",
        "250-mx|250 AUTH LOGIN",
        "334 VXNlcm5hbWU6",
        "334 Password:",
        "235 ok",
    ];
    let (said, end) = play(Protocol::Smtp, StartTls::Never, Some(&clear), script);
    assert_eq!(said, "EHLO me.example; AUTH LOGIN; dQ==; cA==; ");
    end.unwrap();

    // Nothing is sent in clear, and capabilities offered in clear do not count.
    let encrypted = password(Protection::Encrypted);
    let script = &["220 hi", "250-mx|250 AUTH PLAIN"];
    let (said, end) = play(
        Protocol::Smtp,
        StartTls::IfOffered,
        Some(&encrypted),
        script,
    );
    assert_eq!(said, "EHLO me.example; ");
    let words = end.unwrap_err().verdict().outcome.reply.to_string();
    assert_eq!(
        words,
        "4.7.0 credentials are not sent over a connection that is not encrypted"
    );
    let script = &[
        "220 hi",
        "250-mx|250-STARTTLS|250 AUTH PLAIN",
        "220 go",
        "250 mx",
    ];
    let (_, end) = play(Protocol::Smtp, StartTls::Always, Some(&encrypted), script);
    assert!(matches!(
        end,
        Err(OpenError::Sasl(SaslError::NoMechanism(_)))
    ));

    // A refusal is a matter for the operator, and no mail is lost.
    let script = &["220 hi", "250-mx|250 AUTH PLAIN", "535 5.7.8 wrong"];
    let (_, end) = play(Protocol::Smtp, StartTls::Never, Some(&clear), script);
    let verdict = end.unwrap_err().verdict();
    assert_eq!(verdict.outcome.reply.to_string(), "535 5.7.8 wrong");
    assert_eq!(verdict.outcome.status, Status::Deferred);

    // A server that does not know SCRAM's proof but accepts.
    let script = &["220 hi", "250-mx|250 AUTH SCRAM-SHA-256", "235 ok"];
    let (_, end) = play(Protocol::Smtp, StartTls::Never, Some(&clear), script);
    assert_eq!(end.unwrap_err(), OpenError::Sasl(SaslError::Impostor));
}

#[test]
fn a_long_token_is_asked_for_first() {
    let login = Login {
        needs: Protection::Clear,
        ..Login::new(Credentials::Token {
            user: "u".into(),
            token: "x".repeat(2000),
        })
    };
    let script = &[
        "220 hi",
        "250-mx|250 AUTH XOAUTH2",
        "334 ",
        "334 eyJz",
        "535 5.7.8 no",
    ];
    let (said, end) = play(Protocol::Smtp, StartTls::Never, Some(&login), script);
    assert!(
        said.starts_with("EHLO me.example; AUTH XOAUTH2; dXNlcj11AWF1d"),
        "{said}"
    );
    assert!(
        said.ends_with("AQ==; ; ") || said.ends_with("; ; "),
        "{said}"
    );
    assert!(matches!(end, Err(OpenError::Refused(_))));
}

#[test]
fn first_words_that_were_not_heard_are_said_again_once() {
    let clear = |credentials| Login {
        needs: Protection::Clear,
        ..Login::new(credentials)
    };
    let password = clear(Credentials::Password {
        user: "u".into(),
        password: "p".into(),
    });
    let token = clear(Credentials::Token {
        user: "u".into(),
        token: "t".into(),
    });
    for (login, mechanism, first) in [
        (&password, "PLAIN", "AHUAcA=="),
        (&token, "XOAUTH2", "dXNlcj11AWF1dGg9QmVhcmVyIHQBAQ=="),
        (&token, "OAUTHBEARER", "bixhPXUsAWF1dGg9QmVhcmVyIHQBAQ=="),
    ] {
        let offer = format!("250-mx|250 AUTH {mechanism}");
        let script = &["220 hi", &offer, "334 ", "235 ok"];
        let (said, end) = play(Protocol::Smtp, StartTls::Never, Some(login), script);
        assert_eq!(
            said,
            format!("EHLO me.example; AUTH {mechanism} {first}; {first}; ")
        );
        assert!(end.is_ok(), "{mechanism}: {end:?}");
    }
    // In PLAIN any textual challenge asks for the response; a second one is something else.
    let script = &[
        "220 hi",
        "250-mx|250 AUTH PLAIN",
        "334 Go ahead!",
        "334 more",
    ];
    let (said, end) = play(Protocol::Smtp, StartTls::Never, Some(&password), script);
    assert_eq!(said, "EHLO me.example; AUTH PLAIN AHUAcA==; AHUAcA==; ");
    assert!(matches!(end, Err(OpenError::Sasl(SaslError::Garbled(_)))));
    // The error for a rejected token is acknowledged, then the server refuses.
    for (mechanism, answer) in [("XOAUTH2", ""), ("OAUTHBEARER", "AQ==")] {
        let offer = format!("250-mx|250 AUTH {mechanism}");
        let script = &["220 hi", &offer, "334 eyJ9", "535 5.7.8 no"];
        let (said, end) = play(Protocol::Smtp, StartTls::Never, Some(&token), script);
        assert!(said.ends_with(&format!("; {answer}; ")), "{said}");
        assert!(matches!(end, Err(OpenError::Refused(_))));
    }
}

#[test]
fn a_name_cannot_be_more_than_a_name() {
    for bad in ["", "a b", "a\r\nMAIL", "hö", "a\0"] {
        assert!(HelloName::parse(bad).is_err(), "{bad:?}");
    }
    assert!(HelloName::parse("[192.0.2.1]").is_ok());
}
