from proxy.core.usage import COUNTERS, FIRST_BYTE, LATENCY, REFUSALS
from proxy.core.verdict import OUTCOMES


def test_each_counter_has_a_name_of_its_own():
    assert len(set(COUNTERS)) == len(COUNTERS)
    assert {*OUTCOMES, *REFUSALS, *FIRST_BYTE, *LATENCY} <= set(COUNTERS)
