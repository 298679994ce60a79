//! TLS: its settings, and the rustls configuration for them.
//!
//! rustls supports TLS 1.2 and 1.3 only, and only ciphers that are considered safe.

use std::io;
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, IpAddr, PrivateKeyDer, ServerName, UnixTime,
};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

use super::opening::StartTls;
use super::sasl::Protection;
use crate::message::domain;

/// How TLS is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsPolicy {
    /// It is not used.
    None,
    /// It is used if it is offered, and nothing is verified. This protects against passive listening only.
    /// If TLS cannot be negotiated, the message may be sent in clear over a new connection.
    #[default]
    Opportunistic,
    /// Nothing is sent in clear, and nothing is verified.
    Required,
    /// Mail is sent only to a server with a valid certificate for its name.
    Verified,
}

/// The oldest acceptable version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinimumTls {
    /// TLS 1.2.
    #[default]
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// The trusted root certificates.
#[derive(Clone, Debug, Default)]
pub enum Roots {
    /// Those of the system. `SSL_CERT_FILE` and `SSL_CERT_DIR` override them.
    #[default]
    System,
    /// These certificates, in DER.
    These(Vec<CertificateDer<'static>>),
}

/// A client certificate, for servers that ask for one.
#[derive(Debug)]
pub struct ClientIdentity {
    /// The certificate, followed by those between it and its root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

/// The TLS settings.
#[derive(Debug, Default)]
pub struct TlsSettings {
    /// How TLS is used.
    pub policy: TlsPolicy,
    /// TLS begins with the first octet (RFC 8314, port 465), instead of after STARTTLS. It is then
    /// mandatory under every policy.
    pub implicit: bool,
    /// The oldest acceptable version.
    pub minimum: MinimumTls,
    /// The trusted root certificates, for a policy that verifies.
    pub roots: Roots,
    /// The name that the certificate must have, a domain or an IP address, if it differs from the server's.
    pub name: Option<String>,
    /// The client certificate.
    pub identity: Option<ClientIdentity>,
}

/// Why TLS cannot be configured as requested.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No root certificates were found, so nothing could be verified.
    #[error("no root certificates: {0}")]
    NoRoots(String),
    /// The name is neither a domain nor an address.
    #[error("{0:?} is neither a domain nor an IP address")]
    Name(String),
    /// The file lacks the expected object.
    #[error("there is no usable {0} in it (PEM)")]
    Pem(&'static str),
    /// rustls rejects a certificate or a key.
    #[error("a certificate or key cannot be used: {0}")]
    Unusable(#[from] Error),
}

/// A TLS configuration for any number of connections. The connections can resume each other's sessions.
#[derive(Clone, Debug)]
pub struct Tls {
    policy: TlsPolicy,
    implicit: bool,
    name: Option<ServerName<'static>>,
    config: Option<Arc<ClientConfig>>,
}

impl Tls {
    /// No TLS.
    pub fn none() -> Tls {
        Tls {
            policy: TlsPolicy::None,
            implicit: false,
            name: None,
            config: None,
        }
    }

    /// TLS with these settings. Reads the system's certificates if they are needed.
    pub fn new(settings: TlsSettings) -> Result<Tls, TlsError> {
        if settings.policy == TlsPolicy::None && !settings.implicit {
            return Ok(Tls::none());
        }
        let name = settings.name.map(|name| {
            let parsed = server_name(&name);
            parsed.ok_or(TlsError::Name(name))
        });
        let provider = Arc::new(ring::default_provider());
        let versions: &[_] = match settings.minimum {
            MinimumTls::V1_2 => &[&TLS13, &TLS12],
            MinimumTls::V1_3 => &[&TLS13],
        };
        let verifier: Arc<dyn ServerCertVerifier> = match settings.policy {
            TlsPolicy::Verified => {
                let roots = Arc::new(settings.roots.load()?);
                let builder =
                    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
                builder
                    .build()
                    .map_err(|error| TlsError::NoRoots(error.to_string()))?
            }
            _ => Arc::new(AcceptsAny(Arc::clone(&provider))),
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match settings.identity {
            Some(ClientIdentity { chain, key }) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        Ok(Tls {
            policy: settings.policy,
            implicit: settings.implicit,
            name: name.transpose()?,
            config: Some(Arc::new(config)),
        })
    }

    /// How TLS is used.
    pub fn policy(&self) -> TlsPolicy {
        self.policy
    }

    /// Whether TLS begins with the first octet.
    pub fn is_implicit(&self) -> bool {
        self.implicit
    }

    /// Whether a new connection in clear may be tried after a failure to negotiate TLS.
    pub fn may_be_left_out(&self) -> bool {
        self.policy == TlsPolicy::Opportunistic && !self.implicit
    }

    pub(super) fn start_tls(&self) -> StartTls {
        match self.policy {
            TlsPolicy::None => StartTls::Never,
            TlsPolicy::Opportunistic => StartTls::IfOffered,
            TlsPolicy::Required | TlsPolicy::Verified => StartTls::Always,
        }
    }

    /// The protection of a negotiated connection.
    pub(super) fn protection(&self) -> Protection {
        match self.policy {
            TlsPolicy::Verified => Protection::Verified,
            _ => Protection::Encrypted,
        }
    }

    /// The configuration for a host, and the name to verify and to send as SNI.
    pub(super) fn for_host(
        &self,
        host: &str,
    ) -> Result<(Arc<ClientConfig>, ServerName<'static>), TlsError> {
        let name = match self.name.clone().or_else(|| server_name(host)) {
            Some(name) => name,
            None if self.policy == TlsPolicy::Verified => return Err(TlsError::Name(host.into())),
            // This name is not verified, and an address is not sent as SNI.
            None => ServerName::IpAddress(IpAddr::V4([127, 0, 0, 1].into())),
        };
        match &self.config {
            Some(config) => Ok((Arc::clone(config), name)),
            None => Err(TlsError::Name(host.into())),
        }
    }
}

impl Roots {
    fn load(self) -> Result<RootCertStore, TlsError> {
        let mut store = RootCertStore::empty();
        let (certificates, errors) = match self {
            Roots::These(certificates) => (certificates, Vec::new()),
            Roots::System => {
                let found = rustls_native_certs::load_native_certs();
                (found.certs, found.errors)
            }
        };
        // The system may have certificates that rustls rejects, and one unreadable file must not disable
        // the others.
        store.add_parsable_certificates(certificates);
        if store.is_empty() {
            Err(TlsError::NoRoots(match errors.first() {
                Some(error) => error.to_string(),
                None => "none were found".to_owned(),
            }))
        } else {
            Ok(store)
        }
    }
}

/// A host in the form that TLS needs: DNS names in A-labels and without the final dot. Addresses may be in
/// brackets.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let ascii = domain::to_ascii(bare.unwrap_or(host)).ok()?;
    ServerName::try_from(ascii.into_owned()).ok()
}

/// Describes why a handshake failed, for people: much of rustls's own text consists of its internal names.
pub(super) fn handshake_error(error: &io::Error) -> String {
    use CertificateError as Why;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let why = match inner {
        Some(Error::InvalidCertificate(why)) => why,
        Some(Error::InvalidMessage(_)) => {
            return format!("the server does not speak TLS here ({error})");
        }
        Some(Error::AlertReceived(alert)) => {
            return format!("the server ended the handshake: {alert:?}");
        }
        Some(Error::PeerIncompatible(what)) => {
            return format!("the server supports no acceptable version or cipher of TLS: {what:?}");
        }
        _ => return error.to_string(),
    };
    let text = match why {
        Why::UnknownIssuer => "is not signed by a trusted authority".to_owned(),
        Why::BadSignature => "is not signed by the authority that it names".to_owned(),
        Why::NotValidForNameContext {
            expected,
            presented,
        } => {
            // rustls shows the names as `DnsName("mx.example.net")`.
            let bare = |name: &String| match name.strip_prefix("DnsName(\"") {
                Some(name) => name.trim_end_matches("\")").to_owned(),
                None => name.clone(),
            };
            let names: Vec<String> = presented.iter().map(bare).collect();
            let names = if names.is_empty() {
                "no name at all".to_owned()
            } else {
                names.join(", ")
            };
            format!("is not for {}, but for {names}", expected.to_str())
        }
        Why::Expired | Why::ExpiredContext { .. } => "has expired".to_owned(),
        Why::NotValidYet | Why::NotValidYetContext { .. } => "is not valid yet".to_owned(),
        Why::Revoked => "has been revoked".to_owned(),
        // The type of this error is in a crate below rustls.
        Why::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "is an authority's, not a server's (a self-signed one must not have CA:TRUE)".to_owned()
        }
        other => format!("cannot be used: {other}"),
    };
    format!("the server's certificate {text}")
}

/// Accepts every certificate. Signatures are not checked either: an attacker on the path has a certificate
/// and a key too, and the certificates of some old servers cannot even be parsed.
#[derive(Debug)]
struct AcceptsAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptsAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_domains_or_addresses() {
        for (host, name) in [
            ("mx.example.org.", Some("mx.example.org")),
            ("MX.bücher.example", Some("mx.xn--bcher-kva.example")),
            ("ü..example", None),
            ("192.0.2.1", Some("192.0.2.1")),
            ("[192.0.2.1]", Some("192.0.2.1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("unix:/run/lmtp", None),
            ("", None),
        ] {
            let got = server_name(host).map(|name| name.to_str().into_owned());
            assert_eq!(got.as_deref(), name, "{host}");
        }
    }

    #[test]
    fn without_roots_nothing_is_verified_and_nothing_pretended() {
        let settings = TlsSettings {
            policy: TlsPolicy::Verified,
            roots: Roots::These(Vec::new()),
            ..TlsSettings::default()
        };
        assert!(matches!(Tls::new(settings), Err(TlsError::NoRoots(_))));
        let settings = TlsSettings {
            policy: TlsPolicy::Required,
            name: Some("not a name".into()),
            ..TlsSettings::default()
        };
        assert!(matches!(Tls::new(settings), Err(TlsError::Name(_))));
    }

    #[test]
    fn only_opportunistic_starttls_may_be_left_out() {
        for policy in [
            TlsPolicy::Opportunistic,
            TlsPolicy::Required,
            TlsPolicy::None,
        ] {
            for implicit in [false, true] {
                let tls = Tls::new(TlsSettings {
                    policy,
                    implicit,
                    ..TlsSettings::default()
                })
                .unwrap();
                let expected = policy == TlsPolicy::Opportunistic && !implicit;
                assert_eq!(tls.may_be_left_out(), expected);
                assert!(tls.for_host("unix:/x").is_ok() || !implicit && policy == TlsPolicy::None);
            }
        }
    }
}
