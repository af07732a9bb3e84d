//! What one request head costs: found, parsed, framed, routed and rewritten, so many times.
//!
//! `scripts/instructions` counts it. Times would say more about the machine than about the code;
//! instructions are the same on every run, so that a change of one in a hundred is seen. The steps
//! are those of `src/shard/order.rs`, without its buffers and counters.

use std::hint::black_box;

use rand::SeedableRng;
use ringmain::balance::Xorshift;
use ringmain::http::framing::{Body, BodyLimits};
use ringmain::http::head::{FieldSpace, HeadLimits, HeadScan, Request};
use ringmain::http::hop::{FieldEdits, RequestHop, write_request};
use ringmain::plan::route::{Destination, DomainMatch, PathMatch};
use ringmain::plan::{Route, Routes, ServiceIndex};

/// What a browser sends: 12 fields, one of which does not go on.
const HEAD: &str = "GET /articles/2024/where-the-time-goes?page=2&sort=newest HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://www.example.com/articles/2024/\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=8c1f6a0be5d94b7e93c2f1d07a6b54ee; theme=dark\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Priority: u=0, i\r\n\
    \r\n";

const HEAD_LIMITS: HeadLimits = HeadLimits {
    bytes_max: 16 * 1024,
    fields_max: 100,
};

const BODY_LIMITS: BodyLimits = BodyLimits {
    bytes_max: u64::MAX,
    trailer_bytes_max: 8 * 1024,
};

fn main() {
    let times = std::env::args().nth(1);
    let times: u64 = times.and_then(|times| times.parse().ok()).unwrap_or(1);
    let routes = routes();
    let edits = FieldEdits::default();
    let mut generator = Xorshift::seed_from_u64(7);
    // On the heap, as the buffers are that a head is read into, and so aligned alike in each build.
    let head = HEAD.as_bytes().to_vec();
    let mut out = Vec::with_capacity(4 * 1024);
    for request_id in 0..times {
        let hop = RequestHop {
            client: "192.0.2.17",
            via: "ringmain-1f3a",
            request_id: u128::from(request_id) << 64 | 0x5bd1_e995,
            edits: &edits,
            repeated: None,
        };
        out.clear();
        let service = order(black_box(&head), (&routes, &mut generator), &hop, &mut out);
        assert_eq!(black_box(service), Some(ServiceIndex(7)));
    }
    assert!(times == 0 || out.ends_with(b"\r\nVia: 1.1 ringmain-1f3a\r\n\r\n"));
}

/// From the bytes of a request to its service and to what is sent there.
#[inline(never)]
fn order(
    bytes: &[u8],
    (routes, generator): (&Routes, &mut Xorshift),
    hop: &RequestHop<'_>,
    out: &mut Vec<u8>,
) -> Option<ServiceIndex> {
    let found = HeadScan::request().find_end(bytes, &HEAD_LIMITS);
    let (head, rest) = bytes.split_at(found.ok().flatten()?);
    let mut space = FieldSpace::new();
    let request = Request::parse(head, &HEAD_LIMITS, &mut space).ok()?;
    black_box(request.facts());
    let service = routes.find(request.host, &request, generator)?;
    let mut body = Body::new(request.body, BODY_LIMITS).ok()?;
    let here = body.pass(rest).ok()?;
    if request.passed_through(hop.via) {
        return None;
    }
    write_request(out, &request, hop);
    out.extend_from_slice(&rest[..here.send]);
    black_box(body.is_done());
    Some(service)
}

/// Two routes that do not match and ten domains.
fn routes() -> Routes {
    let route = |path, service| Route {
        domain: DomainMatch::Exact("www.example.com".into()),
        path,
        methods: Box::default(),
        fields: Box::default(),
        query: Box::default(),
        destination: Destination::Service(ServiceIndex(service)),
    };
    let routes = vec![
        route(PathMatch::Exact("/register".into()), 0),
        route(PathMatch::Prefix("/static/".into()), 1),
    ];
    let names = (2..10).map(|number| match number {
        7 => ("www.example.com".to_owned(), ServiceIndex(7)),
        _ => (
            format!("service-{number}.example.com"),
            ServiceIndex(number),
        ),
    });
    let wildcards = [("*.example.com".to_owned(), ServiceIndex(10))];
    Routes::new(routes, names.chain(wildcards))
}
