//! Credentials for authentication with another host.

use std::fmt;
use std::path::PathBuf;

use super::Error;
use super::raw::{RawAuth, RawTransport};
use super::value::{Text, at};
use crate::smtp::{Mechanism, TlsPolicy};

/// Credentials, and how they may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireLogin {
    /// The user name.
    pub username: String,
    /// The password or token.
    pub secret: Secret,
    /// The only mechanism to use; none means the best that the server offers.
    pub mechanism: Option<Mechanism>,
    /// Whether to send the credentials over an unencrypted connection.
    pub in_clear: bool,
}

/// A secret, or the file that contains it.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password itself.
    Password(String),
    /// A file with the password.
    PasswordFile(PathBuf),
    /// A file with an access token.
    TokenFile(PathBuf),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Password(_) => f.write_str("Password(hidden)"),
            Secret::PasswordFile(path) => write!(f, "PasswordFile({path:?})"),
            Secret::TokenFile(path) => write!(f, "TokenFile({path:?})"),
        }
    }
}

impl Text<'_> {
    /// Returns the credentials of a transport. `is_local` means that every host is a socket of this machine.
    pub(super) fn login(
        &self,
        raw: &mut RawTransport,
        is_local: bool,
        policy: TlsPolicy,
    ) -> Result<Option<WireLogin>, Error> {
        let secrets = ["password", "password_file", "token_file"];
        let Some(username) = &raw.username else {
            let of_login = |key: &str| secrets.contains(&key) || key.starts_with("auth");
            return match raw.keys().find(|(key, _)| of_login(key)) {
                Some((key, span)) => Err(self.error(span, format!("`{key}` needs `username`"))),
                None => Ok(None),
            };
        };
        let given: Vec<_> = raw
            .keys()
            .filter(|(key, _)| secrets.contains(key))
            .collect();
        let secret = match (&raw.password, &raw.password_file, &raw.token_file) {
            (Some(password), None, None) => Secret::Password(password.get_ref().0.clone()),
            (None, Some(file), None) => Secret::PasswordFile(file.get_ref().clone()),
            (None, None, Some(file)) => Secret::TokenFile(file.get_ref().clone()),
            _ => {
                let span = given
                    .get(1)
                    .map_or(username.span(), |(_, span)| span.clone());
                let what = "`username` needs one of `password_file`, `password`, `token_file`";
                return Err(self.error(span, what));
            }
        };
        let mechanism = match &raw.auth {
            None => None,
            Some(auth) => {
                let mechanism = match auth.get_ref() {
                    RawAuth::ScramSha256 => Mechanism::ScramSha256,
                    RawAuth::Plain => Mechanism::Plain,
                    RawAuth::Login => Mechanism::Login,
                    RawAuth::XOAuth2 => Mechanism::XOAuth2,
                    RawAuth::OAuthBearer => Mechanism::OAuthBearer,
                };
                let is_token = matches!(secret, Secret::TokenFile(_));
                let takes_token = matches!(mechanism, Mechanism::XOAuth2 | Mechanism::OAuthBearer);
                if is_token != takes_token {
                    let what =
                        "\"xoauth2\" and \"oauthbearer\" need `token_file`, the others a password";
                    return Err(self.error(auth.span(), what));
                }
                Some(mechanism)
            }
        };
        // A socket of this machine cannot be eavesdropped on.
        let in_clear = *raw.auth_in_clear.get_or_insert(at(is_local)).get_ref();
        if policy == TlsPolicy::None && !in_clear {
            let what = "credentials need TLS; `auth_in_clear = true` sends them without";
            return Err(self.error(username.span(), what));
        }
        Ok(Some(WireLogin {
            username: username.get_ref().clone(),
            secret,
            mechanism,
            in_clear,
        }))
    }
}
