use std::io;

use super::*;
use crate::message::AddressError;

/// Returns one octet per read, like a slow pipe.
struct Drops(&'static [u8]);

impl Read for Drops {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = bytes.len().min(1);
        self.0.read(&mut bytes[..most])
    }
}

fn accepted(hostname: &str, message: &'static [u8], to: &str) -> Result<String, Error> {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::create(&dir.path().join("spool")).unwrap();
    let limits = Limits {
        min_free: 0,
        ..Limits::new(hostname)
    };
    let request = Request {
        entrance: Entrance::Active,
        sender: ReversePath::Null,
        recipients: vec![Address::parse(to).unwrap()],
        transport: None,
        dsn: Dsn::default(),
        submitter: "tester".into(),
        key: None,
        release: None,
    };
    let id = Acceptor::new(spool.clone(), limits).accept(request, Drops(message))?;
    let body = spool.body(id, crate::spool::Queue::Active).unwrap();
    Ok(io::read_to_string(body.reader()).unwrap())
}

/// A submitted message file without its message.
#[test]
fn a_block_without_a_message_is_empty() {
    for block in [
        "Mailspool-Seal: 2 0000000397\nMailspool-State: idle 000\n",
        "Mailspool-Seal: 2 0000000397\nMailspool-Id: a\0",
        "Mailspool-Seal: ",
    ] {
        let taken = accepted("mail.test", block.as_bytes(), "b@x.test");
        assert!(matches!(taken, Err(Error::Empty)), "{block:?}: {taken:?}");
    }
}

#[test]
fn a_first_line_may_come_in_pieces() {
    let stored = accepted("h.test", b"From a@b Sun\r\nSubject: x\r\n\r\nb\r\n", "b@x").unwrap();
    assert!(!stored.contains("From a@b"), "{stored}");
    assert_eq!(
        stored.matches('\n').count(),
        stored.matches("\r\n").count(),
        "{stored:?}"
    );
}

#[test]
fn no_added_line_is_too_long() {
    for length in [900, 980, 990, Address::MAX_LEN] {
        let to = format!("{}@x", "a".repeat(length - 2));
        let stored = accepted("h.test", b"Subject: x\n\n", &to).unwrap();
        let longest = stored.lines().map(str::len).max();
        assert!(longest <= Some(998), "{longest:?}");
        let named = stored.contains(&format!("<{to}>;"));
        assert_eq!(named, length < 990, "{stored}");
    }
}

#[test]
fn dsn_params_stay_with_their_recipients() {
    let of = |original: &str| RecipientDsn {
        notify: None,
        original: Some(format!("rfc822;{original}").parse().unwrap()),
    };
    let dsn = Dsn {
        recipients: ["1@o", "2@o", "3@o"].map(of).to_vec(),
        ..Dsn::default()
    };
    let to = ["a@x", "a@X", "b", "c@x"].map(|text| Address::parse(text).unwrap());
    let (recipients, dsn) = with_dsn_params(to.to_vec(), dsn, "h").unwrap();
    let recipients: Vec<String> = recipients.into_iter().map(String::from).collect();
    assert_eq!(recipients, ["a@x", "b@h", "c@x"]);
    assert_eq!(dsn.recipients, [of("1@o"), of("3@o")]);
    for (dsn, words) in [
        (
            Dsn {
                recipients: vec![of("1@o"), of("2@o")],
                ..Dsn::default()
            },
            "there are DSN parameters for more recipients than the message has",
        ),
        (
            Dsn {
                envid: Some("x".repeat(101)),
                ..Dsn::default()
            },
            "ENVID: not 1 to 100 octets of printable ASCII (blanks, `+` and `=` count as three)",
        ),
    ] {
        let refused = with_dsn_params(to[..1].to_vec(), dsn, "h").unwrap_err();
        assert_eq!(refused.to_string(), words);
    }
}

#[test]
fn an_address_too_long_with_the_host_name_is_refused() {
    let bare = &"x".repeat(Address::MAX_LEN - 3);
    let refused = accepted("h.test", b"Subject: x\n\n", bare);
    assert!(
        matches!(
            refused,
            Err(Error::Recipient {
                source: AddressError::TooLong,
                ..
            })
        ),
        "{refused:?}"
    );
}
