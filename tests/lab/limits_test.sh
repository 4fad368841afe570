#!/usr/bin/env bash
# Actors in control groups, where these are complete: see limits.sh.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
exec "$here/lab" -m 3072 -t 700 -- bash "$here/limits.sh" "$PWD"
