import importlib.util
import json
import sys

import pytest

from proxy.settings import ROOT

pytest.importorskip("bpe_openai", reason="the tokenizer is a development dependency")


@pytest.fixture(scope="module")
def benchmark():
    folder = str(ROOT / "scripts")
    sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(
        "estimate_benchmark", f"{folder}/estimate_benchmark.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(folder)


def test_it_prints_the_errors_of_each_language(benchmark, capsys, tmp_path):
    file = tmp_path / "errors.json"
    assert benchmark.main(["--prompts", "210", "--json", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| prompts in | median error, first 200 answers |")
    rows = {line.split(" | ")[0].strip("| ") for line in lines[2:]}
    assert rows == {"all", "English", "German", "Chinese", "code"}
    errors = json.loads(file.read_text())
    assert 0 < errors["all"]["after"] < 0.5


def test_the_prompts_are_always_the_same(benchmark):
    assert list(benchmark.prompts(20)) == list(benchmark.prompts(20))


def test_the_truth_is_the_tokenizers(benchmark):
    count = benchmark.tokenizer()
    assert count("Hello world") == 2
    message = {"role": "user", "content": "Hello world"}
    assert benchmark.true_tokens([message, message], count) == 2 * (2 + 4) + 3


def test_too_few_prompts_are_refused(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--prompts", "200"])
    assert "more than 200 are needed" in capsys.readouterr().err
