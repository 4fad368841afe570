#!/usr/bin/env bash
# The jail and the jailed devices on the oldest kernel we support: see jailed_devices.sh.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
exec "$here/lab" -m 3072 -t 800 -- bash "$here/jailed_devices.sh" "$PWD" "$@"
