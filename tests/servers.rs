//! Servers, and programs that talk to each other over sockets: what was connected before is lost, and
//! the server goes on where it was, at the same address.

mod common;

use std::fs::Permissions;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::yield_now;
use std::time::Instant;

use common::{PATIENCE, Place, Program, Running, User, each_user};

/// A port that nobody has.
fn free_port() -> u16 {
    let probe = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    probe.local_addr().expect("its address").port()
}

/// What `connect` gives as soon as `run` answers. No event tells that it listens.
fn connected<T>(run: &mut Running, connect: impl Fn() -> std::io::Result<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match connect() {
            Ok(stream) => return stream,
            Err(error) if run.has_ended() || Instant::now() > deadline => {
                run.fail(&format!("it cannot be reached: {error}"));
            }
            Err(_) => yield_now(),
        }
    }
}

/// A connection to a server at `port`.
fn connect(run: &mut Running, port: u16) -> TcpStream {
    let stream = connected(run, || TcpStream::connect(("127.0.0.1", port)));
    stream.set_read_timeout(Some(PATIENCE)).expect("setting a time-out");
    stream
}

/// Sends `request`, and reads the answer's first line.
fn ask(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("sending a request");
    let mut answer = String::new();
    BufReader::new(&mut stream).read_line(&mut answer).expect("an answer");
    answer.trim_end().to_owned()
}

/// The other end of `stream` is gone.
fn is_lost(mut stream: TcpStream) {
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("it is still connected: {other:?}"),
    }
}

/// At most it has said that it could not make a connection again, where it may try.
fn says_no_more(run: &Running, place: &Place) {
    let errors = run.errors();
    let may_try = |line: &str| place.user == User::Root && line.contains("is lost: ");
    assert!(errors.lines().all(may_try), "{errors}");
}

/// Checkpoints a server while it is connected, kills it, and restarts it.
fn next_life(program: &Program, run: &mut Running) -> Running {
    run.checkpoint();
    run.kill();
    program.restart(&program.image)
}

#[test]
fn redis() {
    each_user(|place| {
        let port = free_port();
        let directory = place.path("");
        let program = place.system("/usr/bin/redis-server").args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--unixsocket",
            "redis.socket",
            "--dir",
            directory.to_str().expect("a path"),
        ]);
        let mut run = program.start();
        let mut client = connect(&mut run, port);
        for number in 0..1000 {
            assert_eq!(ask(&client, &format!("SET key{number} {}\r\n", number * 7)), "+OK");
        }
        for generation in 1..=3 {
            run = next_life(&program, &mut run);
            is_lost(client);
            client = connect(&mut run, port);
            assert_eq!(ask(&client, "INCR generation\r\n"), format!(":{generation}"));
            assert_eq!(ask(&client, "DBSIZE\r\n"), ":1001");
            assert_eq!(ask(&client, "GET key999\r\n"), "$4");
            let by_name = UnixStream::connect(place.path("redis.socket")).expect("its socket");
            assert_eq!(ask(by_name, "PING\r\n"), "+PONG");
        }
        let benchmark = std::process::Command::new("/usr/bin/redis-benchmark")
            .args(["-p", &port.to_string(), "-n", "2000", "-t", "set,get,lpush", "-q"])
            .output()
            .expect("redis-benchmark");
        let said = String::from_utf8_lossy(&benchmark.stdout);
        assert!(
            benchmark.status.success() && said.matches("requests per second").count() == 3,
            "{said}"
        );
        drop(client);
        run.kill();
        says_no_more(&run, place);
    });
}

/// One that nginx leaves alone. Not by SIGRTMIN, which is another one in the C library of the tests.
const SIGNAL: i32 = 39;

#[test]
fn nginx() {
    each_user(|place| {
        let port = free_port();
        place.file("page", "hello\n");
        let here = place.path("");
        let here = here.display();
        let settings = format!(
            "daemon off; master_process off; pid {here}/pid; error_log {here}/errors;
             events {{ worker_connections 64; }}
             http {{
                 access_log off;
                 client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;
                 fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi;
                 scgi_temp_path {here}/scgi;
                 server {{ listen 127.0.0.1:{port}; root {here}; }}
             }}"
        );
        let settings = place.file("settings", settings);
        let program = place
            .system("/usr/sbin/nginx")
            .args([Path::new("-e"), &place.path("errors"), Path::new("-c"), &settings])
            .env("CKPT_SIGNAL", SIGNAL.to_string())
            .signal(SIGNAL);
        let mut run = program.start();
        let request = "GET /page HTTP/1.1\r\nHost: here\r\n\r\n";
        let mut client = connect(&mut run, port);
        for _ in 0..3 {
            assert_eq!(ask(&client, request), "HTTP/1.1 200 OK");
            run = next_life(&program, &mut run);
            is_lost(client);
            client = connect(&mut run, port);
        }
        assert_eq!(ask(&client, request), "HTTP/1.1 200 OK");
        run.kill();
        says_no_more(&run, place);
    });
}

/// An event loop with a listening socket, its own socketpair, timers, and clients that it counts: two
/// tasks tick, and what clients send comes back with a number.
const ASYNCIO: &str = r#"
import asyncio, sys
ticks = total = 0
async def tick():
    global ticks
    while True:
        await asyncio.sleep(0.001)
        ticks += 1
async def serve(reader, writer):
    global total
    try:
        while line := await reader.readline():
            before = ticks
            while ticks == before: await asyncio.sleep(0)
            total += 1
            writer.write(b"%d %s" % (total, line))
            await writer.drain()
    except ConnectionResetError:
        print("reset", flush=True)
    else:
        print("end", flush=True)
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    ticking = asyncio.create_task(tick())
    await asyncio.to_thread(len, "")
    async with server: await server.serve_forever()
asyncio.run(main())
"#;

/// The same without asyncio: `selectors` on a listening socket and on its clients.
const SELECTORS: &str = r#"
import selectors, socket
total = 0
selector = selectors.DefaultSelector()
listening = socket.create_server(("127.0.0.1", 0))
listening.setblocking(False)
selector.register(listening, selectors.EVENT_READ)
print(listening.getsockname()[1], flush=True)
while True:
    for key, _ in selector.select():
        if key.fileobj is listening:
            selector.register(listening.accept()[0], selectors.EVENT_READ, "client")
            continue
        try:
            line, end = key.fileobj.recv(1000), "end"
        except ConnectionResetError:
            line, end = b"", "reset"
        if line:
            total += 1
            key.fileobj.sendall(b"%d %s" % (total, line))
        else:
            print(end, flush=True)
            selector.unregister(key.fileobj)
            key.fileobj.close()
"#;

/// A server that tells its port, and counts the lines that it answers.
fn counts_lines(script: &str) {
    each_user(|place| {
        let program = place.system("/usr/bin/python3").args(["-c", script]);
        let mut run = program.start();
        let port = run.line().parse().expect("a port");
        let mut client = connect(&mut run, port);
        let mut answered = 0;
        for _ in 0..3 {
            for line in ["one", "two"] {
                answered += 1;
                assert_eq!(ask(&client, &format!("{line}\n")), format!("{answered} {line}"));
            }
            run = next_life(&program, &mut run);
            run.expect("reset");
            // It has tried to make the connection again.
            if place.user == User::Root {
                let line = run.error_line();
                assert!(line.contains("is lost: "), "{line}");
            }
            is_lost(client);
            client = connect(&mut run, port);
        }
        assert_eq!(ask(&client, "last\n"), format!("{} last", answered + 1));
        drop(client);
        run.expect("end");
        run.kill();
        says_no_more(&run, place);
    });
}

#[test]
fn asyncio() {
    counts_lines(ASYNCIO);
}

#[test]
fn selectors() {
    counts_lines(SELECTORS);
}

/// An address that another process has is refused in one line.
#[test]
fn an_address_that_is_taken() {
    each_user(|place| {
        let script = "import socket\n\
            s = socket.create_server(('127.0.0.1', 0)); u = socket.socket(socket.AF_UNIX)\n\
            u.bind('name'); u.listen(); print(s.getsockname()[1], flush=True); print(input())";
        let program = place.system("/usr/bin/python3").args(["-c", script]);
        let mut run = program.start();
        let port: u16 = run.line().parse().expect("a port");
        run.reads_stdin();
        run.checkpoint();
        // The program itself has both.
        program.refuses_to_restart(&program.image, &["socket 3", &port.to_string(), "end that"]);
        run.kill();
        // Not a socket of this process: children of other tests may have it for a while when it is closed.
        let script = format!(
            "import socket; s = socket.create_server(('127.0.0.1', {port}))\n\
            print('taken', flush=True); input()"
        );
        let mut taken = place.system("/usr/bin/python3").args(["-c", &script]).start_bare();
        taken.expect("taken");
        program.refuses_to_restart(&program.image, &["socket 3", &port.to_string(), "end that"]);
        taken.kill();
        std::fs::remove_file(place.path("name")).expect("removing the name");
        let name = place.path("name");
        let taken = UnixListener::bind(&name).expect("the name");
        std::fs::set_permissions(&name, Permissions::from_mode(0o777)).expect("chmod");
        program.refuses_to_restart(&program.image, &["socket 4", "name", "end that"]);
        drop(taken);
        let mut run = program.restart(&program.image);
        run.send("on it goes");
        run.expect("on it goes");
        assert!(run.wait().success());
        assert_eq!(run.errors(), "");
    });
}

/// What has been received of another process is still there; then the connection is lost.
#[test]
fn connections_to_others() {
    const SCRIPT: &str = r#"
import os, select, socket, sys
def tell(name, action):
    try: print(name, action(), flush=True)
    except OSError as error: print(name, os.strerror(error.errno), flush=True)
def events(connection):
    poll = select.poll(); poll.register(connection, select.POLLIN | select.POLLRDHUP)
    return bool(poll.poll(0) and poll.poll(0)[0][1] & select.POLLHUP)
tcp = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
unix = socket.socket(socket.AF_UNIX); unix.connect(sys.argv[2])
for connection in tcp, unix: select.select([connection], [], [])
print("ready", flush=True); input()
for name, connection in ("tcp", tcp), ("unix", unix):
    tell(name, lambda: events(connection))
    tell(name, lambda: connection.recv(100))
    tell(name, lambda: connection.recv(100))
    tell(name, lambda: connection.recv(100))
    tell(name, lambda: connection.send(b"x"))
"#;
    each_user(|place| {
        let by_port = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let name = place.path("other");
        let by_name = UnixListener::bind(&name).expect("a name");
        std::fs::set_permissions(&name, Permissions::from_mode(0o777)).expect("chmod");
        let port = by_port.local_addr().expect("an address").port().to_string();
        let program = place.system("/usr/bin/python3").args([
            "-c",
            SCRIPT,
            &port,
            name.to_str().expect("a path"),
        ]);
        let mut run = program.start();
        let (mut tcp, _) = by_port.accept().expect("a connection");
        let (mut unix, _) = by_name.accept().expect("a connection");
        tcp.write_all(b"received").expect("sending");
        unix.write_all(b"received").expect("sending");
        run.expect("ready");
        run.reads_stdin();
        run.checkpoint();
        run.kill();
        let mut run = program.restart(&program.image);
        run.send("");
        for name in ["tcp", "unix"] {
            run.expect(&format!("{name} True"));
            run.expect(&format!("{name} b'received'"));
            run.expect(&format!("{name} Connection reset by peer"));
            run.expect(&format!("{name} b''"));
            run.expect(&format!("{name} Broken pipe"));
        }
        assert!(run.wait().success());
        assert_eq!(run.errors(), "");
    });
}
