//! A program that embeds a queue: it accepts one message, and delivers what is due by a function.
//!
//! ```sh
//! cargo run --example embed -- /tmp/embedded-spool
//! ```

use mailspool::{EnhancedCode, Outcome, Runner, Spool, Submission, transports};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: embed DIRECTORY")?;
    let spool = Spool::open_or_create(&path)?;
    let submission = Submission::new("me@example.org", ["you@example.net", "full@example.net"])?;
    let id = spool.submit(submission, &b"Subject: hello\n\nHello!\n"[..])?;
    println!("{id} is durable");

    let send = transports::from_fn(|_, recipients| {
        let outcome = |to: &mailspool::Address| match to.local_part() {
            "full" => Outcome::deferred(EnhancedCode::new(4, 2, 2), "the mailbox is full"),
            _ => Outcome::delivered("stored"),
        };
        recipients.iter().map(outcome).collect()
    });
    let runner = Runner::builder(&spool).transport("app", send).build()?;
    println!("{:?}", runner.run_once()?);
    for row in spool.messages() {
        println!("{}", row?);
    }
    Ok(())
}
