//! Recipients out of a header, and a header without Bcc, as `send -t` makes them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mail_parser::{HeaderName, MessageParser};
use mailspool::message::header::{HeaderScan, without_field};
use mailspool::message::recipients::named_recipients;

fuzz_target!(|bytes: &[u8]| {
    let header = &bytes[..HeaderScan::default().push(bytes, true).header];
    let blind = without_field(header, "Bcc");
    if let Ok(recipients) = named_recipients(header) {
        let text = without_blanks(&String::from_utf8_lossy(header));
        for one in &recipients {
            assert!(
                text.contains(&without_blanks(one.as_str())),
                "{one} was made up"
            );
            assert!(!one.local_part().is_empty());
        }
        let open = named_recipients(&blind).expect("less of what could be read");
        assert!(open.iter().all(|one| recipients.contains(one)));
    }
    // Nobody else finds a Bcc either.
    if let Some(parsed) = MessageParser::default().parse_headers(&blind) {
        let is_bcc = |name: &HeaderName<'_>| matches!(name, HeaderName::Bcc);
        assert!(!parsed.headers().iter().any(|field| is_bcc(&field.name)));
    }
});

fn without_blanks(text: &str) -> String {
    text.split_ascii_whitespace().collect()
}
