import contextlib
import errno
import select
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import trustme
from urllib3.util.ssltransport import SSLTransport

from proxy.runtime import connections as module
from proxy.runtime.connections import Connection, Connections, Origin, origin_of
from proxy.runtime.line import Line
from tests.runtime.world import Clock

WAIT_SECONDS = 5.0  # for what comes at once; it is reached only by a bug


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_bundle(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="module")
def server_context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture
def make_connections(ca_bundle):
    with contextlib.ExitStack() as stack:

        def make(**changes):
            made = Connections(**({"kept": 10, "ca_bundle": ca_bundle} | changes))
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def connections(make_connections):
    return make_connections()


@pytest.fixture
def silent(listen):
    """A listener that says nothing, until the other side leaves."""
    return listen(lambda peer: peer.request())


def to(listener, scheme="http"):
    return Origin(scheme, "127.0.0.1", listener.port)


def opened(connections, origin, seconds=WAIT_SECONDS, line=None):
    return connections.open(origin, seconds=seconds, line=line or Line())


# Where a URL leads.


@pytest.mark.parametrize(
    "url, scheme, host, port, authority",
    [
        ("https://a.example/x?y=z", "https", "a.example", 443, "a.example"),
        ("http://a.example", "http", "a.example", 80, "a.example"),
        ("http://A.example:443", "http", "a.example", 443, "a.example:443"),
        ("https://[::1]:8443/", "https", "::1", 8443, "[::1]:8443"),
        ("https://[::1]/", "https", "::1", 443, "[::1]"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url, scheme, host, port, authority):
    origin = origin_of(url)
    assert (origin.scheme, origin.host, origin.port) == (scheme, host, port)
    assert origin.authority == authority


@pytest.mark.parametrize(
    "url", ["ftp://a", "http://", "a.example", "http://a:99999", "http://[::1"]
)
def test_what_leads_nowhere_is_none(url):
    with pytest.raises(ValueError, match=r"\w"):
        origin_of(url)


def test_an_origins_proxy_is_part_of_it_and_not_shown():
    one, other = (origin_of("http://a", f"http://user:secret@{p}") for p in ("b", "c"))
    assert one != other
    assert "secret" not in repr(one)
    assert origin_of("http://a", "") == origin_of("http://a", None)


# Kept and used again.


def test_the_newest_is_used_first(connections, silent):
    first, second = (opened(connections, to(silent)) for _ in range(2))
    connections.keep(first)
    connections.keep(second)
    assert connections.take(to(silent)) is second
    assert connections.take(to(silent)) is first
    assert connections.take(to(silent)) is None
    first.close()
    second.close()


@pytest.mark.parametrize(
    "said, is_kept", [([b"first"], True), ([b"firstmore"], False), ([b"first", b"more"], False)]
)
def test_of_tls_what_came_behind_an_answer_is_not_the_next_ones(
    said, is_kept, connections, listen, server_context
):
    """In its record, or in one of its own, which nobody has looked at."""

    def talk(peer):
        peer.sock.recv(1)
        for record in said:
            peer.sock.send(record)
        peer.sock.recv(1)

    listener = listen(talk, server_context)
    connection = opened(connections, to(listener, "https"))
    connection.send_all(b"?")
    assert bytes(connection.receive(5)) == b"first"
    until = time.monotonic() + WAIT_SECONDS
    while not is_kept and not _has_more(connection.sock):
        assert time.monotonic() < until
    connections.keep(connection)
    taken = connections.take(to(listener, "https"))
    assert (taken is connection) is is_kept
    connection.close()


def _has_more(sock):
    return sock.pending() or select.select([sock], [], [], 0)[0]


def test_what_leads_elsewhere_is_not_taken(connections, silent, listen):
    other = listen(lambda peer: peer.request())
    connections.keep(opened(connections, to(other)))
    assert connections.take(to(silent)) is None


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
def test_what_the_peer_closed_or_spoke_on_is_not_taken(says, connections, listen):
    said = threading.Event()

    def talk(peer):
        if says:
            peer.send(says)
            said.set()
            peer.request()
        else:
            peer.close()
            said.set()

    listener = listen(talk)
    connection = opened(connections, to(listener))
    assert said.wait(WAIT_SECONDS)
    connection.sock.settimeout(WAIT_SECONDS)
    connection.sock.recv(1, socket.MSG_PEEK)  # it has arrived here
    connections.keep(connection)
    assert connections.take(to(listener)) is None
    assert connection.sock.fileno() == -1


def test_no_more_are_kept_than_allowed(make_connections, silent):
    connections = make_connections(kept=1)
    first, second = (opened(connections, to(silent)) for _ in range(2))
    connections.keep(first)
    connections.keep(second)
    assert second.sock.fileno() == -1
    assert connections.take(to(silent)) is first
    first.close()


def test_what_was_idle_for_long_is_closed(make_connections, silent):
    clock = Clock()
    connections = make_connections(clock=clock)
    old, new = (opened(connections, to(silent)) for _ in range(2))
    connections.keep(old)
    clock.now += module.KEPT_SECONDS - 1
    connections.keep(new)
    connections.close_idle()
    assert old.sock.fileno() >= 0
    clock.now += 1
    connections.close_idle()
    assert (old.sock.fileno(), new.sock.fileno() >= 0) == (-1, True)
    assert connections.take(to(silent)) is new
    new.close()


def test_after_the_end_nothing_is_kept(connections, silent):
    kept, used = (opened(connections, to(silent)) for _ in range(2))
    connections.keep(kept)
    connections.close()
    assert kept.sock.fileno() == -1
    connections.keep(used)
    assert used.sock.fileno() == -1


class Sock:
    """Notes which times it was given."""

    def __init__(self):
        self.set = []

    def settimeout(self, seconds):
        self.set.append(seconds)

    def recv_into(self, buffer):
        buffer[:1] = b"x"
        return 1

    def send(self, data):
        return len(data)


def test_what_a_thread_receives_comes_into_one_buffer_of_its_own():
    first, second = (Connection(Origin("http", "a", 80), Sock()) for _ in "ab")
    got = first.receive(100)
    assert bytes(got) == b"x"
    assert second.receive(100).obj is got.obj
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(first.receive, 100).result().obj is not got.obj


def test_no_wait_is_longer_than_the_silence_or_goes_on_beyond_the_end():
    now = 100.0
    connection = Connection(Origin("http", "a", 80), Sock(), clock=lambda: now)
    connection.receive(1)
    for connection.silence_seconds in (5.0, 5.0, 1.0):
        connection.receive(1)
    connection.ends_at = 100.5
    connection.send_all(b"x")
    connection.ends_at = 101.0
    connection.receive(1)
    assert connection.sock.set == [None, 5.0, 1.0, 0.5, 1.0]
    connection.ends_at = 100.0
    with pytest.raises(TimeoutError):
        connection.receive(1)
    with pytest.raises(TimeoutError):
        connection.send_all(b"x")


# Opened.


def addresses(*ports):
    return [
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))
        for port in ports
    ]


def dead_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_the_next_address_is_tried_where_one_refuses(connections, silent, monkeypatch):
    found = addresses(dead_port(), silent.port)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    connection = opened(connections, Origin("http", "two.example", 80))
    assert connection.sock.getpeername() == ("127.0.0.1", silent.port)
    connection.close()


def test_where_no_more_files_may_be_opened_it_is_no_mistake_of_ours(connections, monkeypatch):
    def none_left(*_arguments):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(module.socket, "socket", none_left)
    with pytest.raises(requests.ConnectionError, match="failed \\(Too many open files\\)"):
        opened(connections, Origin("http", "127.0.0.1", 80))


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    connections, silent, monkeypatch, full_port
):
    found = addresses(full_port, silent.port)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    connection = opened(connections, Origin("http", "two.example", 80), seconds=0.4)
    assert connection.sock.getpeername() == ("127.0.0.1", silent.port)
    connection.close()


def test_where_no_address_answers_the_last_one_tells_why(connections, monkeypatch, full_port):
    found = addresses(dead_port(), full_port)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(requests.ConnectTimeout, match="timed out while we connected"):
        opened(connections, Origin("http", "two.example", 80), seconds=0.1)
    found.reverse()
    with pytest.raises(requests.ConnectionError, match="refused"):
        opened(connections, Origin("http", "two.example", 80), seconds=0.1)


def test_events_are_sent_at_once_and_vanished_peers_noticed(connections, silent):
    sock = opened(connections, to(silent)).sock
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    sock.close()


def test_tls_checks_the_hosts_name(connections, listen, server_context, monkeypatch):
    listener = listen(lambda peer: peer.request(), server_context)
    connection = opened(connections, to(listener, "https"))
    assert connection.sock.selected_alpn_protocol() in (None, "http/1.1")
    connection.close()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses(listener.port))
    with pytest.raises(requests.exceptions.SSLError, match="TLS failed"):
        opened(connections, Origin("https", "other.example", 443))


def test_a_handshake_must_end_in_time(connections, silent):
    with pytest.raises(requests.ConnectTimeout):
        opened(connections, to(silent, "https"), seconds=0.05)


# Watched by who waits for many.


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_has_arrived_is_received_without_waiting(
    scheme, connections, listen, server_context
):
    asked = threading.Event()

    def talk(peer):
        peer.sock.recv(10)
        assert asked.wait(WAIT_SECONDS)
        peer.send(b"one")
        peer.sock.recv(10)
        peer.send(b"two")

    listener = listen(talk, server_context if scheme == "https" else None)
    connection = opened(connections, to(listener, scheme))
    connection.silence_seconds = WAIT_SECONDS
    connection.send_all(b"begin")  # it was waited for before, within the same time
    number = connection.watched()
    with pytest.raises(BlockingIOError):
        connection.arrived(100)
    asked.set()
    poll = select.poll()
    poll.register(number, select.POLLIN)
    got = b""
    while not got:
        assert poll.poll(WAIT_SECONDS * 1000)
        with contextlib.suppress(BlockingIOError):  # TLS has words of its own
            got = bytes(connection.arrived(100))
    assert got == b"one"
    # And then it can be waited for again.
    connection.send_all(b"go on")
    assert bytes(connection.receive(100)) == b"two"
    connection.close()


def test_what_was_received_so_does_not_make_it_stale(connections, listen):
    listener = listen(lambda peer: peer.send(b"all of it") or peer.request())
    connection = opened(connections, to(listener))
    poll = select.poll()
    poll.register(connection.watched(), select.POLLIN)
    assert poll.poll(WAIT_SECONDS * 1000)
    assert bytes(connection.arrived(100)) == b"all of it"
    connections.keep(connection)
    assert connections.take(to(listener)) is connection
    connection.close()


def test_tls_inside_of_tls_has_to_be_waited_for(connections, silent):
    connection = opened(connections, to(silent))
    inside = object.__new__(SSLTransport)
    connection.sock, outside = inside, connection.sock
    assert connection.watched() is None
    outside.close()


def test_tls_goes_through_a_proxy_that_is_reached_by_tls(
    connections, listen, server_context, authority
):
    """Inside of the tunnel the upstream's own TLS, whatever the proxy's."""
    seen = []

    def talk(peer):
        seen.append(peer.request()[0].split()[1])
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        inner, outer = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = server_context.wrap_bio(inner, outer, server_side=True)
        for step in (
            tls.do_handshake,
            lambda: seen.append(tls.read(4)),
            lambda: tls.write(b"pong"),
        ):
            while True:
                try:
                    step()
                    break
                except ssl.SSLWantReadError:
                    peer.send(outer.read())
                    inner.write(peer.sock.recv(65536))
            peer.send(outer.read())
        peer.request()

    listener = listen(talk, server_context)
    origin = Origin("https", "localhost", 443, f"https://127.0.0.1:{listener.port}")
    connection = opened(connections, origin)
    connection.sock.sendall(b"ping")
    assert connection.sock.recv(10) == b"pong"
    assert seen == [b"localhost:443", b"ping"]
    connection.close()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 502 Bad Gateway\r\n\r\n", b"no HTTP\r\n\r\n", b""]
)
def test_a_proxy_that_makes_no_tunnel(answer, connections, listen):
    listener = listen(lambda peer: peer.request() and peer.send(answer))
    origin = Origin("https", "localhost", 443, f"http://127.0.0.1:{listener.port}")
    with pytest.raises(requests.exceptions.ProxyError, match="its proxy_url refused"):
        opened(connections, origin)


def test_a_proxy_that_is_slow_is_not_one_that_refuses(connections, listen):
    """It may be the call that has no more time, and not the proxy that is ill."""
    listener = listen(lambda p: p.request() and p.request())
    origin = Origin("https", "localhost", 443, f"http://127.0.0.1:{listener.port}")
    with pytest.raises(requests.ConnectTimeout):
        opened(connections, origin, seconds=0.1)


def test_a_proxy_that_dribbles_has_no_more_time_than_a_silent_one(connections, listen):
    left = threading.Event()

    def talk(peer):
        peer.request()
        with contextlib.suppress(OSError):
            while not left.wait(0.01):
                peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    listener = listen(talk)
    origin = Origin("https", "localhost", 443, f"http://127.0.0.1:{listener.port}")
    with pytest.raises(requests.ConnectTimeout):
        opened(connections, origin, seconds=0.1)
    left.set()


# Names.


def test_a_name_that_is_looked_up_for_too_long_ends_with_the_time(connections, monkeypatch):
    over = threading.Event()
    look = socket.getaddrinfo

    def slow(host, *more, flags=0, **options):
        if not flags:
            over.wait(WAIT_SECONDS)
        return look(host, *more, flags=flags, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with pytest.raises(requests.ConnectTimeout):
        opened(connections, Origin("http", "localhost", 80), seconds=0.05)
    line = Line()
    end = waiting(lambda: opened(connections, Origin("http", "localhost", 80), line=line))
    while line._wake is None:
        time.sleep(0.001)
    line.cut()
    assert isinstance(end(), requests.ConnectionError)
    over.set()


def test_an_address_is_not_looked_up(connections, silent, monkeypatch):
    flags = []
    look = socket.getaddrinfo

    def noted(*given, **options):
        flags.append(options.get("flags"))
        return look(*given, **options)

    monkeypatch.setattr(socket, "getaddrinfo", noted)
    opened(connections, to(silent)).close()
    assert flags == [socket.AI_NUMERICHOST]


# Addresses that nobody is to ask.


METADATA = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))
MAPPED = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::ffff:169.254.169.254", 80, 0, 0))
LINK_LOCAL = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1%eth0", 80, 0, 2))


@pytest.fixture
def connected(monkeypatch):
    """Where connections were opened to."""
    seen, connect = [], module._connect
    monkeypatch.setattr(
        module,
        "_connect",
        lambda sock, address, *more: seen.append(address) or connect(sock, address, *more),
    )
    return seen


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "0xa9fea9fe", "::ffff:169.254.169.254", "fe80::1%1", "fd00:ec2::254"],
)
@pytest.mark.parametrize("proxied", [False, True])
def test_a_metadata_address_is_not_connected_to(host, proxied, connections, silent, connected):
    proxy_url = f"http://127.0.0.1:{silent.port}" if proxied else None
    for scheme in ("http", "https"):
        with pytest.raises(module.NotAllowed, match="PROXY_ALLOW_PRIVATE_UPSTREAMS"):
            opened(connections, Origin(scheme, host, 80, proxy_url))
    assert connected == []


@pytest.mark.parametrize("found", [METADATA, MAPPED, LINK_LOCAL])
@pytest.mark.parametrize("as_proxy", [False, True])
def test_nor_is_one_that_a_harmless_name_leads_to(
    found, as_proxy, connections, connected, monkeypatch
):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [found])
    origin = Origin("http", "harmless.example", 80)
    if as_proxy:
        origin = Origin("http", "upstream.example", 80, "http://harmless.example")
    with pytest.raises(module.NotAllowed):
        opened(connections, origin)
    assert connected == []


def test_of_a_name_with_several_addresses_the_others_are_tried(
    connections, silent, connected, monkeypatch
):
    found = [METADATA, *addresses(silent.port), LINK_LOCAL]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    opened(connections, Origin("http", "mixed.example", 80)).close()
    assert connected == [("127.0.0.1", silent.port)]


def test_a_name_is_looked_up_once_and_what_was_found_is_what_is_connected_to(
    connections, silent, connected, monkeypatch
):
    """One that leads elsewhere the second time would get past what was checked the first."""
    answers = [addresses(silent.port), [METADATA]]

    def rebinding(*_, flags=0, **__):
        if flags:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        return answers.pop(0)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    opened(connections, Origin("http", "rebinding.example", 80)).close()
    assert connected == [("127.0.0.1", silent.port)]
    with pytest.raises(module.NotAllowed):
        opened(connections, Origin("http", "rebinding.example", 80))


def test_where_it_is_allowed_it_is_tried(make_connections, monkeypatch):
    tried = []

    def refuse(_sock, address, *_):
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(module, "_connect", refuse)
    connections = make_connections(allow_private=True)
    with pytest.raises(requests.ConnectionError, match="refused"):
        opened(connections, Origin("http", "169.254.169.254", 80))
    assert tried == [("169.254.169.254", 80)]


# Ended by another thread.


def waiting(act):
    """Runs `act` in a thread; the function that is returned waits for it, and returns what it
    raised."""
    raised = []

    def run():
        try:
            act()
        except OSError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def end():
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
        return raised[0] if raised else None

    return end


def test_cutting_a_line_ends_a_read_that_waits(connections, silent):
    line = Line()
    connection = opened(connections, to(silent), line=line)
    got = []
    end = waiting(lambda: got.append(connection.sock.recv(1)))
    line.cut()
    assert (end(), got) == (None, [b""])
    connection.close()


def test_cutting_a_line_ends_a_read_of_tls_that_waits(connections, listen, server_context):
    line = Line()
    listener = listen(lambda peer: peer.request(), server_context)
    connection = opened(connections, to(listener, "https"), line=line)
    got = []
    end = waiting(lambda: got.append(connection.sock.recv(1)))
    line.cut()
    assert end() is None or isinstance(end(), OSError)
    assert got in ([], [b""])
    connection.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_cutting_a_line_ends_connecting(scheme, connections, silent, full_port):
    """To a port whose queue is full, or with a handshake that does not go on."""
    line = Line()
    origin = (
        to(silent, "https") if scheme == "https" else Origin("http", "127.0.0.1", full_port)
    )
    end = waiting(lambda: opened(connections, origin, line=line))
    while line._wake is None:
        pass  # until it connects
    line.cut()
    assert isinstance(end(), requests.ConnectionError)


def test_a_line_that_was_cut_connects_no_more(connections, silent):
    line = Line()
    line.cut()
    with pytest.raises(requests.ConnectionError):
        opened(connections, to(silent), line=line)


def test_cutting_a_line_after_its_release_harms_nobody(connections, silent):
    line = Line()
    connection = opened(connections, to(silent), line=line)
    line.release()
    line.cut()
    assert not connection.is_stale()
    connection.close()


def test_a_line_may_be_cut_when_its_connection_is_closed(connections, silent):
    line = Line()
    opened(connections, to(silent), line=line).close()
    line.cut()
    line.cut()
    assert line.is_cut


def test_a_peer_that_takes_it_bit_by_bit_has_the_same_time_as_one_that_takes_nothing():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ended = threading.Event()

    def take():
        while not ended.wait(0.002):
            theirs.recv(20_000)

    thread = threading.Thread(target=take)
    thread.start()
    connection = Connection(Origin("http", "h", 80), ours)
    connection.ends_at = time.monotonic() + 0.2
    try:
        with pytest.raises(TimeoutError):
            connection.send_all(bytes(200_000_000))
        assert time.monotonic() < connection.ends_at + WAIT_SECONDS
    finally:
        ended.set()
        thread.join()
        ours.close()
        theirs.close()
