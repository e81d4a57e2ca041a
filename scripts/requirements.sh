#!/bin/sh
# Lock the Python packages of builders: each version with the hashes of all its files, from PyPI alone.
#
#   requirements.sh [--upgrade]
#
#   requirements.txt          what bundler imports
#   requirements-build.txt    what `pip install .` needs to make the wheel
#
# Versions that pyproject.toml still allows are kept; --upgrade takes the newest.
set -eu
cd "$(dirname "$0")/.."
"$PWD/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[release]"

# pip's configuration and variables may name files that only this machine has
unset PIP_FIND_LINKS PIP_EXTRA_INDEX_URL
export PIP_CONFIG_FILE=/dev/null

compile() {
    .venv/bin/python -m piptools compile --quiet --strip-extras --generate-hashes --allow-unsafe --no-header \
        --no-emit-index-url --no-emit-trusted-host --no-emit-find-links "$@" pyproject.toml
}

compile "$@" --output-file requirements.txt
compile "$@" --all-build-deps --only-build-deps --output-file requirements-build.txt
