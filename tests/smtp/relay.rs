//! Postfix: TLS, certificates, authentication.

use mailspool::testing::message::{
    Address, Dsn, Notify, OriginalRecipient, RecipientDsn, Ret, ReversePath,
};
use mailspool::testing::queue::Status::{Deferred, Delivered, Failed};
use mailspool::testing::smtp::{
    Client, Credentials, Login, Mechanism, OpenError, Protocol, Roots, Settings, Shape, Tls,
    TlsPolicy, TlsSettings, Transaction,
};
use tokio::net::TcpStream;

use super::servers::relay::Relay;
use super::site::{read_all, until};
use super::{connect, send, settings, statuses};

impl Relay {
    async fn open(&self, settings: &Settings) -> Result<Client<TcpStream>, OpenError> {
        let port = self.port();
        let stream = connect(|| TcpStream::connect(("127.0.0.1", port))).await;
        stream.set_nodelay(true).unwrap();
        Client::open(stream, "mx.relay.test", settings).await
    }

    /// Settings with a verified certificate.
    fn verified(&self) -> Settings {
        let roots = Roots::These(vec![self.certificate.clone()]);
        Settings {
            tls: tls(TlsPolicy::Verified, roots, None),
            ..settings(Protocol::Smtp)
        }
    }
}

fn tls(policy: TlsPolicy, roots: Roots, name: Option<&str>) -> Tls {
    Tls::new(TlsSettings {
        policy,
        roots,
        name: name.map(str::to_owned),
        ..TlsSettings::default()
    })
    .unwrap()
}

fn login(password: &str, mechanism: Mechanism) -> Login {
    Login {
        mechanism: Some(mechanism),
        ..Login::new(Credentials::Password {
            user: "alice".into(),
            password: password.into(),
        })
    }
}

#[tokio::test]
async fn certificates_and_authentication() {
    let relay = Relay::start();
    let mut count = 0;
    for mechanism in [Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login] {
        let mut settings = relay.verified();
        settings.login = Some(login("geheim", mechanism));
        let mut client = relay.open(&settings).await.unwrap();
        let info = client.info();
        assert_eq!(info.mechanism, Some(mechanism));
        let tls = info.tls.clone().unwrap();
        assert!(tls.is_verified);
        assert_eq!(tls.version, "TLSv1_3");
        for message in [
            &b"Subject: a\n\n.\nx"[..],
            b"Subject: b\r\n\r\nnul \0 here\r\n",
        ] {
            let recipients = ["x@sender.test"];
            let verdicts = send(&mut client, "s@sender.test", &recipients, message).await;
            assert_eq!(statuses(&verdicts), [Delivered], "{verdicts:?}");
            count += 1;
        }
        client.quit().await;

        settings.login = Some(login("falsch", mechanism));
        let error = relay.open(&settings).await.err().unwrap();
        let verdict = error.verdict();
        assert_eq!(verdict.outcome.status, Deferred);
        let words = verdict.outcome.reply.to_string();
        assert!(
            words.starts_with("535 5.7.8 Error: authentication failed"),
            "{words}"
        );
    }
    let inbox = relay.inbox();
    until("Postfix to deliver", || read_all(&inbox).len() == count);
    for mail in read_all(&inbox) {
        let whole = mail.ends_with("\n\n.\nx\n") || mail.ends_with("\n\nnul \0 here\n");
        assert!(whole, "{mail:?}");
    }
}

/// Postfix parses the parameters strictly, and refuses wrong encodings with 501.
#[tokio::test]
async fn wishes_about_notices_are_understood() {
    let relay = Relay::start();
    let mut settings = relay.verified();
    settings.login = Some(login("geheim", Mechanism::ScramSha256));
    let mut client = relay.open(&settings).await.unwrap();
    let caps = &client.info().capabilities;
    assert!(caps.dsn && caps.pipelining && caps.chunking, "{caps:?}");
    let original = |kind: &str, address: &str| {
        Some(OriginalRecipient {
            kind: kind.into(),
            address: address.into(),
        })
    };
    let dsn = Dsn {
        ret: Some(Ret::Headers),
        envid: Some("mark+1=x y".into()),
        recipients: vec![
            RecipientDsn {
                notify: Some(Notify::Never),
                original: original("rfc822", "a+b=c d@sender.test"),
            },
            RecipientDsn {
                notify: Some(Notify::When {
                    success: true,
                    failure: true,
                    delay: true,
                }),
                original: original("utf-8", "\u{f6}+x@sender.test"),
            },
        ],
    };
    let message = &b"Subject: x\n\nx\n"[..];
    let transaction = Transaction {
        sender: &ReversePath::parse(b"s@sender.test").unwrap(),
        recipients: &["x@sender.test", "y@sender.test"].map(|text| Address::parse(text).unwrap()),
        shape: Shape::of(message).unwrap(),
        dsn: Some(&dsn),
    };
    let verdicts = client.deliver(&transaction, message).await;
    assert_eq!(statuses(&verdicts), [Delivered; 2], "{verdicts:?}");
    client.quit().await;
}

#[tokio::test]
async fn what_is_asked_of_tls_is_kept_to() {
    let relay = Relay::start();
    let with = |tls| Settings {
        tls,
        ..settings(Protocol::Smtp)
    };
    // Not verified, as configured.
    for policy in [TlsPolicy::Opportunistic, TlsPolicy::Required] {
        let settings = with(tls(policy, Roots::System, None));
        let mut client = relay.open(&settings).await.unwrap();
        assert!(!client.info().tls.as_ref().unwrap().is_verified);
        // Without authentication, each recipient is refused.
        let verdicts = send(&mut client, "s@a.test", &["x@sender.test"], b"x\n").await;
        assert_eq!(statuses(&verdicts), [Failed], "{verdicts:?}");
        assert!(client.is_alive().await);
        client.quit().await;
    }
    // The signer is not trusted by the system, and the certificate is for another name.
    let ours = || Roots::These(vec![relay.certificate.clone()]);
    for tls in [
        tls(TlsPolicy::Verified, Roots::System, None),
        tls(TlsPolicy::Verified, ours(), Some("mx.other.test")),
    ] {
        let error = relay.open(&with(tls)).await.err().unwrap();
        assert!(matches!(error, OpenError::Tls(_)), "{error}");
    }
    // Without TLS it offers no AUTH, and the password is not sent.
    let mut clear = settings(Protocol::Smtp);
    clear.login = Some(login("geheim", Mechanism::Plain));
    let error = relay.open(&clear).await.err().unwrap();
    assert!(matches!(error, OpenError::Sasl(_)), "{error}");
    let words = error.verdict().outcome.reply.to_string();
    assert_eq!(
        words,
        "4.7.0 credentials are not sent over a connection that is not encrypted"
    );
}
