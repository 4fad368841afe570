#!/usr/bin/env bash
# A bundle that `troupe guest create --from-debian` makes, launched by `troupe launch` inside the lab:
# see linux/bundle_checks.py. What the emulated processor has lost is run a second time.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
bin=${TROUPE_BIN:-$(dirname "$(readlink -f bin/troupe)")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$bin/troupe" guest create "$work/debian" --from-debian
python3 -B "$here/linux/vmlinux.py" "$work/debian/vmlinuz" > "$work/debian/vmlinux"
"$here/lab" -m 4096 -t "${LAB_SECONDS:-300}" -- bash -c "
  mkdir -m 755 /tmp/bin && cp $bin/troupe* /tmp/bin/ && chmod 755 /tmp/bin/* &&
  python3 -B $here/linux/bundle_checks.py /tmp/bin $work/debian"
