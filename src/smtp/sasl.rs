//! Who we are, said so that the server believes it (RFC 4954; RFC 4616, 5802, 7628, 7677; XOAUTH2).

mod scram;

use std::fmt;

use self::scram::Scram;

/// What a connection must have before credentials go over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protection {
    /// Nothing: a loopback address, or a socket in the file system.
    Clear,
    /// Encryption. Somebody on the way who gives himself out for the server gets a password, but
    /// for SCRAM-SHA-256.
    #[default]
    Encrypted,
    /// Encryption, and a certificate that was verified.
    Verified,
}

/// A way to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Neither side shows the other the password, and both prove that they know it.
    ScramSha256,
    /// User and password.
    Plain,
    /// The same, one after the other.
    Login,
    /// User and an access token, as Google and Microsoft do it.
    XOAuth2,
    /// The same, as RFC 7628 does it.
    OAuthBearer,
}

/// What we authenticate with.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// For SCRAM-SHA-256, PLAIN and LOGIN: the first that the server offers.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// For XOAUTH2 and OAUTHBEARER: the first that the server offers.
    Token {
        /// The name.
        user: String,
        /// The access token, as it came from its issuer.
        token: String,
    },
}

/// Authentication as one server wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// What we authenticate with.
    pub credentials: Credentials,
    /// Only this way, whatever else is offered.
    pub mechanism: Option<Mechanism>,
    /// What the connection must have.
    pub needs: Protection,
}

/// Why authentication cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// No way that the credentials serve for is offered.
    #[error("the server offers no usable way to authenticate (it offers: {0})")]
    NoMechanism(String),
    /// The connection is not as safe as the credentials need.
    #[error("credentials are not sent over a connection that is {0}")]
    Unprotected(&'static str),
    /// A NUL or an octet 1, which would end a field.
    #[error("the credentials contain a control character")]
    Control,
    /// What came is not Base64, or not what the mechanism says.
    #[error("the server's side of {0} is not understood")]
    Garbled(&'static str),
    /// The number of iterations is one that weakens the password, or keeps us busy.
    #[error("the server asks for {0} iterations of SCRAM-SHA-256")]
    Iterations(u32),
    /// The server does not know the password that it says it accepted.
    #[error("the server did not prove that it knows the password")]
    Impostor,
    /// There are no random numbers.
    #[error("no random numbers")]
    NoRandom,
}

/// One authentication that is going on.
#[derive(Debug)]
pub(super) enum Sasl {
    Said(Mechanism),
    Login { answers: [String; 2], given: usize },
    Scram(Box<Scram>),
}

impl Login {
    /// Authentication over any encrypted connection, in the best way that is offered.
    pub fn new(credentials: Credentials) -> Login {
        Login {
            credentials,
            mechanism: None,
            needs: Protection::default(),
        }
    }

    /// Decides for a way, and gives the first words of it, if it begins with ours.
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
                // The two that would end the name are written otherwise (RFC 5801 4).
                let name = user.replace('=', "=3D").replace(',', "=2C");
                let first = format!("n,a={name},\x01auth=Bearer {secret}\x01\x01");
                (Sasl::Said(mechanism), Some(first.into_bytes()))
            }
        };
        Ok((mechanism, sasl, first))
    }
}

impl Sasl {
    /// The answer to a challenge behind the first words.
    pub(super) fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SaslError> {
        match self {
            // The challenge says what is wrong, and an empty answer brings the refusal.
            Sasl::Said(Mechanism::XOAuth2) => Ok(Vec::new()),
            // The same, where the answer is an octet 1 (RFC 7628 3.2.3).
            Sasl::Said(Mechanism::OAuthBearer) => Ok(vec![1]),
            Sasl::Said(mechanism) => Err(SaslError::Garbled(mechanism.name())),
            // What the server asks with differs ("Username:", "User Name\0"), the order does not.
            Sasl::Login { answers, given } => {
                let answer = answers.get(*given).cloned();
                *given += 1;
                let answer = answer.ok_or(SaslError::Garbled(Mechanism::Login.name()))?;
                Ok(answer.into_bytes())
            }
            Sasl::Scram(scram) => scram.answer(challenge),
        }
    }

    /// Whether success may be believed.
    pub(super) fn succeed(&self) -> Result<(), SaslError> {
        match self {
            Sasl::Scram(scram) if !scram.is_proven() => Err(SaslError::Impostor),
            _ => Ok(()),
        }
    }
}

impl Mechanism {
    /// Its name, as EHLO and AUTH have it.
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
    /// Without the secret: a debug print ends up in a log.
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
