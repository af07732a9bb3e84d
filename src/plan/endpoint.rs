//! One socket address that a backend stands for now.

use std::net::SocketAddr;

/// An endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// `address` as text: the endpoint's name in reports, metrics and `backend_field`.
    pub name: Box<str>,
    /// Its share of the service's requests against the other endpoints' weights; 1 or more.
    pub weight: u32,
    /// A number that no other endpoint of the plan has and that it keeps from one generation to the
    /// next, so that shards can keep what belongs to it in arrays. `0 <= slot < Plan::slots`.
    pub slot: u32,
}
