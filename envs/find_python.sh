#!/usr/bin/env bash
# Print a Python that the workflow can run on: the one given, else the first that fits. Fail saying what is missing.
set -euo pipefail

fits='
import sys
import ensurepip, ssl, venv
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
'

usable() {
    command -v "$1" >/dev/null 2>&1 && "$1" -c "$fits" >/dev/null 2>&1
}

for candidate in ${1:-python3 python3.11 python3.12 python3.13}; do
    if usable "$candidate"; then
        "$candidate" -c 'import sys; print(sys.executable)'
        exit
    fi
done

found=$(${1:-python3} --version 2>&1 | head -n 1 || true)
cat >&2 <<MESSAGE
error: no usable Python: needed is 3.11, 3.12 or 3.13 with the modules venv, ensurepip and ssl.
Looked at: ${1:-python3 python3.11 python3.12 python3.13}. ${1:-python3} says: ${found:-nothing}
On Debian and Ubuntu the modules are in the package python3-venv; on a cluster load a Python module.
Another Python is chosen with: make setup PYTHON=/path/to/python3.12
MESSAGE
exit 2
