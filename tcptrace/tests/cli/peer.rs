//! Connections for the command to see, on loopback and to a port that nobody else uses.

use std::{
    fs,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
};

/// What the client's side goes through in [`Server::connection`], without a hook for TIME_WAIT.
pub const CLIENT: [&str; 5] = [
    "CLOSE SYN_SENT",
    "SYN_SENT ESTABLISHED",
    "ESTABLISHED FIN_WAIT1",
    "FIN_WAIT1 FIN_WAIT2",
    "FIN_WAIT2 CLOSE",
];

/// A listener, there before anything traces it.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    pub fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port as an argument: with `-D` only the clients' side is traced.
    pub fn port(&self) -> String {
        self.address.port().to_string()
    }

    /// One connection, closed by the client first. All its transitions are over on return.
    pub fn connection(&self) {
        let client = TcpStream::connect(self.address).unwrap();
        let (mut server, _) = self.listener.accept().unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        // The FIN is here, so its ACK went out before.
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        drop(server);
        // The server's FIN is here too.
        assert_eq!((&client).read(&mut [0]).unwrap(), 0);
    }

    /// The same, from a thread of that name.
    pub fn connection_by(&self, name: &[u8]) {
        thread::scope(|scope| {
            scope.spawn(|| {
                fs::write("/proc/thread-self/comm", name).unwrap();
                self.connection();
            });
        });
    }
}
