"""What hostile, broken and merely odd clients send: strategies for requests and their parts."""

import json
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from tests.builders import MODEL

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]}
BODIES = (
    ("chat/completions", CHAT),
    ("completions", {"model": MODEL, "prompt": "Say hello."}),
    ("embeddings", {"model": MODEL, "input": "Say hello."}),
    ("responses", {"model": MODEL, "input": [{"role": "user", "content": "Say hello."}]}),
)
STYLES = ("/v1/{}", "/openai/v1/{}", f"/openai/deployments/{MODEL}/{{}}")
OTHER_PATHS = (
    *("/", "/health", "/ready", "/v1", "/v1/models", f"/v1/models/{MODEL}", "/openai/models"),
    *("/openai/deployments", "/v1/files", "/v1/chat", "/admin/instances", "/admin/docs/"),
    *("/admin/explain", "/metrics", "/favicon.ico"),
    *("/v1/responses/resp_1", "/openai/responses/resp_1_gw0123456789abcdef/input_items"),
    "/openai/v1/responses/resp_1/cancel",
)

# Fields that mean something to us, and so may be misunderstood.
FIELDS = (
    *(
        "model",
        "messages",
        "prompt",
        "input",
        "stream",
        "stream_options",
        "n",
        "best_of",
        "tools",
    ),
    *("max_tokens", "max_completion_tokens", "prompt_cache_key", "temperature", "functions"),
    *("previous_response_id", "conversation", "instructions", "max_output_tokens", "text"),
    *("background", "include", "store", "metadata"),
)

# Names in which `model` finds no fault of the simulated upstream.
TEXTS = st.text(max_size=20).filter(lambda text: "fault" not in text)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(), st.sampled_from([0, -1, 1, 2**31, 2**63, 1e308])
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)
    ),
    max_leaves=8,
)
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.one_of(st.sampled_from(["user", "system", "assistant", "tool"]), VALUES),
        "content": st.one_of(TEXTS, VALUES),
        "type": st.sampled_from(
            [
                *("text", "image_url", "input_audio", "file", "message", "reasoning"),
                *("item_reference", "function_call", "input_image", "input_file"),
            ]
        ),
        "id": st.one_of(st.sampled_from(["msg_1", "rs_1_gw0123456789abcdef"]), VALUES),
        "encrypted_content": VALUES,
        "file_data": VALUES,
        "image_url": st.one_of(
            VALUES,
            st.fixed_dictionaries(
                {"url": st.one_of(TEXTS, st.just("data:image/png;base64,iVBORw0KGgo"))},
                optional={"detail": st.sampled_from(["low", "high", 1])},
            ),
        ),
    },
)
FIELD_VALUES = st.one_of(VALUES, st.lists(PARTS, max_size=4))


@st.composite
def json_bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """An operation, and its body as a client that means well would send it, but for some of
    its fields."""
    operation, usual = draw(st.sampled_from(BODIES))
    changed = draw(st.dictionaries(st.sampled_from(FIELDS), FIELD_VALUES, max_size=2))
    fields = {**usual, **changed}
    if draw(st.integers(0, 4)) == 0:
        fields.pop(draw(st.sampled_from(FIELDS)), None)
    if draw(st.booleans()):
        fields["stream"] = True
    text = json.dumps(
        fields, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))
    )
    return operation, text.encode("utf-8", "surrogatepass")


@st.composite
def nested(draw: st.DrawFn) -> bytes:
    depth = draw(st.sampled_from([50, 300, 990, 1_010, 1_023, 1_024, 1_025, 20_000]))
    opens, closes = draw(st.sampled_from([("[", "]"), ('{"a":', "}")]))
    name = draw(st.sampled_from(["model", "messages", "stream_options", "tools", "x"]))
    value = opens * depth + "1" + closes * (depth - (draw(st.integers(0, 9)) == 0))
    fields = {**CHAT, "stream": draw(st.integers(0, 3)) > 0, name: "VALUE"}
    return json.dumps(fields).replace('"VALUE"', value).encode()


ODD_BODIES = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        [
            b"",
            b"null",
            b"[]",
            b"{}",
            b'"model"',
            b"\xef\xbb\xbf" + json.dumps(CHAT).encode(),  # a mark that says it is UTF-8
            json.dumps(CHAT).encode("utf-16"),
            json.dumps(CHAT).encode() * 2,
            b'{"model":"gpt-4o","model":5,"messages":[],"messages":[{"role":"user"}]}',
            b'{"model":"gpt-4o","stream":true,"stream":false,"messages":[]}',
            b'{"model":"gpt-4o","messages":"\\ud800"}',
            b'{"model":"\\u0000","messages":[{"role":"user","content":"x"}]}',
            b'{"model":"gpt-4o","n":1e999,"messages":[{"role":"user","content":"x"}]}',
            b'{"model":"gpt-4o","max_tokens":' + b"9" * 5_000 + b',"messages":[]}',
            b'{"model":"gpt-4o","messages":[' + b'{"role":"user","content":"x"},' * 2_000,
        ]
    ),
)


CRUMBS = st.sampled_from(
    [
        *(
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b" ",
            b"\t",
            b":",
            b"\r\n\r\n",
            b"0\r\n\r\n",
            b"{",
            b'"',
            b"\xff",
        ),
        *(
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b" HTTP/1.1\r\n",
            b";a=b",
        ),
    ]
)
# Where, as a part of the whole; how many bytes go; and what comes there instead.
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.integers(0, 12),
        st.one_of(st.just(b""), st.binary(max_size=6), CRUMBS),
    ),
    max_size=3,
)


def edited(whole: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for place, gone, new in edits:
        at = int(len(whole) * place)
        whole = whole[:at] + new + whole[at + gone :]
    return whole


# Values of headers as gunicorn lets them through.
HEADER_VALUES = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40)
TOKENS = st.text("!#$%&'*+-.^`|~0123456789ABCDEFabcdefxyz", min_size=1, max_size=20)
HEADERS = st.one_of(
    st.tuples(TOKENS, HEADER_VALUES),
    st.tuples(
        st.sampled_from(
            [
                *(
                    "Accept",
                    "Accept-Encoding",
                    "Content-Type",
                    "Content-Encoding",
                    "Cookie",
                    "Date",
                ),
                *(
                    "Connection",
                    "Expect",
                    "Forwarded",
                    "If-Match",
                    "Range",
                    "TE",
                    "Trailer",
                    "Via",
                ),
                *(
                    "Upgrade",
                    "User-Agent",
                    "X-Forwarded-For",
                    "X-Forwarded-Proto",
                    "X-Request-ID",
                ),
                *("OpenAI-Beta", "x-ms-client-request-id", "X-HTTP-Method-Override", "Origin"),
                *("X-Admin-API-Key", "X-Change-Reason", "Idempotency-Key", "Max-Forwards"),
            ]
        ),
        HEADER_VALUES,
    ),
    st.tuples(
        st.just("Host"), st.one_of(HEADER_VALUES, st.sampled_from(["a..b", "[::1", "a:b"]))
    ),
    st.tuples(
        st.just("Connection"), st.sampled_from(["close", "upgrade", "content-type, host"])
    ),
    # Shorter would be a wish for no answer.
    st.tuples(
        st.just("X-Request-Timeout-MS"),
        st.sampled_from(["60000", "999999999", "0", "-1", "1e3", "", " ", "٣", "x", "9" * 20]),
    ),
)
CREDENTIALS = st.sampled_from([*["bearer", "api-key", "both", "admin"] * 4, "wrong", "none"])
OTHER_METHODS = st.one_of(
    st.sampled_from(["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT"]),
    st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ-", min_size=3, max_size=12),
)


@st.composite
def paths(draw: st.DrawFn, operation: str) -> str:
    """As they come: percent-encoded or not, and not always what they should be."""
    path = draw(st.sampled_from(STYLES)).format(operation)
    odd = draw(st.integers(0, 9))
    if odd == 0:
        path = draw(st.sampled_from(OTHER_PATHS))
    if odd in (1, 2):
        at = draw(st.integers(0, len(path)))
        crumb = draw(
            st.one_of(
                st.sampled_from(
                    ["/", "//", "/../", "%2F", "%00", "%", "%zz", ";", ".", "%ff", "%C3%A4"]
                ),
                st.text(st.characters(codec="ascii", exclude_characters="\r\n\0 "), max_size=8),
                st.just("x" * 1_000),
            )
        )
        path = path[:at] + crumb + path[at:]
    query = draw(
        st.one_of(
            st.sampled_from(
                ["", "?api-version=2024-10-21", "?", "?api-version=&api-version=x"]
            ),
            st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20).map(
                lambda text: "?" + text.replace(" ", "+")
            ),
        )
    )
    return path + query


def variants(request: "Request") -> list["Request"]:
    """What is drawn is dear: its body is also sent as a call that is one but for that, by each
    path style, and cut in the middle."""
    operation = next((o for o, _ in BODIES if o in request.target), "chat/completions")
    half = request.body[: len(request.body) // 2]
    return [
        request,
        *(
            replace(
                request,
                method="POST",
                target=style.format(operation),
                credentials="bearer",
                headers=[],
                framing=framing,
            )
            for style, framing in zip(STYLES, ("length", "chunked", "length"), strict=True)
        ),
        replace(request, body=half, framing="length"),
    ]


@dataclass(frozen=True, repr=False)
class Request:
    """One to the client API. `framing` says how its body's length is told: "length", "chunked",
    "none", or a number of bytes that it is wrong by."""

    method: str
    target: str
    credentials: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    framing: str | int = "length"

    def __repr__(self) -> str:
        """Of a large body the beginning: the blob that is printed has all of it."""
        lines = f"{self.method} {self.target} {self.credentials} {self.headers} {self.framing}"
        return f"{lines[:1_000]} {self.body[:500]!r} ({len(self.body)})"


@st.composite
def requests(draw: st.DrawFn) -> Request:
    operation, body = draw(json_bodies())
    kind = draw(st.integers(0, 5))
    if kind == 0:
        body = draw(ODD_BODIES)
    elif kind == 1:
        body = draw(nested())
    elif kind == 2:
        body = edited(body, draw(EDITS))
    return Request(
        method="POST" if draw(st.integers(0, 9)) else draw(OTHER_METHODS),
        target=draw(paths(operation)),
        credentials=draw(CREDENTIALS),
        headers=draw(st.lists(HEADERS, max_size=4)),
        body=body,
        framing=draw(
            st.one_of(
                st.sampled_from(["length"] * 9 + ["chunked"] * 4 + ["none"]),
                st.sampled_from(["length"] * 9 + ["chunked"] * 4 + ["none"]),
                st.integers(-20, 20),
            )
        ),
    )
