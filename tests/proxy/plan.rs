//! What runs, as the admin API shows it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Driver, Proxy, Served, Setup, on_both_drivers};

on_both_drivers! {
    the_plan_has_what_its_document_says
    the_plan_keeps_secrets
    the_plan_says_what_became_of_reloads
    a_service_that_comes_by_a_reload_is_shown_set_and_goes
    ten_thousand_endpoints_are_shown
}

/// The plan as JSON.
#[track_caller]
pub(crate) fn plan(proxy: &Proxy) -> Value {
    let answer = proxy.ask("GET /plan");
    let media_type = answer.head.field("Content-Type");
    assert_eq!(media_type.as_deref(), Some("application/json"));
    serde_json::from_str(&answer.text()).expect("it is JSON")
}

const SECRET: &str = "open-sesame";

/// The service `a` on a name and an address, with something of everything.
fn setup(driver: Driver, origin: &Served) -> Setup {
    let port = origin.address().port();
    let tables = format!(
        "[[service]]\nname = \"a\"\ndomains = [\"a.test\"]\npolicy = \"round_robin\"\n\
         backends = [{{ address = \"127.0.0.1:{port}\", weight = 7 }}, \"localhost:{port}\"]\n\
         [service.probe]\nkind = \"exec\"\ncommand = [\"true\", \"{SECRET}\"]\n\
         [service.fields]\nrequest_set = {{ Authorization = \"{SECRET}\" }}\n\
         response_set = {{ X-Key = \"{SECRET}\" }}\n\
         request_remove = [\"X-Internal\"]\nresponse_remove = [\"X-Trace\"]\n\
         [[route]]\ndomain = \"b.test\"\npath = \"/b/*\"\nmethods = [\"GET\"]\n\
         fields = {{ X-Token = \"{SECRET}\" }}\nquery = {{ token = \"{SECRET}\" }}\n\
         weights = {{ a = 3 }}\n"
    );
    let setup = Setup::new(driver).shards(2).admin("127.0.0.1:0");
    setup.tables(&tables)
}

/// `a.b` of every member, in whichever element of a list it stands.
fn members(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = format!("{path}.{name}");
                members(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                members(element, path, found);
            }
        }
        _ => {}
    }
}

fn the_plan_has_what_its_document_says(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = setup(driver, &origin).start();
    let plan = plan(&proxy);
    let document = include_str!("../../docs/ADMIN.md");
    let shown = document.split("```json\n").nth(1);
    let shown = shown.and_then(|rest| rest.split("```").next());
    let shown: Value = serde_json::from_str(shown.expect("there is one")).expect("it is JSON");
    let of = |value: &Value| {
        let mut found = BTreeSet::new();
        members(value, "", &mut found);
        found
    };
    assert_eq!(of(&plan), of(&shown));

    assert_eq!(plan["pid"], proxy.id());
    assert_eq!(plan["life"], "serving");
    assert_eq!(plan["ready"], true);
    let shards = plan["shards"].as_array().expect("it is a list");
    assert_eq!(shards.len(), 2);
    for shard in shards {
        assert_eq!(shard["runs"], true);
        assert!(1 <= shard["generation"].as_u64().unwrap_or(0), "{shard}");
    }
    let listener = &plan["listeners"][0];
    assert_eq!(listener["address"], proxy.address().to_string());
    assert_eq!(
        (&listener["accepting"], &listener["sockets"]),
        (&true.into(), &2.into())
    );
    let service = &plan["services"][0];
    assert_eq!(service["policy"], "round_robin");
    assert_eq!(service["probe"], "exec");
    let address = origin.address().to_string();
    let first = &service["endpoints"][0];
    assert_eq!(
        (&first["endpoint"], &first["weight"]),
        (&address.as_str().into(), &7.into())
    );
    // Both backends stand for it, and the first has it.
    assert_eq!(first["backend"], address);
    let name = format!("localhost:{}", origin.address().port());
    assert_eq!(service["backends"][1]["backend"], name);
    assert_eq!(service["names"][0]["name"], name);
    let route = &plan["routes"][0];
    assert_eq!(
        route["services"],
        serde_json::json!([{"service": "a", "weight": 3}])
    );
}

fn the_plan_says_what_became_of_reloads(driver: Driver) {
    let origin = Served::saying("a");
    let setup = Setup::new(driver).admin("127.0.0.1:0");
    let setup = setup.service("a", &[origin.address()], "");
    let refused = "a reload is refused";
    let mut proxy = setup.clone().expects_line(refused).start();
    let text = |proxy: &Proxy| proxy.ask("GET /plan?format=text").text();
    assert_eq!(plan(&proxy)["reloads"]["last"]["result"], Value::Null);
    let shown = text(&proxy);
    assert!(
        shown.contains("\nreloads   done 0   refused 0\n"),
        "{shown}"
    );
    let mut client = proxy.client();
    assert_eq!(client.get("a.test", "/").text(), "a");
    assert_eq!(plan(&proxy)["listeners"][0]["clients"], 1);
    let shown = text(&proxy);
    assert!(shown.contains("   accepting   1 clients\n"), "{shown}");
    // The difference has them too.
    let same = setup.config();
    let listener = "[[listener]]\n";
    let changed = same.replacen(
        listener,
        &format!("{listener}service_parameter = \"s\"\n"),
        1,
    );
    proxy.write_config(&changed);
    let answer = proxy.ask("POST /reload").text();
    assert!(
        answer.contains("its socket and its clients stay (1)"),
        "{answer}"
    );
    let reloads = plan(&proxy)["reloads"].clone();
    assert_eq!(
        (&reloads["done"], &reloads["refused"]),
        (&1.into(), &0.into())
    );
    let last = &reloads["last"];
    assert_eq!(
        (&last["result"], &last["changed"]),
        (&"done".into(), &1.into())
    );
    proxy.write_config("nothing is this");
    assert_eq!(proxy.ask("POST /reload").status(), 422);
    let reloads = plan(&proxy)["reloads"].clone();
    assert_eq!(
        (&reloads["refused"], &reloads["last"]["result"]),
        (&1.into(), &"refused".into())
    );
    let refusal = reloads["refusal"].as_str().expect("it is a text");
    assert!(refusal.contains("config.toml:1:"), "{refusal}");
    let shown = text(&proxy);
    assert!(
        shown.contains("\nreloads   done 1   refused 1   last at "),
        "{shown}"
    );
    assert!(
        shown.contains(&format!("  refused: {refusal}\n")),
        "{shown}"
    );
    proxy.reload(&setup);
    assert_eq!(
        client.get("a.test", "/").text(),
        "a",
        "it is connected all the time"
    );
}

fn a_service_that_comes_by_a_reload_is_shown_set_and_goes(driver: Driver) {
    let [one, other] = ["a", "b"].map(Served::saying);
    let setup = Setup::new(driver).shards(2).admin("127.0.0.1:0");
    let setup = setup.expects_line("a service has no healthy endpoint");
    let without = setup.clone().service("z", &[one.address()], "");
    // Before the other one: the places of both are others.
    let with = setup.service("b", &[other.address()], "");
    let with = with.service("z", &[one.address()], "");
    let mut proxy = without.clone().start();
    let names = |proxy: &Proxy| -> Vec<String> {
        let plan = plan(proxy);
        let services = plan["services"].as_array().expect("it is a list").iter();
        services
            .map(|it| it["service"].as_str().expect("it has a name").to_owned())
            .collect()
    };
    let set = |proxy: &Proxy, state: &str| {
        let backend = other.address();
        proxy
            .ask(&format!("POST /service/b/backend/{backend}/{state}"))
            .status()
    };
    for _ in 0..2 {
        assert_eq!(set(&proxy, "drain"), 404, "it is not there");
        assert_eq!(proxy.ask("GET /readyz?service=b").status(), 404);
        proxy.reload(&with);
        assert_eq!(proxy.ask("GET /readyz?service=b").status(), 200);
        assert_eq!(set(&proxy, "drain"), 200);
        assert_eq!(names(&proxy), ["b", "z"]);
        assert_eq!(
            plan(&proxy)["services"][0]["backends"][0]["run_time"],
            "drain"
        );
        let text = proxy.ask("GET /plan?format=text").text();
        assert!(text.contains("   drain (the file: ready)\n"), "{text}");
        assert_eq!(proxy.ask("GET /readyz?service=b").status(), 503);
        assert!(proxy.ask("GET /report").text().contains("\nservice b "));
        proxy.reload(&without);
        assert_eq!(names(&proxy), ["z"]);
        let text = proxy.ask("GET /plan?format=text").text();
        assert!(!text.contains("service b "), "{text}");
        assert_eq!(proxy.client().get("z.test", "/").text(), "a");
    }
}

fn the_plan_keeps_secrets(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = setup(driver, &origin).start();
    let json = proxy.ask("GET /plan?format=json").text();
    let text = proxy.ask("GET /plan?format=text").text();
    for shown in [&json, &text] {
        assert!(!shown.contains(SECRET), "{shown}");
        assert!(shown.contains("X-Token"), "{shown}");
    }
    assert!(
        json.contains("\"request_set\":[\"Authorization\"]"),
        "{json}"
    );
    let port = origin.address().port();
    for line in [
        "\nready\n".to_owned(),
        "\nservice a   round_robin   ".to_owned(),
        format!("\n  backend 127.0.0.1:{port}   weight 7   ready\n"),
        format!("\n  endpoint 127.0.0.1:{port}   weight 7   "),
        format!("\n  name localhost:{port}   "),
        "\nroute b.test /b/* GET field X-Token query token -> a weight 3\n".to_owned(),
        "\ndomain a.test -> a\n".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    let wrong = proxy.ask("GET /plan?format=xml");
    assert_eq!(wrong.status(), 400);
    assert!(
        wrong.text().contains("allowed: json, text"),
        "{}",
        wrong.text()
    );
}

fn ten_thousand_endpoints_are_shown(driver: Driver) {
    let mut services = String::new();
    for service in 0..100 {
        let backends = (1..=100).map(|host| format!("\"127.9.{service}.{host}:9\""));
        let backends = backends.collect::<Vec<_>>().join(", ");
        let line = format!("[[service]]\nname = \"s{service}\"\nbackends = [{backends}]\n");
        services.push_str(&line);
    }
    let proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .tables(&services)
        .start();
    let plan = plan(&proxy);
    let services = plan["services"].as_array().expect("it is a list");
    assert_eq!(services.len(), 100);
    let count = |service: &Value| service["endpoints"].as_array().map_or(0, Vec::len);
    assert_eq!(services.iter().map(count).sum::<usize>(), 10_000);
}
