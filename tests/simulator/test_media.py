"""Images and transcripts, over real sockets."""

import base64
import json

import openai
import pytest
import requests

from proxy.simulator.media import image_usage, sound_usage

SOUND = b"RIFF" + bytes(5000)
CLASSIC = "/openai/deployments/{}/{}?api-version=2024-10-21"
PROMPT = "A cat on a mat"


def upload(resource, operation, deployment, files=None, **fields):
    url = resource.url + CLASSIC.format(deployment, operation)
    return requests.post(url, data=fields, files=files, timeout=5)


def transcribed(resource, operation="audio/transcriptions", deployment="whisper", **fields):
    answer = upload(resource, operation, deployment, {"file": ("a.wav", SOUND)}, **fields)
    assert answer.status_code == 200, answer.text
    return answer


def events(answer):
    return [json.loads(line[6:]) for line in answer.text.split("\n") if line[:6] == "data: "]


def test_a_transcript_says_what_it_used(resource):
    answer = transcribed(resource, deployment="gpt-4o-transcribe", prompt="It is about cats")
    said = answer.json()
    assert said["text"].startswith("Hello from east-us, deployment gpt-4o-transcribe.")
    assert said["usage"] == sound_usage({"prompt": "It is about cats", "file": SOUND}, 20)
    assert said["usage"]["input_token_details"] == {"text_tokens": 4, "audio_tokens": 5}
    assert said["usage"]["total_tokens"] == 29


@pytest.mark.parametrize("operation", ["audio/transcriptions", "audio/translations"])
@pytest.mark.parametrize(
    "form, begins",
    [
        ("text", "Hello"),
        ("srt", "1\n00:00:00,000 --> 00:00:10,000\nHello"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:10.000\nHello"),
    ],
)
def test_a_transcript_may_be_text(resource, operation, form, begins):
    answer = transcribed(resource, operation, response_format=form)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.startswith(begins)


def test_a_transcript_with_its_times_has_no_usage(resource):
    said = transcribed(resource, response_format="verbose_json").json()
    assert (said["duration"], "usage" in said) == (10.0, False)


def test_a_transcript_is_streamed_and_a_translation_is_not(resource):
    told = events(transcribed(resource, deployment="gpt-4o-transcribe", stream="true"))
    assert {e["type"] for e in told[:-1]} == {"transcript.text.delta"}
    assert told[-1]["type"] == "transcript.text.done"
    assert told[-1]["text"] == "".join(e["delta"] for e in told[:-1])
    assert told[-1]["usage"]["output_tokens"] == 20
    assert "text" in transcribed(resource, "audio/translations", stream="true").json()


def test_images_are_made_and_edited(resource):
    made = {"prompt": PROMPT, "n": 2}
    url = resource.url + CLASSIC.format("gpt-image-1", "images/generations")
    answer = requests.post(url, json=made, timeout=5).json()
    assert len(answer["data"]) == 2
    assert base64.b64decode(answer["data"][0]["b64_json"]).startswith(b"\x89PNG")
    assert answer["usage"] == image_usage(made)
    assert answer["usage"]["output_tokens"] == 200
    files = {"image[]": ("a.png", b"\x89PNG")}
    edited = upload(resource, "images/edits", "gpt-image-1", files, prompt=PROMPT).json()
    assert edited["usage"]["input_tokens_details"] == {"text_tokens": 4, "image_tokens": 100}


def test_images_that_are_not_ready_yet_are_streamed(resource):
    url = f"{resource.url}/openai/v1/images/generations"
    body = {"model": "gpt-image-1", "prompt": PROMPT, "stream": True, "partial_images": 2}
    answer = requests.post(url, json=body, timeout=5)
    kinds = [event["type"] for event in events(answer)]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert "event: image_generation.completed\n" in answer.text
    assert events(answer)[-1]["usage"] == image_usage(body)


@pytest.mark.parametrize(
    "operation, files, fields, param",
    [
        ("audio/transcriptions", {"x": ("a", b"")}, {"file": "b"}, "file"),
        ("audio/translations", {"x": ("a", b"")}, {}, "file"),
        ("images/edits", {"mask": ("a", b"")}, {"prompt": "a"}, "image"),
        ("images/edits", {"image": ("a", b"")}, {}, "prompt"),
    ],
)
def test_what_is_missing_is_named(resource, operation, files, fields, param):
    answer = upload(resource, operation, "any", files, **fields)
    told = answer.json()["error"]
    assert (answer.status_code, told.get("param")) == (400, param)


def test_a_form_that_has_no_end_is_refused(resource):
    answer = requests.post(
        resource.url + CLASSIC.format("any", "audio/translations"),
        data=b"--x\r\n",
        headers={"content-type": "multipart/form-data; boundary=x"},
        timeout=5,
    )
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        400,
        "Could not parse multipart form",
    )


@pytest.mark.parametrize(
    "deployment, operation, what",
    [
        ("whisper", "chat/completions", "chatCompletion"),
        ("dall-e-3", "embeddings", "embeddings"),
        ("gpt-4o-transcribe", "images/generations", "images/generations"),
    ],
)
def test_a_model_for_something_else_says_so(resource, deployment, operation, what):
    body = {"messages": [{"role": "user", "content": "a"}], "input": "a", "prompt": "a"}
    url = resource.url + CLASSIC.format(deployment, operation)
    told = requests.post(url, json=body, timeout=5).json()["error"]
    assert told["code"] == "OperationNotSupported"
    assert told["message"].startswith(f"The {what} operation does not work with")


SAY = {"input": "Good morning", "voice": "alloy"}


def spoken(resource, deployment="tts", **fields):
    url = resource.url + CLASSIC.format(deployment, "audio/speech")
    return requests.post(url, json=SAY | fields, timeout=5)


@pytest.mark.parametrize(
    "form, kind, begins, size",
    [
        ({}, "audio/mpeg", b"\xff\xfb\x90", 20 * 417),
        ({"response_format": "wav"}, "audio/wav", b"RIFF", 44 + 20 * 480),
        ({"response_format": "pcm"}, "audio/pcm", bytes(9), 20 * 480),
    ],
)
def test_speech_is_silence_in_the_format_asked_for(resource, form, kind, begins, size):
    answer = spoken(resource, **form)
    assert answer.headers["content-type"] == kind
    assert (answer.content[: len(begins)], len(answer.content)) == (begins, size)


def test_speech_comes_as_events_where_it_is_asked_for_so(resource):
    told = events(spoken(resource, stream_format="sse"))
    assert {e["type"] for e in told[:-1]} == {"speech.audio.delta"}
    used = {"input_tokens": 3, "output_tokens": 20, "total_tokens": 23}
    assert told[-1] == {"type": "speech.audio.done", "usage": used}


def test_speech_without_words_or_of_another_model_is_refused(resource):
    assert spoken(resource, input="").json()["error"]["param"] == "input"
    assert spoken(resource, "whisper").status_code == 200  # its family is audio
    assert spoken(resource, "dall-e-3").json()["error"]["code"] == "OperationNotSupported"


@pytest.mark.parametrize(
    "fault, sent", [("break-in-middle", 3 * 417), ("break-before-first-event", 0)]
)
def test_speech_may_break_off(resource, raw, fault, sent):
    resource.faults["*"] = fault
    body = json.dumps(SAY).encode()
    head = (
        f"POST {CLASSIC.format('tts', 'audio/speech')} HTTP/1.1\r\nContent-Length: {len(body)}"
    )
    peer = raw(resource, head.encode() + b"\r\n\r\n" + body)
    got = b"".join(iter(lambda: peer.recv(65_536), b""))
    assert b"content-type: audio/mpeg" in got
    assert got.count(b"\xff\xfb\x90") * 417 == sent
    assert not got.endswith(b"\r\n0\r\n\r\n")


def test_speech_has_no_words_for_an_error(resource):
    resource.faults["*"] = "error-event"
    assert spoken(resource).status_code == 500


def test_the_official_client_understands_all_of_it(resource):
    with openai.OpenAI(base_url=f"{resource.url}/v1", api_key="k", max_retries=0) as client:
        heard = client.audio.transcriptions.create(model="whisper", file=("a.wav", SOUND))
        assert heard.text.startswith("Hello")
        made = client.images.generate(model="gpt-image-1", prompt=PROMPT)
        assert made.usage.output_tokens == 100
