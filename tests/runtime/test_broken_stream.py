import pytest

from proxy.runtime import answer_stream, broken_stream
from proxy.runtime.broken_stream import StreamBroken, forget_frames
from proxy.runtime.upstream import UpstreamError


@pytest.mark.parametrize(
    "message, said",
    [
        ("it broke off its answer", "the upstream broke off its answer"),
        (answer_stream.ENDLESS, "the upstream sent an event of its stream that did not end"),
        ("its answer is not proper HTTP", "the upstream's answer is not proper HTTP"),
        (broken_stream.ENDING, broken_stream.ENDING),
        ("italics", "italics"),
    ],
)
def test_a_client_is_told_who_it_was_that_broke_off(message, said):
    event = broken_stream.error_event(UpstreamError(message)).decode()
    assert f'"The answer broke off: {said}."' in event


def test_a_server_takes_it_for_the_end_of_the_connection():
    assert isinstance(StreamBroken(), ConnectionResetError)


def test_an_error_that_is_kept_holds_nothing_of_where_it_was_raised():
    with pytest.raises(UpstreamError) as raised:
        raise UpstreamError("it broke off")
    error = raised.value
    error.__context__ = ValueError()
    forget_frames(error)
    assert (error.__context__, error.__traceback__) == (None, None)
