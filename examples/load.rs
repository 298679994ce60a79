//! Load for benchmarks: fills a spool, or runs over it with a transport that does nothing.
//!
//! ```sh
//! cargo run --release --example load -- fill DIR 10000 4096     # accept 10,000 messages of 4 KB
//! cargo run --release --example load -- fill DIR 10000 4096 8   # the same from 8 threads
//! cargo run --release --example load -- deliver DIR             # every recipient is delivered
//! cargo run --release --example load -- defer DIR               # every recipient is deferred
//! ```

use std::error::Error;
use std::future::ready;
use std::path::Path;
use std::time::{Duration, Instant};

use mailspool::testing::accept::{Acceptor, Limits, Request};
use mailspool::testing::message::{Address, Dsn, EnhancedCode, Entrance, ReversePath};
use mailspool::testing::queue::{Outcome, Routes};
use mailspool::testing::runner::Runner;
use mailspool::testing::spool::Spool;
use mailspool::testing::transport::{BoxFuture, Message, Session, Transport};

const HOSTNAME: &str = "load.example.org";

/// A transport that returns the same outcome for every recipient at once.
#[derive(Clone)]
struct Nothing(Outcome);

impl Transport for Nothing {
    fn next_hop(&self, recipient: &Address) -> String {
        recipient.to_string()
    }

    fn deadline(&self, _size: u64) -> Option<Duration> {
        None
    }

    fn connect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Box<dyn Session>, Outcome>> {
        let session: Box<dyn Session> = Box::new(self.clone());
        Box::pin(ready(Ok(session)))
    }
}

impl Session for Nothing {
    fn deliver<'a>(&'a mut self, _: &'a Message, to: &'a [Address]) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(ready(vec![self.0.clone(); to.len()]))
    }
}

/// Accepts messages to 100 mailboxes, each a separate destination. Prints how many a second were accepted.
fn fill(path: &Path, count: usize, size: usize, threads: usize) -> Result<(), Box<dyn Error>> {
    let spool = Spool::create(path)?;
    // The first run after a boot reads all of `info/`, which must not be measured.
    let nothing = Runner::builder(spool.clone(), HOSTNAME).build();
    nothing.pass()?;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let some = |thread| count / threads + usize::from(thread < count % threads);
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let spool = spool.clone();
                scope.spawn(move || accept(spool, some(thread), size).map_err(|e| e.to_string()))
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a panic".to_owned())?)
    })?;
    println!("{:.0}", count as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

fn accept(spool: Spool, count: usize, size: usize) -> Result<(), Box<dyn Error>> {
    let acceptor = Acceptor::new(spool, Limits::new(HOSTNAME));
    let mut message = b"Subject: load\r\n\r\n".to_vec();
    while message.len() + 74 <= size {
        message.extend_from_slice(&[b'x'; 72]);
        message.extend_from_slice(b"\r\n");
    }
    for number in 0..count {
        let request = Request {
            entrance: Entrance::Active,
            sender: ReversePath::Mailbox(Address::parse("alice@example.org")?),
            recipients: vec![Address::parse(&format!(
                "user{}@example.net",
                number % 100
            ))?],
            transport: None,
            dsn: Dsn::default(),
            submitter: "load".into(),
            key: None,
            release: None,
        };
        acceptor.accept(request, message.as_slice())?;
    }
    Ok(())
}

fn run(path: &Path, outcome: Outcome) -> Result<(), Box<dyn Error>> {
    let runner = Runner::builder(Spool::open(path)?, HOSTNAME)
        .transport("nothing", Nothing(outcome))
        .routes(Routes::all_by("nothing"))
        .build();
    println!("{:?}", runner.pass()?);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["fill", path, count, size] => fill(Path::new(path), count.parse()?, size.parse()?, 1),
        ["fill", path, count, size, threads] => {
            let threads = threads.parse::<usize>()?.max(1);
            fill(Path::new(path), count.parse()?, size.parse()?, threads)
        }
        ["deliver", path] => run(Path::new(path), Outcome::delivered("nothing was done")),
        ["defer", path] => run(
            Path::new(path),
            Outcome::deferred(EnhancedCode::new(4, 3, 0), "nothing is done"),
        ),
        _ => Err("usage: load fill DIR COUNT SIZE | load deliver DIR | load defer DIR".into()),
    }
}
