//! A DNS server on loopback that serves the records of a test, and counts the queries.

#![allow(dead_code)] // each test crate uses its own part of this

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// How a name fails to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// SERVFAIL.
    ServFail,
    /// REFUSED.
    Refused,
    /// No reply.
    Silent,
}

#[derive(Default)]
struct Zone {
    records: HashMap<String, Vec<RData>>,
    moods: HashMap<String, Mood>,
    asked: Vec<(String, RecordType)>,
}

/// The server. A name without records does not exist.
pub struct Dns {
    zone: Arc<Mutex<Zone>>,
    address: SocketAddr,
}

impl Dns {
    pub fn new() -> Dns {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone::default()));
        let (end, of) = (socket.try_clone().unwrap(), Arc::clone(&zone));
        thread::spawn(move || serve(&end, &of));
        Dns { zone, address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn add(&self, name: &str, data: RData) {
        let mut zone = self.zone.lock().unwrap();
        zone.records.entry(name.to_owned()).or_default().push(data);
    }

    pub fn mx(&self, name: &str, preference: u16, exchange: &str) {
        let exchange = Name::from_ascii(exchange).unwrap();
        self.add(name, RData::MX(MX::new(preference, exchange)));
    }

    pub fn host(&self, name: &str, address: &str) {
        let data = match address.parse().unwrap() {
            IpAddr::V4(v4) => RData::A(A(v4)),
            IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
        };
        self.add(name, data);
    }

    pub fn alias(&self, name: &str, of: &str) {
        self.add(name, RData::CNAME(CNAME(Name::from_ascii(of).unwrap())));
    }

    /// The name exists, without any record that mail uses.
    pub fn records_of_no_use(&self, name: &str) {
        self.add(name, RData::TXT(TXT::new(vec!["nothing".to_owned()])));
    }

    pub fn mood(&self, name: &str, mood: Mood) {
        self.zone
            .lock()
            .unwrap()
            .moods
            .insert(name.to_owned(), mood);
    }

    /// How often a record of this type was queried for a name.
    pub fn asked(&self, name: &str, kind: RecordType) -> usize {
        let zone = self.zone.lock().unwrap();
        let of = |one: &&(String, RecordType)| one.0 == name && one.1 == kind;
        zone.asked.iter().filter(of).count()
    }
}

fn serve(socket: &UdpSocket, zone: &Mutex<Zone>) {
    let mut bytes = [0; 4096];
    loop {
        let Ok((size, from)) = socket.recv_from(&mut bytes) else {
            return;
        };
        let Ok(request) = Message::from_vec(&bytes[..size]) else {
            continue;
        };
        if let Some(answer) = answer(&request, &mut zone.lock().unwrap()) {
            let _ = socket.send_to(&answer.to_vec().unwrap(), from);
        }
    }
}

fn answer(request: &Message, zone: &mut Zone) -> Option<Message> {
    let query = request.queries.first()?.clone();
    let kind = query.query_type();
    let mut name = query.name().to_ascii().trim_end_matches('.').to_lowercase();
    zone.asked.push((name.clone(), kind));
    let mut answer = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    answer.add_query(query);
    match zone.moods.get(&name) {
        Some(Mood::Silent) => return None,
        Some(Mood::ServFail) => answer.metadata.response_code = ResponseCode::ServFail,
        Some(Mood::Refused) => answer.metadata.response_code = ResponseCode::Refused,
        None => loop {
            let Some(records) = zone.records.get(&name) else {
                answer.metadata.response_code = ResponseCode::NXDomain;
                break;
            };
            let mut next = None;
            for data in records {
                let owner = Name::from_ascii(format!("{name}.")).unwrap();
                if let RData::CNAME(target) = data {
                    next = Some(target.0.to_ascii().trim_end_matches('.').to_lowercase());
                } else if data.record_type() != kind {
                    continue;
                }
                answer.add_answer(Record::from_rdata(owner, 300, data.clone()));
            }
            match next {
                Some(next) => name = next,
                None => break,
            }
        },
    }
    Some(answer)
}
