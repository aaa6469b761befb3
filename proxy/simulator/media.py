"""What a simulated Azure answers where files go in or come out: images and transcripts."""

import base64
import json
import struct
from collections.abc import Iterator

from proxy.simulator.asks import Ask, prompt_tokens
from proxy.simulator.errors import Answer, json_answer
from proxy.simulator.forms import Json
from proxy.simulator.shapes import Voice, words

IMAGE_TOKENS = 100  # of each, whether it goes in or comes out
SOUND_BYTES_PER_TOKEN = 1000
WORD_SECONDS = 0.5
# A black point, as PNG.
IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVO"
    "RK5CYII="
)
# Silence: a frame of MPEG audio, layer III (128 kbit/s, 44.1 kHz, without data); a hundredth of
# a second of 24 kHz; what stands before that, where its length is not known.
MP3 = b"\xff\xfb\x90\x00" + bytes(413)
PCM = bytes(480)
WAV_HEAD = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack(
    "<IHHIIHH4sI", 16, 1, 1, 24_000, 48_000, 2, 16, b"data", 0xFFFFFFFF
)
TEXT_TYPE = "text/plain; charset=utf-8"


def images(ask: Ask, voice: Voice) -> Answer:
    """As gpt-image-1's: base64, and what it used."""
    data = [{"b64_json": IMAGE} for _ in range(ask.body.get("n") or 1)]
    return json_answer({"created": voice.created, "data": data, "usage": image_usage(ask.body)})


def image_events(ask: Ask, voice: Voice) -> Iterator[bytes]:
    """The images that are not ready yet, as many as it was asked for, and the one that is."""
    kind = "image_generation" if ask.operation == "images/generations" else "image_edit"
    image: Json = {"created_at": voice.created, "b64_json": IMAGE}
    for number in range(ask.body.get("partial_images") or 0):
        yield _event(f"{kind}.partial_image", {**image, "partial_image_index": number})
    yield _event(f"{kind}.completed", {**image, "usage": image_usage(ask.body)})


def transcript(ask: Ask, voice: Voice) -> Answer:
    """In the format asked for; only JSON says what it used."""
    said = words(ask, voice)
    text = "".join(said)
    match ask.body.get("response_format", "json"):
        case "text":
            return _text(f"{text}\n")
        case "srt":
            return _text(f"1\n{_time(0, ',')} --> {_time(len(said), ',')}\n{text}\n\n")
        case "vtt":
            return _text(f"WEBVTT\n\n{_time(0, '.')} --> {_time(len(said), '.')}\n{text}\n\n")
        case "verbose_json":
            seconds = len(said) * WORD_SECONDS
            verbose = {"task": "transcribe", "language": "english", "duration": seconds}
            return json_answer({**verbose, "text": text, "segments": []})
    return json_answer({"text": text, "usage": sound_usage(ask.body, len(said))})


def transcript_events(ask: Ask, voice: Voice) -> Iterator[bytes]:
    said = words(ask, voice)
    for word in said:
        yield _event("transcript.text.delta", {"delta": word})
    usage = sound_usage(ask.body, len(said))
    yield _event("transcript.text.done", {"text": "".join(said), "usage": usage})


def sound(ask: Ask, voice: Voice) -> tuple[str, Iterator[bytes]]:
    """Its type, and silence: a piece for each word."""
    pieces = range(len(words(ask, voice)))
    match ask.body.get("response_format", "mp3"):
        case "pcm":
            return "audio/pcm", (PCM for _ in pieces)
        case "wav":
            return "audio/wav", (PCM if number else WAV_HEAD + PCM for number in pieces)
    return "audio/mpeg", (MP3 for _ in pieces)


def sound_events(ask: Ask, voice: Voice) -> Iterator[bytes]:
    said = words(ask, voice)
    for _ in said:
        yield _event("speech.audio.delta", {"audio": base64.b64encode(MP3).decode()})
    heard = prompt_tokens(ask.body)
    used = {"input_tokens": heard, "output_tokens": len(said)}
    yield _event("speech.audio.done", {"usage": used | {"total_tokens": heard + len(said)}})


def image_usage(body: Json) -> Json:
    text = prompt_tokens(body)
    seen = IMAGE_TOKENS * sum(isinstance(value, bytes) for value in body.values())
    made = IMAGE_TOKENS * (body.get("n") or 1)
    return {
        "input_tokens": text + seen,
        "output_tokens": made,
        "total_tokens": text + seen + made,
        "input_tokens_details": {"text_tokens": text, "image_tokens": seen},
    }


def sound_usage(body: Json, words_said: int) -> Json:
    text = prompt_tokens(body)
    heard = sum(len(v) for v in body.values() if isinstance(v, bytes)) // SOUND_BYTES_PER_TOKEN
    return {
        "type": "tokens",
        "input_tokens": text + heard,
        "input_token_details": {"text_tokens": text, "audio_tokens": heard},
        "output_tokens": words_said,
        "total_tokens": text + heard + words_said,
    }


def _text(text: str) -> Answer:
    return Answer(200, text.encode(), TEXT_TYPE)


def _time(words_said: int, point: str) -> str:
    minutes, seconds = divmod(words_said * WORD_SECONDS, 60)
    return f"00:{int(minutes):02}:{int(seconds):02}{point}{int(seconds % 1 * 1000):03}"


def _event(kind: str, fields: Json) -> bytes:
    """Images' events say their type twice, those of speech in their data alone."""
    name = f"event: {kind}\n".encode() if kind.startswith("image") else b""
    data = json.dumps({"type": kind, **fields}, separators=(",", ":")).encode()
    return name + b"data: " + data + b"\n\n"
