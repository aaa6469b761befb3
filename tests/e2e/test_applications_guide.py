"""docs/applications.md: its examples run as they stand, where base URL and key are set."""

import os
import re
import subprocess
import sys

import pytest

from proxy.settings import ROOT
from tests.e2e.conftest import Gateway

TEXT = (ROOT / "docs" / "applications.md").read_text()
BLOCKS = re.findall(r"^```(python|sh)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("language, code", BLOCKS)
def test_each_example_runs(gateway: Gateway, language: str, code: str):
    environment = os.environ | {
        "OPENAI_BASE_URL": f"{gateway.url}/v1",
        "OPENAI_API_KEY": gateway.client_key,
        "AZURE_OPENAI_ENDPOINT": gateway.url,
        "AZURE_OPENAI_API_KEY": gateway.client_key,
        "OPENAI_API_VERSION": "2024-10-21",
    }
    command = [sys.executable, "-c", code]
    if language == "sh":
        given = [line for line in code.splitlines(keepends=True) if line[:7] != "export "]
        command = ["bash", "-c", "".join(given)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Hello from" in done.stdout
    assert "broke off" not in done.stdout


def test_there_are_examples():
    assert [language for language, _ in BLOCKS].count("python") == 2
    assert [language for language, _ in BLOCKS].count("sh") == 1
