import socket
import ssl
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import requests

from proxy.simulator import FAULTS, Resource, Simulator, describe

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
PATH = "/v1/chat/completions"


def port(resource):
    return urlsplit(resource.url).port


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_it_listens_on_loopback_only(host):
    with pytest.raises(ValueError, match="listens on loopback only, not on"):
        Simulator([Resource("a")], host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_any_name_of_loopback_will_do(host):
    with Simulator([Resource("a")], host=host) as simulator:
        assert simulator["a"].url.startswith(f"http://{host}:")
        assert requests.get(f"{simulator['a'].url}/v1/models", timeout=5).ok


def test_names_are_unique():
    with pytest.raises(ValueError, match="same name"):
        Simulator([Resource("a"), Resource("a")])


def test_each_resource_has_its_own_port_and_its_own_memory(started):
    simulator = started(Resource("a"), Resource("b"))
    requests.post(simulator["b"].url + PATH, json=CHAT, timeout=5)
    assert (len(simulator["a"].requests), len(simulator["b"].requests)) == (0, 1)
    assert simulator["a"].url != simulator["b"].url


@pytest.fixture
def two_ports():
    """The first of two free ports in a row."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            number = first.getsockname()[1]
            try:
                socket.create_server(("127.0.0.1", number + 1)).close()
            except OSError:
                continue  # the next one is somebody else's
        return number


def test_ports_follow_the_first(two_ports):
    with Simulator([Resource("a"), Resource("b")], port=two_ports) as simulator:
        assert [port(simulator[name]) for name in "ab"] == [two_ports, two_ports + 1]


def test_a_taken_port_leaves_nothing_behind(two_ports):
    simulator = Simulator([Resource("a"), Resource("b")], port=two_ports)
    taken = socket.create_server(("127.0.0.1", two_ports + 1))
    with taken, pytest.raises(OSError, match="in use"):
        simulator.start()
    socket.create_server(("127.0.0.1", two_ports)).close()  # free again


def test_what_was_received_can_be_looked_at(resource):
    requests.post(f"{resource.url}{PATH}?a=b", json=CHAT, headers={"X-One": "1"}, timeout=5)
    (received,) = resource.requests
    assert (received.method, received.path, received.query) == ("POST", PATH, {"a": "b"})
    assert (received.headers["x-one"], received.json) == ("1", CHAT)


def test_a_connection_serves_one_request_after_another(resource):
    with requests.Session() as session:
        for _ in range(3):
            assert session.post(resource.url + PATH, json=CHAT | {"stream": True}, timeout=5).ok
        (pool,) = session.adapters["http://"].poolmanager.pools._container.values()
        assert pool.num_connections == 1


def test_two_requests_sent_at_once_are_answered_in_turn(resource, raw):
    peer = raw(resource, b"GET /v1/models HTTP/1.1\r\n\r\nGET /x HTTP/1.0\r\n\r\n")
    with peer.makefile("rb") as stream:
        came = stream.read()
    assert came.index(b"HTTP/1.1 200 OK") < came.index(b"HTTP/1.1 404 Not Found")


def test_what_is_not_http_gets_a_400(resource, raw):
    with raw(resource, b"hello\r\n\r\n").makefile("rb") as stream:
        assert stream.read().startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert resource.requests == []


def test_a_hundred_streams_at_once(started):
    resource = started(Resource("a", event_interval_ms=60_000))["a"]

    def stream(_):
        return requests.post(
            resource.url + PATH, json=CHAT | {"stream": True}, stream=True, timeout=5
        )

    with ThreadPoolExecutor(20) as pool:
        responses = list(pool.map(stream, range(100)))
    assert resource.open_streams == 100
    for response in responses:
        response.close()
    assert resource.wait_for(lambda r: r.open_streams == 0 and r.aborted == 100)


@pytest.mark.parametrize("fault", ["hang", "stall-in-middle", "slow-head", None])
def test_stopping_ends_whatever_is_going_on(fault):
    simulator = Simulator([Resource("a", event_interval_ms=60_000)])
    simulator.start()
    resource = simulator["a"]
    before = threading.active_count()
    if fault:
        resource.faults["*"] = fault
    body = requests.Request("POST", resource.url + PATH, json=CHAT | {"stream": True}).prepare()
    with socket.create_connection(("127.0.0.1", port(resource)), timeout=5) as peer:
        peer.sendall(
            b"POST %s HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (PATH.encode(), len(body.body))
        )
        peer.sendall(body.body)
        assert resource.wait_for(lambda r: r.requests)
        simulator.stop()
        while peer.recv(65536):
            pass  # to the end, which comes
    assert threading.active_count() < before
    assert resource.aborted == 0


def test_stopping_twice_is_stopping_once():
    simulator = Simulator([Resource("a")])
    simulator.stop()
    simulator.start()
    simulator.stop()
    simulator.stop()
    with pytest.raises(requests.ConnectionError):
        requests.get(simulator["a"].url, timeout=5)


def test_it_can_be_started_again():
    simulator = Simulator([Resource("a")])
    for _ in range(2):
        with simulator:
            assert requests.get(f"{simulator['a'].url}/v1/models", timeout=5).ok


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 and its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ["-subj", "/CN=simulator", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    with path.open("a") as both:
        both.write((path.parent / "both.pem.crt").read_text())
    return str(path)


def test_with_a_certificate_it_speaks_tls(started, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    resource = started(Resource("a", ssl_context=context, event_interval_ms=1))["a"]
    assert resource.url.startswith("https://127.0.0.1:")
    body = CHAT | {"stream": True}
    answer = requests.post(resource.url + PATH, json=body, verify=certificate, timeout=5)
    assert answer.text.endswith("data: [DONE]\n\n")

    resource.event_interval_ms = 60_000
    with requests.post(
        resource.url + PATH, json=body, verify=certificate, timeout=5, stream=True
    ):
        pass  # leaves
    assert resource.wait_for(lambda r: r.aborted == 1, 1)


def test_who_speaks_plainly_to_a_tls_port_is_sent_away(started, certificate, raw):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    resource = started(Resource("a", ssl_context=context))["a"]
    peer = raw(resource, b"GET / HTTP/1.1\r\n\r\n")
    try:
        came = peer.recv(100)
    except ConnectionResetError:
        came = b""
    assert not came.startswith(b"HTTP")
    assert resource.requests == []


def test_the_description_tells_names_urls_keys_and_faults(started):
    simulator = started(Resource("east-us", api_key="k1"), Resource("west"))
    first, second, *rest = describe(simulator)
    assert first == f"east-us  {simulator['east-us'].url}  key: k1"
    assert second == f"west     {simulator['west'].url}  key: any"
    assert all(any(line.split()[0] == name for line in rest) for name in FAULTS)
