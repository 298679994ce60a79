//! Certificates and keys from PEM files.

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::tls::{ClientIdentity, Roots, TlsError};

impl Roots {
    /// The certificates of a PEM file.
    ///
    /// # Errors
    /// The file has no certificate, or one that cannot be read.
    pub fn from_pem(pem: &[u8]) -> Result<Roots, TlsError> {
        certificates(pem).map(Roots::These)
    }
}

impl ClientIdentity {
    /// The certificates of one PEM file, the client's own first, and the key of another.
    ///
    /// # Errors
    /// A certificate or the key is missing, or cannot be read.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<ClientIdentity, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(key);
        Ok(ClientIdentity {
            chain: certificates(chain)?,
            // Drop the error, because it could quote the content of the file.
            key: key.map_err(|_| TlsError::Pem("private key"))?,
        })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) | Err(_) => Err(TlsError::Pem("certificate")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    #[test]
    fn what_a_file_has_is_read_and_what_it_lacks_is_said() {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["mx.test".to_owned()]).unwrap();
        let (cert, key) = (cert.pem(), signing_key.serialize_pem());
        let two = format!("words before\n{cert}{cert}");
        let Ok(Roots::These(all)) = Roots::from_pem(two.as_bytes()) else {
            panic!("no roots");
        };
        assert_eq!(all.len(), 2);
        assert!(ClientIdentity::from_pem(cert.as_bytes(), key.as_bytes()).is_ok());
        let broken = cert.replace('M', "!");
        for (chain, key, lacks) in [
            ("", &*key, "certificate"),
            (&*key, &*key, "certificate"),
            (&*broken, &*key, "certificate"),
            (&*cert, &*cert, "private key"),
            (&*cert, "geheim", "private key"),
        ] {
            let error = ClientIdentity::from_pem(chain.as_bytes(), key.as_bytes());
            let words = error.unwrap_err().to_string();
            assert_eq!(words, format!("there is no usable {lacks} in it (PEM)"));
        }
    }
}
