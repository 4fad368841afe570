#!/usr/bin/env bash
# Control groups of many guests at once, where these are complete: see realm_groups.sh.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
exec "$here/lab" -m 4096 -t "${LAB_SECONDS:-600}" -- bash "$here/realm_groups.sh" "$PWD"
