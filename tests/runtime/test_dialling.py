import contextlib
import errno
import socket
import ssl
import threading
import time

import pytest
import requests

from proxy.runtime import dialling as module
from proxy.runtime.connection import Origin
from proxy.runtime.line import Line
from tests.runtime.dialled import WAIT_SECONDS, opened, to

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


def test_that_no_more_files_may_be_opened_is_no_fault_of_the_upstreams(
    connections, monkeypatch
):
    def none_left(*_arguments):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(module.socket, "socket", none_left)
    said = "the gateway can open no more connections \\(Too many open files\\)"
    for proxy_url in (None, "http://127.0.0.1:3128"):
        with pytest.raises(module.NoMeans, match=said):
            opened(connections, Origin("http", "127.0.0.1", 80, proxy_url))


@pytest.mark.parametrize("number", ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"])
def test_a_resolver_without_a_file_does_not_say_so(connections, monkeypatch, number):
    def unknown(*_arguments, **_more):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    def none_left(*_arguments):
        raise OSError(getattr(errno, number), "none left")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(requests.ConnectionError, match="could not be resolved"):
        opened(connections, Origin("http", "name.example", 80))
    monkeypatch.setattr(module.socket, "socket", none_left)
    with pytest.raises(module.NoMeans, match="none left"):
        opened(connections, Origin("http", "name.example", 80))


def test_nor_is_it_that_there_is_no_thread_to_look_for_its_name(connections, monkeypatch):
    def none_left(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    with pytest.raises(module.NoMeans, match="\\(no more threads\\)"):
        opened(connections, Origin("http", "no-such-name.invalid", 80))


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


METADATA = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))
MAPPED = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::ffff:169.254.169.254", 80, 0, 0))
LINK_LOCAL = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1%eth0", 80, 0, 2))


# Addresses that nobody is to ask.


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
