#!/usr/bin/env bash
# Prints the contents of constraints.txt: the versions installed in .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cat <<'TXT'
# What continuous integration installs, so that a new release of a tool breaks nothing by itself. Lower bounds stand in pyproject.toml.
# To renew: make upgrade
TXT
.venv/bin/python -m pip --disable-pip-version-check freeze --exclude-editable | grep -v '^layerwright' | sed "s/^backports.zstd.*/&; python_version < '3.14'/"
