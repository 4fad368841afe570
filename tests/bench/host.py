"""Requests on a file without a VM: by fio, by a bare loop, and by the block device alone."""

import json
import os
import re
import subprocess

import machines

DRIVER = os.path.join(machines.ROOT, "bazel-bin/devices/blk/blk_alone")
DEVICE = os.path.join(machines.ROOT, "bazel-bin/bin/troupe-blk")


def run(what, disk, depth, write=False, size=4096, journal=False, counters=False):
    """Requests per second; `what` is "device", or "loop" for preadv() or pwritev() in a loop."""
    command = [DRIVER, what, disk.path, f"depth={depth}", f"size={size}", f"program={DEVICE}"]
    command += [word for word, wanted in [("write", write), ("direct", disk.direct),
                                          ("qcow2", disk.format == "qcow2"),
                                          ("journal", journal),
                                          ("counters", counters)] if wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    figure = re.search(r"^alone .*\biops=(\d+)", done.stdout, re.M)
    if done.returncode or not figure:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return float(figure[1])


def fio_iops(disk, depth, write=False):
    """fio's own rate on the same file, the better of two engines: what the host can give."""
    best = 0
    for engine in ("psync", "io_uring") if depth == 1 else ("io_uring",):
        result = subprocess.run(
            ["fio", "--name=limit", f"--filename={disk.path}", "--bs=4k", "--direct=1",
             f"--rw={'randwrite' if write else 'randread'}", f"--ioengine={engine}",
             f"--iodepth={depth}", "--runtime=1", "--time_based", "--allow_file_create=0",
             "--output-format=json"], capture_output=True, text=True, check=True)
        job = json.loads(result.stdout)["jobs"][0]
        best = max(best, job["write" if write else "read"]["iops"])
    return best
