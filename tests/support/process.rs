//! The real binary, started on free ports with a configuration of its own, and ended with the test.
//!
//! A test fails on any WARN or ERROR line that its [`Setup`] did not list, and on any exit code but
//! the expected one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::heir::{self, Heir, adopt_orphans};
use super::report::Report;
use super::signal::signal;
use super::{DEADLINE, Message, Wire, socket};

/// The two ways a shard talks to the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Driver {
    IoUring,
    Epoll,
}

impl Driver {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }

    /// Starts a proxy whose one service, `a`, has one endpoint, `origin`; all else is as usual.
    #[track_caller]
    pub(crate) fn proxy_for(self, origin: SocketAddr) -> Proxy {
        Setup::new(self).service("a", &[origin], "").start()
    }
}

/// What to start: a configuration with one HTTP listener named `web`, and how the process is run.
#[derive(Clone)]
pub(crate) struct Setup {
    driver: Driver,
    shards: u32,
    log: &'static str,
    via: &'static str,
    watch: bool,
    runtime: String,
    admin: String,
    listener: String,
    rest: String,
    descriptors_max: Option<u32>,
    options: Vec<&'static str>,
    environment: Vec<(&'static str, &'static str)>,
    unread: bool,
    linked: bool,
    handed: Vec<(String, Arc<OwnedFd>)>,
    expected: Vec<String>,
}

impl Setup {
    pub(crate) fn new(driver: Driver) -> Self {
        Self {
            driver,
            shards: 1,
            log: "level = \"info\"",
            via: "ringmain-test",
            watch: false,
            runtime: "drain_timeout = \"5s\"".to_owned(),
            admin: String::new(),
            listener: String::new(),
            rest: String::new(),
            descriptors_max: None,
            options: Vec::new(),
            environment: Vec::new(),
            unread: false,
            linked: false,
            handed: Vec::new(),
            expected: Vec::new(),
        }
    }

    pub(crate) fn shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }

    /// The keys of `[log]`.
    pub(crate) fn log(mut self, keys: &'static str) -> Self {
        self.log = keys;
        self
    }

    /// Its name in Via, where two stand one behind the other.
    pub(crate) fn via(mut self, via: &'static str) -> Self {
        self.via = via;
        self
    }

    /// A change of the file is loaded by itself.
    pub(crate) fn watched(mut self) -> Self {
        self.watch = true;
        self
    }

    /// The keys of `[runtime]` beyond shards, pin, driver, via and watch.
    pub(crate) fn runtime(mut self, keys: &str) -> Self {
        keys.clone_into(&mut self.runtime);
        self
    }

    /// Where the admin API answers; nowhere by itself.
    pub(crate) fn admin(mut self, address: &str) -> Self {
        address.clone_into(&mut self.admin);
        self
    }

    /// The keys and tables of the listener beyond name and address.
    pub(crate) fn listener(mut self, keys: &str) -> Self {
        keys.clone_into(&mut self.listener);
        self
    }

    /// A service `name` for the domain `NAME.test` on `backends`, with further keys and tables.
    pub(crate) fn service(mut self, name: &str, backends: &[SocketAddr], keys: &str) -> Self {
        let backends: Vec<String> = backends.iter().map(|at| format!("\"{at}\"")).collect();
        let backends = backends.join(", ");
        self.rest += &format!(
            "[[service]]\nname = \"{name}\"\ndomains = [\"{name}.test\"]\n\
             backends = [{backends}]\n{keys}\n"
        );
        self
    }

    /// Further tables at the end of the file.
    pub(crate) fn tables(mut self, tables: &str) -> Self {
        self.rest += tables;
        self.rest.push('\n');
        self
    }

    /// RLIMIT_NOFILE of the process.
    pub(crate) fn descriptors_max(mut self, descriptors: u32) -> Self {
        self.descriptors_max = Some(descriptors);
        self
    }

    /// A further option of `ringmain run`.
    pub(crate) fn option(mut self, option: &'static str) -> Self {
        self.options.push(option);
        self
    }

    /// A variable of the process's environment.
    pub(crate) fn environment(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    /// Nobody reads the standard output of the process, a pipe that is full from the start.
    pub(crate) fn unread_output(mut self) -> Self {
        self.unread = true;
        self
    }

    /// The process is started by a link to the binary: [`Proxy::binary`].
    pub(crate) fn linked(mut self) -> Self {
        self.linked = true;
        self
    }

    /// It is started with this socket, as systemd does it.
    pub(crate) fn handed(mut self, name: &str, socket: impl Into<OwnedFd>) -> Self {
        self.handed.push((name.to_owned(), Arc::new(socket.into())));
        self
    }

    /// WARN and ERROR lines that contain `text` are part of the test.
    pub(crate) fn expects_line(mut self, text: &str) -> Self {
        self.expected.push(text.to_owned());
        self
    }

    /// The text of the file.
    pub(crate) fn config(&self) -> String {
        let Self {
            shards,
            log,
            via,
            watch,
            runtime,
            admin,
            listener,
            rest,
            ..
        } = self;
        let driver = self.driver.label();
        format!(
            "[runtime]\nshards = {shards}\npin = \"off\"\ndriver = \"{driver}\"\n\
             via = \"{via}\"\nwatch = {watch}\n{runtime}\n\
             [admin]\naddress = \"{admin}\"\n[log]\n{log}\n\
             [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{listener}\n{rest}"
        )
    }

    /// Starts the process and waits until it serves.
    #[track_caller]
    pub(crate) fn start(self) -> Proxy {
        Proxy::start(self)
    }
}

/// A running ringmain.
pub(crate) struct Proxy {
    process: Ended,
    /// Those that took its place, the newest last.
    heirs: Vec<Heir>,
    /// True exactly when the first one was killed.
    killed: bool,
    setup: Setup,
    listeners: HashMap<String, SocketAddr>,
    stdout: Lines,
    stderr: Lines,
    /// Kept open, so that writes wait for a reader who never comes.
    _full: Option<PipeReader>,
    over: bool,
    directory: Directory,
}

impl Proxy {
    #[track_caller]
    fn start(setup: Setup) -> Self {
        let directory = Directory::new();
        let config = directory.config();
        fs::write(&config, setup.config()).expect("the directory is writable");
        let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_ringmain"));
        if setup.linked {
            let link = directory.join("ringmain");
            symlink(&binary, &link).expect("the directory is writable");
            binary = link;
        }
        let mut command = if setup.handed.is_empty() {
            command_of(&binary, setup.descriptors_max)
        } else {
            activated(&binary, &setup.handed)
        };
        command.args(["run", "--config"]).arg(&config);
        command.args(&setup.options);
        command.envs(setup.environment.iter().copied());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let full = setup.unread.then(|| full_pipe(&mut command));
        adopt_orphans();
        let mut child = socket::spawn(&mut command).expect("the binary is built");
        let stdout = child.stdout.take();
        let mut proxy = Self {
            stdout: stdout.map_or_else(|| Lines::of(io::empty()), Lines::of),
            _full: full,
            stderr: Lines::of(child.stderr.take().expect("it is piped")),
            process: Ended(child),
            heirs: Vec::new(),
            killed: false,
            setup,
            listeners: HashMap::new(),
            over: false,
            directory,
        };
        proxy.stderr.until(|line| says(line, "ready"));
        proxy.note_listeners();
        let ready = proxy.stderr.until(|line| says(line, "ready"));
        assert_eq!(
            key(&ready, "driver").as_deref(),
            Some(proxy.setup.driver.label()),
            "{ready}"
        );
        proxy
    }

    /// The file that it was started with.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.directory.config()
    }

    /// Puts `text` in the place of the file, in one step.
    pub(crate) fn write_config(&self, text: &str) {
        let beside = self.directory.path.join("config.new");
        fs::write(&beside, text).expect("the directory is writable");
        fs::rename(&beside, self.config_file()).expect("the directory is writable");
    }

    /// Has it run `setup` instead of what it runs, and waits until it does. What `setup` says of
    /// the process itself, such as its options, is not looked at.
    #[track_caller]
    pub(crate) fn reload(&mut self, setup: &Setup) {
        self.write_config(&setup.config());
        let before = self.stderr.len();
        self.signal("HUP");
        self.reloads_since(before);
    }

    /// Waits until it has reloaded since its log had so many lines.
    #[track_caller]
    pub(crate) fn reloads_since(&mut self, before: usize) {
        let is_told = |lines: &[String]| lines[before..].iter().any(|line| says(line, "reloaded"));
        self.stderr.when(|lines| is_told(lines).then_some(()));
        self.note_listeners();
    }

    /// Waits until `count` lines of its log hold `text`.
    #[track_caller]
    pub(crate) fn log_has(&self, count: usize, text: &str) {
        let found = |lines: &[String]| lines.iter().filter(|line| line.contains(text)).count();
        self.stderr
            .when(|lines| (count <= found(lines)).then_some(()));
    }

    /// The link that it was started by.
    pub(crate) fn binary(&self) -> PathBuf {
        self.directory.join("ringmain")
    }

    /// Has its binary started anew, and waits until that serves in its place; says its number.
    #[track_caller]
    pub(crate) fn upgrade(&mut self) -> u32 {
        let before = self.begin_upgrade();
        let (old, new) = (self.id(), self.heirs.last().map_or(0, |heir| heir.id));
        assert_ne!(old, new);
        let after = |lines: &[String], word: &str| {
            let mut lines = lines[before..].iter();
            lines.find(|line| line.contains(word)).cloned()
        };
        self.stderr
            .when(|lines| after(lines, "the new process serves"));
        self.heirs.last_mut().expect("it was started").serves = true;
        self.note_listeners();
        new
    }

    /// Has its binary started anew, and waits until there is a process. Says how long the log was.
    #[track_caller]
    pub(crate) fn begin_upgrade(&mut self) -> usize {
        let before = self.stderr.len();
        self.signal("USR2");
        let started = |lines: &[String]| {
            let mut lines = lines[before..].iter();
            lines
                .find(|line| line.contains("the new process starts"))
                .cloned()
        };
        let line = self.stderr.when(started);
        let id = key(&line, "pid").and_then(|id| id.parse().ok());
        self.heirs
            .push(Heir::of(id.expect("the line has its number")));
        before
    }

    /// Has its binary started anew, which is to fail; says the line of the log.
    #[track_caller]
    pub(crate) fn failed_upgrade(&self) -> String {
        let before = self.stderr.len();
        self.signal("USR2");
        self.stderr.when(|lines| {
            let mut lines = lines[before..].iter();
            lines
                .find(|line| line.contains("the upgrade failed"))
                .cloned()
        })
    }

    /// Kills the process that was started last.
    pub(crate) fn kill_heir(&mut self) {
        self.heirs.pop();
    }

    /// Kills the process that was started first; the one that was started last is left.
    pub(crate) fn kill_first(&mut self) {
        self.process.0.kill().expect("it is our child");
        self.process.0.wait().expect("it is our child");
        self.heirs.last_mut().expect("it was started").serves = true;
        self.killed = true;
    }

    /// Sends a signal to the process that was started last and does not serve.
    pub(crate) fn signal_heir(&self, name: &str) {
        signal(self.heirs.last().expect("it was started").id, name);
    }

    /// Waits for the end of the process that was started last, which does not serve.
    #[track_caller]
    pub(crate) fn heir_ends(&mut self) {
        self.heirs.pop().expect("it was started").ends();
    }

    /// Waits until every process whose place another one has taken has drained.
    #[track_caller]
    pub(crate) fn predecessors_end(&mut self) {
        let serving = self.heirs.iter_mut().filter(|heir| heir.serves);
        let mut serving: Vec<&mut Heir> = serving.collect();
        if serving.pop().is_some() {
            let ended = self.process.0.try_wait().expect("it is our child");
            if ended.is_none() {
                heir::ends(self.process.0.id());
            }
            let code = self.process.0.wait().expect("it is our child").code();
            assert!(self.killed || code == Some(0), "it drains: {code:?}");
            for heir in serving {
                assert!(heir.has_drained(), "it drains");
            }
        }
    }

    /// Notes the addresses of the listeners that the log has told of.
    fn note_listeners(&mut self) {
        for line in self.stderr.seen() {
            if says(&line, "listening") {
                let name = key(&line, "listener").expect("the line names its listener");
                let address = key(&line, "address").expect("the line names its address");
                let address = address.parse().expect("it is a socket address");
                self.listeners.insert(name, address);
            }
        }
    }

    /// The address of the listener `web`.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses()["web"]
    }

    /// The addresses of all listeners by their names.
    pub(crate) fn addresses(&self) -> &HashMap<String, SocketAddr> {
        &self.listeners
    }

    /// Where the admin API answers, as the log says it.
    #[track_caller]
    pub(crate) fn admin(&self) -> String {
        let line = self.log_line("the admin API answers");
        key(&line, "address").expect("the line names its address")
    }

    /// A new client of the admin API, which listens on TCP.
    #[track_caller]
    pub(crate) fn admin_client(&self) -> Wire {
        Wire::connect(self.admin().parse().expect("it is a socket address"))
    }

    /// What the admin API, which listens on TCP, answers to `METHOD TARGET`.
    #[track_caller]
    pub(crate) fn ask(&self, request: &str) -> Message {
        let mut client = self.admin_client();
        let fields = "Host: localhost\r\nX-Ringmain: 1";
        client.send(format!("{request} HTTP/1.1\r\n{fields}\r\n\r\n"));
        let method = request.split(' ').next().unwrap_or_default();
        let answer = client.answer_to(method);
        client.ends();
        answer
    }

    /// A new client of the listener `web`.
    #[track_caller]
    pub(crate) fn client(&self) -> Wire {
        Wire::connect(self.address())
    }

    /// The number of the process that serves.
    pub(crate) fn id(&self) -> u32 {
        let mut heirs = self.heirs.iter().rev();
        let serves = heirs.find(|heir| heir.serves);
        serves.map_or_else(|| self.process.0.id(), |heir| heir.id)
    }

    /// Asks for the report and reads it.
    #[track_caller]
    pub(crate) fn report(&self) -> Report {
        let before = self.stdout.len();
        self.signal("USR1");
        let shards = self.setup.shards as usize;
        self.stdout
            .when(|lines| Report::parse(&lines[before..], shards))
    }

    /// Waits for the end of the process, which is to be a drain, and reads the reports that nobody
    /// has read.
    #[track_caller]
    pub(crate) fn reports_at_end(&mut self) -> Vec<Report> {
        let before = self.stdout.len();
        assert_eq!(self.exit_code(), Some(0));
        self.stdout.until_end(DEADLINE);
        let lines = self.stdout.seen();
        let lines = &lines[before..];
        let begins = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.starts_with("ringmain "));
        let reports = begins.map(|(begin, _)| {
            let report = Report::parse(&lines[begin..], self.setup.shards as usize);
            report.expect("the report is whole")
        });
        reports.collect()
    }

    /// The first report that holds what `wanted` says; counters arrive with the shards' ticks.
    #[track_caller]
    pub(crate) fn report_where(&self, wanted: impl Fn(&Report) -> bool) -> Report {
        // Each report waits for the shards, so that this ends after a few seconds.
        let mut report = self.report();
        for _ in 0..20 {
            if wanted(&report) {
                return report;
            }
            report = self.report();
        }
        assert!(wanted(&report), "the report never says so: {report:#?}");
        report
    }

    /// Exactly one fault is counted in the whole report, and it has `label`.
    #[track_caller]
    pub(crate) fn counts_one_fault(&self, label: &str) {
        let report = self.report_where(|report| !report.faults().is_empty());
        let expected = [(label.to_owned(), 1)].into();
        assert_eq!(report.faults(), expected, "{report:#?}");
    }

    /// The log's first line, old or new, that holds `text`.
    #[track_caller]
    pub(crate) fn log_line(&self, text: &str) -> String {
        self.stderr.until(|line| line.contains(text))
    }

    pub(crate) fn log_lines(&self) -> Vec<String> {
        self.stderr.seen()
    }

    /// Sends the signal `name` to the process that was started first.
    pub(crate) fn signal_first(&self, name: &str) {
        signal(self.process.0.id(), name);
    }

    /// Sends the signal `name`, as in `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Waits for the end of the process, and says its exit code.
    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.exit_code_within(DEADLINE)
    }

    /// As [`Proxy::exit_code`], where `span` is how long the process may take from its last line.
    #[track_caller]
    pub(crate) fn exit_code_within(&mut self, span: Duration) -> Option<i32> {
        self.stderr.until_end(span);
        self.over = true;
        let first = self.process.0.wait().expect("it is our child").code();
        let first = if self.killed { Some(0) } else { first };
        let mut serving = self.heirs.iter_mut().filter(|heir| heir.serves);
        let Some(last) = serving.next_back() else {
            return first;
        };
        // Whose place another one has taken has drained.
        assert_eq!(first, Some(0), "it drains");
        assert!(serving.all(Heir::has_drained), "they drain");
        last.exit_code()
    }

    /// User and system time that the process has used, in clock ticks of 10 ms.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = self.proc("stat");
        // proc(5): utime and stime are fields 14 and 15; the second, in parentheses, may hold
        // blanks.
        let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
        let fields = fields.split_whitespace();
        let times = fields.skip(11).take(2);
        times
            .map(|time| time.parse::<u64>().expect("it is a number"))
            .sum()
    }

    /// The memory that the process has written, in KiB. Its share of what is mapped from files
    /// would change with how many of its kind run beside it.
    pub(crate) fn memory_kib(&self) -> u64 {
        let rollup = self.proc("smaps_rollup");
        let own = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Anonymous:"));
        let own = own.expect("the kernel counts it").trim();
        let kib = own.strip_suffix(" kB").expect("it is in kB");
        kib.parse().expect("it is a number")
    }

    /// The names of its threads.
    pub(crate) fn threads(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id()));
        let tasks = tasks.expect("the process runs").flatten();
        // A thread may end meanwhile.
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.map(|name| name.trim_end().to_owned()).collect()
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.id());
        fs::read_to_string(path).expect("the process runs")
    }

    #[track_caller]
    fn check_log(&self) {
        for line in self.stderr.seen() {
            let expected = self.setup.expected.iter().any(|text| line.contains(text));
            assert!(expected || !is_complaint(&line), "unexpected: {line}");
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if thread::panicking() {
            let state = self.process.0.try_wait();
            let mut report = format!(
                "the log of ringmain ({:?}, {state:?}; None: it runs):\n",
                self.setup.driver
            );
            for line in self.stderr.seen() {
                report += &line;
                report.push('\n');
            }
            // Captured by the test harness, unlike a write to the stream itself.
            #[expect(clippy::print_stderr, reason = "a failed test shows the log")]
            {
                eprintln!("{report}");
            }
            return;
        }
        if !self.over {
            // Before the last one: a process reaps those that it has started.
            self.predecessors_end();
            self.signal("TERM");
            assert_eq!(self.exit_code(), Some(0), "SIGTERM drains and exits 0");
        }
        self.check_log();
    }
}

/// Runs the binary to its end with a configuration: its exit code, standard output and standard
/// error.
pub(crate) fn run_to_end(arguments: &[&str], config: &str) -> (Option<i32>, String, String) {
    let directory = Directory::new();
    let path = directory.path.join("config.toml");
    fs::write(&path, config).expect("the directory is writable");
    let path = path.to_str().expect("cargo's directory is UTF-8");
    run_alone(&[arguments, &["--config", path]].concat())
}

/// Runs the binary to its end in an empty directory: its exit code, standard output and standard
/// error.
pub(crate) fn run_alone(arguments: &[&str]) -> (Option<i32>, String, String) {
    let directory = Directory::new();
    let mut command = command(None);
    command.args(arguments).current_dir(&directory.path);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = socket::spawn(&mut command).expect("the binary is built");
    let output = child.wait_with_output().expect("it is our child");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Runs the binary until a line of its standard error holds `text`, ends it by SIGTERM, and says
/// all lines.
#[track_caller]
pub(crate) fn start_and_stop(config: &str, text: &str) -> Vec<String> {
    let directory = Directory::new();
    let path = directory.path.join("config.toml");
    fs::write(&path, config).expect("the directory is writable");
    let mut command = command(None);
    command.args(["run", "--config"]).arg(&path);
    let child = socket::spawn(command.stderr(Stdio::piped()));
    let mut process = Ended(child.expect("the binary is built"));
    let stderr = Lines::of(process.0.stderr.take().expect("it is piped"));
    stderr.until(|line| line.contains(text));
    signal(process.0.id(), "TERM");
    stderr.until_end(DEADLINE);
    stderr.seen()
}

/// Runs the binary until a line of its standard error holds `first`, sends it the signal `name`,
/// ends it by SIGTERM when a line holds `then`, and says all lines.
#[track_caller]
pub(crate) fn signalled(arguments: &[&str], first: &str, name: &str, then: &str) -> Vec<String> {
    let mut command = command(None);
    command.args(arguments);
    let child = socket::spawn(command.stderr(Stdio::piped()));
    let mut process = Ended(child.expect("the binary is built"));
    let stderr = Lines::of(process.0.stderr.take().expect("it is piped"));
    stderr.until(|line| line.contains(first));
    signal(process.0.id(), name);
    stderr.until(|line| line.contains(then));
    signal(process.0.id(), "TERM");
    stderr.until_end(DEADLINE);
    stderr.seen()
}

/// A process that does not outlive its owner.
pub(super) struct Ended(pub(super) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The binary without what the environment says about it.
pub(super) fn command(descriptors_max: Option<u32>) -> Command {
    command_of(Path::new(env!("CARGO_BIN_EXE_ringmain")), descriptors_max)
}

/// `binary`, started with `sockets`, as sd_listen_fds(3) has it.
#[expect(
    unsafe_code,
    reason = "the sockets need their numbers between fork and exec"
)]
fn activated(binary: &Path, sockets: &[(String, Arc<OwnedFd>)]) -> Command {
    let names: Vec<&str> = sockets.iter().map(|(name, _)| name.as_str()).collect();
    let mut command = Command::new("sh");
    // The shell knows its number, which the binary keeps.
    command
        .args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""])
        .arg(binary);
    clean(&mut command);
    command.env("LISTEN_FDS", sockets.len().to_string());
    command.env("LISTEN_FDNAMES", names.join(":"));
    let sockets: Vec<Arc<OwnedFd>> = sockets.iter().map(|(_, it)| Arc::clone(it)).collect();
    let line_up = move || {
        let duplicates = sockets
            .iter()
            .map(|it| ringmain::fd::inherited::pass_on(&**it));
        ringmain::fd::inherited::line_up(duplicates.collect::<io::Result<_>>()?)
    };
    // SAFETY: between fork and exec this thread is alone; the allocator's lock is not held by it,
    // and mimalloc and glibc make theirs usable in the child.
    unsafe { command.pre_exec(line_up) };
    command
}

fn command_of(binary: &Path, descriptors_max: Option<u32>) -> Command {
    let mut command = match descriptors_max {
        None => Command::new(binary),
        Some(limit) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]);
            shell.arg(binary);
            shell
        }
    };
    clean(&mut command);
    command
}

/// Takes away what the environment says about the binary.
fn clean(command: &mut Command) {
    for name in [
        "RINGMAIN_CONFIG",
        "LOG_LEVEL",
        "RUST_LOG",
        "LOG_FORMAT",
        "PROBE_INTERVAL",
    ] {
        command.env_remove(name);
    }
    // The allocator's: a huge page that the kernel gives unasked is 2 MiB that nobody took.
    command.env("MIMALLOC_ALLOW_THP", "0");
    command.env("NO_COLOR", "1").stdin(Stdio::null());
}

/// Makes a pipe that takes no more the standard output of `command`; its end to read from.
fn full_pipe(command: &mut Command) -> PipeReader {
    // pipe(7): a pipe holds so many bytes unless it is told otherwise.
    const HELD: usize = 64 * 1024;
    let (reader, mut writer) = io::pipe().expect("two descriptors are free");
    writer.write_all(&[0; HELD]).expect("we hold the other end");
    command.stdout(writer);
    reader
}

/// A stream's lines, gathered by a thread of their own.
struct Lines {
    incoming: Receiver<String>,
    seen: RefCell<Vec<String>>,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let (sender, incoming) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            incoming,
            seen: RefCell::default(),
        }
    }

    /// Every line so far.
    fn seen(&self) -> Vec<String> {
        self.seen.borrow_mut().extend(self.incoming.try_iter());
        self.seen.borrow().clone()
    }

    fn len(&self) -> usize {
        self.seen().len()
    }

    /// The first line, old or new, that is `wanted`.
    #[track_caller]
    fn until(&self, wanted: impl Fn(&str) -> bool) -> String {
        self.when(|lines| lines.iter().find(|line| wanted(line)).cloned())
    }

    /// What `found` makes of all lines, asked anew after each line.
    #[track_caller]
    fn when<T>(&self, found: impl Fn(&[String]) -> Option<T>) -> T {
        let mut lines = self.seen();
        loop {
            if let Some(it) = found(&lines) {
                return it;
            }
            let next = self.incoming.recv_timeout(DEADLINE);
            let text = lines.join("\n");
            assert!(next.is_ok(), "no such line ({next:?}) among:\n{text}");
            self.seen.borrow_mut().extend(next);
            lines = self.seen();
        }
    }

    /// Waits until the stream has ended, for each of its lines at most `span`.
    #[track_caller]
    fn until_end(&self, span: Duration) {
        loop {
            match self.incoming.recv_timeout(span) {
                Ok(line) => self.seen.borrow_mut().push(line),
                Err(RecvTimeoutError::Disconnected) => return,
                late => {
                    let text = self.seen().join("\n");
                    assert!(late.is_ok(), "the process does not end:\n{text}");
                }
            }
        }
    }
}

/// A new directory that goes away with its owner.
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The configuration in it.
    fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// The path of `name` in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{process}-{number}"));
        fs::create_dir_all(&path).expect("cargo's directory is writable");
        Self { path }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// True exactly when `word` is among the line's words before its first key.
fn says(line: &str, word: &str) -> bool {
    let words = line.split_whitespace();
    let message = words.take_while(|word| !word.contains('='));
    message.into_iter().any(|said| said == word)
}

/// The value of `NAME=VALUE` in a log line in text format.
fn key(line: &str, name: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

/// True exactly when one of the line's first words is a level that a person should look at.
fn is_complaint(line: &str) -> bool {
    let words = line.split(|character: char| !character.is_ascii_alphanumeric());
    let mut first = words.filter(|word| !word.is_empty()).take(10);
    first.any(|word| matches!(word, "WARN" | "ERROR")) || line.contains("panicked at")
}
