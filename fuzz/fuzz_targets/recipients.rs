//! Address lists, and the recipients of a header as `send -t` reads them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailspool::testing::message::header::{HeaderScan, fields};
use mailspool::testing::message::recipients::named_recipients;
use mailspool::testing::message::{Address, list};

fuzz_target!(|bytes: &[u8]| {
    list_of(bytes);
    let header = &bytes[..HeaderScan::default().push(bytes, true).header];
    let named = |name: &[u8]| ["To", "Cc", "Bcc"].iter().any(|ours| is(name, ours));
    let is_sent_again = fields(header).any(|(name, _)| {
        ["Resent-To", "Resent-Cc", "Resent-Bcc"]
            .iter()
            .any(|ours| is(name, ours))
    });
    let Ok(recipients) = named_recipients(header, "mail.test") else {
        return;
    };
    assert!(recipients.iter().all(|recipient| recipient.domain().is_some()));
    if is_sent_again {
        return;
    }
    // Each field is a list, and the fields one by one give the same recipients.
    let mut all = Vec::new();
    for (_, field) in fields(header).filter(|(name, _)| named(name)) {
        let colon = field.iter().position(|byte| *byte == b':').unwrap();
        all.extend(list::parse(&field[colon + 1..]).expect("a list"));
    }
    assert_eq!(all.len(), recipients.len());
    for (one, found) in all.into_iter().zip(&recipients) {
        assert_eq!(one.qualified("mail.test").as_ref(), Ok(found));
    }
});

fn is(name: &[u8], field: &str) -> bool {
    name.eq_ignore_ascii_case(field.as_bytes())
}

/// Asserts that every element of a list is an address, or an error that names it.
fn list_of(bytes: &[u8]) {
    let addresses = match list::parse(bytes) {
        Ok(addresses) => addresses,
        Err(error) => {
            assert!(error.text.len() <= 200 && !error.text.chars().any(char::is_control));
            return;
        }
    };
    // Each is an address by the strict rules, and occurs in the input, except for quotes and blanks.
    let plain = plain(&String::from_utf8_lossy(bytes));
    for one in &addresses {
        assert_eq!(Address::parse(one.as_str()).as_ref(), Ok(one));
        let parts = [Some(one.local_part()), one.domain()];
        for part in parts.into_iter().flatten() {
            for word in part.split('.') {
                assert!(plain.contains(&self::plain(word)), "{one} was made up");
            }
        }
    }
    // The plain spelling is the same list, and an appended address changes no other.
    let texts: Vec<&str> = addresses.iter().map(Address::as_str).collect();
    let again = list::parse(texts.join(", ").as_bytes());
    assert_eq!(again.as_ref(), Ok(&addresses));
    let mut longer = bytes.to_vec();
    longer.extend_from_slice(b",\n last@x.test");
    if let Ok(longer) = list::parse(&longer) {
        assert_eq!(longer[..addresses.len()], addresses);
        assert_eq!(longer.len(), addresses.len() + 1);
    }
    // Without a comma there is at most one address.
    if addresses.len() > 1 {
        assert!(bytes.contains(&b','));
    }
}

/// The text without quotes, blanks and line ends.
fn plain(text: &str) -> String {
    let is_left = |c: &char| !" \t\r\n\"".contains(*c);
    text.chars().filter(is_left).collect()
}
