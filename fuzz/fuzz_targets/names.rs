//! File names in a Maildir, and the argument vector of a pipe: no address escapes from its file name or its
//! argument.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use mailspool::testing::message::{Address, ReversePath};
use mailspool::testing::transport::{Maildir, Pipe};

fuzz_target!(|input: &str| {
    let [host, sender, recipient, template] =
        help::parts(input.as_bytes()).map(|part| std::str::from_utf8(part).unwrap());
    let recipient = Address::stored(recipient).unwrap_or(Address::parse("b@x").unwrap());
    let sender = ReversePath::stored(sender).unwrap_or(ReversePath::Null);

    let maildir = Maildir::new("/nonexistent".into(), host.to_owned());
    let name = maildir.copy_name(help::id(), &recipient);
    let parts: Vec<Component<'_>> = Path::new(&name).components().collect();
    assert!(matches!(parts[..], [Component::Normal(_)]), "{name:?}");
    assert!(name.len() < 200 && !name.starts_with('.') && !name.contains([':', '/', '\n', '\0']));
    assert_eq!(
        name,
        maildir.copy_name(help::id(), &recipient),
        "found again after a crash"
    );

    let command: Vec<String> = template.split('\n').map(str::to_owned).collect();
    let Ok(pipe) = Pipe::new(command.clone()) else {
        return;
    };
    let argv = pipe.argv(help::id(), &sender, &recipient);
    assert_eq!(argv.len(), command.len(), "one argument stays one");
    assert!(argv.iter().all(|argument| !argument.contains('\0')));
    let id = help::id().to_string();
    for (given, filled) in command.iter().zip(&argv) {
        let most = given.len() + given.matches('{').count() * (1000 + id.len());
        assert!(filled.len() <= most);
        if !given.contains(['{', '}']) {
            assert_eq!(given, filled);
        }
    }
    // The program is the one in the configuration, whatever the addresses.
    let other = pipe.argv(
        help::id(),
        &ReversePath::Null,
        &Address::parse("c@y").unwrap(),
    );
    assert_eq!(other[0], argv[0]);
});
