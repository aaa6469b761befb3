from random import Random
from statistics import median

import pytest

from proxy.core.estimator import FIRST_WEIGHTS, Estimator

# What another tokenizer would make of the counts.
TRUE_WEIGHTS = (7.0, 0.3, 0.1, 1.0, 0.25, 0.9, 1.4)

LANGUAGES = (
    (0.8, 0.15, 0.01, 0.04, 0, 0),
    (0.75, 0.14, 0.02, 0.05, 0.04, 0),
    (0.05, 0.02, 0.03, 0.1, 0, 0.8),
)


def counts(rng):
    """A prompt of 50 to 5,000 characters, in one of a few languages."""
    size = int(10 ** rng.uniform(1.7, 3.7))
    return (1, *(round(size * s * rng.uniform(0.7, 1.3)) for s in rng.choice(LANGUAGES)))


def true_tokens(of):
    return round(sum(w * n for w, n in zip(TRUE_WEIGHTS, of, strict=True)))


def errors(estimator, rng, number):
    found = []
    for _ in range(number):
        of = counts(rng)
        tokens = true_tokens(of)
        found.append(abs(estimator.tokens(of) - tokens) / tokens)
        estimator.learn(of, tokens)
    return found


def test_it_begins_with_sane_weights():
    english = (1, 800, 180, 5, 40, 0, 0)  # about a thousand characters
    assert Estimator().tokens(english) == pytest.approx(250, rel=0.2)


def test_nothing_is_less_than_a_token():
    estimator = Estimator()
    estimator.weights = (0.0,) * 7
    assert estimator.tokens((1, 1, 0, 0, 0, 0, 0)) == 1.0


def test_it_learns_what_tokens_are_to_a_model():
    rng, estimator = Random(1), Estimator()
    before = median(errors(Estimator(), Random(1), 1))
    errors(estimator, rng, 200)
    after = median(errors(estimator, rng, 100))
    assert after < 0.01 < before
    assert estimator.answers == 300


def test_a_single_answer_moves_it_towards_the_truth_and_not_beyond():
    estimator = Estimator()
    of = (1, 800, 180, 5, 40, 0, 0)
    before = estimator.tokens(of)
    estimator.learn(of, 300)
    assert before < estimator.tokens(of) <= 300


def test_after_many_answers_it_still_learns_another_kind():
    rng, estimator = Random(1), Estimator()
    errors(estimator, rng, 3000)
    other = (1, 0, 0, 0, 0, 1000, 0)  # a script nobody wrote in until now
    for _ in range(100):
        estimator.learn(other, 500)
    assert estimator.tokens(other) == pytest.approx(500, rel=0.05)


def test_an_answer_that_had_more_than_text_in_it_is_not_believed():
    estimator = Estimator()
    of = (1, 100, 20, 0, 0, 0, 0)
    estimate = estimator.tokens(of)
    for tokens in (round(estimate * 6), 1):
        estimator.learn(of, tokens)
    assert (estimator.weights, estimator.answers) == (FIRST_WEIGHTS, 0)


def test_no_weight_is_below_nothing():
    estimator, rng = Estimator(), Random(2)
    for _ in range(500):
        of = counts(rng)
        estimator.learn(of, max(1, round(estimator.tokens(of) * rng.uniform(0.3, 3))))
        assert min(estimator.weights) >= 0


def test_counts_of_another_kind_are_no_prompts():
    with pytest.raises(ValueError, match="shorter"):
        Estimator().tokens((1, 2))
