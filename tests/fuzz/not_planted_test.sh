#!/bin/bash
# What ships has no planted bug in it and nobody who watches: not_planted_test.sh BINARY...
set -u
failed=0
for binary in "$@"; do
  symbols=$(nm -C "$binary") || exit 1
  if ! grep -q 'troupe::' <<<"$symbols"; then
    echo "$binary: has no symbols to look at"
    failed=1
  fi
  if grep -E 'troupe::fuzz::|troupe::virtio::watch::' <<<"$symbols"; then
    echo "$binary: was built for fuzzing"
    failed=1
  fi
  if grep -aqE 'TROUPE_PLANTED|used-ring-overrun' "$binary"; then
    echo "$binary: knows planted bugs"
    failed=1
  fi
done
exit $failed
