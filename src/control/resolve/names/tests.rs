//! Answers, each with what is said of it and which services it changes.

use super::*;
use crate::config;

/// Two services with `shared.test`, at two ports, and one of its own.
const CONFIG: &str = r#"
    [[listener]]
    name = "web"
    address = "127.0.0.1:8080"
    service = "a"
    [[service]]
    name = "a"
    backends = ["Shared.test:80", "127.0.0.1:9090", { address = "_a._tcp.test", srv = true }]
    [[service]]
    name = "b"
    backends = ["shared.test:80", "shared.test:81"]
"#;

struct Case {
    names: Names,
    resolved: BTreeMap<BackendAddress, Vec<Resolved>>,
    begin: Instant,
}

impl Case {
    fn new() -> Self {
        let config = config::parse("config.toml", CONFIG).expect("the text breaks no rule");
        #[expect(clippy::disallowed_methods, reason = "any begin will do")]
        let begin = Instant::now();
        Self {
            names: Names::of(&config),
            resolved: BTreeMap::new(),
            begin,
        }
    }

    fn hear(&mut self, seconds: u64, answer: Answer) -> Heard {
        let now = self.begin + Duration::from_secs(seconds);
        self.names.hear(answer, &mut self.resolved, now)
    }

    /// What `shared.test:PORT` stands for.
    fn stands_for(&self, port: u16) -> Vec<String> {
        let name = BackendAddress::Host("shared.test".to_owned(), port);
        let found = self.resolved.get(&name).into_iter().flatten();
        found.map(|found| found.address.to_string()).collect()
    }
}

fn shared() -> Question {
    Question::Host("shared.test".to_owned())
}

fn answer(addresses: &[&str]) -> Answer {
    let addresses = addresses.iter().map(|address| Resolved {
        address: SocketAddr::new(address.parse().expect("it is an address"), 0),
        weight: 1,
        backup: false,
    });
    Answer {
        question: shared(),
        found: Ok(Found {
            addresses: addresses.collect(),
            remarks: Vec::new(),
        }),
    }
}

fn failure(reason: &str) -> Answer {
    Answer {
        question: shared(),
        found: Err(reason.to_owned()),
    }
}

#[test]
fn each_name_is_asked_for_once() {
    let case = Case::new();
    let names: Vec<_> = case.names.unheard().map(ToString::to_string).collect();
    assert_eq!(names, ["shared.test", "_a._tcp.test"]);
}

#[test]
fn an_answer_reaches_every_backend_that_has_the_name() {
    let mut case = Case::new();
    let heard = case.hear(0, answer(&["127.0.0.1", "127.0.0.2"]));
    assert_eq!(heard.services, ["a".into(), "b".into()]);
    assert_eq!(case.stands_for(80), ["127.0.0.1:80", "127.0.0.2:80"]);
    assert_eq!(case.stands_for(81), ["127.0.0.1:81", "127.0.0.2:81"]);
    let changed = |services: &str, port: u16| News::Changed {
        services: services.to_owned(),
        name: format!("shared.test:{port}"),
        added: [[127, 0, 0, 1], [127, 0, 0, 2]]
            .map(|ip| (ip, port).into())
            .into(),
        removed: Vec::new(),
        altered: 0,
    };
    assert_eq!(heard.news, [changed("a,b", 80), changed("b", 81)]);
    assert!(case.names.has_unheard(), "the other one");
}

#[test]
fn the_same_answer_is_no_news() {
    let mut case = Case::new();
    case.hear(0, answer(&["127.0.0.1"]));
    assert_eq!(case.hear(1, answer(&["127.0.0.1"])), Heard::default());
}

#[test]
fn another_answer_says_what_came_and_what_went() {
    let mut case = Case::new();
    case.hear(0, answer(&["127.0.0.1", "127.0.0.2"]));
    let heard = case.hear(1, answer(&["127.0.0.2", "127.0.0.3"]));
    assert_eq!(heard.services, ["a".into(), "b".into()]);
    let News::Changed { added, removed, .. } = &heard.news[0] else {
        panic!("{heard:?}");
    };
    assert_eq!(
        (shown(added), shown(removed)),
        ("1 (127.0.0.3:80)".to_owned(), "1 (127.0.0.1:80)".to_owned(),)
    );
}

#[test]
fn a_failure_keeps_the_last_answer_and_is_said_once_a_minute() {
    let mut case = Case::new();
    case.hear(0, answer(&["127.0.0.1"]));
    let failing = |reason: &str, lasted| News::Failing {
        services: "a,b".to_owned(),
        name: "shared.test".to_owned(),
        reason: reason.to_owned(),
        kept: 1,
        lasted,
    };
    let heard = case.hear(10, failure("NXDOMAIN"));
    assert_eq!(heard.news, [failing("NXDOMAIN", None)]);
    assert!(heard.services.is_empty());
    assert_eq!(case.stands_for(80), ["127.0.0.1:80"]);
    assert_eq!(case.hear(69, failure("SERVFAIL")).news, []);
    let minute = Some(Duration::from_secs(60));
    assert_eq!(
        case.hear(70, failure("SERVFAIL")).news,
        [failing("SERVFAIL", minute)]
    );
    assert_eq!(case.hear(71, failure("SERVFAIL")).news, []);
    let report = case.names.report("a", case.begin + Duration::from_secs(72));
    let failure = report[0].failure.expect("it fails");
    assert_eq!((failure.times, failure.reason), (4, "SERVFAIL"));
    assert_eq!(failure.lasted, Duration::from_secs(62));
    assert_eq!(report[0].addresses, 1);
    assert!(report[1].failure.is_none(), "the other one");
    let recovered = News::Recovered {
        name: "shared.test".to_owned(),
        lasted: Duration::from_secs(63),
    };
    assert_eq!(case.hear(73, answer(&["127.0.0.1"])).news, [recovered]);
    assert!(case.names.report("a", case.begin)[0].failure.is_none());
}

#[test]
fn a_name_that_never_was_resolved_stands_for_nothing() {
    let mut case = Case::new();
    let heard = case.hear(0, failure("NXDOMAIN"));
    assert!(
        matches!(heard.news[..], [News::Failing { kept: 0, .. }]),
        "{heard:?}"
    );
    assert!(case.stands_for(80).is_empty());
    let report = case.names.report("b", case.begin);
    let names: Vec<_> = report.iter().map(|name| name.name.as_str()).collect();
    assert_eq!(names, ["shared.test:80", "shared.test:81"]);
}

#[test]
fn a_remark_is_made_once_and_another_a_minute_later() {
    let mut case = Case::new();
    let remarked = |remarks: &[&str]| {
        let mut answer = answer(&["127.0.0.1"]);
        if let Ok(found) = &mut answer.found {
            found.remarks = remarks.iter().map(ToString::to_string).collect();
        }
        answer
    };
    let said = |heard: &Heard| {
        let news = heard.news.iter();
        let said = news.filter(|news| matches!(news, News::Remarked { .. }));
        said.count()
    };
    let turns = [
        (0, &["too many", "useless"][..], 1),
        (1, &["too many", "useless"], 0),
        (2, &["too many"], 0),
        (61, &["too many"], 0),
        (62, &["useless"], 1),
        (200, &[], 0),
        (201, &["useless"], 1),
    ];
    for (seconds, remarks, lines) in turns {
        let heard = case.hear(seconds, remarked(remarks));
        assert_eq!(said(&heard), lines, "{seconds}");
        assert_eq!(case.names.report("a", case.begin)[0].remarks, remarks);
    }
}

#[test]
fn what_is_known_outlives_another_configuration() {
    let mut case = Case::new();
    case.hear(0, answer(&["127.0.0.1"]));
    case.hear(1, failure("NXDOMAIN"));
    let text = CONFIG.replace("shared.test:81", "shared.test:82");
    let text = text.replace(
        "{ address = \"_a._tcp.test\", srv = true }",
        "\"new.test:80\"",
    );
    let next = config::parse("config.toml", &text).expect("the text breaks no rule");
    case.names.expect(Question::Host("new.test".to_owned()));
    assert!(!case.names.is_heard(&Question::Host("new.test".to_owned())));
    case.names.adopt(&next, &mut case.resolved);
    assert_eq!(
        case.stands_for(82),
        ["127.0.0.1:82"],
        "another port of what is known"
    );
    assert!(case.stands_for(81).is_empty());
    let unheard: Vec<_> = case.names.unheard().map(ToString::to_string).collect();
    assert_eq!(unheard, ["new.test"]);
    let report = case.names.report("b", case.begin + Duration::from_secs(2));
    assert!(report[0].failure.is_some(), "it still fails");
    let gone = Answer {
        question: Question::Srv("_a._tcp.test".to_owned()),
        found: Err("NXDOMAIN".to_owned()),
    };
    assert_eq!(case.hear(3, gone), Heard::default());
}

#[test]
fn an_answer_that_comes_ahead_of_its_configuration_is_kept() {
    let mut case = Case::new();
    let early = Question::Host("early.test".to_owned());
    case.names.expect(early.clone());
    let mut found = answer(&["127.0.0.9"]);
    found.question = early.clone();
    assert_eq!(case.hear(0, found), Heard::default());
    assert!(case.names.is_heard(&early));
    let text = CONFIG.replace("shared.test:81", "early.test:81");
    let next = config::parse("config.toml", &text).expect("the text breaks no rule");
    case.names.adopt(&next, &mut case.resolved);
    let name = BackendAddress::Host("early.test".to_owned(), 81);
    assert_eq!(case.resolved[&name][0].address.to_string(), "127.0.0.9:81");
}

#[test]
fn a_long_list_is_cut() {
    let all: Vec<SocketAddr> = (1..=20).map(|port| ([127, 0, 0, 1], port).into()).collect();
    let text = shown(&all);
    assert!(text.starts_with("20 (127.0.0.1:1 "), "{text}");
    assert!(text.ends_with(" 127.0.0.1:8 ...)"), "{text}");
    assert_eq!(shown(&[]), "0");
}

#[test]
fn a_line_names_only_some_services() {
    let services = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    assert_eq!(first_of(services[..2].iter().copied(), ","), "a,b");
    let text = first_of(services.iter().copied(), ",");
    assert_eq!(text, "a,b,c,d,e,f,g,h and 2 more");
}
