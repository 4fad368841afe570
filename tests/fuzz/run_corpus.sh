#!/bin/bash
# A fixed number of inputs from a corpus on: run_corpus.sh BINARY CORPUS RUNS
# The seed is fixed too, so the same inputs are tried every time.
set -u
binary=$1 corpus=$2 runs=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$binary" -seed=1 -runs="$runs" -max_len=1024 -timeout=10 \
  -rss_limit_mb=2048 -detect_leaks=0 -entropic=0 -artifact_prefix="$work/" -print_final_stats=1 \
  "$work" "$corpus" 2>"$work/log"
status=$?
if [ $status != 0 ]; then
  cat "$work/log"
  for input in "$work"/crash-* "$work"/timeout-* "$work"/oom-*; do
    [ -e "$input" ] && echo "input in base64: $(base64 -w0 "$input")"
  done
  exit 1
fi
done=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")
echo "$done inputs"
if [ "${done:-0}" -lt "$runs" ]; then
  echo "only $done of $runs inputs"
  exit 1
fi
