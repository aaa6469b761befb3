import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.images import (
    LOOKED_AT_BYTES,
    UNKNOWN_TOKENS,
    answer_tokens,
    file_tokens,
    image_tokens,
    size_of,
    tile_tokens,
)

DEEP = []
for _ in range(2_000):
    DEEP = [DEEP]


def url(data, kind="png"):
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def png(width, height, more=b""):
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + more


def gif(width, height):
    return b"GIF89a" + struct.pack("<HH", width, height)


def segment(marker, data):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg(width, height, frame=0xC0, before=b""):
    return (
        b"\xff\xd8"
        + segment(0xE0, b"JFIF")
        + before
        + segment(frame, struct.pack(">BHHB", 8, height, width, 3))
    )


def webp(kind, data):
    return b"RIFF\x00\x00\x00\x00WEBP" + kind + b"\x00\x00\x00\x00" + data


def extended(width, height):
    sides = b"".join((n - 1).to_bytes(3, "little") for n in (width, height))
    return webp(b"VP8X", b"\x00\x00\x00\x00" + sides)


def lossy(width, height):
    sides = struct.pack("<HH", width, height | 0x4000)
    return webp(b"VP8 ", b"\x00\x00\x00\x9d\x01\x2a" + sides)


def lossless(width, height):
    bits = (width - 1) | (height - 1) << 14 | 0xF0000000
    return webp(b"VP8L", b"\x2f" + bits.to_bytes(4, "little"))


@pytest.mark.parametrize(
    "width, height, tokens",
    [
        (1024, 1024, 765),  # scaled to 768 x 768: four tiles
        (2048, 4096, 1105),  # to 1024 x 2048, then to 768 x 1536: six
        (4096, 8192, 1105),
        (512, 512, 255),
        (513, 512, 425),
        (1, 1, 255),
        (10_000, 1, 85 + 170 * 4),
    ],
)
def test_an_image_costs_by_its_tiles(width, height, tokens):
    assert tile_tokens(width, height) == tokens


@pytest.mark.parametrize(
    "data",
    [
        png(640, 480),
        gif(640, 480),
        jpeg(640, 480),
        jpeg(640, 480, frame=0xC2),
        jpeg(640, 480, before=segment(0xE1, b"x" * 60_000)),
        jpeg(640, 480, before=segment(0xC4, b"tables")),
        extended(640, 480),
        lossy(640, 480),
        lossless(640, 480),
    ],
)
def test_the_size_is_read_from_the_images_head(data):
    assert size_of(url(data + b"\x00" * 100)) == (640, 480)
    assert image_tokens({"url": url(data + b"\x00" * 100)}) == tile_tokens(640, 480)


@pytest.mark.parametrize(
    "given",
    [
        "https://host.example/image.png",
        "data:image/png;base64,!!!!",
        "data:image/png,plain",
        "data:text/plain;base64,aGVsbG8=",
        url(b"BM" + b"\x00" * 100),
        url(png(640, 480)[:20]),
        url(png(0, 480)),
        url(gif(640, 480)[:8]),
        url(jpeg(640, 480)[:12]),
        url(jpeg(640, 480, before=segment(0xE1, b"x" * 65_000) * 2)),
        url(extended(640, 480)[:25]),
        url(lossy(640, 480)[:27]),
        url(lossless(640, 480)[:22]),
        url(webp(b"ELSE", b"\x00" * 50)),
        "",
    ],
)
def test_of_an_image_whose_size_nobody_tells_the_usual_is_taken(given):
    assert size_of(given) is None
    assert image_tokens({"url": given}) == UNKNOWN_TOKENS


@pytest.mark.parametrize("image", [None, 5, [], {}, {"url": None}, {"url": 7}])
def test_what_is_no_image_costs_the_usual(image):
    assert image_tokens(image) == UNKNOWN_TOKENS


def test_low_detail_costs_the_same_whatever_the_size():
    assert image_tokens({"url": url(png(4000, 4000)), "detail": "low"}) == 85
    assert image_tokens({"url": url(png(512, 512)), "detail": "high"}) == 255


def test_just_the_url_is_an_image_too():
    assert image_tokens(url(png(512, 512))) == 255


def test_only_the_beginning_of_a_large_image_is_decoded():
    data = "data:image/png;base64," + base64.b64encode(png(512, 512, b"x" * 90_000)).decode()
    assert size_of(data + "not base64 any more \u20ac") == (512, 512)


@given(st.binary(max_size=80))
def test_nothing_that_is_sent_raises(data):
    for magic in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"RIFF1234WEBPVP8X", b""):
        image_tokens({"url": url(magic + data)})


def test_a_file_costs_as_its_data_url_does():
    assert file_tokens(png(4000, 4000)) == image_tokens({"url": url(png(4000, 4000))})
    assert file_tokens(jpeg(640, 480)) == tile_tokens(640, 480)
    assert file_tokens(b"no image") == file_tokens(png(0, 5)) == UNKNOWN_TOKENS
    late = segment(0xE2, b"x" * 60_000)
    assert file_tokens(jpeg(640, 480, before=late)[:LOOKED_AT_BYTES]) == tile_tokens(640, 480)


@pytest.mark.parametrize(
    "quality, tokens",
    [
        ("low", 272),
        ("medium", 1056),
        ("high", 4160),
        ("auto", 1056),
        (None, 1056),
        (DEEP, 1056),
    ],
)
def test_what_an_image_costs_that_is_made(quality, tokens):
    assert answer_tokens(quality) == tokens


def test_a_quality_may_be_nested_deeply():
    assert answer_tokens(DEEP) == 1056
