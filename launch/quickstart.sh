#!/usr/bin/env bash
# Installs ArkJAX into .venv and runs the quickstart: a team is distilled into one model.
# Run it again to go on after an interruption. Further arguments go to `arkjax run`:
#   launch/quickstart.sh --config.seeds='(0,)'
# ARKJAX_PYTHON chooses the interpreter, ARKJAX_VENV the environment's folder.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
. "$root/launch/environment.sh"

venv=${ARKJAX_VENV:-$root/.venv}
install_environment "$venv" -e "$root"

# The last --workdir wins, as it does in `arkjax run`.
workdir=$root/runs/quickstart
previous=''
for argument in "$@"; do
    if [ "$previous" = --workdir ]; then workdir=$argument; fi
    case $argument in --workdir=*) workdir=${argument#--workdir=} ;; esac
    previous=$argument
done

"$venv/bin/python" -m arkjax run \
    --config "$root/configs/quickstart.py" --workdir "$root/runs/quickstart" "$@"
echo "Report: $workdir/report/report.html"
