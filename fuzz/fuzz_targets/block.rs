//! The envelope block of a message file: a block that is read is written again unchanged, no other spelling is
//! read, and any flipped bit is detected, except where the file changes in place.
//!
//! An input is a block, with its seal or without, and a number that selects the bit to flip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailspool::testing::message::block;
use mailspool::testing::message::seal::MAX_BLOCK;
use mailspool::testing::message::{Block, Mark, Seal};

/// Octets of the message that the blocks are sealed for.
const SIZE: u64 = 999_999_999_999_999;
const MESSAGE: u128 = 7 << 120;

fuzz_target!(|input: &[u8]| {
    let [lines, bit] = help::parts(input);
    assert_bounded(lines);
    if let Ok(read) = Block::parse(lines) {
        assert_only_spelling(&read, lines);
    }
    // No input guesses 128 bits. So seal the block here; the input varies only the grammar.
    let below = match Seal::parse(lines) {
        Ok(_) => &lines[Seal::WIDTH..],
        Err(_) => lines,
    };
    let mut bytes = Seal::default().line().into_bytes();
    assert!(Block::parse(&bytes).is_err());
    bytes.extend_from_slice(below);
    assert!(Block::parse(&bytes).is_err(), "it has no seal yet");
    block::close(&mut bytes, SIZE, MESSAGE);
    let Ok(read) = Block::parse(&bytes) else {
        return;
    };
    assert_eq!((read.seal.size, read.seal.message), (SIZE, MESSAGE));
    assert_only_spelling(&read, &bytes);
    assert_shown(&read);

    let bit = bit.iter().fold(0_usize, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add((*byte).into())
    });
    assert_flip_is_seen(&read, bytes, bit);
});

/// Asserts that a first line that is read has possible numbers, in their only spelling.
fn assert_bounded(bytes: &[u8]) {
    if let Ok(seal) = Seal::parse(bytes) {
        assert_eq!(seal.line().as_bytes(), &bytes[..Seal::WIDTH]);
        assert!(seal.block > Seal::WIDTH as u64 && seal.block <= MAX_BLOCK);
        assert!(seal.file_size() >= seal.block);
    }
}

/// Asserts that a block that was read is written as the same octets: as at acceptance, with later changes.
fn assert_only_spelling(read: &Block, bytes: &[u8]) {
    let count = read.envelope.recipients.len();
    assert!(count > 0 && read.finished.len() == count);
    assert!(read.mark.interrupted <= 999);
    let mut written = block::open(read.id, &read.envelope);
    block::close(&mut written, read.seal.size, read.seal.message);
    let fresh = Block::parse(&written).expect("what we write we can read");
    assert_eq!((fresh.id, &fresh.envelope), (read.id, &read.envelope));
    assert_eq!(fresh.seal, read.seal);
    assert_eq!(fresh.mark, Mark::default());
    assert_eq!(fresh.finished, vec![false; count]);

    let state = Mark::OFFSET as usize;
    written[state..state + Mark::WIDTH].copy_from_slice(read.mark.line().as_bytes());
    let octets: Vec<u64> = fresh.octets().collect();
    assert_eq!(octets.len(), count);
    for (offset, finished) in octets.iter().zip(&read.finished) {
        let octet = &mut written[*offset as usize];
        assert_eq!(*octet, b'-');
        if *finished {
            *octet = b'+';
        }
    }
    assert_eq!(written, bytes);
}

/// Asserts that the view has a line for each recipient, and only lines of known form.
fn assert_shown(read: &Block) {
    let view = read.envelope.view();
    assert_eq!(view.sender.matches('\n').count(), 1);
    let shown: Vec<&str> = view.recipients.lines().collect();
    let addresses = read.envelope.recipients.iter().map(|recipient| recipient.as_str());
    assert!(shown.into_iter().eq(addresses));
    let names = [
        "door: ",
        "transport: ",
        "origin: ",
        "ret: ",
        "envid: ",
        "notify: ",
        "orcpt: ",
        "key: ",
        "release: ",
    ];
    for line in view.transport.lines() {
        assert!(
            names.iter().any(|name| line.starts_with(name)),
            "{line:?} in {:?}",
            view.transport
        );
    }
}

fn assert_flip_is_seen(read: &Block, mut bytes: Vec<u8>, bit: usize) {
    let at = bit / 8 % bytes.len();
    bytes[at] ^= 1 << (bit % 8);
    let Ok(other) = Block::parse(&bytes) else {
        return;
    };
    let is_state = (Seal::WIDTH..Seal::WIDTH + Mark::WIDTH).contains(&at);
    assert!(is_state || read.octets().any(|octet| octet == at as u64));
    assert_eq!((other.id, &other.envelope), (read.id, &read.envelope));
    assert_eq!(other.seal, read.seal);
}
