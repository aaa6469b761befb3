import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import encode_multipart_formdata
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from proxy.core.form import (
    MAX_HEAD_BYTES,
    MAX_TEXT_BYTES,
    MOST_PARTS,
    BrokenForm,
    form_of,
)
from proxy.simulator import uploads

TYPE = "multipart/form-data; boundary=xyz"
SOUND = b"RIFF\x00\r\n--xy\r\n\r\n\xff"  # with what begins as a boundary does


def part(head, content=b""):
    return b"--xyz\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


def named(name, content=b"", more=""):
    return part(f'Content-Disposition: form-data; name="{name}"{more}', content)


def form(*parts, end=b"--xyz--\r\n"):
    return b"".join(parts) + end


FILE = named("file", SOUND, '; filename="a.wav"\r\nContent-Type: audio/wav')


def test_it_says_what_its_fields_are_and_where_its_files_stand():
    body = form(named("model", b"whisper"), FILE, named("prompt", "Grüße".encode()))
    found = form_of(body, TYPE)
    assert found.fields == {"model": "whisper", "prompt": "Grüße"}
    assert [(f.name, body[f.start : f.end]) for f in found.files] == [("file", SOUND)]
    assert body[found.model.start : found.model.end] == b"whisper"


def test_a_form_may_lack_a_model_and_be_empty():
    found = form_of(form(), TYPE)
    assert (found.fields, found.files, found.model) == ({}, (), None)


def test_a_body_that_was_gathered_is_read_as_well():
    assert form_of(bytearray(form(named("model", b"a"), FILE)), TYPE).fields == {"model": "a"}


@pytest.mark.parametrize(
    "body",
    [
        form(named("a", b"b"), end=b"--xyz--"),
        form(named("a", b"b"), end=b"--xyz--\r\n\r\n"),  # as Ruby ends it
        form(b"--xyz \t\r\n" + named("a", b"b")[7:]),
        form(part("content-disposition:form-data;name=a", b"b")),
        form(
            part("Content-Type: text/plain\r\nContent-Disposition: form-data; name=a; ", b"b")
        ),
        form(part('Content-Disposition: Form-Data; NAME="a"', b"b")),
        # .NET, OkHttp and Apache
        form(named("a", b"b", "\r\nContent-Type: text/plain; charset=utf-8")),
        form(named("a", b"b", "\r\nContent-Length: 1\r\nContent-Transfer-Encoding: binary")),
        form(named("a", b"b", "\r\nContent-Type: text/plain; charset=ISO-8859-1")),
    ],
)
def test_it_may_be_written_in_several_ways(body):
    assert form_of(body, TYPE).fields == {"a": "b"}


def test_a_field_may_be_empty():
    assert form_of(form(named("a")), TYPE).fields == {"a": ""}


@pytest.mark.parametrize(
    "told",
    [
        "; filename=a.wav",
        '; filename="C:\\x\\y.wav"',
        '; filename="Gr\u00fc\u00dfe; a=b.wav"',
        "; filename=a; filename*=utf-8''a",
        '; filename=""',
    ],
)
def test_what_has_a_file_name_is_a_file(told):
    found = form_of(form(named("file", b"x", told)), TYPE)
    assert ([f.name for f in found.files], found.fields) == (["file"], {})


def test_of_several_fields_of_a_name_the_last_counts():
    assert form_of(form(named("a", b"1"), named("a", b"2")), TYPE).fields == {"a": "2"}


@pytest.mark.parametrize(
    "told",
    [
        "multipart/form-data; boundary=xyz",
        'Multipart/Form-Data;boundary="xyz"',
        "multipart/form-data; charset=utf-8; BOUNDARY=xyz",
        "multipart/form-data; boundary=xyz;",
        'multipart/form-data ; boundary="xyz" ; charset="utf-8"',
    ],
)
def test_the_content_type_names_the_boundary(told):
    assert form_of(form(), told).delimiter == b"--xyz"


def test_a_boundary_may_have_signs_that_stand_in_quotes():
    told = 'multipart/form-data; boundary="----=_Part_1_2.3"'
    assert form_of(b"------=_Part_1_2.3--", told).delimiter == b"------=_Part_1_2.3"


@pytest.mark.parametrize(
    "told",
    [
        "",
        "application/json",
        "multipart/mixed; boundary=xyz",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=xyz; boundary=abc",
        f"multipart/form-data; boundary={'x' * 71}",
        'multipart/form-data; boundary="xyz ',
        'multipart/form-data; x="; boundary=xyz"',
        "multipart/form-data; boundary = abc; boundary=xyz",
        'multipart/form-data; x="; boundary=xyz; y"; boundary =abc',
        'multipart/form-data; boundary="abc "; boundary=xyz',
        "multipart/form-data; boundary=xyz; boundary*0=abc",
        "multipart/form-data; boundary=xyz; boundary*=utf-8''abc",
        "multipart/form-data; boundary=xyz; boundary=abc,",
        "multipart/form-data; boundary=xyz; boundary =abc",
        "multipart/form-data; boundary=xyz;\x0bboundary=abc",
        "multipart/form-data; boundary=xyz; x=y",
        "multipart/form-data; boundary=xy(z",
        "multipart/form-data; boundary=xy=z",
        "multipart/form-data; boundary=xy/z",
        "multipart/form-data; charset=punycode; boundary=xyz",
        'multipart/form-data; charset="boundary=abc"; boundary=xyz',
        "multipart/form-data; boundary=\xe4",
    ],
)
def test_without_a_clear_boundary_it_is_none(told):
    with pytest.raises(
        BrokenForm, match=r"^must be multipart/form-data with one boundary"
    ) as e:
        form_of(form(), told)
    assert e.value.name == "Content-Type"


SECRET = 'Content-Disposition: form-data; name="model"\r\n\r\nSECRET\r\n'
CLEAR = "no clear Content-Disposition"
LINES = "lines that are none, or twice"


@pytest.mark.parametrize(
    "body, why",
    [
        (b"", "does not begin"),
        (b"preamble\r\n" + form(), "does not begin"),
        (b"\r\n" + form(), "does not begin"),  # a field that is put before it would get that
        (form().replace(b"\r\n", b"\n").replace(b"--xyz--", b"--xyz\n"), "middle of a line"),
        (b"--xyzzy\r\n", "middle of a line"),
        (form(named("a", b"1\r\n--xyzzy")), "middle of a line"),
        (form(named("a", b"1"), end=b""), "no end"),
        (form(named("a", b"1"), FILE)[:-20], "no end"),
        (form(b"--xyz\r\n\r\n1\r\n"), "no head"),
        # What others take for a boundary, and the end.
        (form(named("a", b"y\n--xyz\n" + SECRET.encode())), "middle of a line"),
        (form(named("a", b"y\r--xyz\r\n" + SECRET.encode())), "middle of a line"),
        (form(named("a", b"y--xyz")), "middle of a line"),
        (form(end=b"--xyz--\r\n--xyz\r\n" + SECRET.encode()), "too early"),
        (form(end=b"--xyz--x\r\n" + SECRET.encode()), "too early"),
        (form(end=b"--xyz--\r\nepilogue"), "too early"),
        (
            form(named("a")[:-2]),
            "middle of a line",
        ),  # its head's line end is the content's, too
        # Heads.
        (form(part("X: y")), CLEAR),
        (form(part("Content-Disposition: attachment; name=a")), CLEAR),
        (form(named("a", more='\r\nContent-Disposition: form-data; name="model"')), LINES),
        (form(named("a", more='\r\ncontent-disposition: x; name="model"')), LINES),
        (form(named("a", more='\r\n\x0bContent-Disposition: form-data; name="model"')), LINES),
        (form(named("a", more='\r\n\xa0Content-Disposition: form-data; name="model"')), LINES),
        (form(named("a", more=";\r\n name=model")), LINES),
        (form(named("a", more="\nContent-Disposition: form-data; name=model")), LINES),
        (form(named("a", more="\rx")), LINES),
        (form(named("a", more="\0")), LINES),
        (form(named("a", more="x" * MAX_HEAD_BYTES)), "no head of"),
        (form(*[named("a")] * (MOST_PARTS + 1)), f"more than {MOST_PARTS}"),
        # Their parameters.
        (form(named("a", more="; name=model")), "two of name"),
        (form(named("a", more="; filename=a; filename=b")), "two of filename"),
        (form(named("a", more="; name*=utf-8''model")), CLEAR),
        (form(named("a", more='; name*0="model"')), CLEAR),
        (form(named("a", more='; filename*0="model"')), CLEAR),
        (form(named("a", more="; filename")), CLEAR),
        (form(named("a", more=" x")), CLEAR),
        (form(named("a", more='; x="y"')), CLEAR),
        (form(named("a", more='; filename="x\\"; name=model; y="')), CLEAR),
        (form(named("a", more='; filename="x\\\\"; name=model; y="')), CLEAR),
        (form(named("a", more='; filename="x; name=model"')), CLEAR),
        (form(named("")), CLEAR),
        (form(named("mo\\del")), CLEAR),
        (form(named("model ")), CLEAR),
        (form(named("m\u00f6del")), CLEAR),
        (form(named("=?utf-8?q?model?=")), CLEAR),
        (form(part("Content-Disposition: form-data")), CLEAR),
        (form(part("Content-Disposition: form-data; name='a'")), CLEAR),
        # What is in them.
        (form(named("Model", b"x")), "write it as model"),
        (form(named("model[]", b"x")), "write it as model"),
        (form(named("Model[0]", b"x")), "write it as model"),
        (form(named("model.x", b"x")), "write it as model"),
        (form(named("-model", b"x")), "write it as model"),
        (form(named("MODEL", b"x", "; filename=a")), "write it as model"),
        (form(named("_charset_", b"utf-16")), "write it as model"),
        (
            form(named("a", b"QUJD", "\r\nContent-Transfer-Encoding: base64")),
            "send it as it is",
        ),
        (form(named("a", b"x", "\r\nContent-Type: text/plain; charset=utf-7")), "Content-Type"),
        (
            form(named("a", b"x", "\r\nContent-Type: multipart/mixed; boundary=b")),
            "Content-Type",
        ),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(body, why):
    with pytest.raises(BrokenForm, match=why):
        form_of(body, TYPE)


@pytest.mark.parametrize(
    "parts, why",
    [
        ([named("model", b"a"), named("model", b"b")], "more than once"),
        ([named("model", b"a"), named("model", b"b", "; filename=x")], "not a file"),
        ([named("model", b"a", "; filename=x")], "not a file"),
    ],
)
def test_the_model_stands_there_once_and_as_text(parts, why):
    with pytest.raises(BrokenForm, match=why) as e:
        form_of(form(*parts), TYPE)
    assert e.value.name == "model"


def test_as_many_fields_and_as_long_ones_as_are_taken():
    half = b"x" * (MAX_TEXT_BYTES // 2)
    assert len(form_of(form(named("a", half), named("b", half), FILE), TYPE).fields) == 2
    with pytest.raises(BrokenForm, match=f"more than {MAX_TEXT_BYTES} bytes") as e:
        form_of(form(named("a", half), FILE, named("b", half + b"x")), TYPE)
    assert e.value.name == "b"
    form_of(form(*[named("a")] * MOST_PARTS), TYPE)


def test_a_further_field_stands_before_all_others():
    body = form(named("a", b"1"), FILE)
    found = form_of(body, TYPE)
    longer = form_of(found.first_part("model", "ü") + body, TYPE)
    assert longer.fields == {"model": "ü", "a": "1"}
    assert len(longer.files) == 1


NAMES = st.text("abcdel[]_.-", min_size=1, max_size=8)
CONTENTS = st.binary(max_size=60) | st.lists(
    st.sampled_from([b"\r\n", b"--xyz", b"\r\n--xy", b"-", b"a"]), max_size=6
).map(b"".join)


def read_by_another(body, boundary):
    """(name, is a file, content) of each field."""
    decoder = MultipartDecoder(boundary)
    decoder.receive_data(body)
    found = []
    while not isinstance(event := decoder.next_event(), Epilogue | NeedData):
        if isinstance(event, Field | File):
            found.append([event.name, isinstance(event, File), b""])
        elif isinstance(event, Data):
            found[-1][2] += event.data
    return [tuple(each) for each in found]


@given(st.lists(st.tuples(NAMES, st.booleans(), CONTENTS), max_size=5))
def test_it_reads_what_another_writes_as_another_reads_it(parts):
    fields = [(n, ("a.bin", data) if is_file else data) for n, is_file, data in parts]
    body, content_type = encode_multipart_formdata(fields)
    found = form_of(body, content_type)
    told = read_by_another(body, found.delimiter[2:])
    assert told == parts
    assert [(f.name, True, body[f.start : f.end]) for f in found.files] == [
        each for each in told if each[1]
    ]
    texts = {
        name: data.decode("utf-8", "replace") for name, is_file, data in told if not is_file
    }
    assert found.fields == texts


INSERTED = st.sampled_from(
    [
        *("--xyz", "\r\n", "\n", "\r", '"', "\\", ";", " ", "\t", "=", "*", "--", "\0", "x"),
        *("name=model", '; name="model"', "model", "; filename=a", "Content-Disposition: "),
        *("\r\n--xyz\r\n" + SECRET, "\n--xyz\n" + SECRET, "--xyz--\r\n", SECRET),
    ]
)


@given(st.lists(st.tuples(st.integers(0, 400), INSERTED), min_size=1, max_size=4))
def test_what_is_taken_names_the_same_model_for_others(insertions):
    body = form(named("x", b"y"), named("model", b"allowed"), FILE, named("z", b"")).decode(
        "latin-1"
    )
    for at, text in insertions:
        body = body[:at] + text + body[at:]
    raw = body.encode("latin-1")
    try:
        found = form_of(raw, TYPE)
    except BrokenForm:
        return
    model = found.fields.get("model")
    assert (uploads.parsed(raw, TYPE) or {}).get("model") == model
    told = [data for name, _, data in read_by_another(raw, b"xyz") if name == "model"]
    assert told == ([] if model is None else [model.encode()])
