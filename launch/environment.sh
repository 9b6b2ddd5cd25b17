# Finds a Python and keeps a virtual environment; sourced by the scripts beside it.
# Exit codes are those of the arkjax command: 2 wrong environment, 5 cannot write or disk full.
# shellcheck shell=bash

: "${root:?the script that sources this sets root to the repository}"

# GiB that an environment takes; the test environment, with TensorFlow, raises it.
need_gib=3

fail() { # code, line of text, remedy
    printf 'error: %s\n       %s\n' "$2" "$3" >&2
    exit "$1"
}

# Prints "3.11" for a Python that runs, nothing for one that does not.
python_version() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

# Whether version $1 (such as 3.11) is at least $2.
at_least() {
    local major=${1%%.*} minor=${1#*.}
    [ "$major" -gt "${2%%.*}" ] || { [ "$major" -eq "${2%%.*}" ] && [ "$minor" -ge "${2#*.}" ]; }
}

# Sets python to the first interpreter of version $1 or newer that can make environments, trying
# versions in the given order ($2...), on PATH and among pyenv's. Returns 1 if there is none, and
# says in why what was found instead.
find_python() {
    local least=$1 name candidate version
    shift
    local candidates=()
    python='' why=''
    for name in "$@" python3; do
        candidates+=("$name")
        for candidate in "${HOME:-/nonexistent}"/.pyenv/versions/"${name#python}"*/bin/"$name"; do
            if [ -x "$candidate" ]; then candidates+=("$candidate"); fi
        done
    done
    if [ -n "${ARKJAX_PYTHON:-}" ]; then candidates=("$ARKJAX_PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        candidate=$(command -v "$candidate" || true)
        if [ -z "$candidate" ]; then continue; fi
        version=$(python_version "$candidate")
        if [ -z "$version" ]; then continue; fi
        if ! at_least "$version" "$least"; then
            why=${why:-"$candidate is Python $version, too old"}
        elif ! "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            why="$candidate (Python $version) has no venv module"
        else
            python=$candidate
            return 0
        fi
    done
    if [ -z "$why" ] && [ -n "${ARKJAX_PYTHON:-}" ]; then
        why="ARKJAX_PYTHON is $ARKJAX_PYTHON, which does not run"
    fi
    why=${why:-"no Python was found"}
    return 1
}

require_python() {
    if find_python 3.11 python3.11 python3.12 python3.13 python3.14; then return 0; fi
    case $why in
    *'no venv module'*)
        fail 2 "$why" "Install it (Debian, Ubuntu: apt install python3-venv), or set ARKJAX_PYTHON to another Python." ;;
    *)
        fail 2 "$why; ArkJAX needs Python 3.11 or newer" \
            "Install one (apt install python3.11 python3.11-venv, or pyenv install 3.11), or set ARKJAX_PYTHON to it." ;;
    esac
}

# Fails unless the disk that will hold directory $1 has room for an environment.
require_space() {
    local place=$1 free_kib
    while [ ! -d "$place" ]; do place=$(dirname "$place"); done
    free_kib=$(df -Pk "$place" | awk 'NR == 2 { print $4 }')
    if [ "$free_kib" -lt $((need_gib * 1024 * 1024)) ]; then
        fail 5 "only $((free_kib / 1024)) MiB free where $1 goes, the installation needs $need_gib GiB" \
            "Free some space, or set ARKJAX_VENV to a folder on a larger disk."
    fi
}

# Makes or refreshes environment $1 with "$python", holding what `pip install $2...` installs.
# Its file .arkjax says how far it is: "making", "installing", or what was installed, written last.
# An environment that was left half-made is made anew; one that is not ours is never deleted.
install_environment() {
    local venv=$1 stamp state=''
    shift
    stamp=$( (cat "$root/setup.py" "$root/pyproject.toml"; printf '%s\n' "$@" "$root") | sha256)
    if [ -f "$venv/.arkjax" ]; then state=$(cat "$venv/.arkjax"); fi
    if [ "$state" = "$stamp" ] && [ -n "$(python_version "$venv/bin/python")" ]; then return 0; fi

    local began=$SECONDS
    require_python_for "$venv"
    require_space "$venv"
    if [ -e "$venv" ] && [ -z "$(python_version "$venv/bin/python")" ] ||
        [ "$state" = making ] || [ "$state" = installing ]; then
        if [ -z "$state" ] && [ -n "$(ls -A "$venv")" ] && [ ! -f "$venv/pyvenv.cfg" ]; then
            fail 2 "$venv is not empty and not a virtual environment" "Set ARKJAX_VENV to another folder."
        fi
        echo "Remaking $venv, which is not whole."
        rm -rf "$venv"
    fi
    if [ ! -e "$venv" ]; then
        echo "Making $venv with $python (Python $(python_version "$python"))."
        mkdir -p "$venv" || fail 5 "cannot make $venv" "Change its permissions, or set ARKJAX_VENV."
        echo making >"$venv/.arkjax"
        "$python" -m venv "$venv" || fail 2 "$python cannot make a virtual environment" \
            "Install its venv module (Debian, Ubuntu: apt install python3-venv), or set ARKJAX_PYTHON."
    fi
    if [ -n "$state" ] || [ "$(cat "$venv/.arkjax" 2>/dev/null)" = making ]; then
        echo installing >"$venv/.arkjax"
    fi
    echo "Installing into $venv; the first time takes some minutes."
    if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; then
        require_space "$venv"
        fail 1 "pip could not install ArkJAX; its own words are above" \
            "Without a network, set PIP_INDEX_URL or PIP_FIND_LINKS to a mirror; then run this again."
    fi
    echo "$stamp" >"$venv/.arkjax"
    echo "Installed in $((SECONDS - began)) s."
}

# A later caller may have chosen $python for this environment already.
require_python_for() {
    if [ -z "${python:-}" ]; then require_python; fi
}

sha256() {
    if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1
}
