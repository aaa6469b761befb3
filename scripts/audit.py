"""Looks for known weaknesses: in our code (bandit), and in what is pinned (pip-audit).

Ends with 1 if there is one. What nobody can be asked about, because the network or the index
does not tell, is said and no failure: then nothing is known, and the next check may.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt")
AUDIT_SECONDS = 60


def main() -> int:
    bandit = [
        sys.executable,
        "-m",
        "bandit",
        "-q",
        "-ll",
        "-r",
        "proxy",
        "migrations",
        "scripts",
    ]
    is_clean = subprocess.run(bandit, cwd=ROOT, check=False).returncode == 0
    found, unknown = audited()
    for line in found:
        print(line)
    if unknown:
        print(f"pip-audit: nothing could be learned about {unknown}", file=sys.stderr)
    return 0 if is_clean and not found else 1


def audited() -> tuple[list[str], str]:
    """A line for each known vulnerability, and what could not be asked about."""
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--format=json"]
    command += ["--progress-spinner=off", "--timeout=10"]
    for path in requirements():
        command += ["-r", str(path)]
    try:
        ran = subprocess.run(
            command, cwd=ROOT, check=False, timeout=AUDIT_SECONDS, capture_output=True
        )
        dependencies = json.loads(ran.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):
        return [], "anything: the index of vulnerabilities did not answer"
    return told(dependencies)


def requirements() -> Iterator[Path]:
    yield from (path for name in REQUIREMENTS if (path := ROOT / name).is_file())


def told(dependencies: list[dict[str, Any]]) -> tuple[list[str], str]:
    """pip-audit's report in words."""
    found = [
        f"{each['name']} {each['version']}: {vulnerability['id']}, mended in"
        f" {', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for each in dependencies
        for vulnerability in each.get("vulns", ())
    ]
    skipped = sum(1 for each in dependencies if "skip_reason" in each)
    return found, f"{skipped} of {len(dependencies)} packages" if skipped else ""


if __name__ == "__main__":
    sys.exit(main())
