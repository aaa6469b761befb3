import contextlib
import gzip
import json
import socket
import threading
import time
import traceback
import tracemalloc
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from proxy.core.providers import PROVIDERS, key_headers
from proxy.runtime.dialling import NoMeans
from proxy.runtime.entra import NoToken, Tokens
from proxy.runtime.upstream import NoCredential, UpstreamError
from proxy.simulator import Resource, expected_usage
from tests.builders import MODEL, call, config

WAIT_SECONDS = 5  # for what comes at once; it is reached only by a bug
KEY, PASSWORD, USER = "planted-key-0123456789", "planted-password", "planted-user"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


def at(listener_or_url, **changes):
    """A config that speaks plain HTTP to it."""
    url = getattr(listener_or_url, "port", listener_or_url)
    url = f"http://127.0.0.1:{url}" if isinstance(url, int) else url
    return config("a", api_base=url, api_key=KEY, **({"timeout_seconds": 5.0} | changes))


def send(upstream, instance, path="/", body=b"{}", **more):
    headers = {"api-key": instance.api_key}
    return upstream.send(instance, instance.api_base + path, headers=headers, body=body, **more)


def whole(answer):
    """The body, read at once; then closed."""
    try:
        return answer.read_all()
    finally:
        answer.close()


def status(answer):
    answer.close()
    return answer.status


def in_pieces(answer):
    pieces = []
    try:
        while piece := answer.read_some():
            pieces.append(piece)
    finally:
        answer.close()
    return b"".join(pieces)


def refusal(upstream, instance, read=whole):
    """The error that sending or reading ends with. Nothing planted is in it."""
    with pytest.raises(UpstreamError) as caught:
        read(send(upstream, instance))
    shown = "".join(traceback.format_exception(caught.value))
    for secret in (KEY, PASSWORD, USER, "127.0.0.1", "localhost"):
        assert secret not in shown
    return caught.value


def nobody():
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


# What goes out, what comes back.


def test_a_chat_call_as_azure_takes_it(simulate, upstream):
    resource = simulate(Resource("a", api_key=KEY))["a"]
    instance = at(resource.url)
    answer = upstream.send(
        instance,
        PROVIDERS["azure"].url(instance, "chat/completions", MODEL),
        headers={**key_headers(instance), "x-trace": "1"},
        body=call().body,
    )
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(whole(answer))["usage"] == expected_usage(json.loads(call().body))
    (received,) = resource.requests
    assert (received.method, received.body) == ("POST", call().body)
    assert received.headers["content-length"] == str(len(call().body))
    assert received.headers["x-trace"] == "1"


def test_no_compression_is_asked_for_even_if_the_client_does(simulate, upstream):
    resource = simulate(Resource("a"))["a"]
    instance = at(resource.url)
    headers = {"accept-encoding": "gzip"}
    upstream.send(instance, instance.api_base, headers=headers, body=b"{}").close()
    # Compressed events could not be passed on one by one.
    assert resource.requests[0].headers["accept-encoding"] == "identity"


def test_a_request_may_have_no_body(simulate, upstream):
    resource = simulate(Resource("a", deployments=["gpt-4o"]))["a"]
    answer = send(upstream, at(resource.url), "/v1/models", body=None, method="GET")
    assert json.loads(whole(answer))["data"][0]["id"] == "gpt-4o"
    assert "content-length" not in resource.requests[0].headers


def test_a_header_that_comes_twice_is_kept_twice(listen, upstream):
    cookies = (b"set-cookie: a=1", b"x-one: 1", b"set-cookie: b=2")
    listener = listen(lambda peer: peer.request() and peer.answer(b"ok", *cookies))
    answer = send(upstream, at(listener))
    names = [item for item in answer.header_items() if item[0] != "content-length"]
    answer.close()
    assert names == [("set-cookie", "a=1"), ("x-one", "1"), ("set-cookie", "b=2")]


def test_a_redirect_is_not_followed(simulate, upstream):
    resource = simulate(Resource("a"))["a"]
    resource.faults["*"] = "redirect"
    answer = send(upstream, at(resource.url))
    assert (answer.status, answer.headers["location"]) == (302, "/redirected")
    answer.close()
    assert len(resource.requests) == 1


def test_cookies_of_an_upstream_are_not_sent_back(listen, upstream):
    heads = []

    def talk(peer):
        for _ in range(2):
            heads.append(peer.request()[0])
            peer.answer(b"ok", b"set-cookie: a=1")

    listener = listen(talk)
    for _ in range(2):
        whole(send(upstream, at(listener)))
    assert b"cookie" not in heads[1].lower()


def test_the_environments_proxies_are_not_used(simulate, upstream, monkeypatch):
    monkeypatch.setenv("http_proxy", nobody())
    resource = simulate(Resource("a"))["a"]
    assert status(send(upstream, at(resource.url))) == 404


@pytest.mark.parametrize("error", [NoMeans("no files"), requests.ConnectionError("refused")])
def test_an_error_says_whether_it_is_the_gateways_own(upstream, monkeypatch, error):
    def fail(*_arguments, **_more):
        raise error

    monkeypatch.setattr(upstream._transport, "send", fail)
    with pytest.raises(UpstreamError) as told:
        send(upstream, at("http://127.0.0.1:9"))
    assert told.value.is_ours is isinstance(error, NoMeans)


def test_many_threads_may_send_at_once(simulate, make_upstream):
    resource = simulate(Resource("a"))["a"]
    upstream = make_upstream(connections=4)
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}

    def one(number):
        asked = json.dumps(body | {"max_tokens": number}).encode()
        answer = send(upstream, at(resource.url), "/v1/chat/completions", asked)
        return json.loads(whole(answer))["usage"]["completion_tokens"]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(1, 20))) == list(range(1, 20))


# Streams.

FRAMINGS = {
    "chunked": (CHUNKED, lambda data: b"%x\r\n%s\r\n" % (len(data), data), b"0\r\n\r\n"),
    "content-length": (OK + b"content-length: 6\r\n\r\n", bytes, b""),
    "until it closes": (OK + b"connection: close\r\n\r\n", bytes, b""),
}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_what_has_arrived_is_read_before_the_rest_is_sent(framing, listen, upstream):
    head, framed, end = FRAMINGS[framing]
    wanted = threading.Semaphore(0)

    def talk(peer):
        peer.request()
        peer.send(head)
        for piece in (b"one", b"two"):
            assert wanted.acquire(timeout=WAIT_SECONDS)
            peer.send(framed(piece))
        peer.send(end)

    answer = send(upstream, at(listen(talk)))  # the head alone is an answer
    for piece in (b"one", b"two"):
        wanted.release()
        assert answer.read_some() == piece
    assert answer.read_some() == b""
    assert answer.read_some() == b""
    answer.close()


def test_a_simulated_stream_arrives_whole(simulate, upstream):
    resource = simulate(Resource("a", tokens=200))["a"]
    instance = at(resource.url)
    url = PROVIDERS["azure"].url(instance, "chat/completions", MODEL)
    answer = upstream.send(instance, url, headers={}, body=call(stream=True).body)
    got = in_pieces(answer)
    assert got.endswith(b"data: [DONE]\n\n")
    assert got.count(b'"content"') >= 200


def test_closing_a_stream_in_the_middle_tells_the_upstream(simulate, upstream):
    resource = simulate(Resource("a"))["a"]
    resource.faults["*"] = "stall-in-middle"
    instance = at(resource.url)
    url = PROVIDERS["azure"].url(instance, "chat/completions", MODEL)
    answer = upstream.send(instance, url, headers={}, body=call(stream=True).body)
    assert answer.read_some()
    answer.close()
    assert resource.wait_for(lambda r: r.aborted == 1 and r.open_streams == 0)


def chunks(data, size):
    parts = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("read", [whole, in_pieces])
@pytest.mark.parametrize("size", [1, 10_000])  # 1: whole pieces of it are header only
def test_a_compressed_body_is_decoded(read, size, listen, upstream):
    head = OK + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"

    def talk(peer):
        peer.request()
        peer.send(head, chunks(gzip.compress(b"hello " * 1000), size))

    assert read(send(upstream, at(listen(talk)))) == b"hello " * 1000


# Bodies cut short.


@pytest.mark.parametrize("read", [whole, in_pieces])
@pytest.mark.parametrize(
    "sent",
    [
        OK + b"content-length: 10\r\n\r\nhello",
        OK + b"content-length: 10\r\n\r\n",
        CHUNKED + b"5\r\nhello\r\n",  # between two chunks
        CHUNKED + b"9\r\nhello",  # in a chunk
        CHUNKED,
    ],
)
def test_an_answer_that_is_cut_short_is_an_error(read, sent, listen, upstream):
    listener = listen(lambda peer: peer.request() and peer.send(sent))
    error = refusal(upstream, at(listener), read)
    assert (error.message, error.timed_out) == ("it broke off its answer", False)


def test_what_came_before_the_cut_can_be_read(listen, upstream):
    listener = listen(lambda peer: peer.request() and peer.send(CHUNKED + b"5\r\nhello\r\n"))
    answer = send(upstream, at(listener))
    assert answer.read_some() == b"hello"
    with pytest.raises(UpstreamError, match="broke off"):
        answer.read_some()
    answer.close()


@pytest.mark.parametrize("read", [whole, in_pieces])
def test_a_body_that_is_not_what_it_says_is_an_error(read, listen, upstream):
    body = b"content-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello"
    listener = listen(lambda peer: peer.request() and peer.send(OK + body))
    refusal(upstream, at(listener), read)


@pytest.mark.parametrize(
    "sent, message",
    [
        (b"", "it closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-", "it broke off its answer"),
        (b"HTTP/1.1 two\r\n\r\n", "its answer is not proper HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "its answer is not proper HTTP"),
        (CHUNKED + b"no number\r\nhello", "its answer is not proper HTTP"),
    ],
)
def test_what_is_no_answer_is_an_error(sent, message, listen, upstream):
    listener = listen(lambda peer: peer.request() and peer.send(sent))
    assert refusal(upstream, at(listener)).message == message


def test_nothing_is_tried_again_down_here(listen, upstream, monkeypatch):
    seen = []
    listener = listen(lambda peer: seen.append(peer.request()))
    with pytest.raises(UpstreamError):
        send(upstream, at(listener), body=None, method="GET")  # the safest to repeat
    assert len(seen) == 1
    found, resolve = [], socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *a, **k: found.append(a) or resolve(*a, **k)
    )
    refusal(upstream, at(nobody()))
    assert len(found) == 1


def test_an_answers_secrets_are_not_repeated(listen, upstream):
    listener = listen(lambda peer: peer.request() and peer.send(f"{KEY}\r\n\r\n".encode()))
    refusal(upstream, at(listener))


# No connection, no time.


def test_nobody_is_there(upstream):
    error = refusal(upstream, at(nobody()))
    assert (error.message, error.timed_out) == ("the connection was refused", False)


def test_an_unknown_host(upstream, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = refusal(upstream, at(f"http://{PASSWORD}.example"))
    assert error.message == "its host name could not be resolved"


@pytest.mark.parametrize("connect, silence", [(0.05, 5.0), (5.0, 0.05)])
def test_a_connection_must_stand_in_time(connect, silence, make_upstream, full_port):
    upstream = make_upstream(connect_timeout_seconds=connect)
    started = time.monotonic()
    error = refusal(upstream, at(f"http://127.0.0.1:{full_port}", timeout_seconds=silence))
    assert (error.message, error.timed_out) == ("it timed out while we connected", True)
    assert time.monotonic() - started < 4  # the shorter of the two


def test_an_answer_must_begin_in_time(simulate, upstream):
    resource = simulate(Resource("a"))["a"]
    resource.faults["*"] = "hang"
    error = refusal(upstream, at(resource.url, timeout_seconds=0.05))
    assert (error.message, error.timed_out) == (
        "it timed out while we waited for its answer",
        True,
    )


@pytest.mark.parametrize("read", [whole, in_pieces])
def test_an_answer_must_not_stall(read, listen, upstream):
    left = threading.Event()

    def talk(peer):
        peer.request()
        peer.send(CHUNKED + b"5\r\nhello\r\n")
        peer.request()  # until it leaves
        left.set()

    error = refusal(upstream, at(listen(talk), timeout_seconds=0.05), read)
    assert error.timed_out
    assert left.wait(WAIT_SECONDS)


@pytest.mark.parametrize(
    "headers", [{"api-key": f"{KEY}\n"}, {"api-key": f"{KEY} ключ"}, {"a\nb": KEY}]
)
def test_a_key_that_cannot_be_sent_is_an_error_that_does_not_repeat_it(headers, upstream):
    instance = at(nobody())
    with pytest.raises(UpstreamError) as caught:
        upstream.send(instance, instance.api_base, headers=headers, body=b"{}")
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        f"http://[{PASSWORD}/",
        f"http://127.0.0.1:99999/{PASSWORD}",
        f"http://{'x' * 80}.{PASSWORD}/",
        f"ftp://{PASSWORD}/",
        "http://",
        PASSWORD,
    ],
)
def test_an_address_that_is_none_is_an_error(url, upstream):
    refusal(upstream, at(url))


# TLS.


def test_a_certificate_of_an_authority_we_were_told_to_trust(
    simulate, make_upstream, server_context, ca_bundle
):
    resource = simulate(Resource("a", ssl_context=server_context))["a"]
    upstream = make_upstream(ca_bundle=ca_bundle)
    assert status(send(upstream, at(resource.url))) == 404


def test_a_certificate_of_another_authority(simulate, upstream, server_context):
    resource = simulate(Resource("a", ssl_context=server_context))["a"]
    error = refusal(upstream, at(resource.url))
    assert error.message == "TLS failed: its certificate or protocol was not accepted"
    assert resource.requests == []


def test_a_server_that_does_not_speak_tls(listen, upstream):
    listener = listen(lambda peer: peer.send(OK + b"\r\n"))
    error = refusal(upstream, at(f"https://127.0.0.1:{listener.port}"))
    assert error.message.startswith("TLS failed")


# Connections that are kept.


def counting(listen, answer):
    """A listener, and a list with an entry for each connection and one for each request."""
    seen = []

    def talk(peer):
        seen.append("connection")
        while peer.request()[0]:
            seen.append("request")
            answer(peer)

    return listen(talk), seen


@pytest.mark.parametrize("read", [whole, in_pieces])
@pytest.mark.parametrize("framing", ["chunked", "content-length"])
def test_a_connection_is_used_again(framing, read, listen, upstream):
    head, framed, end = FRAMINGS[framing]
    listener, seen = counting(listen, lambda peer: peer.send(head, framed(b"onetwo"), end))
    for _ in range(3):
        assert read(send(upstream, at(listener))) == b"onetwo"
    assert seen == ["connection", "request", "request", "request"]


def test_a_connection_whose_answer_was_not_read_to_its_end_is_not_used_again(listen, upstream):
    listener, seen = counting(listen, lambda peer: peer.answer(b"x" * 100))
    send(upstream, at(listener)).close()
    assert whole(send(upstream, at(listener))) == b"x" * 100
    assert seen == ["connection", "request"] * 2


def test_a_connection_that_was_closed_while_idle_fails_no_request(listen, upstream):
    closed = threading.Semaphore(0)

    def talk(peer):
        peer.request()
        peer.answer()  # without a word about closing
        peer.close()
        closed.release()

    listener = listen(talk)
    for _ in range(3):
        assert whole(send(upstream, at(listener))) == b"ok"
        assert closed.acquire(timeout=WAIT_SECONDS)


def test_closing_twice_is_closing_once(listen, upstream):
    listener, _ = counting(listen, lambda peer: peer.answer())
    answer = send(upstream, at(listener))
    answer.close()
    answer.close()


def test_closing_the_upstream_closes_idle_connections(listen, make_upstream):
    left = threading.Event()

    def talk(peer):
        peer.request()
        peer.answer()
        peer.request()
        left.set()

    upstream = make_upstream()
    whole(send(upstream, at(listen(talk))))
    upstream.close()
    assert left.wait(WAIT_SECONDS)


# Through a proxy.


@pytest.fixture
def tunnel(listen):
    """A proxy that knows CONNECT, and what it was asked. `answers` are its first words."""
    heads = []

    def talk(peer):
        head, _ = peer.request()
        heads.append(head.decode())
        if not tunnel.lets_through:
            peer.send(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        host, port = head.split()[1].decode().split(":")
        with socket.create_connection((host, int(port)), timeout=WAIT_SECONDS) as other:
            peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=copy, args=(other, peer.sock))
            back.start()
            copy(peer.sock, other)
            back.join(WAIT_SECONDS)

    tunnel = listen(talk)
    tunnel.heads = heads
    tunnel.lets_through = True
    return tunnel


def copy(source, target):
    """Until the source ends, or either breaks."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the test is over


@pytest.mark.parametrize("head", [OK + b"\r\n", OK + b"content-length: 400000\r\n\r\n"])
def test_an_answer_that_is_too_large_is_none(head, listen, upstream, monkeypatch):
    monkeypatch.setattr("proxy.runtime.upstream.MAX_ANSWER_BYTES", 5_000)

    def talk(peer):
        peer.request()
        peer.send(head)
        peer.send(b"x" * 400_000)

    error = refusal(upstream, at(listen(talk)))
    assert error.message.startswith("its answer is larger than ")


def test_a_large_answer_is_in_memory_once(listen, upstream):
    size = 20_000_000

    def talk(peer):
        peer.request()
        peer.send(OK + b"content-length: %d\r\n\r\n" % size)
        for _ in range(20):
            peer.send(b"x" * (size // 20))

    with contextlib.closing(send(upstream, at(listen(talk)))) as answer:
        tracemalloc.start()
        try:
            body = answer.read_all()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert len(body) == size
    assert peak < 1.3 * size


def by_proxy(port):
    return f"http://{USER}:{PASSWORD}@127.0.0.1:{port}"


CREDENTIALS = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def test_https_goes_through_the_tunnel_of_a_proxy(
    simulate, make_upstream, server_context, ca_bundle, tunnel
):
    resource = simulate(Resource("a", ssl_context=server_context))["a"]
    upstream = make_upstream(ca_bundle=ca_bundle)
    instance = at(resource.url, proxy_url=by_proxy(tunnel.port))
    for _ in range(2):
        whole(send(upstream, instance))
    (head,) = tunnel.heads  # one tunnel for both
    assert head.startswith(f"CONNECT {resource.url.removeprefix('https://')} HTTP/1.")
    assert f"Proxy-Authorization: {CREDENTIALS}" in head
    assert KEY not in head
    assert len(resource.requests) == 2
    assert "proxy-authorization" not in resource.requests[0].headers


def test_http_is_asked_of_the_proxy_itself(listen, upstream):
    heads = []
    proxy = listen(lambda peer: heads.append(peer.request()[0].decode()) or peer.answer())
    instance = at("http://upstream.example", proxy_url=by_proxy(proxy.port))
    assert whole(send(upstream, instance, "/some/path")) == b"ok"
    assert heads[0].startswith("POST http://upstream.example/some/path HTTP/1.1\r\n")
    assert f"Proxy-Authorization: {CREDENTIALS}" in heads[0]


def test_each_instance_has_its_own_proxy(simulate, make_upstream, ca_bundle, tunnel):
    resource = simulate(Resource("a"))["a"]
    upstream = make_upstream(ca_bundle=ca_bundle)
    assert status(send(upstream, at(resource.url))) == 404
    with pytest.raises(UpstreamError):
        send(upstream, at(resource.url, proxy_url=by_proxy(1)))
    assert status(send(upstream, at(resource.url))) == 404
    assert tunnel.heads == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there(scheme, upstream):
    port = int(nobody().rpartition(":")[2])
    instance = at(f"{scheme}://upstream.example", proxy_url=by_proxy(port))
    error = refusal(upstream, instance)
    assert error.message == "its proxy_url refused or could not be reached"


def test_a_proxy_that_refuses_us(upstream, tunnel):
    tunnel.lets_through = False
    instance = at("https://upstream.example", proxy_url=by_proxy(tunnel.port))
    error = refusal(upstream, instance)
    assert error.message == "its proxy_url refused or could not be reached"


@pytest.mark.parametrize(
    "proxy_url",
    [
        f"socks5://{USER}:{PASSWORD}@127.0.0.1:1",
        f"ftp://{USER}:{PASSWORD}@127.0.0.1:1",
        f"http://{USER}:{PASSWORD}@127.0.0.1:99999",
        f"http://{USER}:{PASSWORD}@[::1",
        "http://",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_none(scheme, proxy_url, upstream):
    refusal(upstream, at(f"{scheme}://upstream.example", proxy_url=proxy_url))


# With a token of Entra ID.


class Source:
    """Gives these one after the other; an exception is raised."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.asked = 0

    def problem(self):
        return None

    def fetch(self):
        self.asked += 1
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer, 3600.0


@pytest.fixture
def with_tokens(make_upstream):
    """A function from what a source gives to an upstream, and the source."""
    with contextlib.ExitStack() as stack:

        def make(*answers):
            source = Source(*answers)
            tokens = Tokens(source)
            tokens.start()
            stack.callback(tokens.stop)
            return make_upstream(tokens=tokens), source

        yield make


def by_token(resource, **changes):
    return at(resource.url, auth="entra", **changes)


def ask(upstream, instance):
    """The answer to a call with what an attempt sends of itself."""
    url = PROVIDERS[instance.provider_type].url(instance, "chat/completions", MODEL)
    return upstream.send(instance, url, headers=key_headers(instance), body=call().body)


@pytest.mark.parametrize("provider_type", ["azure", "azure_v1"])
def test_a_token_goes_up_as_a_bearers_and_no_key(provider_type, simulate, with_tokens):
    resource = simulate(Resource("a", access_tokens=["token-1"]))["a"]
    upstream, source = with_tokens("token-1")
    for _ in range(2):
        answer = ask(upstream, by_token(resource, provider_type=provider_type))
        assert (status(answer), answer.token) == (200, "token-1")
    received = resource.requests[-1]
    assert received.headers["authorization"] == "Bearer token-1"
    assert "api-key" not in received.headers
    assert source.asked == 1


def test_who_has_a_key_is_sent_no_token(simulate, with_tokens):
    resource = simulate(Resource("a", api_key=KEY))["a"]
    upstream, source = with_tokens("token-1")
    answer = ask(upstream, at(resource.url))
    assert (status(answer), answer.token) == (200, "")
    assert "authorization" not in resource.requests[-1].headers
    assert source.asked == 0


def test_a_token_that_is_refused_is_replaced_at_once(simulate, with_tokens):
    resource = simulate(Resource("a", access_tokens=["token-2"]))["a"]
    upstream, source = with_tokens("token-1", "token-2")
    answer = ask(upstream, by_token(resource))
    assert (status(answer), answer.token) == (200, "token-2")
    assert (source.asked, len(resource.requests)) == (2, 2)
    assert resource.requests[0].body == resource.requests[1].body


def test_it_is_replaced_once_and_then_the_refusal_is_the_answer(simulate, with_tokens):
    resource = simulate(Resource("a", access_tokens=["another"]))["a"]
    upstream, source = with_tokens("token-1", "token-2")
    for _ in range(2):
        answer = ask(upstream, by_token(resource))
        assert b"Access denied" in whole(answer)
        assert (answer.status, answer.token) == (401, "token-2")
    assert (source.asked, len(resource.requests)) == (2, 3)


@pytest.mark.parametrize("second", ["token-1", NoToken("the endpoint is away")])
def test_without_another_token_nothing_is_sent_again(second, simulate, with_tokens):
    resource = simulate(Resource("a", access_tokens=["another"]))["a"]
    upstream, _source = with_tokens("token-1", second)
    answer = ask(upstream, by_token(resource))
    assert b"Access denied" in whole(answer)
    assert (answer.status, len(resource.requests)) == (401, 1)


def test_a_403_is_not_about_the_token(simulate, with_tokens):
    resource = simulate(Resource("a", access_tokens=["token-1"]))["a"]
    resource.faults[MODEL] = "403"
    upstream, source = with_tokens("token-1")
    assert status(ask(upstream, by_token(resource))) == 403
    assert source.asked == 1


def test_without_a_token_nothing_is_sent(simulate, with_tokens):
    resource = simulate(Resource("a"))["a"]
    upstream, _source = with_tokens(NoToken("no such identity", is_refused=True))
    with pytest.raises(NoCredential) as caught:
        ask(upstream, by_token(resource))
    assert caught.value.message == "there is no token of Entra ID for it"
    assert caught.value.detail == f"{caught.value.message}: no such identity"
    assert caught.value.is_refused
    assert 0 < caught.value.retry_seconds <= 1
    assert resource.requests == []


def test_an_endpoint_that_does_not_answer_takes_no_more_than_the_calls_time(with_tokens):
    upstream, source = with_tokens()
    gate = threading.Event()

    def fetch():
        assert gate.wait(WAIT_SECONDS)
        raise NoToken("too late")

    source.fetch = fetch
    instance = at("http://127.0.0.1:1", auth="entra")
    with pytest.raises(NoCredential) as caught:
        upstream.send(
            instance, "http://127.0.0.1:1/", headers={}, body=b"", ends_at=time.monotonic()
        )
    assert caught.value.timed_out
    gate.set()


def test_a_person_who_asks_waits_for_a_new_try(simulate, with_tokens):
    resource = simulate(Resource("a", access_tokens=["token-1"]))["a"]
    upstream, _source = with_tokens(NoToken("no such identity"), "token-1")
    with pytest.raises(NoCredential):
        ask(upstream, by_token(resource))
    upstream.forget_failures()
    assert status(ask(upstream, by_token(resource))) == 200


def test_an_error_says_whether_its_request_was_sent(make_upstream, listen):
    listener = listen(lambda peer: peer.request())
    with pytest.raises(UpstreamError) as caught:
        send(make_upstream(), at(listener))
    assert caught.value.was_sent
    listener.close()
    with pytest.raises(UpstreamError) as caught:
        send(make_upstream(), at(listener))
    assert not caught.value.was_sent
