//! Authentication of the client (RFC 4954; RFC 4616, 5802, 7628, 7677; XOAUTH2).

mod scram;

use std::fmt;

use self::scram::Scram;

/// The protection that a connection must have before credentials are sent over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protection {
    /// None: a loopback address, or a Unix socket.
    Clear,
    /// Encryption. An attacker on the path that impersonates the server gets a password, except with
    /// SCRAM-SHA-256.
    #[default]
    Encrypted,
    /// Encryption, and a certificate that was verified.
    Verified,
}

/// An authentication mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Neither side reveals the password, and both prove that they know it.
    ScramSha256,
    /// User and password in one message.
    Plain,
    /// User and password in two messages.
    Login,
    /// User and access token, in the form of Google and Microsoft.
    XOAuth2,
    /// User and access token, in the form of RFC 7628.
    OAuthBearer,
}

/// The credentials.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// For SCRAM-SHA-256, PLAIN and LOGIN: the first of these that the server offers.
    Password {
        /// The user name.
        user: String,
        /// The password.
        password: String,
    },
    /// For XOAUTH2 and OAUTHBEARER: the first of these that the server offers.
    Token {
        /// The user name.
        user: String,
        /// The access token as issued.
        token: String,
    },
}

/// The credentials for a server, and how to use them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The credentials.
    pub credentials: Credentials,
    /// Use only this mechanism, whatever else is offered.
    pub mechanism: Option<Mechanism>,
    /// The protection that the connection must have.
    pub needs: Protection,
}

/// Why authentication cannot continue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// The server offers no mechanism for these credentials.
    #[error("the server offers no usable way to authenticate (it offers: {0})")]
    NoMechanism(String),
    /// The connection has less protection than the credentials need.
    #[error("credentials are not sent over a connection that is {0}")]
    Unprotected(&'static str),
    /// A NUL or an octet 1, either of which would end a field.
    #[error("the credentials contain a control character")]
    Control,
    /// The challenge is not Base64, or not what the mechanism specifies.
    #[error("the server's side of {0} is not understood")]
    Garbled(&'static str),
    /// The number of iterations is so low that it weakens the password, or so high that it wastes time.
    #[error("the server asks for {0} iterations of SCRAM-SHA-256")]
    Iterations(u32),
    /// The server accepted the password but did not prove that it knows it.
    #[error("the server did not prove that it knows the password")]
    Impostor,
    /// No random numbers are available.
    #[error("no random numbers")]
    NoRandom,
}

/// An authentication in progress.
#[derive(Debug)]
pub(super) enum Sasl {
    Said(Mechanism),
    Login { answers: [String; 2], given: usize },
    Scram(Box<Scram>),
}

impl Login {
    /// Authentication over any encrypted connection, with the best mechanism that is offered.
    pub fn new(credentials: Credentials) -> Login {
        Login {
            credentials,
            mechanism: None,
            needs: Protection::default(),
        }
    }

    /// Selects a mechanism, and returns its initial response, if it has one.
    pub(super) fn begin(
        &self,
        offered: &[String],
        has: Protection,
    ) -> Result<(Mechanism, Sasl, Option<Vec<u8>>), SaslError> {
        if has < self.needs {
            return Err(SaslError::Unprotected(match has {
                Protection::Clear => "not encrypted",
                _ => "not verified",
            }));
        }
        let usable: &[Mechanism] = match &self.credentials {
            Credentials::Password { .. } => {
                &[Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login]
            }
            Credentials::Token { .. } => &[Mechanism::XOAuth2, Mechanism::OAuthBearer],
        };
        let is_offered = |mechanism: &Mechanism| offered.iter().any(|o| o == mechanism.name());
        let is_wanted = |mechanism: &Mechanism| self.mechanism.is_none_or(|m| m == *mechanism);
        let mechanism = usable
            .iter()
            .copied()
            .find(|mechanism| is_offered(mechanism) && is_wanted(mechanism))
            .ok_or_else(|| SaslError::NoMechanism(offered.join(" ")))?;
        let (user, secret) = match &self.credentials {
            Credentials::Password { user, password } => (user, password),
            Credentials::Token { user, token } => (user, token),
        };
        if [user, secret]
            .iter()
            .any(|text| text.chars().any(char::is_control))
        {
            return Err(SaslError::Control);
        }
        let (sasl, first) = match mechanism {
            Mechanism::ScramSha256 => {
                let (scram, first) = Scram::new(user, secret, scram::nonce()?);
                (Sasl::Scram(Box::new(scram)), Some(first.into_bytes()))
            }
            Mechanism::Plain => {
                let first = format!("\0{user}\0{secret}");
                (Sasl::Said(mechanism), Some(first.into_bytes()))
            }
            Mechanism::Login => {
                let answers = [user.clone(), secret.clone()];
                (Sasl::Login { answers, given: 0 }, None)
            }
            Mechanism::XOAuth2 => {
                let first = format!("user={user}\x01auth=Bearer {secret}\x01\x01");
                (Sasl::Said(mechanism), Some(first.into_bytes()))
            }
            Mechanism::OAuthBearer => {
                // Escape the two characters that would end the name (RFC 5801 4).
                let name = user.replace('=', "=3D").replace(',', "=2C");
                let first = format!("n,a={name},\x01auth=Bearer {secret}\x01\x01");
                (Sasl::Said(mechanism), Some(first.into_bytes()))
            }
        };
        Ok((mechanism, sasl, first))
    }
}

impl Sasl {
    /// Returns the answer to a challenge after the initial response.
    pub(super) fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SaslError> {
        match self {
            // The challenge describes the error; an empty answer makes the server refuse.
            Sasl::Said(Mechanism::XOAuth2) => Ok(Vec::new()),
            // The same, but the answer is an octet 1 (RFC 7628 3.2.3).
            Sasl::Said(Mechanism::OAuthBearer) => Ok(vec![1]),
            Sasl::Said(mechanism) => Err(SaslError::Garbled(mechanism.name())),
            // The text of the prompts differs ("Username:", "User Name\0"), but their order does not.
            Sasl::Login { answers, given } => {
                let answer = answers.get(*given).cloned();
                *given += 1;
                let answer = answer.ok_or(SaslError::Garbled(Mechanism::Login.name()))?;
                Ok(answer.into_bytes())
            }
            Sasl::Scram(scram) => scram.answer(challenge),
        }
    }

    /// Checks whether a reported success can be trusted.
    pub(super) fn succeed(&self) -> Result<(), SaslError> {
        match self {
            Sasl::Scram(scram) if !scram.is_proven() => Err(SaslError::Impostor),
            _ => Ok(()),
        }
    }
}

impl Mechanism {
    /// Its name in EHLO and AUTH.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::XOAuth2 => "XOAUTH2",
            Mechanism::OAuthBearer => "OAUTHBEARER",
        }
    }
}

impl fmt::Debug for Credentials {
    /// Omits the secret, because debug output may end up in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, user) = match self {
            Credentials::Password { user, .. } => ("Password", user),
            Credentials::Token { user, .. } => ("Token", user),
        };
        f.debug_struct(name)
            .field("user", user)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login::new(Credentials::Password {
            user: "me".into(),
            password: "geheim".into(),
        })
    }

    fn offered(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn the_best_way_that_is_offered_is_taken() {
        for (offer, mechanism) in [
            (&["LOGIN", "PLAIN", "SCRAM-SHA-256"][..], "SCRAM-SHA-256"),
            (&["LOGIN", "PLAIN"], "PLAIN"),
            (&["GSSAPI", "LOGIN"], "LOGIN"),
        ] {
            let (chosen, ..) = login()
                .begin(&offered(offer), Protection::Encrypted)
                .unwrap();
            assert_eq!(chosen.name(), mechanism);
        }
        let error = login().begin(&offered(&["XOAUTH2"]), Protection::Verified);
        assert_eq!(error.unwrap_err(), SaslError::NoMechanism("XOAUTH2".into()));
        let only = Login {
            mechanism: Some(Mechanism::Login),
            ..login()
        };
        let all = offered(&["PLAIN", "LOGIN"]);
        let (chosen, mut sasl, first) = only.begin(&all, Protection::Encrypted).unwrap();
        assert_eq!((chosen, first), (Mechanism::Login, None));
        assert_eq!(sasl.answer(b"User Name\0").unwrap(), b"me");
        assert_eq!(sasl.answer(b"").unwrap(), b"geheim");
        assert!(sasl.answer(b"").is_err());
    }

    #[test]
    fn credentials_stay_where_they_are_safe() {
        let plain = offered(&["PLAIN"]);
        assert!(login().begin(&plain, Protection::Clear).is_err());
        assert!(login().begin(&plain, Protection::Encrypted).is_ok());
        let strict = Login {
            needs: Protection::Verified,
            ..login()
        };
        assert!(strict.begin(&plain, Protection::Encrypted).is_err());
        assert!(strict.begin(&plain, Protection::Verified).is_ok());
        let loose = Login {
            needs: Protection::Clear,
            ..login()
        };
        assert!(loose.begin(&plain, Protection::Clear).is_ok());
        assert!(!format!("{:?}", login()).contains("geheim"));
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let (_, _, first) = login()
            .begin(&offered(&["PLAIN"]), Protection::Encrypted)
            .unwrap();
        assert_eq!(first.unwrap(), b"\0me\0geheim");
        let token = Login::new(Credentials::Token {
            user: "me@example.org".into(),
            token: "ya29.x".into(),
        });
        let (_, mut sasl, first) = token
            .begin(&offered(&["XOAUTH2"]), Protection::Encrypted)
            .unwrap();
        assert_eq!(
            first.unwrap(),
            b"user=me@example.org\x01auth=Bearer ya29.x\x01\x01"
        );
        assert_eq!(sasl.answer(b"{\"status\":\"400\"}").unwrap(), b"");
        let token = Login::new(Credentials::Token {
            user: "me=you,us@example.org".into(),
            token: "ya29.x".into(),
        });
        let (_, mut sasl, first) = token
            .begin(&offered(&["PLAIN", "OAUTHBEARER"]), Protection::Encrypted)
            .unwrap();
        assert_eq!(
            first.unwrap(),
            b"n,a=me=3Dyou=2Cus@example.org,\x01auth=Bearer ya29.x\x01\x01"
        );
        assert_eq!(sasl.answer(b"{\"status\":\"401\"}").unwrap(), b"\x01");
        let split = Login::new(Credentials::Password {
            user: "me\0you".into(),
            password: "x".into(),
        });
        assert_eq!(
            split
                .begin(&offered(&["PLAIN"]), Protection::Encrypted)
                .unwrap_err(),
            SaslError::Control
        );
    }
}
