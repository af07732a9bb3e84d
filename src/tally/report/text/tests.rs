//! The text, word for word.

use super::*;
use crate::fault::Fault;
use crate::tally::report::{NameFailure, SelectionError, ServiceReport};
use crate::tally::{ByFault, Recorder};

static NOTHING: Phases = Phases::of_service();

fn quiet_endpoint(name: &str) -> EndpointReport<'_> {
    EndpointReport {
        name,
        standing: "unknown",
        phases: &NOTHING,
    }
}

fn report() -> Report<'static> {
    let endpoint = |exchanges, faults| EndpointTotals {
        exchanges,
        faults,
        ..EndpointTotals::default()
    };
    let mut busy = ServiceTotals {
        exchanges: 12_345_678,
        forwarded: [0, 12_345_000, 0, 550, 50],
        own_answers: 78,
        shed: [1_003, 0, 1, 0, 0, 0],
        tunnels: 1_234,
        tunnels_open: 5,
        tunnel_bytes_up: 12_345,
        tunnel_bytes_down: 6_789_000,
        endpoints: vec![endpoint(6_172_840, 3), endpoint(6_172_838, 0)],
        ..ServiceTotals::default()
    };
    busy.faults[Fault::ConnectionRefused.index()] = 3;
    busy.faults[Fault::ResponseTimeout.index()] = 75;
    let quiet = ServiceTotals {
        endpoints: vec![endpoint(0, 0)],
        ..ServiceTotals::default()
    };
    Report {
        late: Vec::new(),
        gone_phases: &NOTHING,
        process: Process {
            version: "0.1.0",
            pid: 4711,
            started: std::time::SystemTime::UNIX_EPOCH,
            up: Duration::from_secs(3 * 3600 + 12 * 60 + 59),
            driver: "io_uring (defer)",
            reloads: Default::default(),
        },
        generation: 3,
        services: vec![
            ServiceReport {
                name: "my-service",
                backends: vec!["127.0.0.1:9090", "b.test:9091"],
                endpoints: vec![
                    quiet_endpoint("127.0.0.1:9090"),
                    quiet_endpoint("127.0.0.1:9091"),
                ],
                names: Vec::new(),
                totals: busy,
                phases: &NOTHING,
            },
            ServiceReport {
                name: "quiet",
                backends: vec!["[::1]:9092"],
                endpoints: vec![quiet_endpoint("[::1]:9092")],
                names: Vec::new(),
                totals: quiet,
                phases: &NOTHING,
            },
        ],
        gone: ServiceTotals::default(),
        shards: vec![shard(512, 6_170_000, 12), shard(7, 6_175_690, 0)],
    }
}

fn shard(clients_open: u64, exchanges: u64, not_found: u64) -> ShardTotals {
    let mut faults = ByFault::<u64>::default();
    faults[Fault::DestinationNotFound.index()] = not_found;
    ShardTotals {
        clients_open,
        exchanges,
        no_service: NoServiceTotals {
            exchanges: not_found,
            own_answers: not_found,
            faults,
        },
        lived: Duration::from_secs(100),
        busy: Duration::from_secs(31),
        ..ShardTotals::default()
    }
}

#[track_caller]
fn check(report: &Report<'_>, expected: &[&str]) {
    let text = report.to_string();
    assert!(text.ends_with('\n'));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines, expected);
}

#[test]
fn the_text_is_that_of_the_contract() {
    check(
        &report(),
        &[
            "ringmain 0.1.0  pid 4711  up 3h12m  generation 3  io_uring (defer)  2 shards  \
             since start",
            "service my-service   12,345,678 exchanges   forwarded 12,345,600 \
             (2xx 12,345,000 4xx 550 5xx 50)   own answers 78",
            "  tunnels 1,234   open 5   bytes up 12,345   down 6,789,000",
            "  shed  client_rate 1,003   rate 1",
            "  faults  connection_refused 3   http_response_timeout 75",
            "  endpoint 127.0.0.1:9090   6,172,840 exchanges   unknown   faults 3",
            "  endpoint 127.0.0.1:9091   6,172,838 exchanges   unknown   faults 0",
            "service quiet   0 exchanges   forwarded 0   own answers 0",
            "  endpoint [::1]:9092   0 exchanges   unknown   faults 0",
            "no service        12 exchanges   own answers 12 (404 destination_not_found 12)",
            "shard  connections    exchanges   share   busy",
            "0              512    6,170,000   50.0%    31%",
            "1                7    6,175,690   50.0%    31%",
        ],
    );
}

#[test]
fn names_say_what_they_stand_for_and_since_when_they_fail() {
    let mut report = report();
    report.services.remove(0);
    let remarks = ["1 SRV records have port 0".to_owned()];
    let name = |name: &str, addresses, failure: Option<NameFailure<'static>>| NameReport {
        name: name.to_owned(),
        addresses,
        remarks: if failure.is_none() { &remarks } else { &[] },
        failure,
    };
    let failure = NameFailure {
        lasted: Duration::from_secs(67),
        times: 1_004,
        reason: "no such name (NXDOMAIN)",
    };
    report.services[0].names = vec![
        name("good.test:80", 3, None),
        name("_bad._tcp.test", 0, Some(failure)),
    ];
    let text = report.to_string();
    let lines: Vec<_> = text.lines().skip(1).take(4).collect();
    assert_eq!(
        lines,
        [
            "service quiet   0 exchanges   forwarded 0   own answers 0",
            "  name good.test:80   3 addresses   1 SRV records have port 0",
            "  name _bad._tcp.test   0 addresses   failing for 1m07s, 1,004 times: \
             no such name (NXDOMAIN)",
            "  endpoint [::1]:9092   0 exchanges   unknown   faults 0",
        ]
    );
    let selection = Selection {
        endpoint: Some("[::1]:9092".to_owned()),
        ..Selection::default()
    };
    let excerpt = report.excerpt(&selection).expect("there is one");
    assert!(!excerpt.to_string().contains("name "), "{excerpt}");
}

#[test]
fn what_was_fanned_out_has_a_line_for_each_backend() {
    let mut report = report();
    report.services[0].totals.backends = vec![
        BackendTotals {
            succeeded: 1_000,
            failed: 2,
            attempts: 1_234,
        },
        BackendTotals::default(),
    ];
    report.services[0].totals.shed[4] = 7;
    report.shards[0].legs_asleep = 1_000;
    report.shards[1].legs_running = 3;
    let text = report.to_string();
    for line in [
        "  shed  client_rate 1,003   rate 1   legs_max 7",
        "  backend 127.0.0.1:9090   succeeded 1,000   failed 2   attempts 1,234",
        "  backend b.test:9091   succeeded 0   failed 0   attempts 0",
        "legs   3 running   1,000 asleep",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
    }
}

#[test]
fn what_came_in_the_way_has_its_words() {
    let mut report = report();
    let service = &mut report.services[0];
    service.totals.retries = [10, 0, 1_200, 2];
    service.totals.retries_refused = 3;
    service.totals.replays = 4;
    service.totals.limited = 7;
    service.totals.failed_open = 5;
    service.totals.endpoints[0].ejections = [3, 1];
    service.totals.endpoints[0].ejected = 1;
    service.totals.endpoints[1].ejections = [0, 1_000];
    service.endpoints[0].standing = "healthy";
    service.endpoints[1].standing = "draining";
    report.services[1].totals.retries_refused = 1;
    report.services[1].totals.failed_open = 1;
    report.shards[0].exchanges_waiting = 999;
    report.shards[1].exchanges_waiting = 2;
    report.shards[0].clients_unproxied = 1;
    report.shards[1].clients_unproxied = 1_000;
    check(
        &report,
        &[
            "ringmain 0.1.0  pid 4711  up 3h12m  generation 3  io_uring (defer)  2 shards  \
             since start",
            "service my-service   12,345,678 exchanges   forwarded 12,345,600 \
             (2xx 12,345,000 4xx 550 5xx 50)   own answers 78",
            "  tunnels 1,234   open 5   bytes up 12,345   down 6,789,000",
            "  retries 1,212 (connect 10 status 1,200 attempt_timeout 2)   refused 3   replays 4",
            "  limited 7   failed open 5",
            "  shed  client_rate 1,003   rate 1",
            "  faults  connection_refused 3   http_response_timeout 75",
            "  endpoint 127.0.0.1:9090   6,172,840 exchanges   healthy   faults 3   \
             ejected by 1 of 2 shards   ejections consecutive_faults 3 latency 1",
            "  endpoint 127.0.0.1:9091   6,172,838 exchanges   draining   faults 0   \
             ejections latency 1,000",
            "service quiet   0 exchanges   forwarded 0   own answers 0",
            "  retries 0   refused 1",
            "  failed open 1",
            "  endpoint [::1]:9092   0 exchanges   unknown   faults 0",
            "no service        12 exchanges   own answers 12 (404 destination_not_found 12)",
            "waiting   1,001 exchanges",
            "unproxied   1,001 clients",
            "shard  connections    exchanges   share   busy",
            "0              512    6,170,000   50.0%    31%",
            "1                7    6,175,690   50.0%    31%",
        ],
    );
}

#[test]
fn services_that_are_gone_have_a_line_when_they_counted() {
    let mut report = report();
    report.services.clear();
    report.gone.exchanges = 1_000;
    report.gone.forwarded[1] = 999;
    report.gone.own_answers = 1;
    report.gone.faults[Fault::ConnectionTimeout.index()] = 1;
    report.shards = vec![shard(0, 0, 0)];
    check(
        &report,
        &[
            "ringmain 0.1.0  pid 4711  up 3h12m  generation 3  io_uring (defer)  1 shards  \
             since start",
            "gone services   1,000 exchanges   forwarded 999 (2xx 999)   own answers 1",
            "  faults  connection_timeout 1",
            "no service         0 exchanges   own answers 0",
            "shard  connections    exchanges   share   busy",
            "0                0            0    0.0%    31%",
        ],
    );
}

#[test]
fn columns_grow_with_their_numbers() {
    let shards = [shard(1, 1_234_567_890_123, 0), ShardTotals::default()];
    let text = fmt::from_fn(|f| write_shards(f, &shards)).to_string();
    let expected = [
        "shard  connections           exchanges   share   busy",
        "0                1   1,234,567,890,123  100.0%    31%",
        "1                0                   0    0.0%      -",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn numbers_are_grouped_by_thousands() {
    let cases = [
        (0, "0"),
        (999, "999"),
        (1_000, "1,000"),
        (123_456, "123,456"),
        (u64::MAX, "18,446,744,073,709,551,615"),
    ];
    for (number, text) in cases {
        assert_eq!(Grouped(number).to_string(), text);
    }
}

#[test]
fn shares_are_rounded_to_a_tenth() {
    let cases = [
        (0, 0, "0.0%"),
        (1, 3, "33.3%"),
        (2, 3, "66.7%"),
        (1, 2_000, "0.1%"),
        (1, 2_001, "0.0%"),
        (u64::MAX, u64::MAX, "100.0%"),
    ];
    for (part, total, text) in cases {
        assert_eq!(Share(part, total).to_string(), text);
    }
}

#[test]
fn a_long_time_shows_its_two_greatest_units() {
    let cases = [
        (0, "0s"),
        (59, "59s"),
        (60, "1m00s"),
        (307, "5m07s"),
        (3_600, "1h00m"),
        (11_579, "3h12m"),
        (86_400, "1d00h"),
        (183_600, "2d03h"),
    ];
    for (seconds, text) in cases {
        assert_eq!(Up(Duration::from_secs(seconds)).to_string(), text);
    }
}

/// What was recorded `count` times each, in nanoseconds.
fn recorded_of(mut recorder: Recorder, count: u32, times: &[(Phase, u64)]) -> Phases {
    let mut phases = Phases::of_service();
    for (phase, nanoseconds) in times {
        for _ in 0..count {
            recorder.record(*phase, *nanoseconds);
        }
    }
    phases.add(&recorder);
    phases
}

/// A report of a service with phases, whose first endpoint has some too.
fn with_phases<'a>(of_service: &'a Phases, of_endpoint: &'a Phases) -> Report<'a> {
    let mut report = report();
    report.services.truncate(1);
    report.services[0].phases = of_service;
    report.services[0].endpoints[0].phases = of_endpoint;
    report
}

const MICROSECOND: u64 = 1_000;
const TIMES: [(Phase, u64); 3] = [
    (Phase::UpstreamConnect, 60_100),
    (Phase::Own, 4_150),
    (Phase::Total, 9_100 * MICROSECOND),
];

#[test]
fn phases_stand_below_their_service_and_endpoint() {
    let service = recorded_of(Recorder::of_service(), 1_000, &TIMES);
    let endpoint = recorded_of(Recorder::of_service(), 1, &TIMES[2..]);
    let mut report = with_phases(&service, &endpoint);
    report.late = vec![1, 3];
    report.gone.exchanges = 1;
    report.gone_phases = &endpoint;
    check(
        &report,
        &[
            "ringmain 0.1.0  pid 4711  up 3h12m  generation 3  io_uring (defer)  2 shards  \
             since start",
            "late: shard 1, 3 (busy or stuck); the phases lack what it recorded lately",
            "service my-service   12,345,678 exchanges   forwarded 12,345,600 \
             (2xx 12,345,000 4xx 550 5xx 50)   own answers 78",
            "  tunnels 1,234   open 5   bytes up 12,345   down 6,789,000",
            "  shed  client_rate 1,003   rate 1",
            "  faults  connection_refused 3   http_response_timeout 75",
            "  phase                 count        p50        p90        p99      p99.9     \
             p99.99        max",
            "  upstream_connect      1,000     60.1us     60.1us     60.1us     60.1us     \
             60.1us     60.1us",
            "  own                   1,000      4.1us      4.1us      4.1us      4.1us      \
             4.1us      4.1us",
            "  total                 1,000      9.1ms      9.1ms      9.1ms      9.1ms      \
             9.1ms      9.1ms",
            "  endpoint 127.0.0.1:9090   6,172,840 exchanges   unknown   faults 3",
            "    total                   1      9.1ms      9.1ms      9.1ms      9.1ms      \
             9.1ms      9.1ms",
            "  endpoint 127.0.0.1:9091   6,172,838 exchanges   unknown   faults 0",
            "gone services   1 exchanges   forwarded 0   own answers 0",
            "  phase                 count        p50        p90        p99      p99.9     \
             p99.99        max",
            "  total                     1      9.1ms      9.1ms      9.1ms      9.1ms      \
             9.1ms      9.1ms",
            "no service        12 exchanges   own answers 12 (404 destination_not_found 12)",
            "shard  connections    exchanges   share   busy",
            "0              512    6,170,000   50.0%    31%",
            "1                7    6,175,690   50.0%    31%",
        ],
    );
}

#[test]
fn a_column_of_counts_is_as_wide_as_the_widest_in_the_report() {
    let service = recorded_of(Recorder::of_service(), 1, &TIMES[1..2]);
    let endpoint = recorded_of(Recorder::of_endpoint(), 1_000_000, &TIMES[..1]);
    let report = with_phases(&service, &endpoint);
    let text = report.to_string();
    let rows = ["  phase ", "  own ", "    upstream_connect  1,000,000 "];
    let ends = rows.map(|begin| {
        let line = text.lines().find(|line| line.starts_with(begin));
        line.unwrap_or_else(|| panic!("{begin} in {text}")).len()
    });
    assert_eq!(ends, [ends[0]; 3], "{text}");
}

#[test]
fn a_selection_leaves_out_the_rest() {
    let service = recorded_of(Recorder::of_service(), 1, &TIMES);
    let select = |service: &str, phase, endpoint: &str| Selection {
        service: (!service.is_empty()).then(|| service.to_owned()),
        phase,
        endpoint: (!endpoint.is_empty()).then(|| endpoint.to_owned()),
    };
    let lines = |selection| -> Result<Vec<String>, String> {
        let excerpt = with_phases(&service, &service).excerpt(&selection);
        let text = excerpt.map_err(|error| error.to_string())?.to_string();
        let words = |line: &str| {
            let words: Vec<_> = line.split_whitespace().take(2).collect();
            words.join(" ")
        };
        Ok(text.lines().skip(1).map(words).collect())
    };
    let check = |selection, expected: Result<&[&str], &str>| {
        let expected = expected.map(|lines| lines.iter().map(|&line| line.to_owned()).collect());
        assert_eq!(lines(selection), expected.map_err(str::to_owned));
    };
    check(
        select("my-service", Some(Phase::Own), ""),
        Ok(&[
            "service my-service",
            "tunnels 1,234",
            "shed client_rate",
            "faults connection_refused",
            "phase count",
            "own 1",
            "endpoint 127.0.0.1:9090",
            "own 1",
            "endpoint 127.0.0.1:9091",
        ]),
    );
    check(
        select("", Some(Phase::Total), "127.0.0.1:9090"),
        Ok(&[
            "service my-service",
            "tunnels 1,234",
            "shed client_rate",
            "faults connection_refused",
            "endpoint 127.0.0.1:9090",
            "phase count",
            "total 1",
        ]),
    );
    check(
        select("", Some(Phase::Own), "127.0.0.1:9090"),
        Err(
            "phase: own is not recorded of endpoints; allowed: upstream_connect, upstream_send, \
             upstream_wait, upstream_receive, total",
        ),
    );
    check(
        select("my", None, ""),
        Err("service: there is no \"my\"; allowed: my-service"),
    );
    check(
        select("", None, "localhost:9090"),
        Err("endpoint: there is no \"localhost:9090\"; allowed: 127.0.0.1:9090, 127.0.0.1:9091"),
    );
    let unknown = SelectionError::Service {
        name: "x".to_owned(),
        allowed: (0..30).map(|number| number.to_string()).collect(),
    };
    assert!(unknown.to_string().ends_with("18, 19 and 10 more"));
}

#[test]
fn a_time_shows_three_digits_or_so() {
    let cases = [
        (0, "0.0us"),
        (12, "1.2us"),
        (400, "40.0us"),
        (9_999, "999.9us"),
        (10_000, "1.0ms"),
        (91_499, "9.1ms"),
        (91_500, "9.2ms"),
        (9_999_499, "999.9ms"),
        (9_999_500, "1.00s"),
        (10_100_000, "1.01s"),
        (24 * 3_600 * 10_000_000, "86400.00s"),
    ];
    for (units, text) in cases {
        assert_eq!(Time(units).to_string(), text, "{units}");
    }
}
