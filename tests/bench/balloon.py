"""Pages that a guest puts into its balloon, beside QEMU's balloon and a bare loop that makes holes."""

import os
import re
import subprocess

import machines
import pairs

LOOP = os.path.join(machines.ROOT, "bazel-bin/tests/bench/hole_loop")
PAGES = 8192  # each exists before it is given back
# The distance of the pages: neighbours, as a guest that frees much at once has them, and every second one.
SHAPES = [("neighbours", 4096), ("apart", 8192)]
LIST = 256  # pages that the guest names at a time, as Linux does


def run(machine, stride, mode):
    """Pages a second, as the guest sees it."""
    words = f"bench=balloon count={PAGES} size={stride} rounds=1 mode={mode}"
    process = machine.start(words + machine.balloon_words, devices=False, balloon=True)
    text = process.stdout.read().decode(errors="replace")
    process.wait()
    line = re.search(r"^bench balloon .*pages_per_second=(\d+)", text, re.M)
    if not line or " 0 failed" not in text:
        raise RuntimeError(f"{machine.name}: no figure from the guest: {text[-500:]!r}")
    return float(line[1])


def limit(call, stride):
    return float(subprocess.run([LOOP, call, str(PAGES), str(stride), str(LIST)], check=True,
                                capture_output=True, text=True).stdout)


def report(ours, peer, count, out):
    out("\n## Balloon: pages given back per second, beside QEMU's and a bare loop on a memfd")
    out(pairs.HEADER)
    for shape, stride in SHAPES:
        for mode in ("poll", "irq"):
            series = pairs.measure(lambda: run(ours, stride, mode),
                                   lambda: run(peer, stride, mode), count)
            out(series.row(f"{shape}, {mode} / qemu", "kpages/s", "", 1e-3))
        series = pairs.measure(lambda: run(ours, stride, "poll"),
                               lambda: limit("fallocate", stride), count)
        out(series.row(f"{shape}, poll / a loop of fallocate()", "kpages/s", "", 1e-3))
        series = pairs.measure(lambda: limit("fallocate", stride),
                               lambda: limit("madvise", stride), count)
        out(series.row(f"{shape}, a loop of fallocate() / of MADV_REMOVE", "kpages/s", "", 1e-3))
