import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrations.legacy.plan import make_plan
from migrations.legacy.records import Era, Problem, Reading
from tests.migrations.legacy.imports import CONFIG, FILE, LATER, NOW, bad, found, planned

SPLIT, FLAT, M2 = Era.SPLIT, Era.FLAT, Era.INSTANCE_STATE
OTHER = CONFIG | {"api_base": "https://other.openai.azure.com"}


def only(plan):
    (instance,) = plan.instances
    assert plan.problems == []
    return instance


def reasons(plan):
    return {record.place: why for record, why in plan.merged}


def sources(plan):
    """One record for each instance: the one that is counted as imported."""
    return [i.config_from or i.state_from for i in plan.instances]


def assert_each_record_once(plan, records):
    """Each is imported, merged or rejected; none is two of these, none is lost."""
    merged = [record for record, _ in plan.merged]
    rejected = [record for record, _ in plan.rejected]
    met = [*sources(plan), *merged, *rejected]
    assert sorted(map(id, met)) == sorted(map(id, records))
    assert plan.found == len(plan.instances) + len(plan.merged) + len(plan.rejected)


@pytest.mark.parametrize("eras", [[M2, SPLIT, FLAT], [SPLIT, FLAT, M2], [FLAT, M2, SPLIT]])
def test_of_each_instance_the_newest_era_wins_in_whatever_order(eras):
    records = [found(era=e, place=e.name, priority=int(e)) for e in eras]
    plan = planned(*records, found("b", era=M2, priority=1))
    a, b = plan.instances
    assert (a.config["priority"], b.config["priority"]) == (90, 1)
    assert {r.place for r in a.shadowed} == {"FLAT", "INSTANCE_STATE"}
    assert reasons(plan) == dict.fromkeys(
        ["FLAT", "INSTANCE_STATE"], "shadowed by S1 (old.json, SPLIT)"
    )
    assert_each_record_once(plan, [*records, plan.instances[1].config_from])


def test_of_one_era_the_record_that_replaced_the_other_wins_and_both_are_counted():
    """Concatenated lists of YAML: the same instance twice, the later wins."""
    earlier = found(era=Era.YAML, place="base", priority=1, extra={"tag": "x", "b": 1})
    later = found(era=Era.YAML, place="local", priority=2, extra={"tag": "y"}, turn=1)
    for records in ([earlier, later], [later, earlier]):
        plan = planned(*records)
        assert only(plan).config["priority"] == 2
        assert only(plan).shadowed == [earlier]
        assert only(plan).extra == {"tag": "y", "b": 1}
        assert reasons(plan) == {"base": "shadowed by S1 (old.json, local)"}
        assert_each_record_once(plan, records)


def test_config_and_state_of_the_split_files_are_one_instance():
    records = [found(place="S1"), found(config=None, state={"error_count": 3}, place="S2")]
    plan = planned(*records)
    assert only(plan).state == {"error_count": 3}
    assert only(plan).shadowed == []
    assert reasons(plan) == {"S2": "its state goes to S1 (old.json, S1)"}


def test_state_comes_from_an_older_era_where_the_newest_has_none():
    plan = planned(found(place="S1"), found(era=M2, state={"error_count": 3}, place="M2"))
    assert only(plan).state == {"error_count": 3}
    assert reasons(plan) == {
        "M2": "its state goes to S1 (old.json, S1), its config is shadowed"
    }


def test_state_of_an_older_era_is_shadowed():
    old = found(era=M2, state={"total_requests": 9}, place="M2")
    plan = planned(old, found(state={"error_count": 3}, place="M3"))
    assert only(plan).state == {"error_count": 3}
    assert only(plan).shadowed == [old]


def test_what_is_wrong_in_a_shadowed_record_stops_nothing():
    bad = found(era=M2, max_tpm="many", state={"error_count": "many"})
    assert only(planned(found(state={"error_count": 3}), bad)).state == {"error_count": 3}


def test_a_state_without_a_config_is_an_instance_of_its_own():
    instance = only(planned(found(config=None, state={"error_count": 3})))
    assert (instance.config, instance.state) == (None, {"error_count": 3})


def test_a_state_of_no_instance_is_noted_where_there_are_configs_and_whose_it_may_be():
    states = [found(n, config=None, state={"error_count": 3}) for n in ("east", "west")]
    assert planned(*states).notes == []  # configs were or will be imported, perhaps
    plan = planned(found("East"), *states)
    orphan = "no config here has this name, so this is a state of no instance"
    assert [(record.name, note) for record, note in plan.notes] == [
        ("east", f"{orphan}; is it that of 'East'?"),
        ("west", orphan),
    ]


def test_a_record_with_a_name_only_beside_a_whole_one_is_merged():
    plan = planned(found(place="S1"), found(config=None, place="S2"))
    assert only(plan).name == "a"
    assert reasons(plan)["S2"].startswith("holds neither config nor state")


@pytest.mark.parametrize("extra", [{}, {"tags": 1}])
def test_a_name_in_a_file_of_states_is_what_is_left_of_an_instance(extra):
    """As one that has counters: it may have been removed, so nobody asks for its key."""
    instance = only(planned(found(config=None, extra=extra)))
    assert (instance.config, instance.state, instance.state_extra) == (None, {}, extra)
    assert instance.state_from is not None


def test_names_in_files_of_states_must_agree_in_unknown_keys():
    records = [found(config=None, extra={"tags": n}, place=str(n)) for n in (1, 2)]
    assert [p.field for p in planned(*records).problems] == ["tags"]


def test_duplicates_that_agree_are_merged():
    # In other types, and with what the old program took where nothing stands.
    plan = planned(found(place="1"), found(place="2", max_tpm="240000", proxy_url=""))
    assert only(plan).shadowed != []
    assert reasons(plan) == {"2": "says the same as S1 (old.json, 1)"}


@pytest.mark.parametrize(
    "difference",
    [
        {"priority": 5},
        {"config": OTHER},
        {"extra": {"tags": ["b"]}},
        {"state": {"total_requests": 8}},
        {"state": {"total_requests": 7, "error_count": 1}},
    ],
)
def test_duplicates_that_disagree_are_rejected_both(difference):
    first = {"extra": {"tags": ["a"]}, "state": {"total_requests": 7}}
    records = [found(place="1", **first), found(place="2", **first | difference)]
    plan = planned(*records, found("b"))
    assert [i.name for i in plan.instances] == ["b"]
    assert [(r.place, len(p)) for r, p in plan.rejected] == [("1", 0), ("2", 1)]
    (problem,) = plan.problems
    assert problem.record == "2 ('a')"
    assert problem.message == "Disagrees with 1 of old.json."
    assert problem.remedy == "Take one of the two out, or make them equal."


@pytest.mark.parametrize(
    "difference",
    [
        {"api_key": "sk-other-9876543210"},
        {"proxy_url": "http://user:sk-other-9876543210@10.0.0.1"},
        {"extra": {"token": "sk-other-9876543210"}},
    ],
)
def test_a_secret_in_which_duplicates_disagree_is_not_shown(difference):
    first = {"extra": {"token": "sk-first"}, "state": {"error_count": 1}}
    second = first | difference
    (problem,) = planned(found(place="1", **first), found(place="2", **second)).problems
    assert problem.value == "***"
    assert "other" not in repr(problem)


def test_names_that_differ_in_case_are_two_instances():
    plan = planned(found("Azure"), found("azure", config=OTHER))
    assert [i.name for i in plan.instances] == ["Azure", "azure"]


@pytest.mark.parametrize("key", ["$AZURE_KEY", "${AZURE_KEY:-none}"])
def test_a_key_that_names_a_variable_is_carried_and_told(key):
    plan = planned(found(api_key=key))
    assert [i.config["api_key"] for i in plan.instances] == [key]
    ((_, note),) = plan.notes
    assert "write the key, or env:NAME" in note
    assert key not in note
    assert not planned(found()).notes


def test_a_bad_config_takes_its_state_with_it():
    # State alone would make an import after the mending add it to nothing, or twice.
    records = [found(max_tpm=-1), found(config=None, state={"error_count": 3}, place="S2")]
    plan = planned(*records)
    assert plan.instances == []
    assert [len(problems) for _, problems in plan.rejected] == [1, 0]
    assert_each_record_once(plan, records)


def test_an_older_record_does_not_take_the_place_of_a_bad_one():
    records = [found(max_tpm=-1), found(era=M2)]
    plan = planned(*records)
    assert plan.instances == []
    assert_each_record_once(plan, records)


def test_a_bad_state_in_a_record_of_its_own_leaves_the_config():
    bad = found(config=None, state={"error_count": "many"}, place="S2")
    records = [found(place="S1"), bad, found(era=M2, state={"error_count": 3}, place="M2")]
    plan = planned(*records)
    (instance,) = plan.instances
    assert (instance.state, instance.state_from) == ({}, None)
    assert [record for record, _ in plan.rejected] == [bad]
    assert reasons(plan) == {"M2": "shadowed by S1 (old.json, S1)"}
    assert_each_record_once(plan, records)


def test_a_bad_state_in_one_record_with_the_config_takes_it_along():
    plan = planned(found(state={"error_count": "many"}))
    assert plan.instances == []
    assert [p.field for p in plan.problems] == ["error_count"]


def test_problems_are_of_their_own_record_also_where_places_begin_alike():
    records = [found(place=f"row {n}", weight=w) for n, w in ((1, 1), (12, -1))]
    plan = planned(*records)
    assert [(r.place, [p.field for p in ps]) for r, ps in plan.rejected] == [
        ("row 1", []),
        ("row 12", ["weight"]),
    ]


def test_unknown_keys_of_all_eras_are_kept_and_the_newest_value_counts():
    plan = planned(
        found(extra={"tags": "new", "x": 1}),
        found(era=M2, layout="M2", extra={"tags": "old", "y": 2}),
    )
    assert only(plan).extra == {"tags": "new", "x": 1, "y": 2}
    assert only(plan).state_extra == {}


def test_unknown_keys_of_a_file_of_states_are_the_states():
    plan = planned(
        found(extra={"tags": 1}),
        found(layout="S2", config=None, state={"error_count": 1}, extra={"tags": 2, "z": 3}),
    )
    assert (only(plan).extra, only(plan).state_extra) == ({"tags": 1}, {"tags": 2, "z": 3})


def test_another_name_inside_is_only_that_of_the_record_that_counts():
    records = [found(), found(era=M2, extra={"name": "b"})]
    assert only(planned(*records)).extra == {}
    assert only(planned(found(extra={"name": "b"}))).extra == {"name": "b"}


@pytest.mark.parametrize("layout", ["S1", "Y1", "M1", "C1", "E2"])
def test_a_name_without_a_config_has_no_key_where_there_should_be_one(layout):
    """The newest era says that there is such an instance; an older key may be another's."""
    bare = found(layout=layout, config=None, place="bare")
    plan = planned(bare, found(era=M2, place="whole"))
    assert plan.instances == []
    assert [p.field for p in plan.problems] == ["api_key"]


def test_entries_that_are_no_records_are_found_and_rejected():
    whole = Problem(FILE, "", "", "", "", "The file is cut.")
    entry = bad(None, raw="text", place="instances[1]")
    plan = planned(found(), problems=(whole,), bad=(entry,))
    assert (plan.found, len(plan.instances)) == (2, 1)
    assert plan.rejected == [(entry, [entry.problem])]
    assert plan.problems == [whole, entry.problem]


@pytest.mark.parametrize("era", [FLAT, M2, Era.DATABASE])
def test_an_older_record_does_not_take_the_place_of_an_entry_that_is_none(era):
    entry, older = bad(), found(era=era, state={"total_requests": 5})
    plan = planned(older, bad=(entry,))
    assert plan.instances == []
    assert [record for record, _ in plan.rejected] == [older, entry]
    assert plan.problems == [entry.problem]


def test_a_scalar_beside_records_is_a_setting_unless_an_instance_has_its_name():
    aside = [bad(name, era=FLAT, layout="M3", raw="eu") for name in ("region", "a")]
    older = found(era=M2)
    plan = planned(older, aside=tuple(aside))
    assert plan.settings == {"region": "eu"}
    assert plan.instances == []
    assert_each_record_once(plan, [older, aside[1]])


def test_an_entry_that_is_none_of_an_older_era_stops_nothing_where_all_is_known():
    plan = planned(found(state={"total_requests": 5}), bad=(bad(era=M2, layout="M2"),))
    assert only(plan).state == {"total_requests": 5}
    assert len(plan.merged) == 1


def unreadable(layout):
    problem = Problem(FILE, "", "", "", "Mend it.", "It is cut.")
    return Reading(Path("cut.json"), "JSON", problems=(problem,), lost=layout)


OLD = found(era=M2, layout="M2", state={"total_requests": 5}, place="M2")
CUT = "cut.json is newer and cannot be read."


@pytest.mark.parametrize(
    "lost, records, imported",
    [
        ("S1", [OLD], []),  # its key and its limits may be long gone
        ("D1", [OLD], []),
        ("S1", [OLD, found("b", place="S1")], ["b"]),
        # With state in one record, the config would come back without it.
        ("S2", [OLD], []),
        # What cannot be read is older, or as old.
        ("M2", [OLD], ["a"]),
        ("M1", [OLD], ["a"]),
        ("D1", [found()], ["a"]),
        ("S1", [found(config=None, state={"total_requests": 5})], ["a"]),
    ],
)
def test_an_older_record_does_not_take_the_place_of_what_cannot_be_read(
    lost, records, imported
):
    plan = make_plan([Reading(FILE, "M2", tuple(records)), unreadable(lost)], now=NOW)
    assert [i.name for i in plan.instances] == imported
    messages = {p.message for _, problems in plan.rejected for p in problems}
    assert messages == ({CUT} if len(imported) < len({r.name for r in records}) else set())
    assert plan.found == len(plan.instances) + len(plan.merged) + len(plan.rejected)


def test_an_older_state_does_not_take_the_place_of_one_that_cannot_be_read():
    readings = [Reading(FILE, "S1", (found(place="S1"), OLD)), unreadable("S2")]
    plan = make_plan(readings, now=NOW)
    assert [(i.name, i.state) for i in plan.instances] == [("a", {})]
    assert [(r.place, [p.message for p in ps]) for r, ps in plan.rejected] == [("M2", [CUT])]


def test_a_state_that_may_have_stood_in_an_entry_that_is_none_is_rejected_alone():
    older = found(era=M2, layout="M2", state={"total_requests": 5}, place="M2")
    for entry in (bad(layout="S2", place="S2"), bad(era=FLAT, layout="M3", place="M3")):
        plan = planned(found(place="S1"), older, bad=(entry,))
        (instance,) = plan.instances
        assert (instance.state, instance.state_from) == ({}, None)
        assert plan.rejected == [(entry, [entry.problem])]


def test_rests_are_measured_by_the_clock_that_is_given():
    record = found(state={"rate_limited_until": LATER, "error_count": 1})
    readings = [Reading(FILE, "M3", (record,))]
    assert make_plan(readings, now=LATER + 1).instances[0].state == {"error_count": 1}


names = st.sampled_from(["a", "b", "A", "new", None])
values = st.fixed_dictionaries(
    {},
    optional={
        "max_tpm": st.sampled_from([1, "1", 2, -1, "many"]),
        "api_key": st.sampled_from(["sk-planted-0123456789", None, "sk-other"]),
        "proxy_url": st.sampled_from(["", None, "http://u:p@h"]),
    },
)
states = st.fixed_dictionaries(
    {},
    optional={
        "total_requests": st.sampled_from([1, "1", 2, "many", None]),
        "rate_limited_until": st.sampled_from([LATER, NOW - 1, "soon", None]),
        "status": st.just("healthy"),
    },
)
record_sets = st.lists(
    st.builds(
        lambda name, era, turn, config, more, state, file: found(
            name,
            era=era,
            turn=turn,
            config=config,
            state=state,
            file=Path(file),
            **(more if config else {}),
        ),
        names,
        st.sampled_from(list(Era)),
        st.integers(0, 1),
        st.sampled_from([CONFIG, CONFIG, OTHER, None]),
        values,
        states,
        st.sampled_from(["one", "two"]),
    ),
    max_size=8,
)


bad_sets = st.lists(
    st.builds(
        lambda name, era, layout: bad(name, era=era, layout=layout),
        names,
        st.sampled_from(list(Era)),
        st.sampled_from(["S1", "S2", "M3"]),
    ),
    max_size=3,
)


@settings(max_examples=200, deadline=None)
@given(record_sets, bad_sets)
def test_whatever_is_found_is_imported_merged_or_rejected(records, entries):
    plan = planned(*records, bad=tuple(entries))
    assert plan.found == len(records) + len(entries)
    assert_each_record_once(plan, [*records, *entries])
    assert bool(plan.problems) == bool(plan.rejected)
    assert len({i.name for i in plan.instances}) == len(plan.instances)


@settings(max_examples=100, deadline=None)
@given(record_sets, st.randoms(use_true_random=False))
def test_the_order_of_files_decides_nothing_about_the_values(records, chance: random.Random):
    shuffled = list(records)
    chance.shuffle(shuffled)
    plans = [planned(*records), planned(*shuffled)]
    one, other = ({i.name: (i.config, i.state) for i in plan.instances} for plan in plans)
    assert one == other
