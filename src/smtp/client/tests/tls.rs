//! TLS with certificates made for the test.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, duplex};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto, version};

use super::super::super::tls::{ClientIdentity, MinimumTls, Roots, TlsSettings};
use super::server::Server;
use super::*;

/// A root, and the certificates that it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    fn identity(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (vec![certificate.der().clone()], key)
    }
}

/// How the server does TLS.
#[derive(Clone, Copy, Default)]
struct Manner {
    implicit: bool,
    only_tls_1_2: bool,
    asks_for_certificate: bool,
    /// It sends garbage instead of a handshake.
    is_broken: bool,
    /// It sends something in clear after the go-ahead.
    injects: bool,
}

fn acceptor(authority: &Authority, name: &str, manner: Manner) -> TlsAcceptor {
    let provider = Arc::new(crypto::ring::default_provider());
    let versions: &[_] = if manner.only_tls_1_2 {
        &[&version::TLS12]
    } else {
        &[&version::TLS13, &version::TLS12]
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap();
    let builder = if manner.asks_for_certificate {
        let mut roots = RootCertStore::empty();
        roots.add(authority.root()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let (chain, key) = authority.identity(name);
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}

/// Opens a session with such a server and sends a message. Returns the session's properties.
async fn session(
    authority: &Authority,
    manner: Manner,
    settings: TlsSettings,
) -> Result<SessionInfo, OpenError> {
    let (ours, theirs) = duplex(10_000);
    let acceptor = acceptor(authority, "mx.example", manner);
    let serving = tokio::spawn(async move {
        let mut stream = BufReader::new(theirs);
        if !manner.implicit {
            stream.write_all(b"220 mx\r\n").await.unwrap();
            stream.read_line(&mut String::new()).await.unwrap();
            let offer = b"250-mx\r\n250-XCLEAR\r\n250 STARTTLS\r\n";
            stream.write_all(offer).await.unwrap();
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            if line != "STARTTLS\r\n" {
                return;
            }
            let go: &[u8] = if manner.injects {
                b"220 go\r\n250 evil\r\n"
            } else {
                b"220 go\r\n"
            };
            stream.write_all(go).await.unwrap();
        }
        if manner.is_broken {
            // Wait for the client: earlier output would be taken for an injection.
            let _ = stream.read_u8().await;
            let _ = stream.write_all(b"this is not TLS at all\r\n").await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            return;
        }
        let Ok(mut stream) = acceptor.accept(stream.into_inner()).await else {
            return;
        };
        if manner.implicit {
            Server::good().serve(stream).await;
            return;
        }
        // The greeting was sent before TLS.
        let mut first = [0; 17];
        if stream.read_exact(&mut first).await.is_ok() {
            assert_eq!(&first, b"EHLO me.example\r\n");
            let offer = b"250-mx\r\n250 XSECRET\r\n";
            let _ = stream.write_all(offer).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let mut ours_settings = super::settings(Protocol::Smtp);
    ours_settings.tls = Tls::new(settings).unwrap();
    let client = Client::open(ours, "mx.example", &ours_settings).await?;
    let info = client.info().clone();
    client.quit().await;
    serving.await.unwrap();
    Ok(info)
}

fn with(policy: TlsPolicy) -> TlsSettings {
    TlsSettings {
        policy,
        ..TlsSettings::default()
    }
}

fn verified(root: CertificateDer<'static>) -> TlsSettings {
    TlsSettings {
        roots: Roots::These(vec![root]),
        ..with(TlsPolicy::Verified)
    }
}

#[tokio::test]
async fn any_certificate_will_do_where_none_is_verified() {
    let authority = Authority::new();
    for policy in [TlsPolicy::Opportunistic, TlsPolicy::Required] {
        let info = session(&authority, Manner::default(), with(policy))
            .await
            .unwrap();
        let tls = info.tls.unwrap();
        assert!(!tls.is_verified);
        assert_eq!(tls.version, "TLSv1_3");
        assert!(tls.cipher.starts_with("TLS13_"), "{}", tls.cipher);
        assert!(!tls.certificate.is_empty());
        assert_eq!(info.capabilities.lines, ["XSECRET"]);
    }
}

#[tokio::test]
async fn a_verified_server_has_a_certificate_for_its_name() {
    let authority = Authority::new();
    let info = session(&authority, Manner::default(), verified(authority.root())).await;
    assert!(info.unwrap().tls.unwrap().is_verified);

    // Another name, then another root.
    let other_name = TlsSettings {
        name: Some("other.example".into()),
        ..verified(authority.root())
    };
    let other_root = verified(Authority::new().root());
    for (settings, why) in [
        (other_name, "not for other.example, but for mx.example"),
        (other_root, "not signed by the authority that it names"),
    ] {
        let error = session(&authority, Manner::default(), settings)
            .await
            .unwrap_err();
        assert!(matches!(error, OpenError::Tls(_)), "{error}");
        assert!(!error.may_go_in_clear());
        let verdict = error.verdict();
        assert_eq!(verdict.outcome.status, Status::Deferred);
        let words = verdict.outcome.reply.to_string();
        assert!(
            words.starts_with("4.7.5 TLS: the server's certificate is ") && words.contains(why),
            "{words}"
        );
    }
}

#[tokio::test]
async fn tls_that_fails_is_left_out_only_where_it_may_be() {
    let authority = Authority::new();
    let broken = Manner {
        is_broken: true,
        ..Manner::default()
    };
    let error = session(&authority, broken, with(TlsPolicy::Opportunistic)).await;
    assert!(error.unwrap_err().may_go_in_clear());
    let error = session(&authority, broken, with(TlsPolicy::Required)).await;
    assert!(matches!(error.unwrap_err(), OpenError::Tls(_)));
    let info = session(&authority, broken, with(TlsPolicy::None)).await;
    assert_eq!(info.unwrap().capabilities.lines, ["XCLEAR", "STARTTLS"]);
}

#[tokio::test]
async fn the_oldest_version_is_kept_to() {
    let authority = Authority::new();
    let old = Manner {
        only_tls_1_2: true,
        ..Manner::default()
    };
    let info = session(&authority, old, with(TlsPolicy::Required))
        .await
        .unwrap();
    assert_eq!(info.tls.unwrap().version, "TLSv1_2");
    let settings = TlsSettings {
        minimum: MinimumTls::V1_3,
        ..with(TlsPolicy::Required)
    };
    let error = session(&authority, old, settings).await.unwrap_err();
    assert!(matches!(error, OpenError::Tls(_)), "{error}");
}

#[tokio::test]
async fn nothing_said_before_tls_counts_within() {
    let authority = Authority::new();
    let manner = Manner {
        injects: true,
        ..Manner::default()
    };
    for policy in [TlsPolicy::Opportunistic, TlsPolicy::Required] {
        let error = session(&authority, manner, with(policy)).await.unwrap_err();
        assert_eq!(error, OpenError::Injected);
        assert!(!error.may_go_in_clear());
    }
}

#[tokio::test]
async fn tls_from_the_first_octet() {
    let authority = Authority::new();
    let manner = Manner {
        implicit: true,
        ..Manner::default()
    };
    let settings = TlsSettings {
        implicit: true,
        ..verified(authority.root())
    };
    let info = session(&authority, manner, settings).await.unwrap();
    assert_eq!(info.greeting, "mx ready");
    assert!(info.tls.unwrap().is_verified);
}

#[tokio::test]
async fn a_server_may_ask_for_a_certificate() {
    let authority = Authority::new();
    let manner = Manner {
        asks_for_certificate: true,
        ..Manner::default()
    };
    let (chain, key) = authority.identity("me.example");
    let settings = TlsSettings {
        identity: Some(ClientIdentity { chain, key }),
        ..with(TlsPolicy::Required)
    };
    session(&authority, manner, settings).await.unwrap();
    // Rejected: with TLS 1.3 the client learns that only when it reads the answer to EHLO.
    let error = session(&authority, manner, with(TlsPolicy::Required)).await;
    assert!(!error.unwrap_err().may_go_in_clear());
    let error = session(&authority, manner, with(TlsPolicy::Opportunistic)).await;
    assert!(error.unwrap_err().may_go_in_clear());
}
