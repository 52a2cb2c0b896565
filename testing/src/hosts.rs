//! Hosts for tests: network namespaces that are joined by a network whose links can fail.
//!
//! Each host has an address of its own and a TUN device. This process reads the packets of every device and passes them
//! on, so a link can lose or delay what one host sends to another. The test itself is on the network too.
//!
//! Creating hosts needs root; [`HostNetwork::unavailable`] says whether it can be done.

use std::ffi::OsStr;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{self, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::install::{Program, find_or_install};

const IP: Program = Program {
    name: "ip",
    title: "iproute2",
    debian_package: "iproute2",
    homebrew_package: "iproute2mac",
    search_folders: &["/usr/sbin", "/sbin"],
};

/// The name of the test itself on the network.
pub const TEST: &str = "test";
/// The last byte of the test's address. The hosts get the values after it.
const TEST_ADDRESS: u8 = 1;
/// The last byte of the address that moves from host to host.
const FLOATING_ADDRESS: u8 = 200;
/// The size of the largest packet, in bytes. Few large packets cost this process less than many small ones.
const MTU: u16 = 32_000;
/// The most packets that all slow links hold together. Further packets are lost, as on a real link.
const QUEUE_LENGTH: usize = 2_000;
/// The start of the names of namespaces. The id of the test process follows.
const NAMESPACE_PREFIX: &str = "chat-test-";

/// Locked while this process has a network.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The state of the link from one host to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Packets arrive.
    #[default]
    Open,
    /// Packets are lost.
    Dead,
    /// Packets arrive after this time.
    Slow(Duration),
}

/// A host: a network namespace with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The name that the test gave it.
    pub name: &'static str,
    namespace: String,
    address: Ipv4Addr,
}

impl Host {
    /// Its address on the network.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A command that runs a program on this host, with these ids of user and group, or as the test's user if there are
    /// none. The process that it starts becomes the program, with the same process id.
    pub fn command(&self, program: impl AsRef<OsStr>, user: Option<(u32, u32)>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace));
        if let Some((user, group)) = user {
            command.arg(format!("--setuid={user}")).arg(format!("--setgid={group}"));
        }
        command.arg("--").arg(program);
        command
    }

    /// The name of its device.
    fn device_name(&self) -> String {
        format!("chat{}-{}", process::id(), self.address.octets()[3])
    }

    /// Runs `ip` in its namespace.
    fn ip(&self, arguments: &[&str]) -> io::Result<Output> {
        ip(&[&["-n", &self.namespace], arguments].concat())
    }
}

/// Hosts and the network between them. Dropping it removes both.
pub struct HostNetwork {
    hosts: Vec<Host>,
    router: Arc<Router>,
    floating: Ipv4Addr,
    _turn: MutexGuard<'static, ()>,
}

impl HostNetwork {
    /// The reason why hosts can't be created here, if they can't. Waits for the end of another network of this process.
    pub fn unavailable() -> Option<String> {
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
        if !is_root {
            return Some("network namespaces need root".to_owned());
        }
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = format!("{NAMESPACE_PREFIX}{}-probe", process::id());
        let created = ip(&["netns", "add", &namespace]).and_then(|_| {
            let name = test_device_name(process::id());
            let _device = create_device(&name)?;
            // Dropping the device may not remove it: a process that another thread is starting may have a copy of its
            // descriptor for a moment.
            ip(&["link", "delete", &name])
        });
        // Fails if the namespace could not be created.
        let _ = ip(&["netns", "delete", &namespace]);
        created.err().map(|error| format!("network namespaces can't be used: {error}"))
    }

    /// Creates hosts with these names, and joins them. A process has one network at a time; other callers wait.
    pub fn start(names: &[&'static str]) -> io::Result<Self> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        remove_old_namespaces()?;
        let id = process::id();
        // The addresses contain the last 15 bits of the process id, to keep the networks of test processes apart.
        let [.., second, third] = id.to_be_bytes();
        let address = |last: u8| Ipv4Addr::new(10, 128 | second, third, last);
        let own_device = test_device_name(id);
        let mut devices = vec![create_device(&own_device)?];
        ip(&["address", "add", &format!("{}/24", address(TEST_ADDRESS)), "dev", &own_device])?;
        ip(&["link", "set", &own_device, "up"])?;
        let mut hosts = Vec::new();
        for (name, last) in names.iter().zip(TEST_ADDRESS + 1..FLOATING_ADDRESS) {
            let host =
                Host { name, namespace: format!("{NAMESPACE_PREFIX}{id}-{name}"), address: address(last) };
            let host_device = host.device_name();
            devices.push(create_device(&host_device)?);
            ip(&["netns", "add", &host.namespace])?;
            ip(&["link", "set", &host_device, "netns", &host.namespace])?;
            host.ip(&["address", "add", &format!("{}/24", host.address), "dev", &host_device])?;
            host.ip(&["link", "set", &host_device, "up"])?;
            host.ip(&["link", "set", "lo", "up"])?;
            hosts.push(host);
        }
        Ok(Self { hosts, router: Router::start(devices), floating: address(FLOATING_ADDRESS), _turn: turn })
    }

    /// The host with this name.
    ///
    /// # Panics
    ///
    /// Panics if there is none.
    pub fn host(&self, name: &str) -> &Host {
        let host = self.hosts.iter().find(|host| host.name == name);
        host.unwrap_or_else(|| panic!("there is no host {name}"))
    }

    /// Sets the link from one host to another, or from or to the [`TEST`]. The link in the other direction stays as it
    /// is.
    pub fn set(&self, from: &str, to: &str, link: Link) {
        self.router.set(self.index(from), self.index(to), link);
    }

    /// Sets the links between two hosts, in both directions.
    pub fn set_both(&self, one: &str, other: &str, link: Link) {
        self.set(one, other, link);
        self.set(other, one, link);
    }

    /// Sets the links between a host and all that it can reach: the other hosts and the test. In both directions.
    pub fn set_all(&self, host: &str, link: Link) {
        let host = self.index(host);
        for other in 0..self.router.devices.len() {
            self.router.set(host, other, link);
            self.router.set(other, host, link);
        }
    }

    /// The address that [`HostNetwork::move_floating_address`] moves.
    pub fn floating_address(&self) -> Ipv4Addr {
        self.floating
    }

    /// Gives a host the floating address, and takes it from the host that had it, even if that host's links are dead.
    pub fn move_floating_address(&self, to: &Host) -> io::Result<()> {
        let address = format!("{}/32", self.floating);
        for host in &self.hosts {
            // Fails on each host that does not have the address.
            let _ = host.ip(&["address", "delete", &address, "dev", &host.device_name()]);
        }
        to.ip(&["address", "add", &address, "dev", &to.device_name()])?;
        self.router.floating_owner.store(self.index(to.name), Ordering::Relaxed);
        Ok(())
    }

    /// The index of the device of a host, or of the [`TEST`], in the router.
    fn index(&self, name: &str) -> usize {
        let last = if name == TEST { TEST_ADDRESS } else { self.host(name).address.octets()[3] };
        usize::from(last - TEST_ADDRESS)
    }
}

impl Drop for HostNetwork {
    fn drop(&mut self) {
        // A host that can't be removed now is removed by a later test process. A router thread ends with its device.
        for host in &self.hosts {
            let _ = ip(&["netns", "delete", &host.namespace]);
        }
        let _ = ip(&["link", "delete", &test_device_name(process::id())]);
    }
}

/// A packet on a slow link: when it arrives, and the index of the receiver's device.
struct DelayedPacket {
    arrives: Instant,
    receiver: usize,
    bytes: Vec<u8>,
}

/// Passes packets from device to device.
struct Router {
    /// The test's device, then those of the hosts in the order of their addresses.
    devices: Vec<SyncDevice>,
    /// The links by the indexes of sender and receiver.
    links: Mutex<Vec<Vec<Link>>>,
    /// The index of the host that has the floating address; before the first move, that of the test.
    floating_owner: AtomicUsize,
    /// The packets on slow links. They arrive in the order in which they were sent.
    slow: SyncSender<DelayedPacket>,
}

impl Router {
    /// Starts the threads that pass packets on.
    fn start(devices: Vec<SyncDevice>) -> Arc<Self> {
        let (slow, delayed) = mpsc::sync_channel::<DelayedPacket>(QUEUE_LENGTH);
        let links = Mutex::new(vec![vec![Link::Open; devices.len()]; devices.len()]);
        let router = Arc::new(Self { devices, links, floating_owner: AtomicUsize::new(0), slow });
        for index in 0..router.devices.len() {
            let router = Arc::clone(&router);
            thread::spawn(move || router.forward_from(index));
        }
        // This thread ends when the router is dropped.
        let weak_router = Arc::downgrade(&router);
        thread::spawn(move || {
            for packet in delayed {
                thread::sleep(packet.arrives.saturating_duration_since(Instant::now()));
                let Some(router) = weak_router.upgrade() else { return };
                router.deliver(packet.receiver, &packet.bytes);
            }
        });
        router
    }

    fn set(&self, from: usize, to: usize, link: Link) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)[from][to] = link;
    }

    /// Forwards the packets that the host of a device sends, until the device is removed.
    fn forward_from(&self, sender: usize) {
        let mut buffer = vec![0; usize::from(MTU)];
        while let Ok(length) = self.devices[sender].recv(&mut buffer) {
            let packet = &buffer[..length];
            let Some(receiver) = self.receiver(packet) else { continue };
            let link = self.links.lock().unwrap_or_else(PoisonError::into_inner)[sender][receiver];
            match link {
                Link::Open => self.deliver(receiver, packet),
                Link::Dead => {}
                Link::Slow(delay) => {
                    let packet =
                        DelayedPacket { arrives: Instant::now() + delay, receiver, bytes: packet.to_vec() };
                    // A full queue loses packets.
                    let _ = self.slow.try_send(packet);
                }
            }
        }
    }

    fn deliver(&self, receiver: usize, packet: &[u8]) {
        // The device may have been removed.
        let _ = self.devices[receiver].send(packet);
    }

    /// The index of the device that an IPv4 packet is addressed to.
    fn receiver(&self, packet: &[u8]) -> Option<usize> {
        const IPV4: u8 = 4;
        let last_of_destination = *packet.get(19)?;
        if packet.first()? >> 4 != IPV4 {
            return None;
        }
        let index = match last_of_destination {
            FLOATING_ADDRESS => self.floating_owner.load(Ordering::Relaxed),
            last => usize::from(last.checked_sub(TEST_ADDRESS)?),
        };
        (index < self.devices.len()).then_some(index)
    }
}

/// Creates a network device, which exists until it is dropped.
fn create_device(name: &str) -> io::Result<SyncDevice> {
    DeviceBuilder::new().name(name).layer(Layer::L3).mtu(MTU).build_sync()
}

fn test_device_name(process: u32) -> String {
    format!("chat{process}-{TEST_ADDRESS}")
}

/// Removes the namespaces of test processes that have ended.
fn remove_old_namespaces() -> io::Result<()> {
    let listed = ip(&["netns", "list"])?;
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let Some(name) = line.split_whitespace().next() else { continue };
        let owner = name.strip_prefix(NAMESPACE_PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // Another test process may remove it at the same time.
            let _ = ip(&["netns", "delete", name]);
        }
    }
    Ok(())
}

/// Runs `ip`, and returns its output if it succeeds.
fn ip(arguments: &[&str]) -> io::Result<Output> {
    let output = Command::new(find_or_install(&IP)).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(output);
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("ip {}: {reason}", arguments.join(" "))))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::net::{SocketAddr, TcpStream};
    use std::process::{Child, ChildStdout};

    use super::*;

    /// A server on a host. It sends the host's name to each client.
    struct HostnameServer {
        child: Child,
        address: SocketAddr,
        _output: BufReader<ChildStdout>,
    }

    impl HostnameServer {
        fn start(host: &Host, address: Ipv4Addr) -> Self {
            const PROGRAM: &str = "import socket, sys\nserver = socket.create_server((sys.argv[1], 0))\n\
                print(server.getsockname()[1], flush=True)\nwhile True:\n  client, _ = server.accept()\n  \
                client.sendall(sys.argv[2].encode())\n  client.close()\n";
            let mut command = host.command("python3", None);
            command.args(["-c", PROGRAM, &address.to_string(), host.name]);
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut output = BufReader::new(child.stdout.take().unwrap());
            let mut port = String::new();
            output.read_line(&mut port).unwrap();
            let address = SocketAddr::from((address, port.trim().parse().unwrap()));
            Self { child, address, _output: output }
        }
    }

    impl Drop for HostnameServer {
        fn drop(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    /// Reads the name that a server sends.
    fn read_name(address: SocketAddr) -> io::Result<String> {
        const TIMEOUT: Duration = Duration::from_secs(20);
        let mut connection = TcpStream::connect_timeout(&address, TIMEOUT)?;
        connection.set_read_timeout(Some(TIMEOUT))?;
        let mut name = String::new();
        connection.read_to_string(&mut name)?;
        Ok(name)
    }

    fn assert_unreachable(address: SocketAddr) {
        // Longer than a connection takes, and short enough to wait for.
        let error = TcpStream::connect_timeout(&address, Duration::from_millis(500)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_link_that_is_dead_in_one_direction_prevents_connections_and_a_slow_one_does_not() {
        if let Some(reason) = HostNetwork::unavailable() {
            eprintln!("not tested: {reason}");
            return;
        }
        let network = HostNetwork::start(&["one", "two"]).unwrap();
        let one = HostnameServer::start(network.host("one"), network.host("one").address());
        let two = HostnameServer::start(network.host("two"), network.host("two").address());
        assert_eq!(read_name(one.address).unwrap(), "one");

        network.set("one", TEST, Link::Dead);
        assert_unreachable(one.address);
        assert_eq!(read_name(two.address).unwrap(), "two", "not the answer of the other host");
        network.set("one", TEST, Link::Slow(Duration::from_millis(20)));
        assert_eq!(read_name(one.address).unwrap(), "one");

        network.set_all("two", Link::Dead);
        assert_unreachable(two.address);
        network.set_all("two", Link::Open);
        assert_eq!(read_name(two.address).unwrap(), "two");
    }

    #[test]
    fn the_floating_address_moves_to_another_host() {
        if let Some(reason) = HostNetwork::unavailable() {
            eprintln!("not tested: {reason}");
            return;
        }
        let network = HostNetwork::start(&["one", "two"]).unwrap();
        let floating = network.floating_address();
        for name in ["one", "two", "one"] {
            let host = network.host(name);
            network.move_floating_address(host).unwrap();
            let server = HostnameServer::start(host, floating);
            assert_eq!(read_name(server.address).unwrap(), name);
        }
    }
}
