//! `ringmain doctor`: what this machine lets ringmain do, and what to type where that is little.
//!
//! Each check reads one thing and judges it by a pure function. `fail` means that ringmain can't
//! run here, `warn` that it will, and worse than it could.

mod ring;

use std::fs;
use std::io;
use std::process::ExitCode;
use std::thread;

use clap::Args as ClapArgs;
use clap::builder::styling::AnsiColor;

use super::Failure;

/// Descriptors below which not even a test runs: logs, listeners, a ring a shard, and a few
/// connections.
const FILES_MIN: u64 = 64;

/// Descriptors that a busy proxy should have: two for each exchange.
const FILES_GOOD: u64 = 65_536;

/// Connections that should be able to wait for an accept.
const SOMAXCONN_GOOD: u64 = 4_096;

/// Local ports for connections to one endpoint.
const PORTS_GOOD: u64 = 28_000;

/// `ringmain doctor`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  ringmain doctor || echo 'ringmain can not run here'")]
pub(super) struct Args {}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    grade: Grade,
    subject: &'static str,
    text: String,
    /// What to type; none where there is nothing to better.
    advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grade {
    Ok,
    Warn,
    Fail,
}

impl Finding {
    fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self {
            grade: Grade::Ok,
            subject,
            text: text.into(),
            advice: None,
        }
    }

    fn warn(subject: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            grade: Grade::Warn,
            advice: Some(advice.into()),
            ..Self::ok(subject, text)
        }
    }

    fn fail(subject: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            grade: Grade::Fail,
            ..Self::warn(subject, text, advice)
        }
    }
}

/// Prints every finding; exit code 1 where one of them keeps ringmain from running.
pub(super) fn run() -> Result<ExitCode, Failure> {
    let findings = examine();
    let failed = findings.iter().any(|finding| finding.grade == Grade::Fail);
    match write(&mut anstream::stdout().lock(), &findings) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::at_run_time(format!("standard output: {error}")))
        }
        _ if failed => Ok(ExitCode::FAILURE),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn write(out: &mut impl io::Write, findings: &[Finding]) -> io::Result<()> {
    for finding in findings {
        let (word, style) = match finding.grade {
            Grade::Ok => ("ok  ", AnsiColor::Green.on_default()),
            Grade::Warn => ("warn", AnsiColor::Yellow.on_default()),
            Grade::Fail => ("fail", AnsiColor::Red.on_default().bold()),
        };
        let Finding { subject, text, .. } = finding;
        writeln!(out, "{style}{word}{style:#}  {subject:<12}  {text}")?;
        if let Some(advice) = &finding.advice {
            writeln!(out, "{:20}type: {advice}", "")?;
        }
    }
    Ok(())
}

fn examine() -> Vec<Finding> {
    let limits = read("/proc/self/limits");
    let mut findings = vec![Finding::ok("kernel", read("/proc/sys/kernel/osrelease"))];
    findings.extend(ring::examine(
        &read("/proc/sys/kernel/io_uring_disabled"),
        &limits,
    ));
    findings.push(files(soft_limit(&limits, "Max open files")));
    findings.push(cpus(&read("/proc/self/status")));
    findings.push(somaxconn(&read("/proc/sys/net/core/somaxconn")));
    findings.push(ports(&read("/proc/sys/net/ipv4/ip_local_port_range")));
    findings.push(tw_reuse(&read("/proc/sys/net/ipv4/tcp_tw_reuse")));
    findings
}

/// What a file of /proc says, without its line feed; empty where it can't be read.
fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The soft limit in the row of proc(5)'s `limits` that begins with `row`: `Max open files  SOFT
/// HARD  files`.
fn soft_limit(limits: &str, row: &str) -> Option<u64> {
    let values = limits.lines().find_map(|line| line.strip_prefix(row))?;
    match values.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn files(limit: Option<u64>) -> Finding {
    const SUBJECT: &str = "files";
    let Some(limit) = limit else {
        return unknown(SUBJECT, "RLIMIT_NOFILE", "ulimit -n");
    };
    // A client and its upstream connection take one each.
    let text = match limit {
        u64::MAX => "RLIMIT_NOFILE is unlimited".to_owned(),
        limit => format!("RLIMIT_NOFILE {limit}: about {} clients at once", limit / 2),
    };
    let advice = format!("ulimit -n {FILES_GOOD}    (systemd: LimitNOFILE={FILES_GOOD})");
    match limit {
        limit if limit < FILES_MIN => Finding::fail(SUBJECT, text, advice),
        limit if limit < FILES_GOOD => Finding::warn(SUBJECT, text, advice),
        _ => Finding::ok(SUBJECT, text),
    }
}

/// The CPUs of the affinity mask, and how many of them the cgroup's quota leaves.
fn cpus(status: &str) -> Finding {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    match (mask, thread::available_parallelism()) {
        (Some(mask), Ok(usable)) => cpus_of(mask.trim(), usable.get()),
        _ => unknown("CPUs", "the affinity mask", "nproc; [runtime] shards = 1"),
    }
}

/// `mask` is a list as cpuset(7) writes it: `0-3,8`.
fn cpus_of(mask: &str, usable: usize) -> Finding {
    const SUBJECT: &str = "CPUs";
    let text = format!("{usable} shards by default; affinity mask {mask}");
    let allowed = mask.split(',').map(cpus_in).sum();
    if usable < allowed {
        let text = format!("{text}; a cgroup quota leaves {usable} of {allowed}");
        let advice = "cat /sys/fs/cgroup/cpu.max    (shards are not pinned under a quota)";
        return Finding::warn(SUBJECT, text, advice);
    }
    Finding::ok(SUBJECT, text)
}

/// How many CPUs a part of the list names: `8` one, `0-3` four.
fn cpus_in(part: &str) -> usize {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (last + 1).saturating_sub(first),
        _ => 0,
    }
}

fn somaxconn(value: &str) -> Finding {
    const SUBJECT: &str = "somaxconn";
    let advice = format!("sysctl -w net.core.somaxconn={SOMAXCONN_GOOD}");
    match value.parse::<u64>() {
        Ok(most) if most < SOMAXCONN_GOOD => {
            let text = format!("{most} connections may wait for an accept");
            Finding::warn(SUBJECT, text, advice)
        }
        Ok(most) => Finding::ok(
            SUBJECT,
            format!("{most} connections may wait for an accept"),
        ),
        Err(_) => unknown(SUBJECT, "net.core.somaxconn", "sysctl net.core.somaxconn"),
    }
}

fn ports(value: &str) -> Finding {
    const SUBJECT: &str = "ports";
    const NAME: &str = "net.ipv4.ip_local_port_range";
    let mut ends = value.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) else {
        return unknown(SUBJECT, NAME, &format!("sysctl {NAME}"));
    };
    let count = (last + 1).saturating_sub(first);
    let text = format!("{first} to {last}: {count} connections to one endpoint");
    if count < PORTS_GOOD {
        return Finding::warn(SUBJECT, text, format!("sysctl -w {NAME}=\"10240 65535\""));
    }
    Finding::ok(SUBJECT, text)
}

fn tw_reuse(value: &str) -> Finding {
    const SUBJECT: &str = "tcp_tw_reuse";
    match value {
        "0" => Finding::warn(
            SUBJECT,
            "0: a port rests for a minute after its connection",
            "sysctl -w net.ipv4.tcp_tw_reuse=1",
        ),
        "1" => Finding::ok(SUBJECT, "1: ports are used again at once"),
        "2" => Finding::ok(SUBJECT, "2: ports are used again at once on loopback"),
        _ => unknown(
            SUBJECT,
            "net.ipv4.tcp_tw_reuse",
            "sysctl net.ipv4.tcp_tw_reuse",
        ),
    }
}

fn unknown(subject: &'static str, name: &str, advice: &str) -> Finding {
    Finding::warn(subject, format!("{name} can't be read"), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(finding: &Finding, grade: Grade, part: &str) {
        assert_eq!(finding.grade, grade, "{finding:?}");
        assert!(finding.text.contains(part), "{finding:?}");
        assert_eq!(finding.advice.is_some(), grade != Grade::Ok, "{finding:?}");
    }

    #[test]
    fn a_limit_is_read_from_its_row() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\n\
                      Max locked memory         8388608      unlimited    bytes\n\
                      Max open files            1024         524288       files\n\
                      Max cpu time              unlimited    unlimited    seconds\n";
        assert_eq!(soft_limit(limits, "Max open files"), Some(1_024));
        assert_eq!(soft_limit(limits, "Max locked memory"), Some(8_388_608));
        assert_eq!(soft_limit(limits, "Max cpu time"), Some(u64::MAX));
        assert_eq!(soft_limit(limits, "Max processes"), None);
    }

    #[test]
    fn descriptors_are_judged_by_what_they_allow() {
        check(&files(Some(32)), Grade::Fail, "about 16 clients");
        check(&files(Some(1_024)), Grade::Warn, "about 512 clients");
        check(&files(Some(65_536)), Grade::Ok, "about 32768 clients");
        check(&files(Some(u64::MAX)), Grade::Ok, "unlimited");
        check(&files(None), Grade::Warn, "can't be read");
    }

    #[test]
    fn a_quota_below_the_mask_is_told() {
        check(
            &cpus_of("0-1", 2),
            Grade::Ok,
            "2 shards by default; affinity mask 0-1",
        );
        check(&cpus_of("0-2,8", 2), Grade::Warn, "leaves 2 of 4");
        check(
            &cpus("Name:\tringmain\nCpus_allowed_list:\t0\n"),
            Grade::Ok,
            "mask 0",
        );
        check(&cpus(""), Grade::Warn, "can't be read");
    }

    #[test]
    fn sysctls_are_judged_by_what_they_allow() {
        check(&somaxconn("4096"), Grade::Ok, "4096");
        check(&somaxconn("128"), Grade::Warn, "128");
        check(&somaxconn(""), Grade::Warn, "can't be read");
        check(&ports("32768\t60999"), Grade::Ok, "28232 connections");
        check(&ports("60000 60999"), Grade::Warn, "1000 connections");
        check(&ports("32768"), Grade::Warn, "can't be read");
        check(&tw_reuse("0"), Grade::Warn, "rests");
        check(&tw_reuse("2"), Grade::Ok, "loopback");
        check(&tw_reuse(""), Grade::Warn, "can't be read");
    }

    #[test]
    fn a_line_is_grade_subject_text_and_what_to_type_below() {
        let findings = [
            Finding::ok("kernel", "6.18"),
            Finding::warn("files", "few", "ulimit"),
        ];
        let mut out = Vec::new();
        write(&mut anstream::StripStream::new(&mut out), &findings).expect("a Vec takes it");
        assert_eq!(
            String::from_utf8_lossy(&out),
            "ok    kernel        6.18\n\
             warn  files         few\n                    type: ulimit\n"
        );
    }
}
