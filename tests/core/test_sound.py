from proxy.core.sound import SoundWatcher
from proxy.core.sse import StreamWatcher


def test_a_sound_goes_through_as_it_is_and_counts_by_its_bytes():
    watcher = SoundWatcher()
    assert (watcher.content, watcher.is_whole(), watcher.events) == (False, False, 0)
    assert watcher.feed(b'data: {"error": {}}\n\n') == b'data: {"error": {}}\n\n'
    assert (watcher.content, watcher.is_whole(), watcher.error) == (True, True, None)
    watcher.feed(bytes(5_000))
    assert watcher.events == 5
    assert (watcher.finish(), watcher.last_words(b"event")) == (b"", b"")
    assert (watcher.done, watcher.endless, watcher.has_ended, watcher.usage) == (
        *(False, False, False),
        None,
    )


def test_it_is_asked_what_a_stream_is_asked():
    asked = {name for name in dir(StreamWatcher) if name[0] != "_"}
    only_of_choices = {"finished", "interrupt"}
    assert asked - only_of_choices == {n for n in dir(SoundWatcher) if n[0] != "_"}
