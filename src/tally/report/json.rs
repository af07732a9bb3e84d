//! The report as JSON, for programs: the same facts as the text, unrounded.
//!
//! docs/REPORT.md shows the shape. Times are microseconds; what was recorded has tenths of them.

use std::time::SystemTime;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::{Excerpt, NameReport, Process, QUANTILES, ServiceReport, counted};
use crate::fault::Fault;
use crate::tally::phase::UNITS_PER_MICROSECOND;
use crate::tally::{
    EjectReason, Limit, NoServiceTotals, Phase, Phases, RetryReason, STATUS_CLASSES, ServiceTotals,
    ShardTotals,
};

/// The excerpt as one line, which ends with a newline.
pub(super) fn json(excerpt: &Excerpt<'_>) -> String {
    let report = &excerpt.report;
    let Process {
        version,
        pid,
        started,
        up,
        driver,
        reloads,
    } = report.process;
    let started = started.duration_since(SystemTime::UNIX_EPOCH);
    let services = report.services.iter();
    let mut value = json!({
        "ringmain": version,
        "pid": pid,
        "started_seconds": started.unwrap_or_default().as_secs_f64(),
        "up_seconds": up.as_secs_f64(),
        "generation": report.generation,
        "driver": driver,
        "reloads": {
            "done": reloads.done,
            "refused": reloads.refused,
            "refusal": reloads.refusal,
        },
        "window": "all",
        "late_shards": report.late,
        "services": services.map(|service| service_value(excerpt, service)).collect::<Value>(),
    });
    if excerpt.whole {
        value["gone_services"] = totals_value(&report.gone);
        value["gone_services"]["phases"] = phases_value(excerpt, report.gone_phases);
        value["no_service"] = no_service_value(&report.shards);
        value["shards"] = report.shards.iter().enumerate().map(shard_value).collect();
    }
    let mut text = value.to_string();
    text.push('\n');
    text
}

fn service_value(excerpt: &Excerpt<'_>, service: &ServiceReport<'_>) -> Value {
    let endpoints = service.endpoints.iter().zip(&service.totals.endpoints);
    let endpoints = endpoints.map(|(endpoint, totals)| {
        json!({
            "endpoint": endpoint.name,
            "standing": endpoint.standing,
            "exchanges": totals.exchanges,
            "forwarded": forwarded_value(&totals.forwarded),
            "faults": totals.faults,
            "connects": totals.connects,
            "ejected_by_shards": totals.ejected,
            "ejections": ejections_value(&totals.ejections),
            "phases": phases_value(excerpt, endpoint.phases),
        })
    });
    let mut value = json!({ "service": service.name });
    merge(&mut value, totals_value(&service.totals));
    if !excerpt.of_endpoints {
        value["phases"] = phases_value(excerpt, service.phases);
    }
    if !excerpt.of_endpoints && !service.names.is_empty() {
        value["names"] = service.names.iter().map(name_value).collect();
    }
    let backends = service.backends.iter().zip(&service.totals.backends);
    let backends = backends.filter(|_| !excerpt.of_endpoints);
    let backends = backends.map(|(backend, totals)| {
        json!({
            "backend": backend,
            "succeeded": totals.succeeded,
            "failed": totals.failed,
            "attempts": totals.attempts,
        })
    });
    value["backends"] = backends.collect();
    value["endpoints"] = endpoints.collect();
    value
}

fn name_value(name: &NameReport<'_>) -> Value {
    let failure = name.failure.as_ref().map(|failure| {
        json!({
            "seconds": failure.lasted.as_secs_f64(),
            "times": failure.times,
            "reason": failure.reason,
        })
    });
    json!({
        "name": name.name,
        "addresses": name.addresses,
        "remarks": name.remarks,
        "failing": failure,
    })
}

fn totals_value(totals: &ServiceTotals) -> Value {
    json!({
        "exchanges": totals.exchanges,
        "forwarded": forwarded_value(&totals.forwarded),
        "own_answers": totals.own_answers,
        "retries": totals.retries.iter().sum::<u64>(),
        "retries_by_reason": retries_value(&totals.retries),
        "retries_refused": totals.retries_refused,
        "replays": totals.replays,
        "limited": totals.limited,
        "failed_open": totals.failed_open,
        "shed": shed_value(&totals.shed),
        "forgotten": totals.clients_forgotten,
        "tunnels": totals.tunnels,
        "tunnels_open": totals.tunnels_open,
        "tunnel_bytes": {"up": totals.tunnel_bytes_up, "down": totals.tunnel_bytes_down},
        "faults": faults_value(&totals.faults),
    })
}

fn no_service_value(shards: &[ShardTotals]) -> Value {
    let mut totals = NoServiceTotals::default();
    for shard in shards {
        totals += &shard.no_service;
    }
    json!({
        "exchanges": totals.exchanges,
        "own_answers": totals.own_answers,
        "faults": faults_value(&totals.faults),
    })
}

fn shard_value((number, totals): (usize, &ShardTotals)) -> Value {
    json!({
        "shard": number,
        "connections": totals.clients_open,
        "waiting": totals.exchanges_waiting,
        "legs": {"running": totals.legs_running, "asleep": totals.legs_asleep},
        "accept_failures": totals.accept_failures,
        "unproxied": totals.clients_unproxied,
        "given_up": {"clients": totals.clients_given_up, "upstreams": totals.upstreams_given_up},
        "exchanges": totals.exchanges,
        "lived_seconds": totals.lived.as_secs_f64(),
        "busy_seconds": totals.busy.as_secs_f64(),
    })
}

fn forwarded_value(forwarded: &[u64; STATUS_CLASSES]) -> Value {
    let classes = (1..).zip(forwarded);
    let classes = classes.map(|(class, count)| (format!("{class}xx"), json!(count)));
    Value::Object(classes.collect())
}

fn retries_value(retries: &[u64; RetryReason::COUNT]) -> Value {
    let reasons = RetryReason::ALL.into_iter().zip(retries);
    let reasons = reasons.map(|(reason, count)| (reason.label().to_owned(), json!(count)));
    Value::Object(reasons.collect())
}

fn ejections_value(ejections: &[u64; EjectReason::COUNT]) -> Value {
    let reasons = EjectReason::ALL.into_iter().zip(ejections);
    let reasons = reasons.map(|(reason, count)| (reason.label().to_owned(), json!(count)));
    Value::Object(reasons.collect())
}

fn shed_value(shed: &[u64; Limit::COUNT]) -> Value {
    let limits = Limit::ALL.into_iter().zip(shed);
    let limits = limits.map(|(limit, count)| (limit.label().to_owned(), json!(count)));
    Value::Object(limits.collect())
}

fn faults_value(faults: &[u64; Fault::COUNT]) -> Value {
    let faults = counted(faults).map(|(fault, count)| (fault.label().to_owned(), json!(count)));
    Value::Object(faults.collect())
}

/// Only phases that were recorded and are asked for.
fn phases_value(excerpt: &Excerpt<'_>, phases: &Phases) -> Value {
    let shown = Phase::ALL.into_iter().filter(|phase| excerpt.shows(*phase));
    let recorded = shown.filter_map(|phase| Some((phase, phases.histogram(phase)?)));
    let phases = recorded.map(|(phase, times)| (phase.label().to_owned(), times_value(times)));
    Value::Object(phases.collect())
}

fn times_value(histogram: &Histogram<u64>) -> Value {
    let mut times = Map::new();
    times.insert("count".to_owned(), json!(histogram.len()));
    times.insert("min".to_owned(), json!(microseconds(histogram.min())));
    // A nanosecond is far below what a mean of rounded times can tell.
    let mean = histogram.mean() / UNITS_PER_MICROSECOND as f64;
    times.insert("mean".to_owned(), json!((mean * 1_000.0).round() / 1_000.0));
    let quantiles = QUANTILES.iter().map(|(_, quantile)| *quantile);
    let values = histogram.value_at_quantiles(quantiles);
    for ((name, _), value) in QUANTILES.iter().zip(values) {
        times.insert((*name).to_owned(), json!(microseconds(value)));
    }
    times.insert("max".to_owned(), json!(microseconds(histogram.max())));
    Value::Object(times)
}

fn microseconds(units: u64) -> f64 {
    units as f64 / UNITS_PER_MICROSECOND as f64
}

/// Adds the members of `other`, an object too.
fn merge(value: &mut Value, other: Value) {
    if let (Value::Object(value), Value::Object(other)) = (value, other) {
        value.extend(other);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tally::report::{EndpointReport, NameFailure, Report, Selection};
    use crate::tally::{BackendTotals, EndpointTotals, Recorder};

    #[test]
    fn the_shape_is_that_of_the_document() {
        let mut recorder = Recorder::of_service();
        for nanoseconds in [1_200, 2_400, 9_100_000] {
            recorder.record(Phase::Total, nanoseconds);
        }
        let mut phases = Phases::of_service();
        phases.add(&recorder);
        let mut totals = ServiceTotals {
            exchanges: 4,
            forwarded: [0, 2, 0, 0, 1],
            own_answers: 1,
            shed: [3, 0, 1, 0, 0, 0],
            clients_forgotten: 2,
            tunnels: 5,
            tunnels_open: 3,
            tunnel_bytes_up: 70,
            tunnel_bytes_down: 80,
            retries: [1, 2, 0, 4],
            retries_refused: 8,
            failed_open: 6,
            backends: vec![BackendTotals {
                succeeded: 3,
                failed: 1,
                attempts: 9,
            }],
            endpoints: vec![EndpointTotals {
                exchanges: 3,
                ejections: [2, 1],
                ejected: 1,
                ..EndpointTotals::default()
            }],
            ..ServiceTotals::default()
        };
        totals.faults[Fault::ConnectionRefused.index()] = 1;
        let nothing = Phases::of_service();
        let remarks = ["of 3 addresses 2 are used".to_owned()];
        let report = Report {
            process: Process {
                version: "0.1.0",
                pid: 4711,
                started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000),
                up: Duration::from_millis(1_500),
                driver: "epoll",
                reloads: Default::default(),
            },
            generation: 1,
            late: vec![0],
            services: vec![ServiceReport {
                name: "a",
                totals,
                phases: &phases,
                backends: vec!["127.0.0.1:9090"],
                endpoints: vec![EndpointReport {
                    name: "127.0.0.1:9090",
                    standing: "healthy",
                    phases: &nothing,
                }],
                names: vec![
                    NameReport {
                        name: "good.test:80".to_owned(),
                        addresses: 2,
                        remarks: &remarks,
                        failure: None,
                    },
                    NameReport {
                        name: "bad.test:80".to_owned(),
                        addresses: 0,
                        remarks: &[],
                        failure: Some(NameFailure {
                            lasted: Duration::from_millis(2_500),
                            times: 3,
                            reason: "no such name (NXDOMAIN)",
                        }),
                    },
                ],
            }],
            gone: ServiceTotals::default(),
            gone_phases: &nothing,
            shards: vec![ShardTotals::default()],
        };
        let excerpt = |service: Option<&str>| {
            let selection = Selection {
                service: service.map(str::to_owned),
                ..Selection::default()
            };
            report.clone().excerpt(&selection).unwrap()
        };
        let forwarded =
            |two: u64, five: u64| json!({"1xx": 0, "2xx": two, "3xx": 0, "4xx": 0, "5xx": five});
        let retries = |[connect, terminated, status, attempt_timeout]: [u64; 4]| {
            json!({
                "connect": connect, "terminated": terminated, "status": status,
                "attempt_timeout": attempt_timeout,
            })
        };
        let shed = |client_rate: u64, rate: u64| {
            json!({
                "client_rate": client_rate, "client_concurrent": 0, "rate": rate, "concurrent": 0,
                "legs_max": 0, "kept_bytes_max": 0,
            })
        };
        let names = json!([
            {
                "name": "good.test:80", "addresses": 2, "failing": null,
                "remarks": ["of 3 addresses 2 are used"],
            },
            {"name": "bad.test:80", "addresses": 0, "remarks": [], "failing": {
                "seconds": 2.5, "times": 3, "reason": "no such name (NXDOMAIN)",
            }},
        ]);
        let backends = json!([{
            "backend": "127.0.0.1:9090", "succeeded": 3, "failed": 1, "attempts": 9,
        }]);
        let none = json!({});
        let mut service = json!({
            "service": "a", "exchanges": 4, "forwarded": forwarded(2, 1), "own_answers": 1,
            "retries": 7, "retries_by_reason": retries([1, 2, 0, 4]), "retries_refused": 8,
            "replays": 0, "limited": 0, "failed_open": 6, "shed": shed(3, 1),
            "forgotten": 2, "tunnels": 5, "tunnels_open": 3,
            "tunnel_bytes": {"up": 70, "down": 80},
            "faults": {"connection_refused": 1},
        });
        merge(
            &mut service,
            json!({
                "phases": {"total": {
                    "count": 3, "min": 1.2, "mean": 3033.733, "p50": 2.4, "p90": 9100.7,
                    "p99": 9100.7, "p99.9": 9100.7, "p99.99": 9100.7, "max": 9100.7,
                }},
                "names": names,
                "backends": backends,
                "endpoints": [{
                    "endpoint": "127.0.0.1:9090", "standing": "healthy", "exchanges": 3,
                    "forwarded": forwarded(0, 0), "faults": 0, "connects": 0,
                    "ejected_by_shards": 1, "ejections": {"consecutive_faults": 2, "latency": 1},
                    "phases": none,
                }],
            }),
        );
        let mut expected = json!({
            "ringmain": "0.1.0", "pid": 4711,
            "started_seconds": 1000.0, "up_seconds": 1.5, "generation": 1,
            "driver": "epoll", "reloads": {"done": 0, "refused": 0, "refusal": null},
            "window": "all", "late_shards": [0],
            "services": [service],
        });
        let parsed = |text: String| -> Value { serde_json::from_str(&text).unwrap() };
        assert_eq!(parsed(json(&excerpt(Some("a")))), expected);
        merge(
            &mut expected,
            json!({
                "gone_services": {
                    "exchanges": 0, "forwarded": forwarded(0, 0), "own_answers": 0, "retries": 0,
                    "retries_by_reason": retries([0; 4]), "retries_refused": 0, "replays": 0,
                    "limited": 0, "failed_open": 0, "shed": shed(0, 0), "forgotten": 0,
                    "tunnels": 0, "tunnels_open": 0, "tunnel_bytes": {"up": 0, "down": 0},
                    "faults": none, "phases": none,
                },
                "no_service": {"exchanges": 0, "own_answers": 0, "faults": none},
                "shards": [{
                    "shard": 0, "connections": 0, "waiting": 0,
                    "legs": {"running": 0, "asleep": 0}, "accept_failures": 0,
                    "unproxied": 0,
                    "given_up": {"clients": 0, "upstreams": 0}, "exchanges": 0,
                    "lived_seconds": 0.0, "busy_seconds": 0.0,
                }],
            }),
        );
        assert_eq!(parsed(json(&excerpt(None))), expected);
    }
}
