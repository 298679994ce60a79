//! A host that speaks just enough SMTP over TCP, and counts.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use mailspool::testing::dns::{Host, Resolver};
use mailspool::testing::smtp::{HelloName, Settings};
use mailspool::testing::transport::{Smtp, Target};

#[derive(Clone, Copy, Default)]
pub struct Seen {
    pub connections: usize,
    pub messages: usize,
    open: usize,
    /// The most connections at once.
    pub most: usize,
}

/// A server that listens until its process ends.
pub struct Sink {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

/// How a sink behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    TakesAll,
    /// Replies 421 to each MAIL, and disconnects.
    Busy,
    HangsUpAtMail,
    /// Disconnects without a greeting.
    Closed,
    /// Replies 451 to each MAIL.
    QueueFull,
    /// Replies 450 to each RCPT.
    Greylists,
    /// Announces a limit of one recipient, and disconnects at RCPT.
    HangsUpAtRcpt,
    HangsUpAtData,
    /// Replies 451 to each message.
    RefusesLater,
    /// Disconnects instead of replying to a message.
    LosesAnswer,
    /// Replies 452 to the third MAIL of a connection.
    TakesTwoInASession,
    /// Replies 500 to RSET.
    KnowsNoReset,
}

/// A port without a listener.
pub struct Dead {
    address: SocketAddr,
}

impl Sink {
    pub fn start() -> Sink {
        Sink::in_mood(Mood::TakesAll)
    }

    pub fn in_mood(mood: Mood) -> Sink {
        Sink::at("127.0.0.1:0".parse().unwrap(), mood)
    }

    /// The host's name in the record of a reply.
    pub fn name(&self) -> String {
        format!("[{}]:{}", self.address.ip(), self.address.port())
    }

    fn at(address: SocketAddr, mood: Mood) -> Sink {
        let listener = TcpListener::bind(address).unwrap();
        let sink = Sink {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
        };
        let seen = Arc::clone(&sink.seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let seen = Arc::clone(&seen);
                thread::spawn(move || speak(stream.unwrap(), &seen, mood));
            }
        });
        sink
    }

    pub fn seen(&self) -> Seen {
        *self.seen.lock().unwrap()
    }

    pub fn dead(&self) -> Dead {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Dead {
            address: listener.local_addr().unwrap(),
        }
    }

    pub fn smtp(&self, concurrency: usize, per_connection: usize) -> Smtp {
        smtp(&[self.address], concurrency, per_connection)
    }
}

impl Dead {
    pub fn smtp(&self, concurrency: usize, per_connection: usize) -> Smtp {
        smtp(&[self.address], concurrency, per_connection)
    }

    pub fn revive(self) -> Sink {
        Sink::at(self.address, Mood::TakesAll)
    }
}

/// A transport to these hosts, in this order.
pub fn relay(sinks: &[&Sink]) -> Smtp {
    let addresses: Vec<SocketAddr> = sinks.iter().map(|sink| sink.address).collect();
    smtp(&addresses, 4, 100)
}

fn smtp(addresses: &[SocketAddr], concurrency: usize, per_connection: usize) -> Smtp {
    let host = |address: &SocketAddr| address.to_string().parse::<Host>().unwrap();
    let hosts = addresses.iter().map(host).collect();
    let settings = Settings::new(HelloName::parse("client.test").unwrap());
    let resolver = Arc::new(Resolver::new(Vec::new()));
    Smtp::builder(Target::Hosts(hosts), settings, resolver, "client.test")
        .concurrency(concurrency)
        .max_per_connection(per_connection)
        .build()
}

fn speak(stream: TcpStream, seen: &Mutex<Seen>, mood: Mood) {
    {
        let mut seen = seen.lock().unwrap();
        seen.connections += 1;
        seen.open += 1;
        seen.most = seen.most.max(seen.open);
    }
    // A client that disconnects at any point has finished.
    let _ = converse(stream, seen, mood);
    seen.lock().unwrap().open -= 1;
}

fn converse(stream: TcpStream, seen: &Mutex<Seen>, mood: Mood) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    if mood == Mood::Closed {
        return Ok(());
    }
    out.write_all(b"220 sink.test\r\n")?;
    let mut mails = 0;
    while let Some(line) = lines.next().transpose()? {
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        mails += usize::from(verb == "MAIL");
        match (verb.as_str(), mood) {
            ("MAIL", Mood::TakesTwoInASession) if mails > 2 => {
                out.write_all(b"452 4.3.1 too many messages in this session\r\n")?;
            }
            ("RSET", Mood::KnowsNoReset) => out.write_all(b"500 5.5.1 what\r\n")?,
            // So that the next message begins with RSET.
            ("RCPT", Mood::KnowsNoReset) if line.contains("r0@") => {
                out.write_all(b"550 5.1.1 no\r\n")?;
            }
            ("MAIL", Mood::Busy) => return out.write_all(b"421 4.3.2 busy\r\n"),
            ("MAIL", Mood::HangsUpAtMail)
            | ("RCPT", Mood::HangsUpAtRcpt)
            | ("DATA", Mood::HangsUpAtData) => return Ok(()),
            ("EHLO", Mood::HangsUpAtRcpt) => {
                out.write_all(b"250-sink.test\r\n250 LIMITS RCPTMAX=1\r\n")?;
            }
            ("MAIL", Mood::QueueFull) => out.write_all(b"451 4.3.0 queue full\r\n")?,
            ("RCPT", Mood::Greylists) => out.write_all(b"450 4.7.1 come back later\r\n")?,
            ("DATA", _) => {
                out.write_all(b"354 go on\r\n")?;
                while lines.next().transpose()?.is_some_and(|line| line != ".") {}
                match mood {
                    Mood::LosesAnswer => return Ok(()),
                    Mood::RefusesLater => {
                        out.write_all(b"451 4.3.0 later\r\n")?;
                        continue;
                    }
                    _ => {}
                }
                seen.lock().unwrap().messages += 1;
                out.write_all(b"250 2.0.0 taken\r\n")?;
            }
            ("QUIT", _) => return out.write_all(b"221 bye\r\n"),
            _ => out.write_all(b"250 sink.test\r\n")?,
        }
    }
    Ok(())
}
