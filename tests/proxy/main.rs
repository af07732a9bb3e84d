//! The real binary on free ports, on both drivers, spoken to over raw sockets.

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod ahead;
mod answers;
mod balance;
mod bodies;
mod chaos;
mod dns;
mod drain;
mod early;
mod eject;
mod fairness;
mod fanout;
mod faults;
mod forwarding;
mod framing;
mod handover;
mod hdr;
mod interim;
mod keep_alive;
mod limits;
mod log;
mod measured;
mod phases;
mod probe;
mod process;
mod proxy_protocol;
mod queue;
mod reload;
mod replay;
mod report;
mod retry;
mod revive;
mod routing;
mod shed;
mod systemd;
mod tcp;
mod upgrade;
