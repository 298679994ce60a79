//! The names of files in a Maildir: `<seconds>.<unique>.<host>`.

use std::fmt::Write as _;

use xxhash_rust::xxh3::xxh3_128;

use crate::message::{Address, QueueId};

/// Octets of the host name in a file name. A longer host name is cut. With time, id and recipient before it
/// and a reader's flags after it, a name stays well below the 255 octets that file systems allow.
const MAX_HOST: usize = 64;

/// What makes a copy's name unique: the time of acceptance, the queue id, and a 128-bit hash of the
/// recipient. Two addresses do not collide by chance; a submitter that computes a collision gets one copy
/// of its own message instead of two.
pub(super) fn unique_part(id: QueueId, recipient: &Address) -> String {
    let seconds = id.accepted().as_second();
    let recipient = xxh3_128(recipient.as_str().as_bytes());
    format!("{seconds}.Q{id}R{recipient:032x}")
}

/// The name of a copy in `new/`. `host` comes from [`safe_host`].
pub(super) fn copy_name(id: QueueId, recipient: &Address, host: &str) -> String {
    format!("{}.{host}", unique_part(id, recipient))
}

/// Escapes the characters of a host name that have a meaning in a path or a Maildir name.
pub(super) fn safe_host(hostname: &str) -> String {
    let mut host = String::new();
    for c in hostname.chars() {
        let mut piece = String::new();
        if matches!(c, '/' | ':') || c.is_ascii_control() || c == ' ' {
            // Writing to a String cannot fail.
            let _ = write!(piece, "\\{:03o}", u32::from(c));
        } else {
            piece.push(c);
        }
        if host.len() + piece.len() > MAX_HOST {
            break;
        }
        host += &piece;
    }
    if host.is_empty() {
        "localhost".to_owned()
    } else {
        host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_cannot_leave_the_file_name() {
        assert_eq!(safe_host("a/b:c"), "a\\057b\\072c");
        assert_eq!(safe_host("../../x\n\0"), "..\\057..\\057x\\012\\000");
        assert_eq!(safe_host(""), "localhost");
        let long = safe_host(&"x/".repeat(300));
        assert!(long.len() <= MAX_HOST && long.ends_with("\\057x"), "{long}");
        let id = QueueId::new("2026-11-22T14:05:00Z".parse().unwrap(), [7; 10]);
        let to = Address::parse("a@b").unwrap();
        let name = format!("{}.{long}", unique_part(id, &to));
        assert!(name.len() < 180);
    }
}
