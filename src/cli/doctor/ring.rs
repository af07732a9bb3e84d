//! Whether io_uring works here, with which flags, and what to type if not.
//!
//! The rungs are those that a shard climbs down. Each is tried on a fresh thread, because a ring of
//! SINGLE_ISSUER belongs to the thread that made it.

use std::io;
use std::thread;

use io_uring::{Builder, IoUring};
use monoio::{LegacyDriver, RuntimeBuilder};

use super::{Finding, soft_limit};

const SUBJECT: &str = "io_uring";

/// Submission entries of a ring that is only tried.
const ENTRIES: u32 = 256;

/// Locked memory that the rings of a few shards take on kernels that count it (before 5.12).
const MEMLOCK_GOOD: u64 = 8 << 20;

/// A set of flags that a shard would run with.
struct Rung {
    flags: &'static str,
    set: fn(&mut Builder),
}

/// The best first.
const LADDER: [Rung; 3] = [
    Rung {
        flags: "SINGLE_ISSUER DEFER_TASKRUN COOP_TASKRUN SUBMIT_ALL",
        set: |builder| {
            builder
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_coop_taskrun()
                .setup_submit_all();
        },
    },
    Rung {
        flags: "COOP_TASKRUN",
        set: |builder| {
            builder.setup_coop_taskrun();
        },
    },
    Rung {
        flags: "no flags",
        set: |_| {},
    },
];

/// Tries the ladder, and epoll below it. `disabled` is what the sysctl `kernel.io_uring_disabled`
/// says, `limits` is proc(5)'s.
pub(super) fn examine(disabled: &str, limits: &str) -> Vec<Finding> {
    let mut refused = None;
    for (depth, rung) in LADDER.iter().enumerate() {
        match on_fresh_thread(|| build(rung)) {
            Ok(()) => return vec![works(rung, depth)],
            Err(error) => refused = Some(error),
        }
    }
    let error = refused.expect("the ladder has rungs");
    let memlock = soft_limit(limits, "Max locked memory");
    vec![
        refusal(&error, disabled, memlock),
        epoll(on_fresh_thread(build_epoll)),
    ]
}

fn build(rung: &Rung) -> io::Result<()> {
    let mut builder = IoUring::builder();
    (rung.set)(&mut builder);
    builder.build(ENTRIES).map(drop)
}

fn build_epoll() -> io::Result<()> {
    RuntimeBuilder::<LegacyDriver>::new().build().map(drop)
}

fn on_fresh_thread(attempt: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    thread::scope(|scope| {
        let handle = thread::Builder::new().spawn_scoped(scope, attempt)?;
        handle
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the attempt panicked")))
    })
}

fn works(rung: &Rung, depth: usize) -> Finding {
    if depth == 0 {
        return Finding::ok(SUBJECT, rung.flags);
    }
    let text = format!("works with {}; the best flags need Linux 6.1", rung.flags);
    Finding::warn(
        SUBJECT,
        text,
        "uname -r    (a newer kernel makes requests cheaper)",
    )
}

/// Why not even a plain ring can be made. ringmain runs on epoll then.
fn refusal(error: &io::Error, disabled: &str, memlock: Option<u64>) -> Finding {
    let (cause, advice) = match (disabled, error.raw_os_error()) {
        ("1" | "2", _) => (
            "a sysctl forbids it",
            "sysctl -w kernel.io_uring_disabled=0",
        ),
        (_, Some(libc::ENOMEM)) if memlock.is_some_and(|limit| limit < MEMLOCK_GOOD) => (
            "too little memory may be locked",
            "ulimit -l 65536    (systemd: LimitMEMLOCK=64M)",
        ),
        (_, Some(libc::EPERM | libc::EACCES)) => (
            "a seccomp filter forbids it, as in most containers",
            "docker run --security-opt seccomp=FILE    (one that allows io_uring_setup, \
             io_uring_enter, io_uring_register)",
        ),
        (_, Some(libc::ENOSYS)) => (
            "the kernel has none (before 5.1), or a seccomp filter hides it",
            "uname -r; in a container: docker run --security-opt seccomp=FILE",
        ),
        _ => ("the kernel refused a plain ring", "uname -r; dmesg | tail"),
    };
    Finding::warn(
        SUBJECT,
        format!("{cause} ({error}); ringmain runs on epoll"),
        advice,
    )
}

fn epoll(outcome: io::Result<()>) -> Finding {
    match outcome {
        Ok(()) => Finding::ok("epoll", "works"),
        Err(error) => Finding::fail("epoll", error.to_string(), "ulimit -n 65536"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;

    #[track_caller]
    fn check(errno: i32, disabled: &str, memlock: Option<u64>, part: &str) {
        let finding = refusal(&io::Error::from_raw_os_error(errno), disabled, memlock);
        assert_eq!(finding.grade, Grade::Warn);
        let advice = finding.advice.clone().expect("a refusal says what to type");
        assert!(advice.contains(part), "{finding:?}");
    }

    #[test]
    fn each_refusal_says_what_to_type() {
        check(libc::EPERM, "2", None, "io_uring_disabled=0");
        check(libc::EPERM, "0", None, "seccomp");
        check(libc::ENOSYS, "", None, "uname -r");
        check(libc::ENOMEM, "0", Some(64 << 10), "ulimit -l");
        check(libc::ENOMEM, "0", Some(u64::MAX), "dmesg");
    }

    #[test]
    fn a_lower_rung_works_with_a_warning() {
        assert_eq!(works(&LADDER[0], 0).grade, Grade::Ok);
        assert_eq!(works(&LADDER[2], 2).grade, Grade::Warn);
    }

    #[test]
    fn without_epoll_there_is_nothing_left() {
        assert_eq!(epoll(Err(io::ErrorKind::Other.into())).grade, Grade::Fail);
        assert_eq!(epoll(on_fresh_thread(build_epoll)).grade, Grade::Ok);
    }
}
