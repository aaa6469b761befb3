from dataclasses import replace

import pytest

from proxy.core.attempts import Reservation
from proxy.core.deltas import Deltas
from proxy.core.limiter import COUNTED_SECONDS, meters, serving
from proxy.core.metering import Metering
from tests.builders import MODEL, config

NOW = 1_000_000
A = config("a", max_tpm=1000)
CONFIGS = {"a": A}
OF_A = ("instance", "a", "")


@pytest.fixture
def pending():
    return Deltas()


@pytest.fixture
def metering(pending):
    metering = Metering(pending)
    metering.merge((), CONFIGS, is_whole=True, second=NOW)
    return metering


def reservation(of=A, second=NOW):
    found = serving(of, MODEL)
    return Reservation(of, MODEL, MODEL, "app", 10, second, found.meters)


def add(metering, tokens=10, requests=1, of=A, second=NOW):
    metering.add(reservation(of, second), tokens, requests=requests, second=NOW)


def used(metering, second=NOW):
    """Tokens in each meter that has some."""
    found = {key: meter.tokens.total(second) for key, meter in metering.all.items()}
    return {key: tokens for key, tokens in found.items() if tokens}


def unknown(metering, key=OF_A):
    """Tokens and requests that others may not have heard of."""
    lately = metering.unknown(NOW).get(metering.meter(key))
    return lately and (lately.tokens(NOW), lately.requests(NOW))


def rounds(metering, pending, added=(), configs=CONFIGS):
    """One round of the syncer, as its owner goes about it."""
    taken = pending.take(100)
    metering.writing = taken.windows
    metering.note_written()
    metering.merge(added, configs, is_whole=False, second=NOW)


def test_a_call_counts_in_all_meters_of_its_reservation_and_is_to_be_written(metering, pending):
    add(metering)
    add(metering, -3, 0)
    assert used(metering) == dict.fromkeys(meters(A, MODEL), 7)
    assert pending.windows == {(NOW, "a", MODEL): (7, 1)}


def test_what_others_added_counts_on_top(metering):
    add(metering)
    metering.merge([(NOW, "a", MODEL, 5, 1)], CONFIGS, is_whole=False, second=NOW)
    assert used(metering)[OF_A] == 15


def test_what_all_did_takes_the_place_of_what_was_heard_before(metering):
    metering.merge([(NOW, "a", MODEL, 5, 1)], CONFIGS, is_whole=False, second=NOW)
    add(metering)  # which nobody else knows
    metering.merge([(NOW, "a", MODEL, 20, 1)], CONFIGS, is_whole=True, second=NOW)
    assert used(metering)[OF_A] == 30


def test_others_hear_of_it_in_their_round_after_it_was_written(metering, pending):
    add(metering)
    assert unknown(metering) == (10, 1)
    rounds(metering, pending)
    add(metering, 5)
    assert unknown(metering) == (15, 2)
    rounds(metering, pending)
    assert unknown(metering) == (5, 1)
    rounds(metering, pending)
    assert unknown(metering) is None


def test_what_is_being_written_is_not_known_to_others_either(metering, pending):
    add(metering)
    metering.writing = pending.take(100).windows
    assert unknown(metering) == (10, 1)


def test_what_is_too_old_to_count_is_unknown_to_nobody(metering):
    add(metering, second=NOW - COUNTED_SECONDS)
    assert unknown(metering) is None


def test_what_no_limit_can_concern_is_not_summed_up(metering):
    free = config("a", max_tpm=0)
    metering.merge((), {"a": free}, is_whole=False, second=NOW)
    add(metering, of=free)
    assert metering.unknown(NOW) == {}
    add(metering, of=free)
    assert metering.unknown(NOW) == {}


def test_with_another_config_what_was_heard_counts_where_that_says(metering):
    grouped = replace(A, quota_group="g")
    metering.merge([(NOW, "a", MODEL, 5, 1)], CONFIGS, is_whole=False, second=NOW)
    metering.merge((), {"a": grouped}, is_whole=False, second=NOW)
    assert used(metering) == dict.fromkeys(meters(grouped, MODEL), 5)
    metering.merge((), CONFIGS, is_whole=False, second=NOW)
    assert used(metering) == dict.fromkeys(meters(A, MODEL), 5)


def test_a_call_by_another_config_counts_there_until_the_next_round(metering):
    newer = replace(A, quota_group="g")
    add(metering, of=newer)
    assert used(metering)["group", "g", ""] == 10
    assert unknown(metering, ("group", "g", "")) == (10, 1)
    metering.merge((), CONFIGS, is_whole=False, second=NOW)
    assert used(metering) == dict.fromkeys(meters(A, MODEL), 10)


def test_deployments_that_nobody_asks_any_more_leave_no_meters(metering):
    for second in range(NOW, NOW + 3 * COUNTED_SECONDS):
        row = (second, "a", f"client-{second}", 1, 1)
        metering.merge([row], CONFIGS, is_whole=False, second=second)
    assert len(metering.all) <= 2 * COUNTED_SECONDS + 1


def test_they_are_forgotten_though_the_clock_was_set_back(metering):
    later = NOW + 100 * COUNTED_SECONDS
    metering.merge([(later, "a", "x", 1, 1)], CONFIGS, is_whole=False, second=later)
    back = NOW + COUNTED_SECONDS
    metering.merge([(NOW, "a", "y", 1, 1)], CONFIGS, is_whole=False, second=back)
    assert ("deployment", "a", "y") not in metering.all
