//! Shards on threads of their own, with the door to them in the hand of the test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread::{self, JoinHandle};

use super::*;
use crate::door::{Publisher, door};
use crate::plan::{
    Listener, ListenerId, ListenerLimits, ListenerTimeouts, ListeningSocket, Plan, Protocol,
    Routes, Service, ServiceIndex, Ticks,
};

/// The one listener of these plans.
const WEB: ListenerId = ListenerId(1);

fn plan(generation: u64, life: Life, socket: &Arc<OwnedFd>, origin: SocketAddr) -> Plan {
    shared(generation, life, &[(0, socket)], origin)
}

/// A plan in which each shard of `sockets` accepts from its own.
fn shared(
    generation: u64,
    life: Life,
    sockets: &[(u32, &Arc<OwnedFd>)],
    origin: SocketAddr,
) -> Plan {
    let socket = |(shard, socket): &(u32, &Arc<OwnedFd>)| ListeningSocket {
        shard: *shard,
        socket: Arc::downgrade(socket),
    };
    let ticks = Ticks(100);
    let service = Service::over("a", &[origin]);
    let listener = Listener {
        name: "web".into(),
        address: "127.0.0.1:80".parse().unwrap(),
        id: WEB,
        accepting: true,
        sockets: sockets.iter().map(socket).collect(),
        protocol: Protocol::Http,
        proxy_protocol: false,
        service: Some(ServiceIndex(0)),
        service_parameter: None,
        limits: ListenerLimits {
            shard_connections_max: 10,
            head_bytes_max: 4096,
            trailer_bytes_max: 100,
            fields_max: 50,
            body_bytes_max: 1000,
        },
        timeouts: ListenerTimeouts {
            head: ticks,
            body_idle: ticks,
            keep_alive: ticks,
            send_idle: ticks,
        },
    };
    Plan {
        generation,
        life,
        via: "test".into(),
        shard_connections_max: 10,
        listeners: [Arc::new(listener)].into(),
        services: [Arc::new(service)].into(),
        routes: Arc::new(Routes::default()),
        slots: [1].into(),
    }
}

/// Answers `hi` to whatever is asked; ends with the last connection of the test.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            thread::spawn(move || {
                while matches!(connection.read(&mut [0; 1024]), Ok(1..)) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
                    connection.write_all(answer).unwrap();
                }
            });
        }
    });
    address
}

fn ask(client: &mut TcpStream) -> String {
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let mut answer = [0; 1024];
    let length = client.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

fn start(door: Subscriber, driver: DriverChoice, dies: bool) -> JoinHandle<Result<(), ShardError>> {
    let setup = Setup { door, driver };
    thread::spawn(move || {
        run_life(setup, move |shard| async move {
            if dies {
                let counters = Arc::clone(&shard.counters);
                let life = Rc::clone(&shard).live();
                shard.start(async move { life.await.unwrap() });
                while counters.own_answers.get() + counters.exchanges.get() == 0 {
                    sleep(TICK).await;
                }
                std::panic::panic_any("the shard dies");
            }
            shard.live().await
        })
    })
}

#[track_caller]
fn check(driver: DriverChoice) {
    let socket = fd::listen("127.0.0.1:0".parse().unwrap(), 16).unwrap();
    let socket = Arc::new(socket);
    let address = fd::local_address(&socket).unwrap();
    let origin = origin();
    let (mut publisher, mut doors): (Publisher, _) = door(1);
    publisher.publish(plan(1, Life::Serving, &socket, origin));
    let first = start(doors.remove(0), driver, true);
    let mut client = TcpStream::connect(address).unwrap();
    assert!(ask(&mut client).ends_with("hi"));
    assert!(first.join().is_err(), "the shard has died");
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "its client is closed");
    assert_eq!(publisher.shard_counters()[0].exchanges.get(), 1);

    // Who comes in between waits in the queue of the socket, which belongs to boot.
    let mut client = TcpStream::connect(address).unwrap();
    publisher.notices().for_each(drop);
    let second = start(publisher.resubscribe(0), driver, false);
    assert!(ask(&mut client).ends_with("hi"));
    assert_eq!(
        publisher.shard_counters()[0].exchanges.get(),
        2,
        "what was counted stays"
    );
    assert_eq!(
        publisher.shard_counters()[0].clients_open.get(),
        1,
        "gauges do not"
    );
    publisher.publish(plan(2, Life::Draining, &socket, origin));
    drop(client);
    second.join().unwrap().unwrap();
    assert_eq!(publisher.adopted(0), 2);
}

#[test]
fn a_shard_that_dies_takes_no_queued_client_along() {
    check(DriverChoice::Auto);
    check(DriverChoice::Epoll);
}

/// A listening socket, and its address.
fn listening() -> (Arc<OwnedFd>, SocketAddr) {
    let socket = fd::listen("127.0.0.1:0".parse().unwrap(), 16).unwrap();
    let address = fd::local_address(&socket).unwrap();
    (Arc::new(socket), address)
}

/// Waits until it is so.
fn when(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::yield_now();
    }
}

#[track_caller]
fn check_takes_over(driver: DriverChoice) {
    let ((one, one_at), (other, other_at)) = (listening(), listening());
    let origin = origin();
    let (mut publisher, doors): (Publisher, _) = door(2);
    publisher.publish(shared(1, Life::Serving, &[(0, &one), (1, &other)], origin));
    let shards = doors.into_iter().map(|door| start(door, driver, false));
    let shards: Vec<_> = shards.collect();
    let accepted = |publisher: &Publisher, shard: usize| {
        let counters = &publisher.shard_counters()[shard];
        counters.clients_accepted.get()
    };
    let (mut first, mut second) = (
        TcpStream::connect(one_at).unwrap(),
        TcpStream::connect(other_at).unwrap(),
    );
    assert!(ask(&mut first).ends_with("hi") && ask(&mut second).ends_with("hi"));
    assert_eq!((accepted(&publisher, 0), accepted(&publisher, 1)), (1, 1));
    assert_eq!(
        (publisher.clients_of(WEB), publisher.sockets_of(WEB)),
        (2, 2)
    );
    // The first shard accepts for both; the other one lets its socket go as it is.
    publisher.publish(shared(2, Life::Serving, &[(0, &one), (0, &other)], origin));
    when(|| publisher.adopted_by_all(2));
    let mut third = TcpStream::connect(other_at).unwrap();
    assert!(ask(&mut third).ends_with("hi") && ask(&mut second).ends_with("hi"));
    when(|| publisher.sockets_of(WEB) == 2);
    assert_eq!((accepted(&publisher, 0), accepted(&publisher, 1)), (2, 1));
    // And gives it back.
    publisher.publish(shared(3, Life::Serving, &[(0, &one), (1, &other)], origin));
    when(|| publisher.adopted_by_all(3));
    let mut fourth = TcpStream::connect(other_at).unwrap();
    assert!(ask(&mut fourth).ends_with("hi"));
    assert_eq!((accepted(&publisher, 0), accepted(&publisher, 1)), (2, 2));
    // With the other one's socket nobody's, and one emptied at once.
    let mut queued = TcpStream::connect(one_at).unwrap();
    publisher.publish(shared(4, Life::Draining, &[(0, &one)], origin));
    when(|| publisher.sockets_of(WEB) == 0);
    let _left = TcpStream::connect(other_at).unwrap();
    assert!(fd::accept(other.as_raw_fd(), false).unwrap().is_some());
    assert!(fd::accept(one.as_raw_fd(), false).unwrap().is_none());
    assert!(ask(&mut queued).ends_with("hi"));
    drop((first, second, third, fourth, queued));
    for shard in shards {
        shard.join().unwrap().unwrap();
    }
    assert_eq!(publisher.clients_of(WEB), 0);
}

#[test]
fn a_socket_goes_from_shard_to_shard_and_its_queue_with_it() {
    check_takes_over(DriverChoice::Auto);
    check_takes_over(DriverChoice::Epoll);
}

#[track_caller]
fn check_dead(driver: DriverChoice) {
    let (socket, address) = listening();
    let origin = origin();
    let (mut publisher, mut doors): (Publisher, _) = door(2);
    publisher.publish(shared(1, Life::Serving, &[(0, &socket)], origin));
    let dies = start(doors.remove(0), driver, true);
    let lives = start(doors.remove(0), driver, false);
    let mut client = TcpStream::connect(address).unwrap();
    assert!(ask(&mut client).ends_with("hi"));
    assert!(dies.join().is_err(), "the shard has died");
    // The drain comes before anybody took over from it.
    let mut queued = TcpStream::connect(address).unwrap();
    fd::drop_syns(&*socket).unwrap();
    publisher.publish(shared(2, Life::Draining, &[(1, &socket)], origin));
    assert!(ask(&mut queued).ends_with("hi"));
    drop((client, queued));
    lives.join().unwrap().unwrap();
}

#[test]
fn who_is_queued_at_a_dead_shard_is_served_by_another_one_in_a_drain() {
    check_dead(DriverChoice::Auto);
    check_dead(DriverChoice::Epoll);
}

#[track_caller]
fn check_comes_back(driver: DriverChoice) {
    let ((one, one_at), (other, _)) = (listening(), listening());
    let origin = origin();
    let (mut publisher, mut doors): (Publisher, _) = door(2);
    let own = [(0, &one), (1, &other)];
    publisher.publish(shared(1, Life::Serving, &own, origin));
    let dies = start(doors.remove(0), driver, true);
    let lives = start(doors.remove(0), driver, false);
    let accepted = |publisher: &Publisher, shard: usize| {
        let counters = &publisher.shard_counters()[shard];
        counters.clients_accepted.get()
    };
    let mut client = TcpStream::connect(one_at).unwrap();
    assert!(ask(&mut client).ends_with("hi"));
    assert!(dies.join().is_err(), "the shard has died");
    // As control does at its death,
    let mut queued = TcpStream::connect(one_at).unwrap();
    let all = [(1, &one), (1, &other)];
    publisher.publish(shared(2, Life::Serving, &all, origin));
    assert!(ask(&mut queued).ends_with("hi"));
    assert_eq!((accepted(&publisher, 0), accepted(&publisher, 1)), (1, 1));
    // and when it starts it again.
    publisher.publish(shared(3, Life::Serving, &own, origin));
    publisher.notices().for_each(drop);
    let back = start(publisher.resubscribe(0), driver, false);
    when(|| publisher.adopted_by_all(3));
    let mut next = TcpStream::connect(one_at).unwrap();
    assert!(ask(&mut next).ends_with("hi") && ask(&mut queued).ends_with("hi"));
    assert_eq!((accepted(&publisher, 0), accepted(&publisher, 1)), (2, 1));
    when(|| publisher.sockets_of(WEB) == 2);
    drop((client, queued, next));
    publisher.publish(shared(4, Life::Draining, &own, origin));
    for shard in [lives, back] {
        shard.join().unwrap().unwrap();
    }
    let left = (publisher.clients_of(WEB), publisher.sockets_of(WEB));
    assert_eq!(left, (0, 0));
}

#[test]
fn the_sockets_of_a_dead_shard_are_the_living_ones_until_it_is_back() {
    check_comes_back(DriverChoice::Auto);
    check_comes_back(DriverChoice::Epoll);
}
