from itertools import pairwise

import pytest

from proxy.core import roles
from proxy.core.roles import ADMINISTER, OPERATE, READ, Admin


@pytest.mark.parametrize(
    "role, rights",
    [
        ("viewer", {READ}),
        ("operator", {READ, OPERATE}),
        ("admin", {READ, OPERATE, ADMINISTER}),
    ],
)
def test_each_role_may_what_the_table_says_and_no_more(role, rights):
    admin = Admin("ann", role)
    assert {
        right for right in (READ, OPERATE, ADMINISTER, "other") if admin.may(right)
    } == rights


def test_a_role_that_nobody_knows_may_nothing():
    assert not any(Admin("ann", "owner").may(right) for right in (READ, OPERATE, ADMINISTER))


def test_each_role_may_all_that_the_one_before_it_may():
    rights = list(roles.ROLES.values())
    assert all(less < more for less, more in pairwise(rights))


@pytest.mark.parametrize(
    "right, role", [(READ, "viewer"), (OPERATE, "operator"), (ADMINISTER, "admin")]
)
def test_the_role_that_is_needed_is_the_least_that_has_the_right(right, role):
    assert roles.least_role(right) == role


@pytest.mark.parametrize(
    "fields, right",
    [
        (["enabled"], OPERATE),
        (["enabled", "weight"], ADMINISTER),
        (["weight"], ADMINISTER),
        (["name", "enabled"], ADMINISTER),
        ([], ADMINISTER),
    ],
)
def test_to_switch_an_instance_on_or_off_is_to_operate_and_any_other_change_is_not(
    fields, right
):
    assert roles.right_to_change(fields) == right


@pytest.mark.parametrize(
    "expires_at, is_expired", [(None, False), (99.9, True), (100.0, True), (100.1, False)]
)
def test_a_key_is_worth_nothing_from_the_moment_on_at_which_it_expires(expires_at, is_expired):
    assert Admin("ann", expires_at=expires_at).is_expired(now=100.0) is is_expired


@pytest.mark.parametrize("name", ["ann", "Ann B.", "ci/deploy", "ärztin", "x" * 100, "admins"])
def test_a_name_may_be_any_printable_text(name):
    assert roles.name_problem(name) is None


@pytest.mark.parametrize(
    "name, words",
    [
        ("", "1 to 100"),
        ("x" * 101, "1 to 100"),
        (" ann", "space"),
        ("ann ", "space"),
        ("a\nb", "printable"),
        ("a\x1b[31m", "printable"),
        ("/a", "slash"),
        ("a/", "slash"),
        ("..", "dot"),
        ("a/./b", "dot"),
        # Revisions are made under these without an admin key's row.
        ("admin", "reserved"),
        ("Admin", "reserved"),
        ("command line", "reserved"),
        ("Command line (ann)", "reserved"),
        ("migration", "reserved"),
    ],
)
def test_a_name_stands_in_paths_and_revisions_and_is_checked_for_it(name, words):
    assert words in roles.name_problem(name)
