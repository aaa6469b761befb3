import subprocess
import sys

import pytest

from proxy.settings import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import audit

VULNERABLE = {
    "name": "flask",
    "version": "0.1",
    "vulns": [{"id": "CVE-2000-1", "fix_versions": ["0.2", "0.3"], "description": "bad"}],
}
CLEAN = {"name": "orjson", "version": "3", "vulns": []}
UNKNOWN = {"name": "gunicorn", "skip_reason": "Dependency not found"}


@pytest.fixture
def ran(monkeypatch):
    """Stands for both programs; their exit codes and what pip-audit prints are set."""
    says = {"bandit": 0, "pip_audit": b'{"dependencies": []}'}

    def run(command, **_):
        if "bandit" in command:
            return subprocess.CompletedProcess(command, says["bandit"])
        if isinstance(says["pip_audit"], Exception):
            raise says["pip_audit"]
        return subprocess.CompletedProcess(command, 1, stdout=says["pip_audit"])

    monkeypatch.setattr(audit.subprocess, "run", run)
    return says


def test_a_known_vulnerability_is_told_with_its_remedy():
    found, unknown = audit.told([CLEAN, VULNERABLE])
    assert found == ["flask 0.1: CVE-2000-1, mended in 0.2, 0.3"]
    assert unknown == ""


def test_what_nobody_knows_about_is_counted_and_no_failure(ran, capsys):
    found, unknown = audit.told([CLEAN, UNKNOWN])
    assert (found, unknown) == ([], "1 of 2 packages")
    ran["pip_audit"] = b'{"dependencies": [{"name": "gunicorn", "skip_reason": "x"}]}'
    assert audit.main() == 0
    assert "nothing could be learned about 1 of 1 packages" in capsys.readouterr().err


def test_a_vulnerability_is_a_failure(ran, capsys):
    ran["pip_audit"] = (
        b'{"dependencies": [{"name": "a", "version": "1",'
        b' "vulns": [{"id": "X-1", "fix_versions": []}]}]}'
    )
    assert audit.main() == 1
    assert capsys.readouterr().out == "a 1: X-1, mended in no version yet\n"


def test_a_risky_call_is_a_failure(ran):
    ran["bandit"] = 1
    assert audit.main() == 1


@pytest.mark.parametrize("answer", [b"no JSON", subprocess.TimeoutExpired("pip_audit", 60)])
def test_without_the_network_nothing_is_known_and_nothing_fails(ran, capsys, answer):
    ran["pip_audit"] = answer
    assert audit.main() == 0
    assert "did not answer" in capsys.readouterr().err
