//! The client side of SMTP (RFC 5321) and LMTP (RFC 2033), with an outcome for each recipient.
//!
//! [`Client`] sends messages over any asynchronous stream: [`Client::open`] greets, negotiates TLS and
//! authenticates, [`Client::deliver`] does one transaction after the other. Below it is the protocol
//! without I/O: [`reply`] parses replies, [`opening`] and [`exchange`] turn them into commands and
//! verdicts, [`content`] encodes messages, [`verdict`] has the table of what each reply means.
//!
//! The caller connects: nothing here resolves names or opens sockets. The caller also sets
//! `TCP_NODELAY`, because a small message is two writes, its commands and its octets.
//!
//! | after a transaction in which | the connection |
//! |---|---|
//! | the message was answered, or MAIL refused | is ready |
//! | every RCPT, or DATA, was refused | needs RSET, which is sent together with the next MAIL |
//! | the server reached its limit for one connection (MAILMAX) | is ended with QUIT |
//! | 421 was received, a deadline passed, or a reply was malformed or unexpected | is closed |
//!
//! The runtime must have its time driver enabled.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use mailspool::testing::message::{Address, ReversePath};
//! use mailspool::testing::smtp::{Client, HelloName, Settings, Shape, Tls, TlsSettings, Transaction};
//!
//! let mut settings = Settings::new(HelloName::parse("client.example.org")?);
//! settings.tls = Tls::new(TlsSettings::default())?;
//! let stream = tokio::net::TcpStream::connect("mx.example.net:25").await?;
//! stream.set_nodelay(true)?;
//! let mut client = match Client::open(stream, "mx.example.net", &settings).await {
//!     Err(error) if error.may_go_in_clear() => {
//!         let stream = tokio::net::TcpStream::connect("mx.example.net:25").await?;
//!         Client::open(stream, "mx.example.net", &settings.in_clear()).await?
//!     }
//!     opened => opened?,
//! };
//! let message = &b"Subject: hello\n\nhello\n"[..];
//! let verdicts = client
//!     .deliver(
//!         &Transaction {
//!             sender: &ReversePath::parse(b"me@example.org")?,
//!             recipients: &[Address::parse("you@example.net")?],
//!             shape: Shape::of(message)?,
//!             dsn: None,
//!         },
//!         message,
//!     )
//!     .await;
//! println!("{:?}", verdicts[0].outcome);
//! client.quit().await;
//! # Ok(())
//! # }
//! ```

pub mod capabilities;
pub mod client;
pub mod content;
pub mod exchange;
pub mod opening;
mod pem;
pub mod reply;
pub mod sasl;
pub mod step;
pub mod tls;
pub mod transaction;
pub mod verdict;
mod wire;

#[cfg(feature = "testing")]
pub use capabilities::Capabilities;
pub use client::{Client, SessionInfo, Settings, TlsInfo};
pub use content::Shape;
#[cfg(feature = "testing")]
pub use opening::OpenError;
pub use opening::{HelloName, Protocol};
pub use sasl::{Credentials, Login, Mechanism, Protection};
pub use step::{Deadlines, Step};
#[cfg(feature = "testing")]
pub use tls::TlsError;
pub use tls::{ClientIdentity, MinimumTls, Roots, Tls, TlsPolicy, TlsSettings};
pub use transaction::Transaction;
pub use verdict::{Scope, Verdict};
#[cfg(feature = "testing")]
pub use verdict::{Trouble, null_mx};
