//! Postfix with TLS, a certificate and authentication.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::directory;
use super::dovecot::Dovecot;
use crate::postfix::Postfix;
use crate::site::User;

/// A Postfix that offers STARTTLS, accepts mail for `sender.test` only, and only from clients authenticated
/// within TLS.
pub struct Relay {
    postfix: Postfix,
    _dovecot: Dovecot,
    pub certificate: CertificateDer<'static>,
    dir: TempDir,
}

impl Relay {
    pub fn start() -> Relay {
        let dovecot = Dovecot::start();
        let dir = directory();
        let user = User::for_tests();
        let home = dir.path().join("home");
        fs::create_dir(&home).unwrap();
        chown(&home, Some(user.uid), Some(user.gid)).unwrap();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["mx.relay.test".to_owned()]).unwrap();
        let pem = signing_key.serialize_pem() + &cert.pem();
        fs::write(dir.path().join("tls.pem"), pem).unwrap();
        fs::write(dir.path().join("roots.pem"), cert.pem()).unwrap();
        let more = format!(
            "smtpd_tls_security_level = may\nsmtpd_tls_chain_files = DIR/tls.pem\n\
             smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = {}\n\
             smtpd_tls_auth_only = yes\n\
             smtpd_recipient_restrictions = permit_sasl_authenticated, reject\n",
            dovecot.socket("auth").display()
        );
        let postfix = Postfix::start(dir.path(), &dir.path().join("spool"), &user, &more);
        Relay {
            postfix,
            _dovecot: dovecot,
            certificate: cert.der().clone(),
            dir,
        }
    }

    pub fn port(&self) -> u16 {
        self.postfix.port()
    }

    /// The certificate, as a trust anchor.
    pub fn roots(&self) -> PathBuf {
        self.dir.path().join("roots.pem")
    }

    /// The Maildir for its mail to `sender.test`.
    pub fn inbox(&self) -> PathBuf {
        self.dir.path().join("home/box/new")
    }
}
