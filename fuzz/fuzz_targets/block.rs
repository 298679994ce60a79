//! `info/sender`, `info/recipients` and `info/transport`: what can be read is written and read
//! again the same, and only under its seal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailspool::message::Seal;
use mailspool::message::envelope::{EnvelopeFiles, parse_recipients, parse_seal, parse_sender};
use mailspool::message::seal::of_envelope;

fuzz_target!(|input: &[u8]| {
    let [sender, recipients, lines, bit] = help::parts(input);
    let bit = bit.iter().fold(0_u16, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add((*byte).into())
    });
    let _ = (
        parse_sender(sender),
        parse_recipients(recipients),
        parse_seal(lines),
    );
    let mut files = EnvelopeFiles {
        sender: sender.to_vec(),
        recipients: recipients.to_vec(),
        transport: lines.to_vec(),
    };
    let unsealed = files.parse();
    // No input guesses 128 bits; so it is sealed, and what is left is the grammar.
    let seal = Seal {
        size: u64::from(bit) << 40,
        message: u128::from(bit) << 100,
        envelope: of_envelope(sender, recipients, lines),
    };
    assert!(unsealed.is_err());
    files
        .transport
        .extend_from_slice(format!("seal: {seal}\n").as_bytes());
    let Ok((envelope, read)) = files.parse() else {
        return;
    };
    assert_eq!(read, seal);
    let written = envelope.files(seal.size, seal.message);
    let (again, resealed) = written.parse().expect("what we write we can read");
    assert_eq!(again, envelope);
    assert_eq!((resealed.size, resealed.message), (seal.size, seal.message));
    assert_eq!(again.files(seal.size, seal.message), written);

    // One bit of the three files, wherever it is.
    let bit = usize::from(bit);
    let mut harmed = written.clone();
    let all = [
        &mut harmed.sender,
        &mut harmed.recipients,
        &mut harmed.transport,
    ];
    let mut at = bit / 8 % all.iter().map(|file| file.len()).sum::<usize>();
    for file in all {
        match file.get_mut(at) {
            Some(byte) => {
                *byte ^= 1 << (bit % 8);
                break;
            }
            None => at -= file.len(),
        }
    }
    if let Ok((_, other)) = harmed.parse() {
        // The size and the sum of the message are not checked here; they are no longer the same.
        assert_ne!((other.size, other.message), (seal.size, seal.message));
    }
});
