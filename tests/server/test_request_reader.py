"""Whatever a client sends, it means what gunicorn says that it means."""

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.errors import InvalidHeader, ParseException
from gunicorn.http.parser import RequestParser
from hypothesis import given
from hypothesis import strategies as st

from proxy import gunicorn_conf
from proxy.core.request_head import KEPT
from proxy.server.known_heads import KnownHeads
from proxy.server.request_reader import (
    MOST_HEAD_BYTES,
    MOST_LINES,
    MOST_LINES_BYTES,
    MOST_TARGETS,
    TARGET_BYTES,
    KnownRequest,
    RequestReader,
    StrictRequest,
    WholeBody,
)

ANOTHER = ("2001:db8::7", 51_235, 0, 0)
CLIENT, SERVER = ("192.0.2.7", 51_234), ("127.0.0.1", 8000)
POST = b"POST /v1/chat/completions?a=%20b HTTP/1.1"
LINES = (
    b"Host: gateway.example:8000",
    b"Accept: application/json",
    b"content-type: application/json",
    b"Authorization: Bearer sk-of-nobody",
    b"X-Stainless-Lang:python",
    b"Connection: keep-alive",
)


class GunicornReader(RequestParser):
    mesg_class = StrictRequest


class Sock:
    """Takes the `100 Continue`."""

    def send(self, data):
        return len(data)


def settings(**more):
    config = Config()
    for name in ("limit_request_fields", "limit_request_field_size", "limit_request_line"):
        config.set(name, getattr(gunicorn_conf, name))
    for name in ("forwarded_allow_ips", "forwarder_headers", "secure_scheme_headers"):
        config.set(name, getattr(gunicorn_conf, name))
    config.set("header_map", gunicorn_conf.header_map)
    for name, value in more.items():
        config.set(name, value)
    return config


SETTINGS = settings()


def head(*lines, target=POST):
    return b"\r\n".join((target, *lines, b"", b""))


def call(body=b"{}", *, lines=LINES, target=POST):
    return head(*lines, b"Content-Length: %d" % len(body), target=target) + body


class Connection:
    """What comes by it, read by this reader."""

    def __init__(self, reader, config=SETTINGS, *, server=SERVER, client=CLIENT, heads=None):
        known = () if reader is GunicornReader else (heads,)
        self.parser = reader(config, iter(()), client, *known)
        self.config, self.server, self.client = config, server, client
        self.read = self.environ = None

    def ask(self, sent, *, reads=True):
        """What the app is told, the body, whether it is the last one, and what comes behind
        it; or the error."""
        self.parser.unreader.buf.seek(0, 2)
        self.parser.unreader.buf.write(sent)
        try:
            self.read = read = next(self.parser)
            told = self._told(read)
            body = read.body.read() if reads else b""
            closes = read.should_close()
            if not closes:
                self.parser.finish_body()
        except (ParseException, StopIteration, OSError) as error:
            return type(error)
        return told, body, closes, self.parser.unreader.buf.getvalue()

    def _told(self, read):
        if isinstance(read, KnownRequest):
            self.environ = environ = read.taken()
            assert "wsgi.early_hints" not in environ
        else:
            arguments = read, Sock(), self.client, self.server, self.config
            _, environ = wsgi.create(*arguments)
            environ["wsgi.multithread"] = True
            if isinstance(self.parser, RequestReader):
                self.parser.note(environ)
        # The rest is gunicorn's objects, made for each request.
        kept = str, bool, tuple, type
        return {key: value for key, value in environ.items() if isinstance(value, kept)}


@pytest.fixture
def connection():
    """One on which the usual has been asked twice."""
    made = Connection(RequestReader, heads=KnownHeads())
    for _ in range(2):
        made.ask(call())
    return made


def both(*sent, **options):
    """What each of these means, on one connection, and on one of its own; gunicorn says the
    same of each."""
    heads = KnownHeads()
    ours = Connection(RequestReader, heads=heads, **options)
    theirs = Connection(GunicornReader, **options)
    found = []
    for each in sent:
        found.append(ours.ask(each))
        assert found[-1] == theirs.ask(each), each
        alone = {"client": ANOTHER, **options}
        said = Connection(GunicornReader, **alone).ask(each)
        for _ in range(3):
            assert Connection(RequestReader, heads=heads, **alone).ask(each) == said, each
        if isinstance(found[-1], type) or found[-1][2]:
            break
    return found


def test_from_the_third_on_what_is_asked_alike_is_known(connection):
    for body in (b"{}", b'{"longer": "than the others"}', b""):
        told, read, closes, rest = connection.ask(call(body))
        assert isinstance(connection.read, KnownRequest)
        assert (read, closes, rest) == (body, False, b"")
        assert told["CONTENT_LENGTH"] == str(len(body))
        assert told["HTTP_AUTHORIZATION"] == "Bearer sk-of-nobody"
    both(*[call(b"x" * n) for n in range(6)])


def test_a_line_that_is_new_is_read_alone(connection):
    new = (*LINES, b"X-Request-Id: 0123")
    told, *_ = connection.ask(call(lines=new))
    assert isinstance(connection.read, KnownRequest)
    assert told["HTTP_X_REQUEST_ID"] == "0123"
    told, *_ = connection.ask(call())
    assert "HTTP_X_REQUEST_ID" not in told


def test_a_head_that_came_twice_is_known_on_every_connection():
    heads = KnownHeads()
    for sender, is_known in ((CLIENT, False), (CLIENT, False), (ANOTHER, True), (CLIENT, True)):
        made = Connection(RequestReader, client=sender, heads=heads)
        told, *_ = made.ask(call(b"1234"))
        assert isinstance(made.read, KnownRequest) is is_known
        assert (told["REMOTE_ADDR"], told["REMOTE_PORT"]) == (sender[0], str(sender[1]))
        assert told["CONTENT_LENGTH"] == "4"
    assert made.ask(call(b"12"))[1] == b"12"
    assert isinstance(made.read, KnownRequest)


def test_so_is_one_that_a_connection_knew_by_its_lines(connection):
    new = call(lines=(*LINES, b"X-New: 1"))
    for sent in (new, call(), new):
        connection.ask(sent)
        assert isinstance(connection.read, KnownRequest)
    heads = connection.parser._heads
    other = Connection(RequestReader, heads=heads, client=ANOTHER)
    told, *_ = other.ask(new)
    assert isinstance(other.read, KnownRequest)
    assert (told["HTTP_X_NEW"], told["REMOTE_ADDR"]) == ("1", ANOTHER[0])
    assert other.environ[KEPT] is connection.environ[KEPT]


def test_each_connections_socket_is_its_own():
    heads, found = KnownHeads(), []
    for _ in range(4):
        made = Connection(RequestReader, heads=heads)
        made.parser._source = object()
        made.ask(call())
        found.append(made)
    for made in found[2:]:
        assert made.environ["gunicorn.socket"] is made.parser._source
        made.environ["wsgi.errors"].write("")
    assert found[2].environ["wsgi.errors"] is not found[3].environ["wsgi.errors"]


@pytest.mark.parametrize(
    "sent",
    [
        call(lines=(*LINES, b"Expect: 100-continue")),
        call(lines=(*LINES, b"Upgrade: h2c")),
        call(lines=(*LINES, b"TE: trailers")),
        call(lines=(*LINES, b"Accept: text/plain")),  # comes twice
        call(lines=(*LINES, b"Under_Score: is left out")),
        call(lines=(*LINES[:-1], b"Connection: close")),
        call(lines=(*LINES, b"X-Large: " + b"x" * MOST_HEAD_BYTES)),
        call(target=POST.replace(b"1.1", b"1.0")),
        head(*LINES),
    ],
)
def test_of_what_is_unusual_no_head_is_kept(sent):
    heads = KnownHeads()
    for _ in range(3):
        made = Connection(RequestReader, heads=heads)
        assert isinstance(made.ask(sent), tuple)
        assert not isinstance(made.read, KnownRequest)


def test_what_a_forwarder_may_say_is_left_out_of_what_others_say():
    """Also where their heads came before."""
    config = settings(forwarded_allow_ips=CLIENT[0], forwarder_headers="SCRIPT_NAME")
    sent, heads = call(lines=(*LINES, b"SCRIPT_NAME: /v1")), KnownHeads()
    for sender, name in ((ANOTHER, ""), (ANOTHER, ""), (CLIENT, "/v1"), (ANOTHER, "")):
        told, *_ = Connection(RequestReader, config, client=sender, heads=heads).ask(sent)
        assert told["SCRIPT_NAME"] == name


def test_one_that_came_in_pieces_is_not_taken_for_the_head_before():
    heads = KnownHeads()
    made = Connection(RequestReader, heads=heads)
    made.ask(call())
    other = call(target=b"GET /other HTTP/1.1")
    pieces = iter([other[50:]])
    made.parser.unreader.chunk = lambda _size=None: next(pieces)
    assert made.ask(other[:50])[0]["PATH_INFO"] == "/other"
    told, *_ = Connection(RequestReader, heads=heads).ask(call())
    assert told["PATH_INFO"] == "/v1/chat/completions"


def test_what_a_forwarder_says_of_the_scheme_is_not_forgotten():
    """Though it was, when others said it."""
    config = settings(
        forwarded_allow_ips=CLIENT[0], secure_scheme_headers={"X-FORWARDED-PROTO": "https"}
    )
    sent, heads = call(lines=(*LINES, b"X-Forwarded-Proto: https")), KnownHeads()
    for sender, scheme in ((ANOTHER, "http"), (ANOTHER, "http"), (CLIENT, "https")):
        told, *_ = Connection(RequestReader, config, client=sender, heads=heads).ask(sent)
        assert told["wsgi.url_scheme"] == scheme


def test_of_a_head_nothing_is_kept_that_is_of_one_request_or_connection(connection):
    (kept,) = connection.parser._heads._heads.values()
    assert kept.keys().isdisjoint(
        {"wsgi.input", "wsgi.early_hints", "wsgi.errors", "CONTENT_LENGTH"}
    )
    before = dict(kept)
    connection.ask(call(b"longer"))
    connection.environ["planted"] = "1"
    assert kept == before


def test_of_a_silent_client_the_head_is_not_kept_twice(connection):
    for sent in (
        call(),
        call(lines=(*LINES, b"X-New: 1")),
        call(target=POST.replace(b"a=", b"b=")),
    ):
        connection.ask(sent)
        assert connection.parser._asked == b""


def test_heads_that_come_once_are_not_kept():
    heads = KnownHeads()
    for number in range(20):
        lines = (*LINES, b"X-Request-Id: %d" % number)
        Connection(RequestReader, heads=heads).ask(call(lines=lines))
    assert not heads._heads


def test_where_the_connection_says_who_its_client_is_no_head_is_known():
    config = settings(proxy_protocol="v1", proxy_allow_ips="*")
    sender = b"PROXY TCP4 198.51.100.1 198.51.100.2 1234 80\r\n"
    heads = KnownHeads()
    for sent in (call(), call(), call(), sender + call(), sender + call()):
        made = Connection(RequestReader, config, heads=heads)
        told, *_ = made.ask(sent)
        assert not isinstance(made.read, KnownRequest)
    assert told["REMOTE_ADDR"] == "198.51.100.1"


def test_what_the_app_writes_into_it_is_of_one_request(connection):
    connection.ask(call())
    connection.environ["flask.app"] = connection.environ["HTTP_HOST"] = "mine"
    told, *_ = connection.ask(call())
    assert "flask.app" not in told
    assert told["HTTP_HOST"] == "gateway.example:8000"


def test_paths_are_told_apart():
    other = POST.replace(b"chat/", b"")
    found = both(*[call(target=each) for each in (POST, POST, other, POST, other, other)])
    assert [told["PATH_INFO"] for told, *_ in found[2:]] == [
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/completions",
    ]


@pytest.mark.parametrize(
    "lines",
    [
        (*LINES, b"accept: text/plain"),  # comes twice
        (*LINES, LINES[0]),
        (*LINES, b"CONTENT-LENGTH: 2"),
        (*LINES, b"Content-Length: 3"),
        (*LINES, b"Transfer-Encoding: chunked"),
        (*LINES, b"Transfer-Encoding: gzip, chunked"),
        (*LINES, b"Expect: 100-continue"),
        (*LINES, b"Expect: a miracle"),
        (*LINES, b"Upgrade: h2c"),
        (*LINES, b"X_Admin_API_Key: another name"),
        (*LINES, b"Content_Length: 7"),
        (*LINES, b"SCRIPT_NAME: /v1"),
        (*LINES, b" folded"),
        (*LINES, b"\tfolded"),
        (*LINES, b""),
        (*LINES, b"no colon"),
        (*LINES, b": no name"),
        (*LINES, b"Spaced : name"),
        (*LINES, b"Na\xefve: name"),
        (*LINES, b"X-A: in\nside"),
        (*LINES, b"X-A: in\rside"),
        (*LINES, b"X-A: a\x00b"),
        (*LINES, b"X-A: \xe4\xf6"),
        (*LINES, b"X-A:"),
        (*LINES, b"X-A: \t b \t "),
        (*LINES, b"X-A: " + b"x" * gunicorn_conf.limit_request_field_size),
        (*LINES, *(b"X-%d: y" % n for n in range(gunicorn_conf.limit_request_fields - 7))),
        (*LINES, *(b"X-%d: y" % n for n in range(gunicorn_conf.limit_request_fields))),
        (*LINES[:-1], b"Connection: close"),
        (*LINES[:-1], b"Connection: Keep-Alive"),
        (*LINES[:-1], b"Connection: keep-alive, close"),
        LINES[1:],
        LINES[:1],
        (),
    ],
)
def test_what_is_unusual_is_what_gunicorn_says(lines):
    both(call(), call(), call(), call(lines=lines), call(), call(lines=lines))


@pytest.mark.parametrize(
    "length",
    [
        *(b"+2", b"-2", b"2,2", b"0x2", b"", b" 2\t", b"02", b"2 2", b"\xb2", b"9" * 20),
        *(b"9" * 5000, b" " * 100 + b"2", b" " * 9000 + b"2"),
    ],
)
def test_a_length_is_what_gunicorn_says(length):
    lengths = head(*LINES, b"Content-Length: " + length) + b"{}"
    both(call(), call(), lengths)


@pytest.mark.parametrize(
    "target",
    [
        POST.replace(b"1.1", b"1.0"),
        POST.replace(b"1.1", b"2.0"),
        POST.replace(b"POST", b"GET"),
        POST.replace(b"POST", b"post"),
        POST.replace(b"/v1", b"http://other.example/v1"),
        POST.replace(b" ", b"  "),
        POST + b" ",
        b"CONNECT a.example:1 HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"",
    ],
)
def test_so_is_a_request_line(target):
    again = call(target=target)
    both(call(), call(), call(), again, again, again, call())


def test_an_empty_line_before_a_request_is_no_request_line():
    """One is allowed (RFC 9112, 2.2); what is remembered is the line behind it."""
    *_, last = both(
        call(), b"\r\n" + call(target=b"GET /admin HTTP/1.1"), b"\r\n" + head(*LINES)
    )
    assert both(call(), b"\r\n" + call(), call(), b"\r\n" + call())[3][1] == b"{}"
    assert last[0]["PATH_INFO"] == "/v1/chat/completions"
    lines = b"\r\nX-A: b\r\nContent-Length: 3\r\n\r\nabc"
    assert isinstance(both(call(), b"\r\n" + call(), lines)[2], type)


def test_a_body_that_looks_like_a_request_is_none():
    inner = call(target=b"GET /inner HTTP/1.1")
    connection = Connection(RequestReader, heads=KnownHeads())
    connection.ask(call(inner), reads=False)
    connection.ask(call(target=b"GET /outer HTTP/1.1"))
    told, *_ = connection.ask(inner)
    assert told["PATH_INFO"] == "/inner"


def test_one_that_came_in_pieces_is_read_all_the_same():
    connection = Connection(RequestReader, heads=KnownHeads())
    for _ in range(3):
        pieces = iter([POST[5:] + b"\r\n", b"Host: x\r\n", b"\r\n"])
        connection.parser.unreader.chunk = lambda _size=None, pieces=pieces: next(pieces)
        told, *_ = connection.ask(POST[:5])
        assert told["HTTP_HOST"] == "x"
    assert isinstance(connection.ask(call()), tuple)


def test_once_it_said_that_it_closes_nothing_more_is_read(connection):
    connection.ask(call(lines=(*LINES[:-1], b"Connection: close")))
    connection.parser.unreader.unread(call())
    with pytest.raises(StopIteration):
        next(connection.parser)


def test_a_body_that_nobody_read_is_read_over(connection):
    """Also where it looks like a request."""
    inner = call(b"inner")
    client = iter([b"lf" + call(b"next")])
    connection.parser.unreader.chunk = lambda _size=None: next(client)
    length = b"Content-Length: %d" % (len(inner) + 2)
    connection.parser.unreader.unread(head(*LINES, length) + inner)
    assert next(connection.parser).body.reader.length == len(inner) + 2
    assert next(connection.parser).body.read() == b"next"


def test_a_body_whose_reading_failed_is_never_over(connection):
    body = connection.parser.mesg.body = Body(LengthReader(None, 0))
    assert connection.parser.finish_body()
    body.failed = True
    assert not connection.parser.finish_body()


def test_the_older_protocol_is_never_known():
    old = POST.replace(b"1.1", b"1.0")
    stays = call(target=old)
    found = both(stays, stays, stays, call(target=old, lines=LINES[:-1]))
    assert [closes for _, _, closes, _ in found] == [False, False, False, True]


@pytest.mark.parametrize(
    "name", "EXPECT PROXY-CONNECTION TE TRAILER TRANSFER-ENCODING UPGRADE".split()
)
def test_what_changes_how_the_rest_is_read_is_never_known(connection, name):
    value = b"chunked" if name == "TRANSFER-ENCODING" else b"100-continue"
    lines = (*LINES, name.encode() + b": " + value)
    for _ in range(3):
        assert isinstance(connection.ask(head(*lines) + b"0\r\n\r\n"), tuple)
        assert not isinstance(connection.read, KnownRequest)
        connection.parser.unreader.take_buffered()


def test_gunicorns_other_settings_count():
    spaced = (*LINES, b"Transfer-Encoding : chunked")
    chunked = head(*spaced) + b"2\r\n{}\r\n0\r\n\r\n"
    config = settings(strip_header_spaces=True)
    found = both(call(), call(), call(), chunked, chunked, config=config)
    assert [body for _, body, *_ in found[3:]] == [b"{}", b"{}"]
    for length in (b"x", b"1_0", b"2"):
        spaced_length = head(*LINES, b"Content-Length : " + length) + b"{}"
        both(call(), call(), call(), spaced_length, config=config)
    few = settings(limit_request_fields=len(LINES) + 1)
    more = call(lines=(*LINES, b"X-A: b"))
    assert isinstance(both(call(), call(), call(), more, config=few)[3], type)


def test_a_head_without_headers_is_read():
    bare = b"GET / HTTP/1.0\r\n\r\n"
    assert both(bare, bare)[0][2]  # the last one of its connection


def test_one_of_the_host_alone_is_read():
    bare = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    assert len(both(bare, bare, bare, bare + bare)) == 4


def test_what_is_sent_together_is_read_one_by_one():
    three = call(b"[1]") + call(b"[22]") + call(b"[333]")
    found = both(call(), call(), three, b"", b"", call())
    assert [body for _, body, *_ in found[2:]] == [b"[1]", b"[22]", b"[333]", b"{}"]


def test_what_nobody_read_of_a_body_is_not_the_next_request(connection):
    assert connection.ask(call(call(b"inner")), reads=False)[3] == b""
    assert isinstance(connection.read, KnownRequest)
    assert connection.ask(call(b"outer"))[1] == b"outer"


def test_a_body_that_has_come_is_there_and_needs_no_reader(connection):
    connection.ask(call())
    assert isinstance(connection.read.body, WholeBody)
    assert connection.read.body.reader.length == 0


def test_of_one_that_is_over_nothing_is_kept(connection):
    """Its client may stay connected for long."""
    connection.ask(call())
    assert connection.read.body.closed
    assert connection.read.taken() == {}


def test_of_another_the_rest_is_received(connection):
    """As gunicorn receives it: what follows it is the next request."""
    client = iter([b"lf", call(b"next")])
    connection.parser.unreader.chunk = lambda _size=None: next(client)
    sent = head(*LINES, b"Content-Length: 4")
    told, body, _, rest = connection.ask(sent + b"ha")
    assert isinstance(connection.read, KnownRequest)
    assert (told["CONTENT_LENGTH"], body, rest) == ("4", b"half", b"")
    assert connection.ask(next(client))[1] == b"next"


def test_a_body_that_ends_too_soon_is_short(connection):
    _, body, _, _ = connection.ask(head(*LINES, b"Content-Length: 4") + b"ha")
    assert body == b"ha"


def test_of_headers_that_a_forwarder_may_set_gunicorn_decides():
    config = settings(
        forwarded_allow_ips="*", secure_scheme_headers={"X-FORWARDED-PROTO": "https"}
    )
    lines = (*LINES, b"X-Forwarded-Proto: https")
    found = both(call(), call(), call(lines=lines), call(lines=lines), call(), config=config)
    schemes = [told["wsgi.url_scheme"] for told, *_ in found]
    assert schemes == ["http", "http", "https", "https", "http"]


def test_a_path_that_a_forwarder_may_name_is_of_one_request():
    config = settings(forwarded_allow_ips="*", forwarder_headers="SCRIPT_NAME")
    lines = (*LINES, b"SCRIPT_NAME: /v1")
    for order in ([lines, lines, LINES, LINES], [LINES, LINES, lines, LINES]):
        found = both(*[call(lines=each) for each in order], config=config)
        names = [told["SCRIPT_NAME"] for told, *_ in found]
        assert names == ["/v1" if each is lines else "" for each in order]


def test_by_a_socket_of_the_file_system_nothing_is_known():
    """There the host is what the client says."""
    connection = Connection(
        RequestReader, server="/run/gateway.sock", client="", heads=KnownHeads()
    )
    for host in (b"a.example:1", b"a.example:1", b"b.example:2", b"a.example:1"):
        told, *_ = connection.ask(call(lines=(b"Host: " + host, *LINES[1:])))
        assert told["SERVER_NAME"] == host.partition(b":")[0].decode()
        assert not isinstance(connection.read, KnownRequest)


def test_of_a_head_like_the_last_no_line_is_looked_at(connection, monkeypatch):
    looked = []
    environ_of = RequestReader._environ

    def look(self, template, lines):
        looked.append(lines)
        return environ_of(self, template, lines)

    monkeypatch.setattr(RequestReader, "_environ", look)
    for body in (b"{}", b"", b"1234567890", b"{}"):
        told, read, *_ = connection.ask(call(body))
        assert told["CONTENT_LENGTH"] == str(len(body))
        assert told["HTTP_X_STAINLESS_LANG"] == "python"
        assert read == body
        assert isinstance(connection.read, KnownRequest)
    assert not looked
    told, *_ = connection.ask(call(lines=(*LINES, b"X-New: 1")))
    assert told["HTTP_X_NEW"] == "1"
    told, *_ = connection.ask(call())
    assert "HTTP_X_NEW" not in told
    assert len(looked) == 1


def test_what_the_app_writes_into_one_like_the_last_the_next_does_not_see(connection):
    for _ in range(3):
        connection.ask(call())
        assert "planted" not in connection.environ
        connection.environ["planted"] = "1"


def test_what_is_made_of_a_head_is_kept_for_those_like_it_and_no_other(connection):
    kept = []
    new = (*LINES, b"X-New: 1")
    for lines, body in ((LINES, b"{}"), (LINES, b"longer"), (new, b"{}"), (LINES, b"{}")):
        connection.ask(call(body, lines=lines))
        kept.append(connection.environ[KEPT])
    assert kept[0] is kept[1] is kept[3]
    assert kept[2] is not kept[0]
    connection.ask(head(*LINES))  # the reader does not keep one without a body's length
    assert KEPT not in connection.environ


@pytest.mark.parametrize(
    "length",
    [
        b"Content-Length: two",
        b"Content-Length: -2",
        b"Content-Length: 2, 2",
        b"Content-Length:",
    ],
)
def test_nor_is_a_length_believed_that_is_none(length):
    both(call(), call(), call(), head(*LINES, length) + b"{}")


def test_two_lengths_are_what_gunicorn_says():
    twice = head(*LINES, b"Content-Length: 2", b"content-length: 2") + b"{}"
    both(call(), call(), call(), twice)


def test_a_large_head_is_not_kept_as_a_whole(connection):
    large = b"X-Large: " + b"x" * MOST_HEAD_BYTES
    for _ in range(3):
        connection.ask(call(lines=(*LINES, large)))
        assert connection.parser._head == connection.parser._asked == b""
        assert KEPT not in connection.environ


def test_what_is_kept_of_a_connection_is_bounded(connection):
    for number in range(3 * MOST_LINES):
        connection.ask(call(lines=(*LINES, b"X-Request-Id: %d" % number)))
        assert isinstance(connection.read, KnownRequest)
        assert len(connection.parser._lines) <= MOST_LINES
    for number in range(20):
        lines = [b"X-%d-%d: " % (number, n) + b"x" * 1000 * number for n in range(number)]
        connection.ask(call(lines=lines))
        assert sum(map(len, connection.parser._lines)) <= MOST_LINES_BYTES
    new = b"X-New: 1"
    connection.ask(call(lines=(*LINES, new)))
    assert isinstance(connection.read, KnownRequest)
    assert {*LINES, new} <= connection.parser._lines.keys()
    for number in range(3 * MOST_TARGETS):
        connection.ask(call(target=b"POST /v1/%d HTTP/1.1" % number))
        assert len(connection.parser._targets) <= MOST_TARGETS
        connection.ask(call(target=b"POST /%b HTTP/1.1" % (b"x" * number * 100)))
        assert max(map(len, connection.parser._targets)) <= TARGET_BYTES


HOSTLESS = (
    LINES[1:],
    (*LINES, LINES[0]),
    (b"Host: a b", *LINES[1:]),
    (b"Host: a@b", *LINES[1:]),
    (b"Host: a/b", *LINES[1:]),
    (b"Host: a, b", *LINES[1:]),
    (b"Host: a:b", *LINES[1:]),
    (b"Host: [::1", *LINES[1:]),
    (b"Host: b%zz", *LINES[1:]),
    (b"Host: \xe4", *LINES[1:]),
)


@pytest.mark.parametrize("target", [POST, POST.replace(b"1.1", b"1.2")])
@pytest.mark.parametrize("lines", HOSTLESS)
def test_one_host_has_to_be_named(lines, target, connection):
    """RFC 9112, 3.2; also where all of its lines are known, and gunicorn took it."""
    refused = call(lines=lines, target=target)
    assert Connection(RequestReader, heads=KnownHeads()).ask(refused) is InvalidHeader
    both(call(), call(), call(), refused)
    assert connection.ask(refused) is InvalidHeader
    for _ in range(3):
        heads = connection.parser._heads
        assert Connection(RequestReader, heads=heads).ask(refused) is InvalidHeader


@pytest.mark.parametrize(
    "host",
    [
        *(b"", b"x", b"X-1.example", b"under_score", b"10.0.0.1:8000", b"x:", b"%41"),
        *(b"[::1]", b"[2001:db8::7]:8000", b"[fe80::1%25eth0]", b"[v1.a:b]"),
    ],
)
def test_what_may_be_a_host_is_one(host):
    lines = (b"Host: " + host, *LINES[1:])
    found = both(*[call(lines=lines)] * 4)
    assert [told["HTTP_HOST"] for told, *_ in found] == [host.decode()] * 4


def test_an_old_client_may_name_no_host_but_no_wrong_one():
    old = POST.replace(b"1.1", b"1.0")
    assert isinstance(both(call(lines=LINES[1:], target=old))[0], tuple)
    assert both(call(lines=(b"Host: a b",), target=old)) == [InvalidHeader]


@pytest.mark.parametrize(
    "said, closes",
    [
        ((b"foo, close",), True),
        ((b"CLOSE ,\tfoo",), True),
        ((b"keep-alive", b"close"), True),
        ((b"foo", b"keep-alive, Close"), True),
        ((b"close",), True),
        ((b"closed, foo",), False),
        ((b"keep-alive, foo",), False),
        ((b"",), False),
        ((), False),
    ],
)
def test_close_is_found_wherever_it_stands_among_the_options(said, closes):
    lines = (*LINES[:-1], *(b"Connection: " + each for each in said))
    for _, _, found, _ in both(*[call(lines=lines)] * 3):
        assert found is closes


@pytest.mark.parametrize(
    "said, closes",
    [((b"foo", b"Keep-Alive"), False), ((b"keep-alive, close",), True), ((), True)],
)
def test_an_old_client_is_kept_if_it_asks_for_that(said, closes):
    lines = [b"Connection: " + each for each in said]
    old = POST.replace(b"1.1", b"1.0")
    ((_, _, found, _),) = both(call(lines=lines, target=old))
    assert found is closes


@pytest.mark.parametrize("version", [b"1.2", b"1.9"])
def test_what_is_newer_is_read_as_our_version(version):
    newer = call(target=POST.replace(b"1.1", version))
    for told, _, closes, _ in both(*[newer] * 4, call()):
        assert (told["SERVER_PROTOCOL"], closes) == ("HTTP/1.1", False)


@given(st.data())
def test_whatever_comes_it_is_what_gunicorn_says(data):
    line = st.sampled_from(
        (
            *LINES,
            b"accept: */*",
            b"X-A: b",
            b"x-a: c",
            b"Host: a b",
            b"Connection: close",
            b"Connection: foo, close",
            b"Transfer-Encoding: chunked",
            b"Content-Length: 2",
            b"Content-Length: 5",
            b"content-length: 2 ",
            b"Under_Score: a",
            b"bad name: a",
        )
    )
    target = st.sampled_from(
        (POST, POST, POST, b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"POST //a HTTP/1.1")
    )
    body = st.sampled_from(
        (b"", b"{}", b"12345", b"2\r\n{}\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\n")
    )
    request = st.builds(
        lambda target, lines, body: head(*lines, target=target) + body,
        target,
        # Mostly with a host, without which nothing is read.
        st.builds(
            list.__add__,
            st.sampled_from(([LINES[0]], [LINES[0]], [])),
            st.lists(line, max_size=6),
        ),
        body,
    )
    usual = data.draw(st.sampled_from((call(), call(b""), call(lines=LINES[:2]))))
    both(usual, usual, *data.draw(st.lists(request | st.just(usual), min_size=1, max_size=6)))


def test_one_whose_answer_goes_on_is_the_next_again():
    reader = RequestReader(SETTINGS, [call() * 2], CLIENT, KnownHeads())
    first = next(reader)
    reader.goes_on = True
    assert next(reader) is first
    assert next(reader) is not first
