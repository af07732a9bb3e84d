//! What says that another configuration may be there, and what of a process it changes.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::{
    Driver, Origin, Proxy, Served, Setup, Wire, eventually, on_both_drivers, signalled,
};

on_both_drivers! {
    a_change_of_the_file_is_loaded
    a_link_that_is_swapped_is_a_change
    a_file_that_is_missing_is_waited_for
    the_watch_is_turned_on_and_off
    the_log_is_another_one
    the_environment_stays_on_top
    the_admin_api_moves
    what_a_process_keeps_is_told
}

const REFUSED: &str = "a reload is refused";
const NOT_FOUND: &str = "destination_not_found";

fn a_change_of_the_file_is_loaded(driver: Driver) {
    let origin = Served::saying("a");
    let begin = Setup::new(driver).watched();
    let setup = begin.service("a", &[origin.address()], "");
    let mut proxy = setup.clone().expects_line(NOT_FOUND).start();
    // As editors do: another file is renamed over it.
    let both = setup.service("b", &[origin.address()], "");
    proxy.write_config(&both.config());
    proxy.reloads_since(0);
    assert_eq!(proxy.client().get("b.test", "/").text(), "a");
    // In place.
    let before = proxy.log_lines().len();
    let all = both.clone().service("c", &[origin.address()], "");
    fs::write(proxy.config_file(), all.config()).expect("it is ours");
    proxy.reloads_since(before);
    assert_eq!(proxy.client().get("c.test", "/").text(), "a");
    // The same text is no change: the one reload is that of the text behind it.
    proxy.write_config(&all.config());
    fs::write(proxy.config_file(), both.config()).expect("it is ours");
    proxy.log_has(3, "reloaded");
    proxy.log_line("reload: removed service c");
    assert_eq!(proxy.client().get("c.test", "/").status(), 404);
}

fn a_link_that_is_swapped_is_a_change(driver: Driver) {
    let origin = Served::saying("a");
    let begin = Setup::new(driver).watched();
    let setup = begin.service("a", &[origin.address()], "");
    let mut proxy = setup.clone().expects_line(NOT_FOUND).start();
    let file = proxy.config_file();
    let folder = file.parent().expect("it is in a folder").to_owned();
    // As a ConfigMap of Kubernetes is mounted.
    let version = |name: &str, setup: &Setup| {
        fs::create_dir(folder.join(name)).expect("the folder is writable");
        let file = folder.join(name).join("config.toml");
        fs::write(file, setup.config()).expect("the folder is writable");
        symlink(name, folder.join("..next")).expect("the folder is writable");
        fs::rename(folder.join("..next"), folder.join("..data")).expect("it is ours");
    };
    let both = setup.clone().service("b", &[origin.address()], "");
    version("..1", &both);
    symlink("..data/config.toml", folder.join("..link")).expect("the folder is writable");
    fs::rename(folder.join("..link"), &file).expect("it is ours");
    proxy.reloads_since(0);
    assert_eq!(proxy.client().get("b.test", "/").text(), "a");
    for (name, setup) in [("..2", &setup), ("..3", &both), ("..4", &setup)] {
        let before = proxy.log_lines().len();
        version(name, setup);
        proxy.reloads_since(before);
    }
    assert_eq!(proxy.client().get("b.test", "/").status(), 404);
}

fn a_file_that_is_missing_is_waited_for(driver: Driver) {
    let missing = "the configuration cannot be read; it is waited for";
    let origin = Served::saying("a");
    let setup = Setup::new(driver).watched();
    let setup = setup.service("a", &[origin.address()], "");
    let mut proxy = setup.clone().expects_line(missing).start();
    let before = proxy.log_lines().len();
    fs::remove_file(proxy.config_file()).expect("it is ours");
    proxy.log_line(missing);
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
    let both = setup.service("b", &[origin.address()], "");
    fs::write(proxy.config_file(), both.config()).expect("the folder is writable");
    proxy.reloads_since(before);
    assert_eq!(proxy.client().get("b.test", "/").text(), "a");
}

fn the_watch_is_turned_on_and_off(driver: Driver) {
    let origin = Served::saying("a");
    let setup = Setup::new(driver).service("a", &[origin.address()], "");
    let mut proxy = setup.clone().start();
    let watches = |proxy: &Proxy| proxy.threads().iter().any(|name| name == "watch");
    assert!(!watches(&proxy));
    proxy.reload(&setup.clone().watched());
    eventually(|| watches(&proxy));
    let before = proxy.log_lines().len();
    proxy.write_config(&setup.config());
    proxy.reloads_since(before);
    eventually(|| !watches(&proxy));
}

fn the_log_is_another_one(driver: Driver) {
    let origin = Served::saying("a");
    let setup = Setup::new(driver).service("a", &[origin.address()], "");
    let mut proxy = setup.clone().start();
    let log = proxy.config_file().with_file_name("log");
    let text = format!(
        "level = \"debug\"\nto = [\"stderr\", \"{}\"]",
        log.display()
    );
    let next = setup.clone().log(text.leak());
    proxy.reload(&next);
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
    // Shards follow as well.
    proxy.log_line(&format!("endpoint={}", origin.address()));
    let read = || fs::read_to_string(&log).unwrap_or_default();
    eventually(|| read().contains(&format!("endpoint={}", origin.address())));
    fs::rename(&log, log.with_extension("1")).expect("it is ours");
    // Nothing but the signal of whoever has moved it away.
    proxy.reload(&next);
    eventually(|| read().contains("reloaded"));
    proxy.reload(&setup);
    let lines = proxy.log_lines().len();
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
    proxy.report_where(|report| report.exchanges() == 2);
    assert_eq!(proxy.log_lines().len(), lines);
}

fn the_environment_stays_on_top(driver: Driver) {
    let origin = Served::saying("a");
    let setup = Setup::new(driver).service("a", &[origin.address()], "");
    let start = setup.clone().environment("LOG_LEVEL", "debug");
    let mut proxy = start.start();
    proxy.reload(&setup.service("b", &[origin.address()], ""));
    assert_eq!(proxy.client().get("b.test", "/").text(), "a");
    proxy.log_line(&format!("endpoint={}", origin.address()));
}

fn the_admin_api_moves(driver: Driver) {
    let origin = Served::saying("a");
    let setup = Setup::new(driver).service("a", &[origin.address()], "");
    let mut proxy = setup.clone().expects_line(REFUSED).start();
    let path = proxy.config_file().with_file_name("admin.sock");
    let unix = setup.clone().admin(&format!("unix:{}", path.display()));
    proxy.reload(&unix);
    assert!(path.exists());
    let taken = setup.clone().admin(&origin.address().to_string());
    proxy.write_config(&taken.config());
    proxy.signal("HUP");
    assert!(proxy.log_line(REFUSED).contains("the admin API: "));
    assert!(path.exists());
    proxy.reload(&setup.clone().admin("127.0.0.1:0"));
    eventually(|| !path.exists());
    let line = proxy.log_line("the admin API answers address=127.0.0.1");
    let (_, address) = line.rsplit_once('=').expect("it names its address");
    let mut client = Wire::connect(address.trim_matches('"').parse().expect("it is one"));
    assert_eq!(client.get("127.0.0.1", "/report").status(), 200);
    proxy.reload(&setup);
}

fn what_a_process_keeps_is_told(driver: Driver) {
    let keeps = "a running process keeps these";
    let origin = Served::saying("a");
    let setup = Setup::new(driver).service("a", &[origin.address()], "");
    let mut proxy = setup.clone().expects_line(keeps).start();
    let both = setup.service("b", &[origin.address()], "").shards(3);
    proxy.reload(&both);
    assert!(proxy.log_line(keeps).contains("keys=shards"));
    assert_eq!(proxy.report().generation, 2);
    assert_eq!(proxy.client().get("b.test", "/").text(), "a");
}

#[test]
fn without_a_file_there_is_nothing_to_load() {
    let origin = Origin::refused().to_string();
    let arguments = [
        "run",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "",
        "--backend",
        &origin,
    ];
    let lines = signalled(&arguments, "ready", "HUP", REFUSED);
    let line = lines.iter().find(|line| line.contains(REFUSED));
    let line = line.expect("it was waited for");
    assert!(
        line.contains("WARN") && line.contains("there is no file to load from"),
        "{line}"
    );
}
