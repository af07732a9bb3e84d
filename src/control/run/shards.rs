//! The shards' threads: one that dies is started again, and rests between two deaths.

use std::time::{Duration, Instant};

use super::{Control, ShardEnd, Supervisor, now, say};
use crate::plan::Life;

/// The first wait before a shard that died is started again; doubled up to [`RESTART_MAX`] while it
/// goes on dying.
const RESTART: Duration = Duration::from_millis(10);
const RESTART_MAX: Duration = Duration::from_secs(5);
/// A shard that has lived so long has recovered.
const RECOVERED: Duration = Duration::from_secs(60);
/// A shard that has died so often without recovering once will go on dying.
const CRASH_LOOP: u32 = 3;

/// A shard, as control sees it.
#[derive(Debug)]
pub(super) struct ShardLife {
    pub(super) driver: Option<String>,
    pub(super) started: Instant,
    /// When it is to be started again; `None` while it runs or when it has ended for good.
    pub(super) restart_at: Option<Instant>,
    pub(super) backoff: Duration,
    /// How often in a row it has died before it had recovered.
    deaths: u32,
    pub(super) ended: bool,
    /// How many of its notices had been dropped when that was looked at last.
    pub(super) notices_dropped: u64,
}

impl ShardLife {
    /// It is started now.
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            driver: None,
            started: now,
            restart_at: None,
            backoff: RESTART,
            deaths: 0,
            ended: false,
            notices_dropped: 0,
        }
    }

    /// True exactly when its thread runs, as far as is known.
    pub(super) const fn runs(&self) -> bool {
        !self.ended && self.restart_at.is_none()
    }

    /// It has died, and is to be started again after a wait.
    fn died(&mut self, now: Instant) {
        if RECOVERED < now - self.started {
            self.backoff = RESTART;
            self.deaths = 0;
        }
        self.deaths += 1;
        self.restart_at = Some(now + self.backoff);
        self.backoff = (self.backoff * 2).min(RESTART_MAX);
    }

    /// True exactly while it dies again and again.
    fn is_in_crash_loop(&self, now: Instant) -> bool {
        let recovered = self.restart_at.is_none() && RECOVERED < now - self.started;
        CRASH_LOOP <= self.deaths && !recovered
    }
}

impl Control {
    pub(super) fn shard_ended(&mut self, end: ShardEnd) -> Result<(), String> {
        self.hear();
        let ShardEnd { shard, error } = end;
        let life = &mut self.shards[shard];
        let Some(error) = error else {
            life.ended = true;
            return Ok(());
        };
        if !self.ready {
            return Err(error);
        }
        if self.draining.is_some() {
            log::error!(shard, error; "a shard died; the others finish the drain");
            life.ended = true;
        } else {
            log::error!(shard, error; "a shard died; it is started again");
            life.died(now());
        }
        say(&self.standings.shard_died(shard, now()));
        // Who is queued on its sockets is let in by others: until it is back, or, in a drain, for
        // as long as boot has them.
        self.live.dead.insert(shard as u32);
        self.publish(self.live.life);
        Ok(())
    }

    /// The living shards that run an older plan than `generation`.
    pub(super) fn shards_behind(&self, generation: u64) -> Vec<usize> {
        let shards = self.shards.iter().enumerate();
        let living = shards.filter(|(_, shard)| shard.runs());
        let behind = living.filter(|(shard, _)| self.publisher.adopted(*shard) < generation);
        behind.map(|(shard, _)| shard).collect()
    }

    /// How many shards die again and again: clients are better sent elsewhere.
    pub(super) fn crash_looping(&self) -> usize {
        let shards = self.shards.iter();
        shards.filter(|life| life.is_in_crash_loop(now())).count()
    }

    /// Tells systemd that the process is well, where every shard that runs has ticked.
    pub(super) fn beat(&mut self) {
        let shards = self.shards.iter().zip(self.publisher.shard_counters());
        let lived =
            shards.map(|(life, counters)| life.runs().then(|| counters.lived_microseconds.get()));
        self.systemd.look(lived, now());
    }

    pub(super) fn restart_dead(&mut self, supervisor: &mut dyn Supervisor) {
        let due = |life: &ShardLife| life.restart_at.is_some_and(|at| at <= now());
        let due: Vec<usize> = (0..self.shards.len())
            .filter(|shard| due(&self.shards[*shard]))
            .collect();
        for shard in due {
            self.restart(shard, supervisor);
        }
    }

    /// The plan that it finds at its start has its sockets again.
    fn restart(&mut self, shard: usize, supervisor: &mut dyn Supervisor) {
        self.live.dead.remove(&(shard as u32));
        self.publish(Life::Serving);
        let life = &mut self.shards[shard];
        life.restart_at = None;
        life.started = now();
        let door = self.publisher.resubscribe(shard);
        if let Err(error) = supervisor.restart(shard, door) {
            log::error!(shard, error:%; "a shard cannot be started again; trying on");
            life.restart_at = Some(now() + life.backoff);
            self.live.dead.insert(shard as u32);
            self.publish(Life::Serving);
        } else {
            say(&self.standings.shard_lives(shard, now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use super::*;
    use crate::config;
    use crate::control::admin;
    use crate::control::compile::{BoundListener, Live};
    use crate::control::resolve::Naming;
    use crate::control::run::Setting;
    use crate::control::successor::{Handed, Successor};
    use crate::door::{Subscriber, door};
    use crate::fd;
    use crate::plan::ListenerId;

    /// Notes which shards were started again.
    #[derive(Default)]
    struct Threads {
        restarted: Vec<usize>,
        refuses: bool,
    }

    impl Supervisor for Threads {
        fn restart(&mut self, shard: usize, _: Subscriber) -> io::Result<()> {
            self.restarted.push(shard);
            match self.refuses {
                true => Err(io::ErrorKind::WouldBlock.into()),
                false => Ok(()),
            }
        }

        fn open(&mut self, _: SocketAddr) -> io::Result<BoundListener> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn close(&mut self, _: ListenerId) {}

        fn begin(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn ready(&mut self) {}

        fn start_successor(
            &mut self,
            _: &[(ListenerId, &str)],
            _: &Handed,
        ) -> io::Result<Successor> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn leave_to_successor(&mut self, _: &[usize]) -> Vec<ListenerId> {
            Vec::new()
        }

        fn let_go(&mut self, _: ListenerId) {}

        fn renew(&mut self, id: ListenerId) -> BoundListener {
            unreachable!("no listener changes: {id:?}")
        }

        fn serve_admin(&mut self, _: Option<admin::Bound>) -> io::Result<()> {
            Ok(())
        }
    }

    /// Of two shards, each with a socket.
    fn control() -> (Control, Vec<Arc<OwnedFd>>) {
        let text = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
                    [[service]]\nname = \"a\"\nbackends = [\"127.0.0.1:9\"]\n";
        let config = config::parse("test", text).expect("it is valid");
        let any = "127.0.0.1:0".parse().expect("it is an address");
        let first = fd::listen(any, 16).expect("a free port");
        let address = fd::local_address(&first).expect("it is bound");
        let second = fd::listen(address, 16).expect("it has SO_REUSEPORT");
        let sockets = vec![Arc::new(first), Arc::new(second)];
        let bound = BoundListener {
            id: ListenerId(1),
            address,
            sockets: sockets.iter().map(Arc::downgrade).collect(),
        };
        let live = Live {
            bound: vec![bound],
            ..Live::new(2, 1024)
        };
        let setting = Setting {
            naming: Naming::start(&config),
            config,
            source: None,
            live,
            report_at_end: false,
            handed: Handed::default(),
        };
        let mut control = Control::new(door(2).0, setting);
        control.ready = true;
        (control, sockets)
    }

    /// By socket: the shard that accepts from it.
    fn accepting(control: &Control) -> Vec<u32> {
        let plan = control.plan().expect("one was published");
        plan.listeners[0]
            .sockets
            .iter()
            .map(|it| it.shard)
            .collect()
    }

    fn dies(control: &mut Control, shard: usize) {
        let error = Some("it was asked to".to_owned());
        let end = ShardEnd { shard, error };
        control.shard_ended(end).expect("the process is ready");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_sockets_of_a_dead_shard_are_the_others_until_it_is_back() {
        let (mut control, _sockets) = control();
        let mut threads = Threads::default();
        assert_eq!(accepting(&control), [0, 1]);
        dies(&mut control, 1);
        assert_eq!(accepting(&control), [0, 0]);
        assert_eq!(control.unready(), None, "the other one accepts");
        // It rests first.
        assert!(control.shards[1].restart_at.is_some());
        control.shards[1].restart_at = Some(now());
        threads.refuses = true;
        control.restart_dead(&mut threads);
        assert_eq!(threads.restarted, [1]);
        assert_eq!(accepting(&control), [0, 0], "there was no thread for it");
        control.shards[1].restart_at = Some(now());
        threads.refuses = false;
        control.restart_dead(&mut threads);
        assert_eq!(threads.restarted, [1, 1]);
        assert_eq!(accepting(&control), [0, 1]);
        // With none left they wait for theirs.
        dies(&mut control, 0);
        dies(&mut control, 1);
        assert_eq!(accepting(&control), [0, 1]);
        assert_eq!(control.crash_looping(), 0);
        assert_eq!(control.unready().as_deref(), Some("no shard runs"));
        dies(&mut control, 1);
        assert_eq!(control.crash_looping(), 1);
        for shard in &mut control.shards {
            shard.restart_at = Some(now());
        }
        control.restart_dead(&mut threads);
        let unready = control.unready();
        assert_eq!(unready.as_deref(), Some("a shard dies again and again"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_is_queued_at_a_shard_that_dies_in_a_drain_is_left_to_the_others() {
        let (mut control, _sockets) = control();
        let mut threads = Threads::default();
        control.drain(&mut threads);
        dies(&mut control, 1);
        assert_eq!(accepting(&control), [0, 0]);
        let plan = control.plan().expect("one was published");
        assert_eq!(plan.life, Life::Draining);
        assert!(control.shards[1].ended);
        control.restart_dead(&mut threads);
        assert_eq!(threads.restarted, [0; 0]);
    }

    #[test]
    fn a_crash_loop_backs_off_and_ends_with_a_life() {
        let begin = now();
        let mut life = ShardLife::new(begin);
        let mut rests = Vec::new();
        let mut loops = Vec::new();
        for _ in 0..12 {
            life.died(begin);
            let rest = life.restart_at.expect("it is to be started again") - begin;
            rests.push(rest.as_millis());
            loops.push(life.is_in_crash_loop(begin));
        }
        let expected = [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000, 5000];
        assert_eq!(rests, expected);
        assert_eq!(loops[..4], [false, false, true, true]);
        // It lives.
        life.restart_at = None;
        assert!(life.is_in_crash_loop(begin + RECOVERED));
        let later = begin + RECOVERED + Duration::from_millis(1);
        assert!(!life.is_in_crash_loop(later));
        life.died(later);
        assert!(!life.is_in_crash_loop(later));
        assert_eq!(life.restart_at, Some(later + RESTART));
    }
}
