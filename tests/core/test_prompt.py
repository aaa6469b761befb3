from proxy.core.estimator import FIRST_WEIGHTS
from proxy.core.prompt import NO_PROMPT


def test_no_prompt_has_nothing_but_what_any_prompt_has():
    assert NO_PROMPT.counts == (1, 0, 0, 0, 0, 0, 0)
    assert (NO_PROMPT.media_tokens, NO_PROMPT.ready_tokens) == (0, 0)


def test_an_estimator_has_a_weight_for_each_count():
    assert len(NO_PROMPT.counts) == len(FIRST_WEIGHTS)
