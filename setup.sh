#!/bin/sh
# Makes .venv with the pinned packages and this one, or says in one line why it cannot.
# Safe to stop and start again: .venv/.ready appears last. Usage: sh setup.sh [python]
set -eu
cd "$(dirname "$0")"
python=${1:-python3}
say() { printf '%s\n' "$*" >&2; }

command -v "$python" >/dev/null 2>&1 || {
    say "setup: no '$python' here. Install Python 3.11 or newer, or name one: make run PYTHON=/path/to/python3.12"
    exit 1
}
"$python" - <<'PY' || exit 1
import os, shutil, sys  # no f-strings here: this has to be read by the oldest Python
if sys.version_info < (3, 11):
    sys.exit("setup: Python {} is too old, 3.11 or newer is needed. "
             "Name another one: make run PYTHON=python3.12".format(sys.version.split()[0]))
free = shutil.disk_usage(".").free / 1e9
if free < 9 and not os.path.exists(".venv/.ready"):
    sys.exit("setup: {:.1f} GB of disk are free here, the packages (PyTorch above all) need 9 GB. "
             "Make room or clone to another disk.".format(free))
try:
    import venv, ensurepip
except ImportError:
    sys.exit("setup: this Python has no venv module (on Debian and Ubuntu: apt install python3-venv)")
PY
if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    say "setup: creating .venv"
    rm -rf .venv
    "$python" -m venv .venv
fi
say "setup: installing the pinned packages into .venv (a few minutes the first time) ..."
log=.venv/install.log
TMPDIR=$PWD/.venv/tmp  # /tmp may be small, and a killed download would stay there for good
export TMPDIR
rm -rf "$TMPDIR"
mkdir "$TMPDIR"
for package in .venv/lib/python*/site-packages/*.dist-info; do
    [ -f "$package/RECORD" ] || rm -rf "$package"  # killed half-way: pip would take it for complete
done
trap 'say ""; say "setup: stopped; the same command goes on from here"; exit 130' INT TERM
if ! .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off \
    -c constraints.txt -e ".[workbook,test]" >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    if grep -Eqi "resolve host|name resolution|connection (refused|reset|broken|error)|network is unreachable|newconnectionerror|timed out|max retries|could not fetch url|no matching distribution found" "$log"; then
        say "setup: the package index could not be reached. Check the network (or a proxy / mirror in"
        say "       pip's own configuration) and run the same command again; what was fetched is kept."
    elif grep -qi "no space left" "$log"; then
        say "setup: the disk is full. Make room and run the same command again."
    else
        say "setup: the installation stopped; the whole log is in $log. Run the same command again to retry."
    fi
    exit 1
fi
rm -rf "$TMPDIR"
touch .venv/.ready
say "setup: done"
