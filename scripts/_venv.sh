# Sourced by the other scripts: makes .venv from pinned requirements, once for each version
# of them. Usage: . "$(dirname "$0")/_venv.sh" requirements.txt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

requirements=$1

find_python() {
    local name
    for name in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
        if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "Python 3.11 or newer is needed; set PYTHON to its command." >&2
    return 1
}

if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    python=$(find_python)
    echo "Making .venv with $("$python" --version) ..." >&2
    "$python" -m venv --clear .venv
fi

included=$(sed -n 's/^-r //p' "$requirements")
wanted=$(cat requirements.txt $included "$requirements" | cksum)
stamp=.venv/.installed-$requirements
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing $requirements into .venv ..." >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r "$requirements"
    # pip compiles with one process; what some packages have for other Pythons cannot be.
    .venv/bin/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true
    echo "$wanted" >"$stamp"
fi

# Where Python may not keep what it compiles, each of many starts would compile all of it again.
if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then
    .venv/bin/python -m compileall -q proxy migrations scripts || true
fi
