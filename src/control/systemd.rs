//! What systemd is told of the process (sd_notify(3)), where it has asked to be: that it serves,
//! loads anew, ends, who has taken its place, and that it is well.
//!
//! Well is a process whose every shard has ticked between two words of it: one shard that hangs
//! keeps it silent, and systemd's watchdog bites within one and a half of `WatchdogSec`.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The way to systemd. Without one all of this does nothing.
#[derive(Debug, Default)]
pub struct Systemd {
    watchdog: Option<Watchdog>,
    /// True exactly when another process has taken the place of this one: it speaks.
    has_left: bool,
    /// True exactly when systemd was told that the process ends: it neither serves nor loads anew.
    ends: bool,
}

#[derive(Debug)]
struct Watchdog {
    /// Half of what systemd waits for.
    every: Duration,
    due: Instant,
    /// By shard: how long it had lived when systemd was told last; `None` for one that is not
    /// meant to run.
    lived: Vec<Option<u64>>,
    /// True exactly when a shard hangs, and that was said.
    silent: bool,
}

/// What comes of a look at the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// It is not time.
    Early,
    /// All have ticked.
    Well,
    /// This one has not.
    Hangs(usize),
}

impl Systemd {
    /// As the environment says it.
    pub fn of_environment(now: Instant) -> Self {
        let watchdog = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        Self {
            watchdog: watchdog.map(|limit| Watchdog::new(limit / 2, now)),
            has_left: false,
            ends: false,
        }
    }

    /// The process serves: after its start, and after a reload, whatever came of it.
    pub fn ready(&self, status: &str) {
        if self.ends {
            return;
        }
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The configuration is loaded anew; [`Systemd::ready`] follows.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(since) => self.tell(&[NotifyState::Reloading, since]),
            Err(error) => log::warn!(error:%; "systemd is not told of the reload"),
        }
    }

    /// The process ends.
    pub fn stopping(&mut self) {
        self.ends = true;
        self.tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    }

    /// Another process, `pid`, serves from now on; this one says no more.
    pub fn leave_to(&mut self, pid: u32) {
        if self.watchdog.is_some() {
            // The new one may have spoken last before it was listened to: it has all its time.
            self.tell(&[NotifyState::Watchdog]);
        }
        let status = format!("upgraded: process {pid} serves");
        self.tell(&[NotifyState::MainPid(pid), NotifyState::Status(&status)]);
        self.watchdog = None;
        self.has_left = true;
    }

    /// Says that the process is well, if it is time and `lived` of each shard that is to run has
    /// grown.
    pub fn look(&mut self, lived: impl Iterator<Item = Option<u64>>, now: Instant) {
        let Some(watchdog) = &mut self.watchdog else {
            return;
        };
        match watchdog.look(lived, now) {
            Look::Early => {}
            Look::Well => self.tell(&[NotifyState::Watchdog]),
            Look::Hangs(shard) => {
                if !std::mem::replace(&mut watchdog.silent, true) {
                    log::error!(shard; "a shard hangs; systemd's watchdog is not answered");
                }
            }
        }
    }

    /// Nobody, where NOTIFY_SOCKET is not set.
    fn tell(&self, states: &[NotifyState<'_>]) {
        if self.has_left {
            return;
        }
        if let Err(error) = sd_notify::notify(states) {
            log::warn!(error:%; "systemd is not told");
        }
    }
}

impl Watchdog {
    fn new(every: Duration, now: Instant) -> Self {
        Self {
            every,
            due: now + every,
            lived: Vec::new(),
            silent: false,
        }
    }

    fn look(&mut self, lived: impl Iterator<Item = Option<u64>>, now: Instant) -> Look {
        if now < self.due {
            return Look::Early;
        }
        self.due = now + self.every;
        let before = std::mem::replace(&mut self.lived, lived.collect());
        let mut both = self.lived.iter().zip(&before);
        match both.position(|(now, before)| now.is_some() && now == before) {
            Some(shard) => Look::Hangs(shard),
            None => {
                self.silent = false;
                Look::Well
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_hangs_keeps_the_process_silent() {
        #[expect(clippy::disallowed_methods, reason = "any begin will do")]
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut watchdog = Watchdog::new(Duration::from_secs(5), begin);
        let mut look =
            |lived: [Option<u64>; 2], seconds| watchdog.look(lived.into_iter(), at(seconds));
        assert_eq!(look([Some(1), Some(1)], 4), Look::Early);
        assert_eq!(look([Some(1), Some(1)], 5), Look::Well);
        assert_eq!(look([Some(2), Some(1)], 9), Look::Early);
        assert_eq!(look([Some(2), Some(1)], 10), Look::Hangs(1));
        assert_eq!(look([Some(3), Some(1)], 15), Look::Hangs(1));
        assert_eq!(look([Some(4), Some(2)], 20), Look::Well);
        // It died, and waits to be started again.
        assert_eq!(look([Some(5), None], 25), Look::Well);
        assert_eq!(look([Some(6), Some(2)], 30), Look::Well);
        assert_eq!(look([Some(7), Some(3)], 35), Look::Well);
    }
}
