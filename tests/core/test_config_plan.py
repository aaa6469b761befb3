import pytest

from proxy.core.config_history import NotKept
from proxy.core.config_plan import (
    Plan,
    differences,
    lines,
    other_upstreams,
    planned,
    shown_change,
    shown_plan,
    summary,
    without_lost_secrets,
)
from tests.builders import document, thing

KEY, OTHER = "sk-planted-secret-3f2a", "sk-planted-secret-9999"
A, B = thing("instance", "a", api_key=KEY), thing("instance", "b", api_key=KEY)
APP = thing("client", "app")


def text(present, wanted):
    return "\n".join(lines(differences(present, wanted)))


def test_between_equals_there_is_nothing_to_do():
    same = document(instance=[A], client=[APP])
    plan = planned(same, document(instance=[A], client=[APP]))
    assert plan == Plan()
    assert summary(plan.changes) == "Nothing to do."


def test_each_thing_is_added_changed_or_removed_by_its_fields():
    present = document(instance=[A, B])
    wanted = document(instance=[B | {"weight": 3}], client=[APP])
    a, b, app = differences(present, wanted)
    assert (a.effect, b.effect, app.effect) == ("removed", "changed", "added")
    assert a.fields == {f: [v, None] for f, v in A.items()}
    assert b.fields == {"weight": [100, 3]}
    assert app.fields == {f: [None, v] for f, v in APP.items()}


def test_the_order_is_that_of_sections_and_names():
    wanted = document(
        price=[thing("price", "a")], client=[APP, thing("client", "a")], instance=[B, A]
    )
    found = [(c.kind, c.name) for c in differences(document(), wanted)]
    assert found == [
        ("instance", "a"),
        ("instance", "b"),
        ("client", "a"),
        ("client", "app"),
        ("price", "a"),
    ]


def test_secrets_are_whole_in_a_change_and_masked_where_it_is_shown():
    other = A | {"api_key": OTHER, "proxy_url": f"http://me:{KEY}@p:1"}
    (change,) = differences(document(instance=[A]), document(instance=[other]))
    assert change.fields["api_key"] == [KEY, OTHER]
    assert shown_change(change) == {
        "kind": "instance",
        "name": "a",
        "effect": "changed",
        "fields": {"api_key": ["***3f2a", "***9999"], "proxy_url": [None, "http://***@p:1"]},
        "changed_secrets": ["api_key", "proxy_url"],
    }
    assert "planted" not in str(shown_plan(Plan((change,))))


def test_two_secrets_with_one_mask_are_said_to_be_others():
    one, other = A | {"api_key": "a"}, A | {"api_key": "b"}
    said = text(document(instance=[one]), document(instance=[other]))
    assert said == "~ instance 'a'\n    api_key: *** -> *** (changed)"


def test_for_people_it_says_what_is_not_the_default():
    added = thing("instance", "a b", api_key=KEY, weight=0, supported_models=["gpt-4o"])
    wanted = document(instance=[added], quota_group=[thing("quota_group", "east", max_rpm=1)])
    assert text(document(instance=[B]), wanted) == (
        "+ instance 'a b'\n"
        "    api_base: https://a b.openai.azure.com\n"
        "    api_key: ***3f2a\n"
        "    weight: 0\n"
        '    supported_models: ["gpt-4o"]\n'
        "- instance 'b'\n"
        "+ quota group 'east'\n"
        "    max_rpm: 1"
    )


def test_moments_are_shown_as_dates():
    ends = APP | {"expires_at": 1_896_048_000.0}
    assert "\n    expires_at: null -> 2030-01-31T00:00:00Z" in text(
        document(client=[APP]), document(client=[ends])
    )


def test_a_plan_is_summed_up():
    present, wanted = document(instance=[A, B]), document(instance=[B | {"weight": 3}])
    assert summary(differences(present, wanted)) == "0 to add, 1 to change, 1 to remove."


def test_what_becomes_of_keys_is_said():
    plan = planned(document(client=[APP]), document(client=[thing("client", "new")]), ["x"])
    assert plan.notes == (
        "x",
        "client 'app' is removed: its key is worth nothing from then on.",
        "client 'new' has no key yet: `flask keys rotate -- new` makes one.",
    )


def test_clients_that_may_use_a_removed_instance_are_named():
    some = thing("client", "some", allowed_instances=["a", "b"])
    one = thing("client", "one", allowed_instances=["a", "long-gone"])
    clients = [
        some,
        one,
        thing("client", "free"),
        thing("client", "bs", allowed_instances=["b"]),
    ]
    present = document(instance=[A, B], client=clients)
    plan = planned(present, document(instance=[B], client=clients))
    assert plan.notes == (
        "client 'one' may use nothing any more: none is left of its allowed_instances ('a' is"
        " removed).",
        "client 'some' has 'a', which is removed, in allowed_instances.",
    )
    assert planned(present, document(instance=[B], client=[thing("client", "free")])).notes[
        0
    ] == ("client 'bs' is removed: its key is worth nothing from then on.")


def test_a_group_that_bounds_nobody_is_said():
    east = thing("quota_group", "east", max_rpm=1)
    member = document(instance=[A | {"quota_group": "east"}], quota_group=[east])
    assert planned(document(), member).notes == ()
    assert planned(document(quota_group=[east]), document()).notes == ()
    (note,) = planned(document(), document(quota_group=[east])).notes
    assert note == "quota group 'east': no instance is in it, so it bounds nobody."


def test_an_instance_that_is_there_keeps_the_key_it_has_where_the_older_was_not_kept():
    lost = A | {"api_key": NotKept("***9999"), "weight": 3}
    wanted, notes = without_lost_secrets(document(instance=[A]), document(instance=[lost]))
    assert wanted == document(instance=[A | {"weight": 3}])
    assert notes == ["instance 'a': the api_key of then was not kept; the present one stays."]


@pytest.mark.parametrize(
    "now",
    [
        {"api_base": "https://other.example"},
        {"provider_type": "openai"},
        {"proxy_url": "http://other:3128"},
    ],
)
def test_a_present_key_is_not_sent_to_where_the_instance_was_then(now):
    lost = A | {"api_key": NotKept("***9999")}
    present = document(instance=[A | now])
    wanted, (note,) = without_lost_secrets(present, document(instance=[lost]))
    assert wanted == document(instance=[A | {"api_key": "NONE", "enabled": False}])
    assert "comes back disabled" in note


def test_one_that_came_back_without_its_key_is_not_enabled_by_the_same_again():
    lost = document(instance=[A | {"api_key": NotKept("***9999")}])
    once, _ = without_lost_secrets(document(), lost)
    again, _ = without_lost_secrets(once, lost)
    assert again == once


@pytest.mark.parametrize(
    "lost, back",
    [
        ({"api_key": NotKept("***9999")}, {"api_key": "NONE"}),
        # Without its proxy a request would go out on a way that nobody meant.
        ({"proxy_url": NotKept("http://***@p:1")}, {"proxy_url": None}),
    ],
)
def test_one_that_comes_back_without_its_secret_is_disabled(lost, back):
    wanted, (note,) = without_lost_secrets(document(), document(instance=[A | lost, B]))
    assert wanted == document(instance=[A | back | {"enabled": False}, B])
    assert note == (
        f"instance 'a': the {next(iter(lost))} of then was not kept, so it comes back disabled;"
        f" set its {next(iter(lost))}, then enable it."
    )


def test_a_secret_that_was_not_kept_is_shown_as_it_was():
    lost = A | {"api_key": NotKept("***9999")}
    (change,) = differences(document(instance=[lost]), document(instance=[A]))
    assert shown_change(change)["fields"] == {"api_key": ["***9999", "***3f2a"]}


@pytest.mark.parametrize(
    "present, wanted, names",
    [
        ([A], [A | {"api_key": OTHER}], ["a"]),
        ([A], [A | {"weight": 3}], []),
        ([], [A], ["a"]),  # one that was removed may have had the name
        ([A], [], []),
    ],
)
def test_who_is_another_upstream_from_then_on(present, wanted, names):
    changes = differences(document(instance=present), document(instance=wanted))
    assert other_upstreams(changes) == names
