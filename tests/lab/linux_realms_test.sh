#!/usr/bin/env bash
# Three Debian guests at once in two realms of one `troupe serve`, inside the lab: see linux/realm_checks.py.
#
# Environment: TROUPE_BIN, the folder with the executables; LAB_SECONDS, the time limit.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
images=$here/../../guest/linux
bin=${TROUPE_BIN:-$(dirname "$(readlink -f bin/troupe)")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A bundle as a user makes one, with another root disk: its first process is told what to do.
"$bin/troupe" guest create "$work/debian" --from-debian
"$images/make_root" "$here/linux/realm_guest_init" 64M "$work/debian/root.img" socat > /dev/null
"$here/lab" -m 4096 -t "${LAB_SECONDS:-600}" -- bash -c "
  mkdir -m 755 /tmp/bin && cp $bin/troupe* /tmp/bin/ && chmod 755 /tmp/bin/* &&
  python3 -B $here/linux/realm_checks.py /tmp/bin $work/debian"
