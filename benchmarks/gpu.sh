#!/usr/bin/env bash
# Measure the package on one GPU, in at most ten minutes and without a network, into a Markdown file:
#   bash benchmarks/gpu.sh [FILE] [options of benchmarks.gpu]
# FILE is $OUT/gpu.md or build/gpu.md by default. PYTHON is the interpreter to use; else that of .venv, or python3. It needs
# the dependencies of pyproject.toml, and neither an installation of tailmatch nor a network.
set -euo pipefail
cd "$(dirname "$0")/.."
file="${OUT:-build}/gpu.md"
if [[ $# -gt 0 && $1 != --* ]]; then file=$1; shift; fi
python=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}
links=$(mktemp -d)
trap 'rm -rf "$links"' EXIT
ln -s "$PWD" "$links/tailmatch"  # the root of the repository is the package
export PYTHONPATH="$links:$PWD${PYTHONPATH:+:$PYTHONPATH}"
"$python" -m benchmarks.gpu --out "$file" "$@"
