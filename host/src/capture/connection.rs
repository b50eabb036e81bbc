//! A replication connection: blocking, on the capture thread, with one read buffer.
//!
//! `tokio-postgres` has no COPY BOTH, and the crates that have one hand out every message as an
//! owned value. What is needed is small: the start-up, a few simple queries, then frames read into
//! the very buffer that the batch will keep. `postgres-protocol` writes and parses the messages of
//! the start-up.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{DataRowBody, ErrorResponseBody, Message};
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use tokio_postgres::config::Host;

use super::error::Error;
use super::source_url::{Endpoint, NO_TRANSACTION_TIMEOUT, SourceUrl, Tls};
use super::tls;

/// No answer during start-up or to a simple query may take longer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How often somebody who waits for long is asked whether to go on.
const POLL: Duration = Duration::from_millis(100);

/// A connection in replication mode.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    /// Connects, negotiates TLS as `sslmode` says, and authenticates.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if no host answers; what the server or TLS refused otherwise.
    pub fn open(url: &SourceUrl) -> Result<Connection, Error> {
        let mut last = None;
        for endpoint in url.endpoints() {
            match connect(url, &endpoint) {
                Ok(socket) => {
                    let mut connection = Connection { socket };
                    connection.start_up(url)?;
                    return Ok(connection);
                }
                Err(error @ Error::Unreachable { .. }) => last = Some(error),
                Err(other) => return Err(other),
            }
        }
        Err(last.expect("a URL that was parsed names a host"))
    }

    fn start_up(&mut self, url: &SourceUrl) -> Result<(), Error> {
        self.set_timeout(ANSWER_TIMEOUT)?;
        let parameters = [
            ("user", url.user()),
            ("database", url.database()),
            ("replication", "database"),
            ("application_name", "tailwater"),
            ("client_encoding", "UTF8"),
            ("options", url.config().get_options().unwrap_or_default()),
        ];
        self.send(|out| frontend::startup_message(parameters, out))?;
        self.authenticate(url)?;
        self.until_ready()?;
        self.send(|out| frontend::query(NO_TRANSACTION_TIMEOUT, out))?;
        self.until_ready()
    }

    fn until_ready(&mut self) -> Result<(), Error> {
        loop {
            match self.message()? {
                Message::ReadyForQuery(_) => return Ok(()),
                Message::ErrorResponse(body) => return Err(server_error(&body)),
                _ => {}
            }
        }
    }

    fn authenticate(&mut self, url: &SourceUrl) -> Result<(), Error> {
        let password = || url.config().get_password().ok_or(Error::NoPassword);
        match self.message()? {
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationCleartextPassword => {
                let password = password()?;
                self.send(|out| frontend::password_message(password, out))?;
            }
            Message::AuthenticationMd5Password(body) => {
                let hash = md5_hash(url.user().as_bytes(), password()?, body.salt());
                self.send(|out| frontend::password_message(hash.as_bytes(), out))?;
            }
            Message::AuthenticationSasl(body) => {
                if !body.mechanisms().any(|mechanism| Ok(mechanism == SCRAM_SHA_256))? {
                    return Err(Error::Authentication("a SASL mechanism other than SCRAM-SHA-256"));
                }
                self.scram(password()?)?;
            }
            Message::ErrorResponse(body) => return Err(server_error(&body)),
            Message::AuthenticationGss | Message::AuthenticationSspi => {
                return Err(Error::Authentication("GSSAPI or SSPI"));
            }
            _ => return Err(Error::Protocol('R')),
        }
        match self.message()? {
            Message::AuthenticationOk => Ok(()),
            Message::ErrorResponse(body) => Err(server_error(&body)),
            _ => Err(Error::Protocol('R')),
        }
    }

    fn scram(&mut self, password: &[u8]) -> Result<(), Error> {
        let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
        self.send(|out| frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), out))?;
        match self.message()? {
            Message::AuthenticationSaslContinue(body) => scram.update(body.data())?,
            Message::ErrorResponse(body) => return Err(server_error(&body)),
            _ => return Err(Error::Protocol('R')),
        }
        self.send(|out| frontend::sasl_response(scram.message(), out))?;
        match self.message()? {
            Message::AuthenticationSaslFinal(body) => Ok(scram.finish(body.data())?),
            Message::ErrorResponse(body) => Err(server_error(&body)),
            _ => Err(Error::Protocol('R')),
        }
    }

    /// Runs a replication command that may take as long as it likes and gives its first row, as text.
    /// While there is no answer, `goes_on` is asked now and then; if it says no, nothing is given, and
    /// the connection is of no use any more.
    ///
    /// # Errors
    /// What the server refused, or the connection's error.
    pub fn query_row_while(
        &mut self,
        command: &str,
        mut goes_on: impl FnMut() -> bool,
    ) -> Result<Option<Vec<Option<String>>>, Error> {
        self.send(|out| frontend::query(command, out))?;
        let mut first = Vec::new();
        let mut refused = None;
        loop {
            self.set_timeout(POLL)?;
            let mut kind = [0];
            while self.read(&mut kind)?.is_none() {
                if !goes_on() {
                    return Ok(None);
                }
            }
            self.set_timeout(ANSWER_TIMEOUT)?;
            match parse(self.rest_of_message(kind[0])?)? {
                Message::DataRow(row) if first.is_empty() => first = row_texts(&row)?,
                Message::ErrorResponse(body) => refused = Some(server_error(&body)),
                Message::ReadyForQuery(_) => return refused.map_or(Ok(Some(first)), Err),
                _ => {}
            }
        }
    }

    /// Sends `START_REPLICATION`; from its return on, only copy frames come.
    ///
    /// # Errors
    /// What the server refused, or the connection's error.
    pub fn start_copy(&mut self, command: &str) -> Result<(), Error> {
        self.send(|out| frontend::query(command, out))?;
        loop {
            let frame = self.raw_message()?;
            // CopyBothResponse, which `postgres-protocol` does not know.
            if frame.first() == Some(&b'W') {
                return Ok(());
            }
            match parse(frame)? {
                Message::ErrorResponse(body) => return Err(server_error(&body)),
                Message::NoticeResponse(_) | Message::ParameterStatus(_) => {}
                _ => return Err(Error::Protocol('W')),
            }
        }
    }

    /// Reads what is there into the buffer's spare room; `None` when the timeout passed first.
    ///
    /// # Errors
    /// [`Error::Ended`] at the end of the stream, or the connection's error.
    pub fn read(&mut self, spare: &mut [u8]) -> Result<Option<usize>, Error> {
        loop {
            match self.socket.read(spare) {
                Ok(0) => return Err(Error::Ended),
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes a copy frame.
    ///
    /// # Errors
    /// The connection's error.
    pub fn write_copy(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.send(|out| {
            frontend::CopyData::new(payload)?.write(out);
            Ok(())
        })
    }

    /// Ends the copy and waits for the server to have seen everything written before.
    ///
    /// # Errors
    /// The connection's error.
    pub fn end_copy(&mut self) -> Result<(), Error> {
        self.set_timeout(Duration::from_secs(2))?;
        self.send(|out| {
            frontend::copy_done(out);
            Ok(())
        })?;
        // Frames still under way come first; the command's completion comes last.
        while self.skip_message()? != b'Z' {}
        self.send(|out| {
            frontend::terminate(out);
            Ok(())
        })
    }

    /// How long a read may wait.
    ///
    /// # Errors
    /// The socket's error.
    pub fn set_timeout(&self, timeout: Duration) -> Result<(), Error> {
        let timeout = Some(timeout.max(Duration::from_micros(100)));
        match &self.socket {
            Socket::Unix(socket) => socket.set_read_timeout(timeout)?,
            Socket::Tcp(socket) => socket.set_read_timeout(timeout)?,
            Socket::Tls(stream) => stream.sock.set_read_timeout(timeout)?,
        }
        Ok(())
    }

    fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<(), Error> {
        let mut out = BytesMut::new();
        write(&mut out)?;
        self.socket.write_all(&out)?;
        Ok(self.socket.flush()?)
    }

    /// One message, exactly: nothing of what follows is read.
    fn raw_message(&mut self) -> Result<BytesMut, Error> {
        let mut kind = [0];
        self.socket.read_exact(&mut kind).map_err(silent)?;
        self.rest_of_message(kind[0])
    }

    /// The message whose first byte was read, that byte included.
    fn rest_of_message(&mut self, kind: u8) -> Result<BytesMut, Error> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length).map_err(silent)?;
        let len = u32::from_be_bytes(length) as usize;
        // Start-up and command answers are small; a larger length is not PostgreSQL.
        if !(4..=1 << 20).contains(&len) {
            return Err(Error::Protocol(char::from(kind)));
        }
        let mut frame = BytesMut::zeroed(len + 1);
        frame[0] = kind;
        frame[1..5].copy_from_slice(&length);
        self.socket.read_exact(&mut frame[5..]).map_err(silent)?;
        Ok(frame)
    }

    /// Reads past one message of any size and gives its type.
    fn skip_message(&mut self) -> Result<u8, Error> {
        let mut header = [0; 5];
        self.socket.read_exact(&mut header).map_err(silent)?;
        let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let body = u64::from(len).saturating_sub(4);
        io::copy(&mut (&mut self.socket).take(body), &mut io::sink()).map_err(silent)?;
        Ok(header[0])
    }

    fn message(&mut self) -> Result<Message, Error> {
        parse(self.raw_message()?)
    }
}

fn parse(mut frame: BytesMut) -> Result<Message, Error> {
    let kind = frame.first().copied().unwrap_or_default();
    match Message::parse(&mut frame) {
        Ok(Some(message)) => Ok(message),
        Ok(None) | Err(_) => Err(Error::Protocol(char::from(kind))),
    }
}

fn silent(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Silent(ANSWER_TIMEOUT),
        io::ErrorKind::UnexpectedEof => Error::Ended,
        _ => Error::Io(error),
    }
}

fn connect(url: &SourceUrl, endpoint: &Endpoint) -> Result<Socket, Error> {
    match &endpoint.host {
        Host::Unix(directory) => {
            let path = directory.join(format!(".s.PGSQL.{}", endpoint.port));
            let connected = UnixStream::connect(&path);
            connected.map(Socket::Unix).map_err(|source| Error::Unreachable {
                endpoint: path.display().to_string(),
                source,
            })
        }
        Host::Tcp(name) => {
            let tcp = connect_tcp(url, name, endpoint)
                .map_err(|source| Error::Unreachable { endpoint: endpoint.to_string(), source })?;
            if url.tls.mode == Tls::Disable {
                return Ok(Socket::Tcp(tcp));
            }
            negotiate_tls(url, name, tcp)
        }
    }
}

fn connect_tcp(url: &SourceUrl, name: &str, endpoint: &Endpoint) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let addresses: Vec<SocketAddr> = match endpoint.address {
        Some(address) => vec![(address, endpoint.port).into()],
        None => (name, endpoint.port).to_socket_addrs()?.collect(),
    };
    for address in addresses {
        match TcpStream::connect_timeout(&address, url.connect_timeout()) {
            Ok(tcp) => {
                tcp.set_nodelay(true)?;
                keep_alive(url, &tcp)?;
                return Ok(tcp);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn keep_alive(url: &SourceUrl, tcp: &TcpStream) -> io::Result<()> {
    let (config, socket) = (url.config(), socket2::SockRef::from(tcp));
    socket.set_tcp_user_timeout(config.get_tcp_user_timeout().copied())?;
    if config.get_keepalives() {
        let mut keepalive = socket2::TcpKeepalive::new().with_time(config.get_keepalives_idle());
        if let Some(interval) = config.get_keepalives_interval() {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(retries) = config.get_keepalives_retries() {
            keepalive = keepalive.with_retries(retries);
        }
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

fn negotiate_tls(url: &SourceUrl, name: &str, mut tcp: TcpStream) -> Result<Socket, Error> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    tcp.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    tcp.write_all(&request)?;
    let mut answer = [0];
    tcp.read_exact(&mut answer).map_err(silent)?;
    match (answer[0], url.tls.mode) {
        (b'S', _) => {}
        (_, Tls::Prefer) => return Ok(Socket::Tcp(tcp)),
        _ => return Err(Error::TlsRefused),
    }
    let config = Arc::new(tls::client_config(&url.tls)?);
    let nameless = rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidForName);
    let server = ServerName::try_from(name.to_owned()).map_err(|_| Error::Tls(nameless))?;
    let client = ClientConnection::new(config, server).map_err(Error::Tls)?;
    let mut stream = StreamOwned::new(client, tcp);
    match stream.conn.complete_io(&mut stream.sock) {
        Ok(_) => Ok(Socket::Tls(Box::new(stream))),
        Err(error) => Err(match error.downcast::<rustls::Error>() {
            Ok(refused) => Error::Tls(refused),
            Err(other) => Error::Io(other),
        }),
    }
}

fn row_texts(row: &DataRowBody) -> Result<Vec<Option<String>>, Error> {
    let text = |range: Option<Range<usize>>| {
        Ok(range.map(|range| String::from_utf8_lossy(&row.buffer()[range]).into_owned()))
    };
    Ok(row.ranges().map(text).collect()?)
}

fn server_error(body: &ErrorResponseBody) -> Error {
    let mut code = String::new();
    let mut message = String::new();
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => code = value,
            b'M' => message = value,
            _ => {}
        }
    }
    Error::Server { code, message }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(socket) => socket.read(buffer),
            Socket::Tcp(socket) => socket.read(buffer),
            Socket::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(socket) => socket.write(bytes),
            Socket::Tcp(socket) => socket.write(bytes),
            Socket::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Socket::Unix(socket) => socket.flush(),
            Socket::Tcp(socket) => socket.flush(),
            Socket::Tls(stream) => stream.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Why a connection does not come about to a server that reads the start-up, sends `answer`, and
    /// then closes, or resets the connection.
    fn refusal(answer: &[u8], reset: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable");
        let url = SourceUrl::parse(&url).expect("a URL");
        let opening = std::thread::spawn(move || Connection::open(&url));
        let (mut server, _) = listener.accept().expect("a connection");
        let mut length = [0; 4];
        server.read_exact(&mut length).expect("the start-up");
        let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
        server.read_exact(&mut rest).expect("the start-up");
        server.write_all(answer).expect("it listens");
        if reset {
            socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).expect("a socket");
        }
        drop(server);
        opening.join().expect("it does not panic").expect_err("no PostgreSQL").to_string()
    }

    #[test]
    fn where_nobody_listens_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let url = SourceUrl::parse(&format!("postgres://u@127.0.0.1:{port}/d")).expect("a URL");
        let said = Connection::open(&url).expect_err("nobody listens").to_string();
        let wanted = format!("cannot reach the source at 127.0.0.1:{port}; check host, port");
        assert!(said.starts_with(&wanted), "{said}");
    }

    #[test]
    fn a_server_that_cannot_be_talked_to_is_said() {
        // AuthenticationCleartextPassword and AuthenticationGSS.
        let (password, ticket) = (b"R\0\0\0\x08\0\0\0\x03", b"R\0\0\0\x08\0\0\0\x07");
        // AuthenticationSASL.
        let external = b"R\0\0\0\x12\0\0\0\x0aEXTERNAL\0\0";
        for (answer, reset, wanted) in [
            (&b""[..], true, "the connection to the source broke"),
            (b"", false, "the source ended the replication stream"),
            (b"HTTP/1.1 400", false, "unexpected message `H` from the source"),
            (password, false, "the source asks for a password; put it into the URL"),
            (external, false, "the source asks for a SASL mechanism other than SCRAM-SHA-256"),
            (ticket, false, "the source asks for GSSAPI or SSPI authentication, which is not"),
        ] {
            let said = refusal(answer, reset);
            assert!(said.starts_with(wanted), "{wanted}: {said}");
        }
    }
}
