import subprocess
import sys
from types import SimpleNamespace

from proxy.runtime.large_memory import (
    GROWN_BYTES,
    LARGE_BYTES,
    M_ARENA_MAX,
    M_MMAP_THRESHOLD,
    Heap,
    give_back,
)
from proxy.settings import ROOT

# The first that is freed would raise the bound above the second.
KEPT_AFTERWARDS = """
import sys
sys.path.insert(0, sys.argv[1])
from proxy.runtime.large_memory import give_back

def resident_bytes():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096

if give_back():
    del (first := [bytes(20_000_000)])[:]
    before = resident_bytes()
    for _ in range(3):
        body = bytearray()
        for _ in range(20):
            body += bytes(1_000_000)
        del body
    print(resident_bytes() - before)
else:
    print(0)
"""


def test_the_system_gets_back_what_a_large_body_took():
    command = [sys.executable, "-c", KEPT_AFTERWARDS, str(ROOT)]
    kept = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(kept) < 5_000_000


# Each thread would have a heap of its own, of 132 KB at least.
HEAPS = """
import ctypes, sys, threading
sys.path.insert(0, sys.argv[1])
from proxy.runtime.large_memory import give_back

known = give_back()
release, held = threading.Event(), []

def hold():
    held.append(bytearray(100_000))
    release.wait()

threads = [threading.Thread(target=hold) for _ in range(8)]
for thread in threads:
    thread.start()
with open("/proc/self/maps") as maps:
    heap = next(line for line in maps if line.endswith("[heap]\\n"))
begin, end = (int(place, 16) for place in heap.split()[0].split("-"))
places = [ctypes.addressof(ctypes.c_char.from_buffer(each)) for each in held]
release.set()
print(sum(begin <= place < end for place in places) if known else 8)
"""


def test_threads_share_one_heap():
    command = [sys.executable, "-c", HEAPS, str(ROOT)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(found) == 8


def test_the_settings_are_told_to_the_library():
    asked = []
    libc = SimpleNamespace(mallopt=lambda *arguments: asked.append(arguments) or 1)
    assert give_back(libc)
    assert asked == [(M_MMAP_THRESHOLD, LARGE_BYTES), (M_ARENA_MAX, 1)]


def test_a_library_without_that_setting_is_left_alone():
    assert not give_back(SimpleNamespace())
    assert not give_back(SimpleNamespace(mallopt=lambda *_: 0))


# Every eighth stays, so that the heap's end does not move.
HOLES = """
import sys
sys.path.insert(0, sys.argv[1])
from proxy.runtime.large_memory import Heap, give_back, resident_bytes

knows = give_back()
pieces = [bytes(20_000) for _ in range(4_000)]
kept = pieces[::8]
del pieces
before = resident_bytes()
Heap().trim()
print(before - resident_bytes() if knows else 70_000_000)
"""


def test_what_lies_free_between_the_used_is_given_back():
    command = [sys.executable, "-c", HOLES, str(ROOT)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(found) > 50_000_000


def test_the_heap_is_gone_through_only_where_the_process_has_grown():
    resident, trimmed = [40_000_000], []

    def trim(_pad):
        trimmed.append(resident[0])
        resident[0] -= 1_000_000

    heap = Heap(SimpleNamespace(malloc_trim=trim), lambda: resident[0])
    assert heap.trim()
    assert not heap.trim()
    resident[0] += GROWN_BYTES - 1
    assert not heap.trim()
    resident[0] += 1
    assert heap.trim()
    assert trimmed == [40_000_000, 39_000_000 + GROWN_BYTES]


def test_a_library_that_cannot_is_left_alone():
    assert not Heap(SimpleNamespace()).trim()
