//! Distributions word for word as the Java library 2.1.11 prints them, and a log read back.

use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use super::*;
use crate::tally::report::{EndpointReport, Report, Selection, ServiceReport};
use crate::tally::{EndpointTotals, Recorder, ServiceTotals};

const EMPTY: &str = "       Value     Percentile TotalCount 1/(1-Percentile)

#[Mean    =        0.000, StdDeviation   =        0.000]
#[Max     =        0.000, Total count    =            0]
#[Buckets =            1, SubBuckets     =         2048]
";

const FIVE: &str = "       Value     Percentile TotalCount 1/(1-Percentile)

       0.100 0.000000000000          1           1.00
       0.100 0.100000000000          1           1.11
       0.100 0.200000000000          1           1.25
       0.200 0.300000000000          2           1.43
       0.200 0.400000000000          2           1.67
       0.300 0.500000000000          3           2.00
       0.300 0.550000000000          3           2.22
       0.300 0.600000000000          3           2.50
       0.400 0.650000000000          4           2.86
       0.400 0.700000000000          4           3.33
       0.400 0.750000000000          4           4.00
       0.400 0.775000000000          4           4.44
       0.400 0.800000000000          4           5.00
   86425.500 0.825000000000          5           5.71
   86425.500 1.000000000000          5
#[Mean    =    17280.200, StdDeviation   =    34559.900]
#[Max     =    86425.500, Total count    =            5]
#[Buckets =           10, SubBuckets     =         2048]
";

/// What a service recorded of `phase`, in units.
fn phases(phase: Phase, units: &[u64]) -> Phases {
    let mut recorder = Recorder::of_service();
    for units in units {
        recorder.record(phase, units * 1_000 / UNITS_PER_MICROSECOND);
    }
    let mut phases = Phases::of_service();
    phases.add(&recorder);
    phases
}

/// Of services by name, each with one endpoint, and nothing else.
fn report<'a>(services: &[(&'a str, &'a Phases)], nothing: &'a Phases) -> Report<'a> {
    let services = services.iter().map(|(name, phases)| ServiceReport {
        names: Vec::new(),
        name,
        totals: ServiceTotals {
            endpoints: vec![EndpointTotals::default()],
            ..ServiceTotals::default()
        },
        phases,
        backends: vec![],
        endpoints: vec![EndpointReport {
            name: "[::1]:9090",
            standing: "unknown",
            phases,
        }],
    });
    Report {
        process: Process {
            version: "0.1.0",
            pid: 4711,
            started: SystemTime::UNIX_EPOCH,
            up: Duration::from_millis(1_500),
            driver: "epoll",
            reloads: Default::default(),
        },
        generation: 1,
        late: Vec::new(),
        services: services.collect(),
        gone: ServiceTotals::default(),
        gone_phases: nothing,
        shards: Vec::new(),
    }
}

#[test]
fn a_distribution_is_that_of_the_java_library() {
    let recorded = phases(Phase::Own, &[1, 2, 3, 4, 864_000]);
    let nothing = Phases::of_service();
    let check = |service: &str, phase, endpoint: Option<&str>, expected: Result<&str, &str>| {
        let report = report(&[("a", &recorded), ("b", &nothing)], &nothing);
        let selection = Selection {
            service: (!service.is_empty()).then(|| service.to_owned()),
            phase,
            endpoint: endpoint.map(str::to_owned),
        };
        let excerpt = report.excerpt(&selection).expect("both are there");
        let text = hgrm(&excerpt).map_err(|error| error.to_string());
        assert_eq!(
            text.as_deref(),
            expected.map_err(str::to_owned).as_ref().copied()
        );
    };
    check("a", Some(Phase::Own), None, Ok(FIVE));
    check("a", None, None, Ok(EMPTY));
    check("b", Some(Phase::Total), Some("[::1]:9090"), Ok(EMPTY));
    let several = "service: hgrm holds one distribution, so name one; allowed: a, b";
    check("", None, None, Err(several));
}

#[test]
fn a_log_gives_back_every_histogram_under_its_tag() {
    let own = phases(Phase::Own, &[1, 2, 3, 4, 864_000]);
    let total = phases(Phase::Total, &[7; 1_000]);
    let report = report(&[("a", &own), ("b", &total)], &own);
    let excerpt = report.excerpt(&Selection::default()).expect("all of it");
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    let log = hlog(&excerpt, now);
    let mut found = Vec::new();
    for entry in IntervalLogIterator::new(log.as_bytes()) {
        match entry.expect("the log is sound") {
            LogEntry::StartTime(start) | LogEntry::BaseTime(start) => {
                assert_eq!(start, Duration::from_millis(998_500));
            }
            LogEntry::Interval(interval) => {
                assert_eq!(interval.duration(), Duration::from_millis(1_500));
                let histogram: Histogram<u64> = {
                    let encoded = interval.encoded_histogram();
                    let bytes = base64(encoded);
                    Deserializer::new()
                        .deserialize(&mut bytes.as_slice())
                        .expect("the histogram is sound")
                };
                let tag = interval.tag().expect("it has a tag").as_str().to_owned();
                found.push((tag, histogram.len(), histogram.max()));
            }
        }
    }
    let expected = [
        ("a/own", 5, 864_255),
        ("a/[::1]:9090/own", 5, 864_255),
        ("b/total", 1_000, 7),
        ("b/[::1]:9090/total", 1_000, 7),
        ("(gone)/own", 5, 864_255),
    ];
    let expected = expected.map(|(tag, count, max)| (tag.to_owned(), count, max));
    assert_eq!(found, expected);
}

#[test]
fn a_number_is_rounded_half_up_in_decimal() {
    for (number, digits, text) in [
        (0.0, 3, "0.000"),
        (0.1, 3, "0.100"),
        (12.0, 2, "12.00"),
        // Exact in binary, and halfway.
        (0.125, 2, "0.13"),
        // A little less than it looks in binary.
        (1.005, 2, "1.01"),
        (0.999_780_273_437_5, 12, "0.999780273438"),
        (0.999_6, 3, "1.000"),
        (86_400_000_000.0, 3, "86400000000.000"),
        (1e-7, 3, "0.000"),
    ] {
        assert_eq!(fixed(number, digits), text, "{number}");
    }
}

/// RFC 4648 section 4.
fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut held, mut bits) = (0_u32, 0);
    for digit in text.chars().filter(|c| *c != '=') {
        let digit = DIGITS.find(digit).expect("it is a digit of base 64");
        held = (held << 6) | digit as u32;
        bits += 6;
        if 8 <= bits {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    bytes
}
