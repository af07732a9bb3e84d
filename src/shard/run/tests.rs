//! Shards on threads of their own, with the door to them in the hand of the test.

use std::os::fd::OwnedFd;

use super::*;
use crate::door::{Publisher, door};
use crate::plan::{
    Listener, ListenerId, ListenerLimits, ListenerTimeouts, ListeningSocket, Plan, Protocol,
    Routes, Service, ServiceIndex, Ticks,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

fn plan(generation: u64, life: Life, socket: &Arc<OwnedFd>, origin: SocketAddr) -> Plan {
    let ticks = Ticks(100);
    let service = Service::over("a", &[origin]);
    let listener = Listener {
        name: "web".into(),
        address: fd::local_address(socket).unwrap(),
        id: ListenerId(1),
        accepting: true,
        sockets: [ListeningSocket {
            shard: 0,
            socket: Arc::downgrade(socket),
        }]
        .into(),
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
            while matches!(connection.read(&mut [0; 1024]), Ok(1..)) {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
                connection.write_all(answer).unwrap();
            }
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
