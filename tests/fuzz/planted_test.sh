#!/bin/bash
# Each planted bug is found from the checked-in corpus on: planted_test.sh BINARY BUG...
# Every bug has a minute; how long it took is printed.
set -u
binary=$1
shift
corpus=tests/fuzz/corpus/$(basename "$binary")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
for bug in "$@"; do
  mkdir -p "$work/$bug"
  begin=$(date +%s%N)
  TROUPE_PLANTED=$bug "$binary" -seed=1 -max_total_time=60 -max_len=1024 -timeout=10 -entropic=0 \
    -detect_leaks=0 -artifact_prefix="$work/$bug-" "$work/$bug" "$corpus" 2>"$work/log"
  status=$?
  took=$((($(date +%s%N) - begin) / 1000000))
  what=$(grep -m1 -oE 'FINDING: .*|ERROR: (AddressSanitizer|libFuzzer): .*|runtime error: .*' "$work/log")
  if [ $status = 0 ] || [ -z "$what" ]; then
    echo "$bug: not found in $took ms"
    tail -3 "$work/log"
    failed=1
  else
    echo "$bug: found in $took ms: $what"
  fi
done
exit $failed
