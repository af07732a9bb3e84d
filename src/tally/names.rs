//! Every metric's name, labels and help in one table: the docs and `/metrics` are made from it.
//!
//! Names are `ringmain_<noun>_<unit>[_total]`; a metric that counts things has the things as its
//! noun and no unit.

/// Whether a number only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It is what it is now.
    Gauge,
}

/// What a metric is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things, which the noun names.
    Things,
    /// Bytes.
    Bytes,
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The whole name, as it is scraped.
    pub name: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// What it is counted in.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

/// Answers given.
pub const EXCHANGES: Metric = Metric {
    name: "ringmain_exchanges_total",
    kind: Kind::Counter,
    unit: Unit::Things,
    labels: &["service", "endpoint", "status_class", "source"],
    help: "Exchanges by the class of their answer's status and by who gave it.",
};

/// Faults.
pub const FAULTS: Metric = Metric {
    name: "ringmain_faults_total",
    kind: Kind::Counter,
    unit: Unit::Things,
    labels: &["service", "fault", "side"],
    help: "Exchanges that failed, by cause and by the side to blame.",
};

/// Tries after the first.
pub const RETRIES: Metric = Metric {
    name: "ringmain_retries_total",
    kind: Kind::Counter,
    unit: Unit::Things,
    labels: &["service", "reason"],
    help: "Tries after the first of an exchange, by reason.",
};

/// Tries that the budget did not allow.
pub const REFUSED_RETRIES: Metric = Metric {
    name: "ringmain_refused_retries_total",
    kind: Kind::Counter,
    unit: Unit::Things,
    labels: &["service"],
    help: "Tries after the first that were not made because the retry budget was spent.",
};

/// Whether endpoints are well.
pub const ENDPOINT_HEALTHY: Metric = Metric {
    name: "ringmain_endpoint_healthy",
    kind: Kind::Gauge,
    unit: Unit::Things,
    labels: &["service", "endpoint"],
    help: "1 while the endpoint is healthy, or nobody has asked it, and gets exchanges; else 0.",
};

/// Ejections.
pub const EJECTIONS: Metric = Metric {
    name: "ringmain_ejections_total",
    kind: Kind::Counter,
    unit: Unit::Things,
    labels: &["service", "endpoint", "reason"],
    help: "Times that a shard has ejected the endpoint, by reason.",
};

/// Shards that have an endpoint out.
pub const EJECTED_ENDPOINT_SHARDS: Metric = Metric {
    name: "ringmain_ejected_endpoint_shards",
    kind: Kind::Gauge,
    unit: Unit::Things,
    labels: &["service", "endpoint"],
    help: "Shards that have the endpoint ejected now.",
};

/// Exchanges for which endpoints were used that are not in.
pub const FAILED_OPEN_EXCHANGES: Metric = Metric {
    name: "ringmain_failed_open_exchanges_total",
    kind: Kind::Counter,
    unit: Unit::Things,
    labels: &["service"],
    help: "Exchanges for which endpoints were used that are not in, because none is.",
};

/// Exchanges that met `connections_max` of their endpoints.
pub const LIMITED_EXCHANGES: Metric = Metric {
    name: "ringmain_limited_exchanges_total",
    kind: Kind::Counter,
    unit: Unit::Things,
    labels: &["service"],
    help: "Times that an exchange found all its endpoints at their connections_max.",
};

/// Exchanges that were over a limit of their service.
pub const SHED_EXCHANGES: Metric = Metric {
    name: "ringmain_shed_exchanges_total",
    kind: Kind::Counter,
    unit: Unit::Things,
    labels: &["service", "limit"],
    help: "Exchanges refused at once because a limit of their service was reached, by limit.",
};

/// Clients' addresses that limits forgot too early.
pub const FORGOTTEN_CLIENTS: Metric = Metric {
    name: "ringmain_forgotten_clients_total",
    kind: Kind::Counter,
    unit: Unit::Things,
    labels: &["service"],
    help: "Times that a client's limits did not hold whole because there were too many addresses.",
};

/// Exchanges that wait for a connection.
pub const WAITING_EXCHANGES: Metric = Metric {
    name: "ringmain_waiting_exchanges",
    kind: Kind::Gauge,
    unit: Unit::Things,
    labels: &[],
    help: "Exchanges that wait now because their endpoints are at connections_max.",
};

/// Attempts of legs.
pub const FANOUT_ATTEMPTS: Metric = Metric {
    name: "ringmain_fanout_attempts_total",
    kind: Kind::Counter,
    unit: Unit::Things,
    labels: &["service", "backend"],
    help: "Attempts to send a fan-out's request to the backend, the first included.",
};

/// Legs that are through.
pub const FANOUT_LEGS: Metric = Metric {
    name: "ringmain_fanout_legs_total",
    kind: Kind::Counter,
    unit: Unit::Things,
    labels: &["service", "backend", "result"],
    help: "Requests of fan-outs that the backend has taken, or will not any more, by result.",
};

/// Legs that are not through.
pub const LEGS: Metric = Metric {
    name: "ringmain_fanout_legs",
    kind: Kind::Gauge,
    unit: Unit::Things,
    labels: &["state"],
    help: "Requests of fan-outs to single backends now, running or asleep before an attempt.",
};

/// Tunnels begun.
pub const TUNNELS: Metric = Metric {
    name: "ringmain_tunnels_total",
    kind: Kind::Counter,
    unit: Unit::Things,
    labels: &["service"],
    help: "Tunnels begun: exchanges whose answer was a 101, and sessions of TCP.",
};

/// Tunnels.
pub const TUNNELS_OPEN: Metric = Metric {
    name: "ringmain_tunnels_open",
    kind: Kind::Gauge,
    unit: Unit::Things,
    labels: &["service"],
    help: "Tunnels open now.",
};

/// Bytes of tunnels.
pub const TUNNEL_BYTES: Metric = Metric {
    name: "ringmain_tunnel_bytes_total",
    kind: Kind::Counter,
    unit: Unit::Bytes,
    labels: &["service", "direction"],
    help: "Bytes that tunnels have passed on, up to endpoints and down to clients.",
};

/// Client connections.
pub const CLIENT_CONNECTIONS: Metric = Metric {
    name: "ringmain_client_connections",
    kind: Kind::Gauge,
    unit: Unit::Things,
    labels: &[],
    help: "Client connections open now.",
};

/// Clients without a PROXY header.
pub const UNPROXIED_CLIENTS: Metric = Metric {
    name: "ringmain_unproxied_clients_total",
    kind: Kind::Counter,
    unit: Unit::Things,
    labels: &[],
    help: "Client connections closed because their PROXY header was missing, broken or late.",
};

/// Upstream connections.
pub const UPSTREAM_CONNECTIONS: Metric = Metric {
    name: "ringmain_upstream_connections",
    kind: Kind::Gauge,
    unit: Unit::Things,
    labels: &["state"],
    help: "Upstream connections open now, in use by an exchange or idle in a pool.",
};

/// Connections closed for want of descriptors.
pub const GIVEN_UP_CONNECTIONS: Metric = Metric {
    name: "ringmain_given_up_connections_total",
    kind: Kind::Counter,
    unit: Unit::Things,
    labels: &["side"],
    help: "Idle connections closed because descriptors had run out, with clients and endpoints.",
};

/// Bytes moved.
pub const BYTES: Metric = Metric {
    name: "ringmain_bytes_total",
    kind: Kind::Counter,
    unit: Unit::Bytes,
    labels: &["side", "direction"],
    help: "Bytes read and written on connections with clients and with endpoints.",
};

/// The plan that a shard runs.
pub const PLAN_GENERATION: Metric = Metric {
    name: "ringmain_plan_generation",
    kind: Kind::Gauge,
    unit: Unit::Things,
    labels: &["shard"],
    help: "The number of the plan that each shard runs.",
};

/// Every metric, in the order of the docs.
pub const ALL: [Metric; 24] = [
    EXCHANGES,
    FAULTS,
    RETRIES,
    REFUSED_RETRIES,
    ENDPOINT_HEALTHY,
    EJECTIONS,
    EJECTED_ENDPOINT_SHARDS,
    FAILED_OPEN_EXCHANGES,
    LIMITED_EXCHANGES,
    SHED_EXCHANGES,
    FORGOTTEN_CLIENTS,
    WAITING_EXCHANGES,
    FANOUT_ATTEMPTS,
    FANOUT_LEGS,
    LEGS,
    TUNNELS,
    TUNNELS_OPEN,
    TUNNEL_BYTES,
    CLIENT_CONNECTIONS,
    UNPROXIED_CLIENTS,
    UPSTREAM_CONNECTIONS,
    GIVEN_UP_CONNECTIONS,
    BYTES,
    PLAN_GENERATION,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_say_kind_and_unit() {
        let names: HashSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for Metric {
            name, kind, unit, ..
        } in ALL
        {
            assert!(name.starts_with("ringmain_"), "{name}");
            let counts = *name != *name.trim_end_matches("_total");
            assert_eq!(counts, kind == Kind::Counter, "{name}");
            assert_eq!(name.contains("_bytes"), unit == Unit::Bytes, "{name}");
        }
    }

    #[test]
    fn help_is_one_sentence() {
        for Metric { name, help, .. } in ALL {
            assert!(help.ends_with('.') && !help.contains(". "), "{name}");
        }
    }
}
