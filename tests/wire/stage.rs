//! Starts what scripts are played on, plays them on some threads, and holds what was counted.
//!
//! Scripts share a process, and mostly a listener: each has a service of its own, with its own
//! domain and backends, so that what is counted there is its own. What belongs to no service is
//! held in sum. A script that changes `[runtime]` has a process to itself.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::play::{Place, Stand, caught, play};
use crate::script::{BackendKind, Counts, Script};
use crate::support::{Driver, Proxy, Setup};

/// Scripts mostly wait: more of them than there are CPUs.
const THREADS: usize = 16;

/// How often a report is asked for until it says what was counted; each takes a tick.
const REPORTS_MAX: usize = 10;

/// How long a report may take: the thread that makes it stands back for everybody else on the
/// machine, and this one has hundreds of services.
const REPORT: Duration = Duration::from_secs(60);

/// Every script of the folder, by name.
///
/// # Panics
///
/// Where one can't be read.
pub(crate) fn scripts() -> Vec<Script> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire");
    let entries = fs::read_dir(folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "wire"))
        .collect();
    paths.sort();
    let scripts = paths.iter().map(|path| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(path).expect("it was just listed");
        let script = Script::parse(&file, &text);
        let told = script.map_err(|error| format!("{file}:{}: {}", error.line, error.why));
        told.expect("every file is a script")
    });
    scripts.collect()
}

/// Plays all of `scripts`; says what did not hold, and where.
pub(crate) fn perform(driver: Driver, scripts: &[Script]) -> Vec<String> {
    let (alone, together): (Vec<&Script>, Vec<&Script>) = scripts
        .iter()
        .partition(|script| !script.runtime.is_empty());
    let shared = (!together.is_empty()).then_some(together);
    let alone = alone.into_iter().map(|script| vec![script]);
    let groups = shared.into_iter().chain(alone);
    groups
        .flat_map(|scripts| {
            let stage = Stage::new(driver, scripts);
            let mut failures = stage.perform();
            // Its process ends and its log is looked at; a script that has failed may leave
            // something that holds the end up, and is to be told of first.
            let end = caught(|| {
                drop(stage);
                Ok(())
            });
            failures.extend(end.err());
            failures
        })
        .collect()
}

/// One process and the scripts that are played on it.
struct Stage<'a> {
    scripts: Vec<&'a Script>,
    /// Ends before its backends do.
    proxy: Proxy,
    stands: Vec<Vec<Stand>>,
}

impl<'a> Stage<'a> {
    fn new(driver: Driver, scripts: Vec<&'a Script>) -> Self {
        let stands: Vec<Vec<Stand>> = scripts.iter().map(|script| stands(script)).collect();
        let mut setup = Setup::new(driver).admin("127.0.0.1:0");
        for (script, stands) in scripts.iter().zip(&stands) {
            setup = configure(setup, script, stands);
        }
        Self {
            scripts,
            proxy: setup.start(),
            stands,
        }
    }

    /// Plays every script, then looks at what was counted.
    fn perform(&self) -> Vec<String> {
        let next = AtomicUsize::new(0);
        let addresses = self.proxy.addresses();
        let places: Vec<(String, SocketAddr)> = self
            .scripts
            .iter()
            .map(|script| {
                let name = service(script);
                let own = addresses.get(&name).copied();
                (host(script), own.unwrap_or(addresses["web"]))
            })
            .collect();
        let (scripts, stands) = (&self.scripts, &self.stands);
        let failures = thread::scope(|scope| {
            let work = || {
                let mut failures = Vec::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(script) = scripts.get(at) else {
                        return failures;
                    };
                    let (host, listener) = &places[at];
                    let place = Place {
                        host,
                        listener: *listener,
                        backends: &stands[at],
                    };
                    failures.extend(play(script, place).err());
                }
            };
            let threads: Vec<_> = (0..THREADS.min(scripts.len()))
                .map(|_| scope.spawn(work))
                .collect();
            let failures = threads.into_iter().map(|thread| {
                let failures = thread.join();
                failures.expect("a failed script is caught")
            });
            failures.flatten().collect::<Vec<String>>()
        });
        if !failures.is_empty() {
            // What was counted is not what the scripts say either.
            return failures;
        }
        let mut wrong = self.miscounted();
        wrong.extend(self.unsaid());
        wrong
    }

    /// What the report does not say as the scripts do.
    fn miscounted(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for _ in 0..REPORTS_MAX {
            wrong = self.compare(&self.report());
            if wrong.is_empty() {
                break;
            }
        }
        wrong
    }

    fn compare(&self, report: &Value) -> Vec<String> {
        let services = report["services"].as_array().expect("it lists them");
        let mut wrong = Vec::new();
        let mut nowhere: BTreeMap<String, u64> = BTreeMap::new();
        for script in &self.scripts {
            let name = service(script);
            let row = services.iter().find(|row| row["service"] == *name);
            let counted = row.map(counts).unwrap_or_default();
            let mut expected = script.counts.clone();
            for (label, count) in std::mem::take(&mut expected.nowhere) {
                *nowhere.entry(label).or_default() += count;
            }
            if !expected.allow(&counted) {
                let file = &script.file;
                wrong.push(format!(
                    "{file}: expected {expected:?}, counted {counted:?}"
                ));
            }
        }
        let counted = labelled(&report["no_service"]["faults"]);
        if counted != nowhere {
            wrong.push(format!(
                "faults of no service, of all scripts: expected {nowhere:?}, counted {counted:?}"
            ));
        }
        let shard = &report["shards"][0];
        for gauge in ["connections", "waiting"] {
            if shard[gauge] != 0 {
                wrong.push(format!("{gauge}: {} are still there", shard[gauge]));
            }
        }
        wrong
    }

    /// Lines that a script expects in the log and that do not come.
    fn unsaid(&self) -> Vec<String> {
        let expected = self.scripts.iter().flat_map(|script| {
            let parts = script.log.iter();
            parts.map(move |part| (&script.file, part))
        });
        let missing = expected.filter_map(|(file, part)| {
            let look = || {
                // Some come once a second.
                self.proxy.log_line(part);
                Ok(())
            };
            let why = caught(look).err()?;
            Some(format!("{file}: its line {part:?} does not come: {why}"))
        });
        missing.collect()
    }

    fn report(&self) -> Value {
        let mut admin = self.proxy.admin_client();
        let host = self.proxy.admin();
        admin.set_deadline(REPORT);
        // One phase, for nobody looks at them here.
        let answer = admin.get(&host, "/report?format=json&phase=own");
        assert_eq!(answer.status(), 200, "{answer:?}");
        serde_json::from_str(&answer.text()).expect("it is JSON")
    }
}

fn service(script: &Script) -> String {
    format!("w{}", script.number)
}

fn host(script: &Script) -> String {
    service(script) + ".test"
}

fn configure(mut setup: Setup, script: &Script, stands: &[Stand]) -> Setup {
    let name = service(script);
    let addresses: Vec<SocketAddr> = stands.iter().map(|stand| stand.address).collect();
    let own = |text: &str| {
        text.replace("$SERVICE", &name)
            .replace("$HOST", &host(script))
    };
    setup = setup.service(&name, &addresses, &own(&script.service));
    if !script.listener.is_empty() {
        let keys = own(&script.listener);
        setup = setup.tables(&format!(
            "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n{keys}"
        ));
    }
    if !script.runtime.is_empty() {
        setup = setup.runtime(&script.runtime);
    }
    for part in &script.log {
        setup = setup.expects_line(part);
    }
    setup.tables(&own(&script.tables))
}

fn stands(script: &Script) -> Vec<Stand> {
    let stands = script.backends.iter().map(|backend| {
        let name = backend.name.clone();
        match backend.kind {
            BackendKind::Played => Stand::played(name),
            BackendKind::Refuses => Stand::refusing(name),
            BackendKind::Full => Stand::full(name),
        }
    });
    stands.collect()
}

/// The counters of one service, as a report has them.
fn counts(row: &Value) -> Counts {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let (retries, replays) = (number(&row["retries"]), number(&row["replays"]));
    let classes = row["forwarded"].as_object();
    let classes = classes.expect("it counts by class").values();
    Counts {
        forwarded: classes.map(number).sum(),
        own: number(&row["own_answers"]),
        retries: retries..=retries,
        replays: replays..=replays,
        limited: number(&row["limited"]),
        faults: labelled(&row["faults"]),
        nowhere: BTreeMap::new(),
    }
}

fn labelled(faults: &Value) -> BTreeMap<String, u64> {
    let faults = faults.as_object().expect("it counts by label");
    let counted = faults.iter().map(|(label, count)| {
        let count = count.as_u64();
        (label.clone(), count.unwrap_or_default())
    });
    counted.collect()
}
