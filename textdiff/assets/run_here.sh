#!/usr/bin/env bash
# Runs the rows of a bundle (textdiff bundle) on a machine without network: checks and unpacks it once, installs it, makes
# the runs that have no record yet, and packs the records. Started again it goes on where it was stopped. Two that are
# started at once share the runs.
#
#   JOBS=2 bash run_here.sh           runs at the same time, on one card or on the processor (default 1)
#
# PYTHON   the python to use (default python3; 3.10 or later). In a bundle without wheels it must have the package's dependencies.
# WORK     folder for all that is made here (default: work, beside this script); the records, too, where nothing can be
#          written beside this script
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3} work=${WORK:-$here/work} jobs=${JOBS:-1}
mkdir -p "$work"
work=$(cd "$work" && pwd)
home=$here
[ -w "$here" ] || home=$work

# One at a time prepares; the kernel frees the lock of a process that was killed
exec 9> "$work/lock"
! command -v flock > /dev/null || flock 9
if ! cmp --silent "$here/SHA256SUMS" "$work/unpacked"; then
    echo "checking the parts" >&2
    (cd "$here" && sha256sum --check --quiet SHA256SUMS) ||
        { echo "a part is missing or damaged: copy it again" >&2; exit 2; }
    rm -rf "$work/content" "$work/site" "$work/venv"
    mkdir "$work/content"
    # The parts in the order of their list: a folder may hold others, and sorts the thousandth before the second
    while read -r _ part; do cat "$here/$part"; done < "$here/SHA256SUMS" | tar --extract --directory "$work/content"
    cp "$here/SHA256SUMS" "$work/unpacked"
fi

content=$work/content
export PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1
if [ -d "$content/wheels" ] && [ ! -e "$work/venv/installed" ]; then
    echo "installing" >&2
    rm -rf "$work/venv"
    "$python" -m venv "$work/venv"
    "$work/venv/bin/python" -m pip install --quiet --find-links "$content/wheels" -r "$content/requirements.txt"
    "$work/venv/bin/python" -m pip install --quiet --no-deps "$content"/code/*.whl
    touch "$work/venv/installed"
elif [ ! -d "$content/wheels" ] && [ ! -e "$work/site/installed" ]; then
    rm -rf "$work/site"
    "$python" -m pip install --quiet --no-deps --target "$work/site" "$content"/code/*.whl
    touch "$work/site/installed"
fi
exec 9>&-
if [ -d "$content/wheels" ]; then
    python=$work/venv/bin/python
else
    export PYTHONPATH=$work/site
fi

export TEXTDIFF_DATA=$content/data TEXTDIFF_WEIGHTS=$content/weights
export TEXTDIFF_CACHE=$work/cache TEXTDIFF_RESULTS=$work/results/runs HF_HUB_OFFLINE=1
[ ! -f "$content/registry.json" ] || export TEXTDIFF_REGISTRY=$content/registry.json
if [ -d "$content/records" ]; then
    mkdir -p "$TEXTDIFF_RESULTS"
    cp --recursive --no-clobber "$content/records/." "$TEXTDIFF_RESULTS"
fi
mapfile -t words < "$content/sweep.txt"
cd "$work" # away from any folder called textdiff
state=0
"$python" -m textdiff sweep "${words[@]}" --jobs "$jobs" || state=$?

mkdir -p "$TEXTDIFF_RESULTS"
partial=$(mktemp "$home/.records.XXXXXX")
tar --create --gzip --file "$partial" --directory "$work/results" runs
mv "$partial" "$home/records.tar.gz"
echo "records: $home/records.tar.gz" >&2
exit "$state"
