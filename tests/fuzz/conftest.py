"""How many inputs are tried, and what must be true of every answer."""

import json
import os

import pytest
from hypothesis import HealthCheck, settings

# Of all tests here together: in CI some thousands; by hand more, `FUZZ_INPUTS=50000`.
INPUTS = int(os.environ.get("FUZZ_INPUTS", "3000"))


def tried(share, *, each):
    """That part of the inputs, of which one example makes so many."""
    return settings(
        max_examples=max(1, int(INPUTS * share / each)),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


class Tried:
    """Counts the inputs of a test."""

    count = 0


@pytest.fixture
def inputs(record_property):
    """The summary at the end tells how many there were."""
    found = Tried()
    yield found
    record_property("fuzz inputs", found.count)


def check_answer(status, headers, body, *, is_head=False):
    """`headers`: names in lower case. An upstream that is well was behind it."""
    assert status < 500, (status, body[:500])
    assert headers.get("x-request-id"), headers
    if status >= 400 and not is_head:
        assert headers.get("content-type") == "application/json", (status, headers)
        fields = json.loads(body)
        assert list(fields) == ["error"], body[:500]
        # `code` may be left out by an upstream, whose words these then are.
        assert {"message", "type", "param"} <= set(fields["error"]), body[:500]
        assert isinstance(fields["error"]["message"], str)
    assert b"Traceback" not in body
