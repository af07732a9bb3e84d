//! What the process says on standard error.

use crate::support::{Driver, Origin, Served, Setup, on_both_drivers};

on_both_drivers! {
    at_info_no_exchange_leaves_a_line
    at_debug_the_picked_endpoint_and_the_unknown_host_are_named
    json_lines_are_objects
}

fn at_info_no_exchange_leaves_a_line(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = driver.proxy_for(origin.address());
    let before = proxy.log_lines();
    let mut client = proxy.client();
    for _ in 0..10 {
        assert_eq!(client.get("a.test", "/").status(), 200);
    }
    proxy.report_where(|report| report.exchanges() == 10);
    assert_eq!(proxy.log_lines(), before);
}

fn at_debug_the_picked_endpoint_and_the_unknown_host_are_named(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = Setup::new(driver)
        .log("level = \"debug\"")
        .expects_line("destination_not_found")
        .service("a", &[origin.address()], "")
        .start();
    let mut client = proxy.client();
    assert_eq!(client.get("a.test", "/").status(), 200);
    proxy.log_line(&format!("endpoint={}", origin.address()));
    let hostile = "nobody.test";
    assert_eq!(client.get(hostile, "/some/path").status(), 404);
    let line = proxy.log_line("host=nobody.test");
    assert!(line.contains("path=/some/path"), "{line}");
}

fn json_lines_are_objects(driver: Driver) {
    // The lines that a test waits for are in text format, so that this process runs to its end
    // instead.
    let config = format!(
        "[runtime]\nshards = 1\npin = \"off\"\ndriver = \"{}\"\n[log]\nformat = \"json\"\n\
         [admin]\naddress = \"\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[service]]\nname = \"a\"\ndomains = [\"a.test\"]\nbackends = [\"{}\"]\n",
        driver.label(),
        Origin::refused()
    );
    let lines = crate::support::start_and_stop(&config, "\"ready\"");
    assert!(2 <= lines.len(), "{lines:?}");
    for line in &lines {
        check_object(line);
    }
}

/// One JSON object on one line: quotes are paired, braces are balanced outside of them, nothing
/// follows.
#[track_caller]
fn check_object(line: &str) {
    let (mut depth, mut quoted, mut escaped) = (0_i32, false, false);
    for (place, character) in line.char_indices() {
        match (quoted, escaped, character) {
            (true, true, _) => escaped = false,
            (true, false, '\\') => escaped = true,
            (_, false, '"') => quoted = !quoted,
            (false, _, '{') => depth += 1,
            (false, _, '}') => depth -= 1,
            _ => {}
        }
        let last = place + character.len_utf8() == line.len();
        assert_eq!(depth == 0, last, "{line}");
    }
    assert!(!quoted && line.contains("\"level\""), "{line}");
}
