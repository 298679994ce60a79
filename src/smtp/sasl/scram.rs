//! SCRAM-SHA-256 without channel binding (RFC 5802, RFC 7677).

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SecureRandom as _;
use ring::{digest, hmac, pbkdf2, rand};

use super::SaslError;

const NAME: &str = "SCRAM-SHA-256";

/// The accepted numbers of iterations. The lower bound is from RFC 7677: with fewer, the server could guess
/// the password from the client's proof. With more than the upper bound, each connection would compute for
/// about a second.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=1_000_000;

/// `n,,` in Base64: no channel binding.
const NO_BINDING: &str = "biws";

/// An authentication in progress.
pub(in crate::smtp) struct Scram {
    password: String,
    nonce: String,
    first: String,
    state: State,
}

enum State {
    /// The first message was sent.
    First,
    /// The proof was sent. Holds what the server has to prove in return.
    Proof(hmac::Tag),
    /// The server has proved that it knows the password.
    Proven,
}

/// A random nonce.
pub(super) fn nonce() -> Result<String, SaslError> {
    let mut bytes = [0; 18];
    rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| SaslError::NoRandom)?;
    Ok(BASE64.encode(bytes))
}

impl Scram {
    /// Begins an authentication. Returns it with its first message.
    pub(super) fn new(user: &str, password: &str, nonce: String) -> (Scram, String) {
        let user = prepared(user).replace('=', "=3D").replace(',', "=2C");
        let first = format!("n={user},r={nonce}");
        let message = format!("n,,{first}");
        let scram = Scram {
            password: prepared(password),
            nonce,
            first,
            state: State::First,
        };
        (scram, message)
    }

    pub(super) fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SaslError> {
        let challenge = std::str::from_utf8(challenge).map_err(|_| SaslError::Garbled(NAME))?;
        match &self.state {
            State::First => self.prove(challenge).map(String::into_bytes),
            State::Proof(expected) => {
                let signature = field(challenge, "v").and_then(|text| BASE64.decode(text).ok());
                let signature = signature.ok_or(SaslError::Impostor)?;
                // The comparison need not take constant time: the server computed this value itself.
                if signature != expected.as_ref() {
                    return Err(SaslError::Impostor);
                }
                self.state = State::Proven;
                Ok(Vec::new())
            }
            State::Proven => Err(SaslError::Garbled(NAME)),
        }
    }

    pub(super) fn is_proven(&self) -> bool {
        matches!(self.state, State::Proven)
    }

    fn prove(&mut self, challenge: &str) -> Result<String, SaslError> {
        let garbled = SaslError::Garbled(NAME);
        // An extension that must be understood, but is not.
        if field(challenge, "m").is_some() {
            return Err(garbled);
        }
        let nonce = field(challenge, "r").ok_or(garbled.clone())?;
        let salt = field(challenge, "s").and_then(|salt| BASE64.decode(salt).ok());
        let salt = salt.ok_or(garbled.clone())?;
        let count: u32 = field(challenge, "i")
            .and_then(|count| count.parse().ok())
            .ok_or(garbled.clone())?;
        // The server's part of the nonce must be present too: otherwise an old answer could be replayed.
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(garbled);
        }
        let count = NonZeroU32::new(count)
            .filter(|count| ITERATIONS.contains(&count.get()))
            .ok_or(SaslError::Iterations(count))?;
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            count,
            &salt,
            self.password.as_bytes(),
            &mut salted,
        );
        let bare = format!("c={NO_BINDING},r={nonce}");
        let all = format!("{},{challenge},{bare}", self.first);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let signature = sign(stored_key.as_ref(), all.as_bytes());
        let proof: Vec<u8> = client_key
            .as_ref()
            .iter()
            .zip(signature.as_ref())
            .map(|(key, signature)| key ^ signature)
            .collect();
        let server_key = sign(&salted, b"Server Key");
        self.state = State::Proof(sign(server_key.as_ref(), all.as_bytes()));
        Ok(format!("{bare},p={}", BASE64.encode(proof)))
    }
}

fn sign(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message
        .split(',')
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

/// SASLprep (RFC 4013). A text with forbidden characters is used unchanged: the server that stored the
/// password did the same.
fn prepared(text: &str) -> String {
    match stringprep::saslprep(text) {
        Ok(prepared) => prepared.into_owned(),
        Err(_) => text.to_owned(),
    }
}

impl fmt::Debug for Scram {
    /// Omits the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scram").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677 section 3.
    fn example() -> Scram {
        let (scram, first) = Scram::new("user", "pencil", "rOprNGfwEbeRWgbNEkqO".into());
        assert_eq!(first, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        scram
    }

    const CHALLENGE: &[u8] =
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    #[test]
    fn the_example_of_the_rfc() {
        let mut scram = example();
        let proof = scram.answer(CHALLENGE).unwrap();
        assert_eq!(
            String::from_utf8(proof).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(!scram.is_proven());
        let last = scram.answer(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(last, Ok(Vec::new()));
        assert!(scram.is_proven());
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_an_impostor() {
        for last in [
            &b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G8="[..],
            b"v=",
            b"v=!",
            b"",
            b"e=other-error",
        ] {
            let mut scram = example();
            scram.answer(CHALLENGE).unwrap();
            assert_eq!(scram.answer(last), Err(SaslError::Impostor));
            assert!(!scram.is_proven());
        }
    }

    #[test]
    fn nonsense_gets_no_proof() {
        for challenge in [
            "",
            "r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=?,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000",
            "m=x,r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        ] {
            assert!(
                example().answer(challenge.as_bytes()).is_err(),
                "{challenge}"
            );
        }
    }

    #[test]
    fn names_and_passwords_are_prepared() {
        let (scram, first) = Scram::new("a,b=c", "I\u{ad}X", "n".into());
        assert_eq!(first, "n,,n=a=2Cb=3Dc,r=n");
        assert_eq!(scram.password, "IX");
    }
}
