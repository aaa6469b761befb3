import pytest

from proxy.core.alerts import (
    FIRST_RETRY_SECONDS,
    FORMATS,
    GATHER_SECONDS,
    LEAST_SECONDS,
    LONGEST_RETRY_SECONDS,
    MOST_GROUPS,
    Alert,
    Outbox,
    is_taken,
    text,
)

NOON = 1_700_049_600.0 + 5  # 12:00:05 UTC
SOON = GATHER_SECONDS


def alert(event="breaker_opened", name="east", at=NOON, message=None):
    return Alert(event, at, message or f"{name} fails", {"instance": name})


def outbox(*alerts, now=0.0):
    made = Outbox()
    for each in alerts:
        made.add(each, now)
    return made


def sent(box, now):
    """What is due, in a word each."""
    groups, left_out = box.due(now)
    return [f"{g.last.event} {g.last.fields['instance']} {g.count}" for g in groups], left_out


def test_what_comes_in_one_moment_is_one_message():
    box = outbox(alert(), alert(name="west"), alert(), alert("misconfigured"))
    assert sent(box, SOON - 0.1) == ([], 0)
    assert sent(box, SOON) == (
        ["breaker_opened east 2", "breaker_opened west 1", "misconfigured east 1"],
        0,
    )


def test_after_a_message_there_is_none_for_a_while():
    box = outbox(alert())
    box.taken(SOON)
    box.add(alert(), SOON + 1)
    assert sent(box, SOON + LEAST_SECONDS - 0.1) == ([], 0)
    assert sent(box, SOON + LEAST_SECONDS) == (["breaker_opened east 1"], 0)


def test_after_a_quiet_time_the_next_is_sent_at_once():
    box = outbox(alert())
    box.taken(SOON)
    box.add(alert(), 1000.0)
    assert sent(box, 1000.0 + SOON)[0] == ["breaker_opened east 1"]


def test_what_was_not_taken_is_tried_again_later_each_time_and_nothing_is_lost():
    box, now = outbox(alert()), SOON
    waits = []
    for number in range(9):
        assert box.refused(now, chance=0.0) is (number == 0)
        box.add(alert(name="west"), now)
        wait = next(s for s in range(1, 1000) if sent(box, now + s)[0])
        waits.append(wait)
        now += wait
    assert waits[:4] == [FIRST_RETRY_SECONDS * 2**n for n in range(4)]
    assert waits[-1] == LONGEST_RETRY_SECONDS
    assert sent(box, now) == (["breaker_opened east 1", "breaker_opened west 9"], 0)
    box.taken(now)
    assert box.refused(now, chance=0.0)  # it is new again


def test_chance_takes_off_a_part_of_the_wait():
    box = outbox(alert())
    box.refused(SOON, chance=1.0)
    assert sent(box, SOON + FIRST_RETRY_SECONDS * 0.75)[0]


def test_of_too_many_the_number_is_told():
    box = outbox(*(alert(name=str(n)) for n in range(MOST_GROUPS + 3)))
    groups, left_out = box.due(SOON)
    assert (len(groups), left_out) == (MOST_GROUPS, 3)
    assert text(groups, left_out, "gw").endswith("\nand 3 more.")


def test_however_many_sources_a_wrong_key_has_it_is_one_line():
    wrong = [
        Alert("wrong_admin_key", NOON, f"from {n}", {"source": str(n)})
        for n in range(MOST_GROUPS + 3)
    ]
    ((group,), left_out) = outbox(*wrong).due(SOON)
    assert (group.count, group.last, left_out) == (MOST_GROUPS + 3, wrong[-1], 0)


def test_each_worker_that_was_killed_is_told_of():
    killed = [Alert("worker_killed", NOON, f"pid {n}", {"worker_pid": n}) for n in (7, 8)]
    told, _ = outbox(*killed).due(SOON)
    assert [(group.last, group.count) for group in told] == [(each, 1) for each in killed]


def test_what_is_severe_comes_first_and_others_give_way_to_it():
    full = [alert(name=str(n)) for n in range(MOST_GROUPS)]
    box = outbox(*full, full[-1], *(Alert("disk_full", NOON, "full", {}) for _ in range(2)))
    told, left_out = box.due(SOON)
    assert (told[0].last.event, told[0].count) == ("disk_full", 2)
    assert (len(told), left_out) == (MOST_GROUPS, 2)
    severe = [alert("out_of_service", str(n)) for n in range(MOST_GROUPS + 1)]
    assert outbox(*severe).due(SOON)[1] == 1


def groups(*alerts):
    return outbox(*alerts).due(SOON)[0]


def test_the_text_has_a_line_for_each():
    some = groups(alert(), alert(at=NOON + 65), alert(name="west"))
    assert text(some, 0, "gw").splitlines() == [
        "Azure OpenAI gateway on gw:",
        "12:01:10 UTC breaker_opened: east fails (2 times)",
        "12:00:05 UTC breaker_opened: west fails",
    ]


def test_our_own_form_has_all_of_it():
    (found,) = FORMATS["generic"](groups(alert(), alert(at=NOON + 9)), 0, "gw")["alerts"]
    assert found == {
        "event": "breaker_opened",
        "message": "east fails",
        "count": 2,
        "first_at": NOON,
        "last_at": NOON + 9,
        "fields": {"instance": "east"},
    }


@pytest.mark.parametrize(
    "form, of",
    [("slack", lambda j: j["text"]), ("feishu", lambda j: j["content"]["text"])],
)
def test_a_name_can_mention_nobody(form, of):
    odd = alert(message="<!channel> & <at user_id='all'> fails")
    assert "<" not in of(FORMATS[form](groups(odd), 0, "gw"))
    assert "fails" in of(FORMATS[form](groups(odd), 0, "gw"))


@pytest.mark.parametrize(
    "form, status, answer, taken",
    [
        ("generic", 204, None, True),
        ("generic", 302, None, False),
        ("generic", 500, None, False),
        ("slack", 200, None, True),
        ("feishu", 200, {"code": 0}, True),
        ("feishu", 200, {"StatusCode": 0}, True),
        ("feishu", 200, {"code": 9499}, False),  # it says no with a 200
        ("feishu", 200, None, True),
    ],
)
def test_whether_it_was_taken_is_for_the_receiver_to_say(form, status, answer, taken):
    assert is_taken(form, status, answer) is taken
