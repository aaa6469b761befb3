from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.core.prompt import NO_PROMPT, Prompt
from proxy.core.tokens import MAX_TOKENS
from proxy.runtime import estimates as module
from proxy.runtime.estimates import Estimates

TEXT = Prompt((1, 800, 180, 5, 40, 0, 0))


def learned(estimates, model="m", prompt=TEXT, tokens=300, times=50):
    for _ in range(times):
        estimates.learn(model, prompt, tokens)
    return estimates.tokens(model, TEXT)


def test_each_model_learns_for_itself():
    estimates = Estimates()
    before = estimates.tokens("other", TEXT)
    assert learned(estimates) == pytest.approx(300, rel=0.02)
    assert estimates.tokens("other", TEXT) == before


def test_however_a_model_is_spelled_it_is_the_same_one():
    estimates = Estimates()
    found = learned(estimates, "Gpt-4O")
    assert estimates.tokens("gpt-4o", TEXT) == estimates.tokens("GPT-4O", TEXT) == found


def test_media_and_what_is_tokenized_already_are_added():
    estimates = Estimates()
    more = Prompt(TEXT.counts, media_tokens=765, ready_tokens=9)
    assert estimates.tokens("m", more) == estimates.tokens("m", TEXT) + 774
    assert estimates.tokens("m", NO_PROMPT) >= 1
    assert estimates.tokens("m", Prompt(ready_tokens=10**12)) == MAX_TOKENS


def test_of_what_had_media_nothing_is_learned():
    estimates = Estimates()
    before = estimates.tokens("m", TEXT)
    assert learned(estimates, prompt=Prompt(TEXT.counts, media_tokens=765)) == before
    assert learned(estimates, tokens=0) == before


def test_what_is_tokenized_already_is_not_taken_for_text():
    estimates = Estimates()
    ready = Prompt(TEXT.counts, ready_tokens=1000)
    assert learned(estimates, prompt=ready, tokens=1300) == pytest.approx(300, rel=0.02)


def test_later_one_in_eight_answers_is_enough(monkeypatch):
    monkeypatch.setattr(module, "LEARNED_ANSWERS", 10)
    estimates = Estimates()
    learned(estimates, times=10 + 80)
    assert estimates._estimators["m"].answers == 10 + 10


def test_of_a_model_that_is_well_known_one_in_32_is(monkeypatch):
    monkeypatch.setattr(module, "LEARNED_ANSWERS", 10)
    monkeypatch.setattr(module, "WELL_KNOWN_ANSWERS", 96)
    estimates = Estimates()
    # The first ten, then 16, 24 ... 88, then 96, 128 ...
    learned(estimates, times=95 + 320)
    assert estimates._estimators["m"].answers == 10 + 10 + 10


def test_models_that_take_turns_all_go_on_learning(monkeypatch):
    monkeypatch.setattr(module, "LEARNED_ANSWERS", 10)
    estimates = Estimates()
    for _ in range(10 + 80):
        learned(estimates, "one", times=1)
        learned(estimates, "other", times=1)
    assert {m: e.answers for m, e in estimates._estimators.items()} == {"one": 20, "other": 20}


def test_models_that_clients_invent_are_not_kept_for_ever(monkeypatch):
    monkeypatch.setattr(module, "MAX_MODELS", 3)
    estimates = Estimates()
    for number in range(20):
        estimates.learn(f"model-{number}", TEXT, 300)
    assert len(estimates._estimators) <= 3


def test_many_threads_learn_at_once():
    estimates = Estimates()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: learned(estimates, times=6), range(8)))
    assert estimates._estimators["m"].answers == 48
