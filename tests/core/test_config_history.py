import pytest

from proxy.core.config_history import NotKept, Record, before, effect, shown_record
from proxy.core.masking import masked
from tests.builders import document, thing

KEY, OTHER = "sk-planted-secret-3f2a", "sk-planted-secret-9999"
PROXY = f"http://me:{KEY}@proxy:3128"
A = thing("instance", "a", api_key=KEY)


def record(kind, name, fields, *, keeps_secrets=True, action=""):
    """As a revision has it."""
    secrets = {f: p for f, p in fields.items() if f in ("api_key", "proxy_url")}
    changes = {f: [masked(f, v) for v in pair] for f, pair in fields.items()}
    return Record(kind, name, changes, (secrets or None) if keeps_secrets else None, action)


def added(kind, name, thing, **more):
    return record(kind, name, {f: [None, v] for f, v in thing.items()}, **more)


def removed(kind, name, thing, **more):
    return record(kind, name, {f: [v, None] for f, v in thing.items()}, **more)


def test_what_was_added_is_not_there_before():
    assert before(document(instance=[A]), [added("instance", "a", A)]) == document()


def test_what_was_removed_is_there_before_with_its_secrets():
    assert before(document(), [removed("instance", "a", A)]) == document(instance=[A])


def test_what_was_changed_is_as_it_was_with_its_secrets():
    now = A | {"api_key": OTHER, "weight": 5, "proxy_url": None}
    then = A | {"proxy_url": PROXY}
    change = record(
        "instance",
        "a",
        {"api_key": [KEY, OTHER], "weight": [100, 5], "proxy_url": [PROXY, None]},
    )
    assert before(document(instance=[now]), [change]) == document(instance=[then])


def test_changes_are_undone_from_the_newest_on():
    steps = [
        removed("instance", "a", A | {"weight": 3}),
        record("instance", "a", {"weight": [2, 3]}),
        record("instance", "a", {"weight": [1, 2]}),
        added("instance", "a", A | {"weight": 1}),
    ]
    weights = [
        [each["weight"] for each in before(document(), steps[:n])["instances"]]
        for n in range(5)
    ]
    assert weights == [[], [3], [2], [1], []]


def test_what_may_be_none_says_not_that_all_was_added():
    change = record(
        "instance", "a", {"quota_group": [None, "east"], "proxy_url": [None, PROXY]}
    )
    assert effect(change) == "changed"
    now = document(instance=[A | {"quota_group": "east", "proxy_url": PROXY}])
    assert before(now, [change]) == document(instance=[A])


@pytest.mark.parametrize("keeps", [True, False])
def test_what_was_removed_before_a_field_was_there_has_its_default(keeps):
    older = {k: v for k, v in A.items() if k not in ("auth", "model_limits")}
    (found,) = before(document(), [removed("instance", "a", older)])["instances"]
    assert (found["auth"], found["model_limits"]) == ("key", {})


def test_a_secret_that_was_not_kept_is_known_by_its_mask_alone():
    lost = removed("instance", "a", A | {"proxy_url": PROXY}, keeps_secrets=False)
    (found,) = before(document(), [lost])["instances"]
    assert isinstance(found["api_key"], NotKept)
    assert isinstance(found["proxy_url"], NotKept)
    assert (found["api_key"], found["proxy_url"]) == ("***3f2a", "http://***@proxy:3128")


@pytest.mark.parametrize(
    "field, value",
    [
        ("api_key", "NONE"),  # there is none
        ("api_key", "env:A_KEY"),  # only says where it is
        ("proxy_url", "http://proxy:3128"),  # nobody's password
        ("proxy_url", None),
    ],
)
def test_what_holds_no_secret_is_whole_though_none_was_kept(field, value):
    lost = removed("instance", "a", A | {field: value}, keeps_secrets=False)
    (found,) = before(document(), [lost])["instances"]
    assert found[field] == value
    assert not isinstance(found[field], NotKept)


def test_a_kept_secret_is_whole_whatever_it_looks_like():
    odd = A | {"api_key": "sk-***-planted-0123456789"}
    (found,) = before(document(), [removed("instance", "a", odd)])["instances"]
    assert found["api_key"] == odd["api_key"]
    assert not isinstance(found["api_key"], NotKept)


def test_one_that_could_not_be_decrypted_when_it_was_to_be_kept_was_not_kept():
    unreadable = removed("instance", "a", A | {"api_key": ""})
    (found,) = before(document(), [unreadable])["instances"]
    assert isinstance(found["api_key"], NotKept)


def test_one_that_cannot_be_decrypted_now_comes_back_as_what_is_stored():
    class Unreadable(str):
        __slots__ = ()

    kept = Unreadable()
    lost = {"api_key": [kept, None]}
    record = Record("instance", "a", {f: [v, None] for f, v in A.items()}, lost)
    assert before(document(), [record])["instances"][0]["api_key"] is kept


@pytest.mark.parametrize("action, names", [("key added", []), ("key removed", ["app", "x"])])
def test_clients_of_before_they_had_fields_are_told_by_the_action(action, names):
    now = document(client=[thing("client", "app"), thing("client", "x")])
    if action == "key removed":
        now = document(client=[thing("client", "x")])
    found = before(now, [Record("client", "app", {}, None, action)])
    expected = names or ["x"]
    assert found == document(client=[thing("client", name) for name in expected])


def test_limits_of_a_group_that_were_set_first_or_taken_away_are_undone():
    east = thing("quota_group", "east", max_rpm=7)
    now = document(quota_group=[east])
    # Once, a group began with no limits; since, with None.
    for first in (0, None):
        change = record("quota_group", "east", {"max_rpm": [first, 7]})
        assert before(now, [change]) == document()
    to_none = record("quota_group", "east", {"max_rpm": [7, 0]})
    assert before(document(), [to_none]) == now


def test_what_is_no_config_is_nobody_elses_change():
    now = document(client=[thing("client", "app")])
    records = [
        record("admin_key", "app", {"role": ["viewer", None]}),
        record("client", "app", {"key_hint": [None, "ab12"]}),
        record("instance", "nobody", {"weight": [1, 2]}),
    ]
    assert before(now, records) == now


@pytest.mark.parametrize(
    "fields, done",
    [
        ({"role": [None, "viewer"], "expires_at": [None, None]}, "added"),
        ({"role": ["viewer", None]}, "removed"),
        ({"role": ["viewer", "admin"]}, "changed"),
        ({}, "changed"),
    ],
)
def test_of_kinds_that_no_document_has_it_is_told_by_all_fields(fields, done):
    assert effect(record("admin_key", "me", fields)) == done


def test_shown_it_has_masks_and_names_secrets_that_are_others():
    found = shown_record(record("instance", "a", {"api_key": ["a", "b"], "weight": [1, 2]}))
    assert found == {
        "kind": "instance",
        "name": "a",
        "effect": "changed",
        "fields": {"api_key": ["***", "***"], "weight": [1, 2]},
        "changed_secrets": ["api_key"],
    }
    assert shown_record(added("instance", "a", A))["changed_secrets"] == []
