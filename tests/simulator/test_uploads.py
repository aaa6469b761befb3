import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import encode_multipart_formdata

from proxy.simulator.uploads import is_upload, parsed


def test_text_is_as_json_would_have_it_and_files_are_bytes():
    raw, content_type = encode_multipart_formdata(
        {"model": "whisper", "n": "2", "stream": "true", "file": ("a.wav", b"RIFF\r\n\x00")}
    )
    assert parsed(raw, content_type) == {
        "model": "whisper",
        "n": 2,
        "stream": True,
        "file": b"RIFF\r\n\x00",
    }


def test_several_files_may_have_a_name():
    raw, content_type = encode_multipart_formdata(
        [("image[]", ("a", b"1")), ("image[]", ("b", b"2")), ("mask", ("c", b"3"))]
    )
    assert list(parsed(raw, content_type).values()) == [b"1", b"2", b"3"]


@given(st.binary(max_size=200))
def test_a_file_comes_as_it_was(content):
    raw, content_type = encode_multipart_formdata({"file": ("a.wav", content)})
    assert parsed(raw, content_type) == {"file": content}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n',  # without an end
        b"--x\r\nX: y\r\n\r\nb\r\n--x--\r\n",  # without a name
    ],
)
def test_what_is_no_whole_form_is_none(raw):
    assert parsed(raw, "multipart/form-data; boundary=x") is None


def test_forms_are_known_by_their_type():
    assert is_upload("Multipart/form-data; boundary=x")
    assert not is_upload("application/json")
