//! A DNS server in the test's own process, whose answers the test sets and whose failures it
//! chooses.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::{CNAME, SRV};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::oneshot;

/// What a name is answered with; where nothing was set, with NXDOMAIN.
#[derive(Clone, Default)]
struct Zone {
    records: HashMap<(Name, RecordType), Vec<Record>>,
    failure: HashMap<Name, Failure>,
}

/// How a name is not answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    /// SERVFAIL.
    Servfail,
    /// NXDOMAIN, whatever there is.
    Nxdomain,
    /// Nothing at all.
    Silence,
    /// Nothing at all where IPv6 addresses are asked for.
    SilenceOfIpv6,
    /// SERVFAIL where IPv6 addresses are asked for.
    ServfailOfIpv6,
}

/// A server on a port of its own, UDP and TCP.
pub(crate) struct Dns {
    address: SocketAddr,
    state: Arc<State>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    #[expect(
        clippy::disallowed_types,
        reason = "the server's thread and the test's share it"
    )]
    zone: std::sync::Mutex<Zone>,
    questions: AtomicUsize,
    /// Those of them that came over TCP.
    over_tcp: AtomicUsize,
}

impl Dns {
    /// On any port.
    pub(crate) fn new() -> Self {
        Self::start(None)
    }

    /// At `address`, where one is given.
    pub(crate) fn start(address: Option<SocketAddr>) -> Self {
        let state: Arc<State> = Arc::default();
        let (bound_in, bound) = std::sync::mpsc::channel();
        let (end, ended) = oneshot::channel();
        let serving = Arc::clone(&state);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be had");
            runtime.block_on(async {
                let (udp, tcp) = sockets(address).await;
                let at = udp.local_addr().expect("it is bound");
                let mut server = Server::new(Handler(serving));
                server.register_socket(udp);
                server.register_listener(tcp, Duration::from_secs(10), 1 << 16);
                bound_in.send(at).expect("the test waits");
                // An error: the test has ended without a word.
                let _ended = ended.await;
                let _down = server.shutdown_gracefully().await;
            });
        });
        Self {
            address: bound.recv().expect("the server is bound"),
            state,
            end: Some(end),
            thread: Some(thread),
        }
    }

    /// `[dns]` of a ringmain that asks this server, and soon again.
    pub(crate) fn table(&self) -> String {
        format!(
            "[dns]\nservers = [\"{}\"]\nttl_min = \"100ms\"\nttl_max = \"1s\"\n",
            self.address
        )
    }

    /// The name `host` has these addresses from now on, with a TTL of 0 seconds.
    pub(crate) fn set(&self, host: &str, addresses: &[IpAddr]) {
        self.set_for(host, addresses, 0);
    }

    /// As [`Dns::set`], with a TTL in seconds.
    pub(crate) fn set_for(&self, host: &str, addresses: &[IpAddr], ttl: u32) {
        let of = |is_wanted: fn(&IpAddr) -> bool| {
            let wanted = addresses.iter().filter(|address| is_wanted(address));
            let record =
                |address: &IpAddr| Record::from_rdata(name(host), ttl, RData::from(*address));
            wanted.map(record).collect()
        };
        let (v4, v6) = (of(IpAddr::is_ipv4), of(IpAddr::is_ipv6));
        self.put(host, RecordType::A, v4);
        self.put(host, RecordType::AAAA, v6);
    }

    /// `host` is another name for `other`.
    pub(crate) fn set_alias(&self, host: &str, other: &str) {
        for family in [RecordType::A, RecordType::AAAA] {
            let alias = RData::CNAME(CNAME(name(other)));
            self.put(host, family, vec![Record::from_rdata(name(host), 0, alias)]);
        }
    }

    /// The service `service` has these records: priority, weight, port, host.
    pub(crate) fn set_service(&self, service: &str, targets: &[(u16, u16, u16, &str)]) {
        let record = |(priority, weight, port, host): &(u16, u16, u16, &str)| {
            let srv = RData::SRV(SRV::new(*priority, *weight, *port, name(host)));
            Record::from_rdata(name(service), 0, srv)
        };
        let records = targets.iter().map(record).collect();
        self.put(service, RecordType::SRV, records);
    }

    /// The answer for the SRV records of `service` has one more, of a name that nobody asked for.
    pub(crate) fn smuggle(&self, service: &str, port: u16, host: &str) {
        let srv = RData::SRV(SRV::new(0, 1, port, name(host)));
        let record = Record::from_rdata(name("_smuggled._tcp.test"), 0, srv);
        let of = (name(service), RecordType::SRV);
        self.zone(|zone| zone.records.entry(of).or_default().push(record));
    }

    /// `host` is not answered as it should be, from now on.
    pub(crate) fn fail(&self, host: &str, failure: Failure) {
        self.zone(|zone| zone.failure.insert(name(host), failure));
    }

    /// `host` is answered as it should be again.
    pub(crate) fn recover(&self, host: &str) {
        self.zone(|zone| zone.failure.remove(&name(host)));
    }

    /// How many questions have come.
    pub(crate) fn questions(&self) -> usize {
        self.state.questions.load(Ordering::Relaxed)
    }

    /// How many of them came over TCP.
    pub(crate) fn questions_over_tcp(&self) -> usize {
        self.state.over_tcp.load(Ordering::Relaxed)
    }

    fn put(&self, host: &str, family: RecordType, records: Vec<Record>) {
        self.zone(|zone| zone.records.insert((name(host), family), records));
    }

    fn zone<T>(&self, act: impl FnOnce(&mut Zone) -> T) -> T {
        act(&mut self.state.zone.lock().expect("nobody panics"))
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        // An error: it has ended by itself.
        let _over = self.end.take().map(|end| end.send(()));
        let _joined = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// UDP and TCP on one port.
async fn sockets(address: Option<SocketAddr>) -> (UdpSocket, TcpListener) {
    let wanted = address.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
    loop {
        let udp = UdpSocket::bind(wanted).await;
        let udp = udp.expect("the port is free");
        let at = udp.local_addr().expect("it is bound");
        // Another test may have the port of the other protocol.
        match TcpListener::bind(at).await {
            Ok(tcp) => return (udp, tcp),
            Err(error) => assert!(address.is_none(), "{at}: {error}"),
        }
    }
}

fn name(text: &str) -> Name {
    let mut name = Name::from_str(text).expect("it is a name");
    name.set_fqdn(true);
    name
}

struct Handler(Arc<State>);

impl Handler {
    /// What `host` is answered with; `None` where nothing is said.
    fn answer(&self, host: &Name, wanted: RecordType) -> Option<(ResponseCode, Vec<Record>)> {
        let zone = self.0.zone.lock().expect("nobody panics");
        let is_ipv6 = wanted == RecordType::AAAA;
        match zone.failure.get(host) {
            Some(Failure::Silence) => return None,
            Some(Failure::SilenceOfIpv6) if is_ipv6 => return None,
            Some(Failure::ServfailOfIpv6) if is_ipv6 => {
                return Some((ResponseCode::ServFail, Vec::new()));
            }
            Some(Failure::Servfail) => return Some((ResponseCode::ServFail, Vec::new())),
            Some(Failure::Nxdomain) => return Some((ResponseCode::NXDomain, Vec::new())),
            _ => {}
        }
        let records = zone.records.get(&(host.clone(), wanted));
        let is_known = zone.records.keys().any(|(known, _)| known == host);
        Some(match records {
            Some(records) => (ResponseCode::NoError, records.clone()),
            None if is_known => (ResponseCode::NoError, Vec::new()),
            None => (ResponseCode::NXDomain, Vec::new()),
        })
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        self.0.questions.fetch_add(1, Ordering::Relaxed);
        if request.protocol() == Protocol::Tcp {
            self.0.over_tcp.fetch_add(1, Ordering::Relaxed);
        }
        let asked = request.request_info().expect("it has one question");
        let host = Name::from(asked.query.name());
        let mut metadata = Metadata::response_from_request(asked.metadata);
        metadata.recursion_available = true;
        let silent = Header {
            metadata,
            counts: HeaderCounts::default(),
        };
        let Some((code, records)) = self.answer(&host, asked.query.query_type()) else {
            return silent.into();
        };
        metadata.response_code = code;
        let builder = MessageResponseBuilder::from_message_request(request);
        let answer = builder.build(metadata, &records, [], [], []);
        let sent = response.send_response(answer).await;
        // An error: ringmain has gone meanwhile.
        sent.unwrap_or_else(|_error| silent.into())
    }
}
