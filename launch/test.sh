#!/usr/bin/env bash
# Installs ArkJAX for development into .venv-test and checks it: linter, formatter, all tests, and
# the fast tests on the newest Python there is. Arguments go to the main pytest run:
#   launch/test.sh -k rundir         (two processes; -n 0 for one)
# ARKJAX_PYTHON chooses the interpreter, ARKJAX_VENV the environment's folder, ARKJAX_EXTRAS what is
# installed: "dev,parity,tpu" brings the reference implementations and the TPU compiler, with which
# ARKJAX_PARITY=1 lets no comparison be skipped.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
. "$root/launch/environment.sh"

# SC2034: environment.sh reads it.
# shellcheck disable=SC2034
need_gib=6
venv=${ARKJAX_VENV:-$root/.venv-test}
install_environment "$venv" -e "${root}[${ARKJAX_EXTRAS:-dev}]"
cd "$root"

"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .

# The second supported set of versions. It comes first, so that the main summary is the last line.
chosen=${ARKJAX_PYTHON:-}
unset ARKJAX_PYTHON
if at_least "$(python_version "$venv/bin/python")" 3.12; then
    echo "Tests run on Python $(python_version "$venv/bin/python"); set ARKJAX_PYTHON to test on 3.11."
elif find_python 3.12 python3.12 python3.13 python3.14; then
    # Apache Beam and SeqIO want different versions of protobuf: here is the one, there the other.
    install_environment "$venv-312" -e "${root}[test,beam]"
    echo "Fast tests on Python $(python_version "$venv-312/bin/python"):"
    # The reference implementations are in the main environment only.
    env -u ARKJAX_PARITY "$venv-312/bin/python" -m pytest -q -m fast tests -n 2 --dist worksteal
    echo "Tests with Apache Beam:"
    env -u ARKJAX_PARITY ARKJAX_BEAM=1 "$venv-312/bin/python" -m pytest -q -n 2 --dist worksteal \
        tests/synthesis/test_at_scale.py tests/records/test_command.py -k "at_scale or select"
else
    echo "No Python 3.12 or newer was found: the newer set of versions is not tested here."
fi
if [ -n "$chosen" ]; then export ARKJAX_PYTHON=$chosen; fi

echo "All tests on Python $(python_version "$venv/bin/python"):"
"$venv/bin/python" -m pytest tests -n 2 --dist worksteal "$@"
