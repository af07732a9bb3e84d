//! What ringmain writes for the tools of HdrHistogram, judged by the Java library itself.
//!
//! A log of a real instance is read by `HistogramLogProcessor`, which prints the distribution of
//! each tag; that has to be ringmain's own, line by line.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Directory, Driver, Served, Setup, Wire, run_alone};

/// Where Debian puts the library.
const LIBRARY: &str = "/usr/share/java/hdrhistogram.jar";

const MISSING: &str =
    "the judge is missing: apt-get install libhdrhistogram-java default-jre-headless";

/// What `HistogramLogProcessor` prints for `arguments`.
#[track_caller]
fn judge(arguments: &[&str]) -> String {
    assert!(Path::new(LIBRARY).exists(), "{MISSING}");
    let mut java = Command::new("java");
    java.args(["-cp", LIBRARY, "org.HdrHistogram.HistogramLogProcessor"]);
    // With it, java says on standard error that it has read it.
    java.env_remove("JAVA_TOOL_OPTIONS");
    let output = java.args(arguments).output().expect(MISSING);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let errors = text(&output.stderr);
    assert!(
        output.status.success() && errors.is_empty(),
        "{arguments:?}: {errors}"
    );
    text(&output.stdout)
}

#[test]
fn the_java_library_reads_the_log_and_finds_our_distributions() {
    const EXCHANGES: usize = 300;
    let origin = Served::saying("a");
    let proxy = Setup::new(Driver::Epoll)
        .shards(2)
        .admin("127.0.0.1:0")
        .service("a", &[origin.address()], "")
        .start();
    let mut clients: Vec<Wire> = (0..4).map(|_| proxy.client()).collect();
    for turn in 0..EXCHANGES {
        let client = &mut clients[turn % 4];
        assert_eq!(client.get("a.test", "/").text(), "a");
    }
    let seen = proxy.report_where(|report| {
        let total = report.services["a"].phases.get("total");
        total.map_or(0, |times| times.count) == EXCHANGES as u64
    });

    let admin = proxy.admin();
    let report = |arguments: &[&str]| {
        let common = ["report", "--admin", &admin, "--format"];
        let (code, text, errors) = run_alone(&[&common, arguments].concat());
        assert_eq!(code, Some(0), "{errors}");
        text
    };
    let directory = Directory::new();
    let log = directory.join("ringmain.hlog");
    fs::write(&log, report(&["hlog"])).expect("the directory is writable");
    let log = log.to_str().expect("cargo's directory is UTF-8");

    let endpoint = origin.address().to_string();
    let service = seen.services["a"].phases.keys();
    let service = service.map(|phase| (format!("a/{phase}"), phase.clone(), None));
    let of_endpoint = seen.services["a"].endpoint_phases[&endpoint].keys();
    let of_endpoint = of_endpoint.map(|phase| {
        let tag = format!("a/{endpoint}/{phase}");
        (tag, phase.clone(), Some(endpoint.as_str()))
    });
    let histograms: Vec<_> = service.chain(of_endpoint).collect();

    let tags = judge(&["-i", log, "-listtags"]);
    let mut tags: Vec<&str> = tags.lines().skip(1).collect();
    let mut expected: Vec<&str> = histograms.iter().map(|(tag, ..)| tag.as_str()).collect();
    tags.sort_unstable();
    expected.sort_unstable();
    assert_eq!(tags, expected);

    // A process of Java takes a while: a few of them show all there is to see.
    let total = seen.services["a"].phases["total"];
    for (tag, phase, endpoint) in histograms {
        if !["a/own", "a/total"].contains(&tag.as_str()) && !tag.ends_with("/upstream_wait") {
            continue;
        }
        let mut arguments = vec!["hgrm", "--service", "a", "--phase", &phase];
        arguments.extend(endpoint.iter().flat_map(|address| ["--endpoint", address]));
        let ours = report(&arguments);
        let theirs = judge(&["-i", log, "-tag", &tag, "-outputValueUnitRatio", "10"]);
        // It prints how the log went first.
        let begin = theirs
            .find("       Value     Percentile")
            .expect("a distribution");
        assert_eq!(&theirs[begin..], ours, "{tag}");
        if tag == "a/total" {
            assert!(
                ours.contains(&format!("Total count    = {EXCHANGES:>12}]")),
                "{ours}"
            );
            // And the text says the same, rounded: quantiles and the greatest.
            for (quantile, time) in [(0.5, total.p50), (0.9, total.p90), (1.0, total.max)] {
                let value = at_quantile(&ours, quantile);
                let error = (value - time.as_secs_f64() * 1e6).abs();
                assert!(
                    error <= 0.051f64.max(value * 0.05),
                    "{quantile}: {value} {time:?}"
                );
            }
        }
    }
}

/// The value of the first row of a distribution that reaches `quantile`.
#[track_caller]
fn at_quantile(distribution: &str, quantile: f64) -> f64 {
    let rows = distribution.lines().skip(2).map_while(|line| {
        let mut cells = line.split_whitespace().map(str::parse::<f64>);
        Some((cells.next()?.ok()?, cells.next()?.ok()?))
    });
    let row = rows.into_iter().find(|(_, reached)| quantile <= *reached);
    row.expect("the last row reaches 1").0
}
