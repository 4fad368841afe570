"""4 KiB random reads: through our jailed block process, through QEMU's, and without any VM (fio)."""

import json
import os
import re
import resource
import statistics
import subprocess
import threading
import time

import pairs
import processes

DEPTHS = {1: 20000, 32: 60000}


class Bench:
    """One guest run: IOPS, percentiles and CPU microseconds per request."""

    def __init__(self, iops, cpu_us):
        self.iops, self.cpu_us = iops, cpu_us


def pin(machine, process):
    """vCPU on CPU 0, the disk's thread on CPU 1, as soon as both exist."""
    until = time.monotonic() + 2
    while time.monotonic() < until:
        names = processes.threads(process.pid)
        if machine.vcpu_thread in names and machine.disk_thread in names:
            os.sched_setaffinity(names[machine.vcpu_thread], {0})
            os.sched_setaffinity(names[machine.disk_thread], {1})
            return
        time.sleep(0.005)


def run(machine, disk, depth, mode, pinned, direct, count=None):
    count = count or DEPTHS[depth]
    words = f"bench=blk depth={depth} count={count} mode={mode} warmup=2000 rounds=1"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = machine.start(words, [disk], direct, devices=False)
    if pinned:
        threading.Thread(target=pin, args=(machine, process), daemon=True).start()
    text = process.stdout.read().decode(errors="replace")
    process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    rates = [float(rate) for rate in re.findall(r"^bench .*\biops=(\d+)", text, re.M)]
    if not rates:
        raise RuntimeError(f"{machine.name}: no figure from the guest: {text[-500:]!r}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Bench(statistics.median(rates), used * 1e6 / (count + 2000))


def fio_iops(disk, depth):
    """fio's own rate on the same file, the better of two engines: what the host can give."""
    best = 0
    for engine in ("psync", "io_uring") if depth == 1 else ("io_uring",):
        result = subprocess.run(
            ["fio", "--name=limit", f"--filename={disk}", "--rw=randread", "--bs=4k", "--direct=1",
             f"--ioengine={engine}", f"--iodepth={depth}", "--runtime=2", "--time_based",
             "--output-format=json"], capture_output=True, text=True, check=True)
        best = max(best, json.loads(result.stdout)["jobs"][0]["read"]["iops"])
    return best


def best_peer(peers, disk, depth, mode, direct):
    rates = {peer: statistics.median(run(peer, disk, depth, mode, True, direct, 8000).iops
                                     for _ in range(2)) for peer in peers}
    return max(rates, key=rates.get)


def report(ours, peers, tmpfs_disk, ext4_disk, count, out):
    goals = {("tmpfs", 1): ">= 3.0", ("tmpfs", 32): ">= 2.0"}
    for place, disk, direct in [("tmpfs", tmpfs_disk, False), ("ext4 O_DIRECT", ext4_disk, True)]:
        out(f"\n## 4 KiB random reads on {place}")
        for mode in ("poll", "irq"):
            for depth in DEPTHS:
                peer = best_peer(peers, disk, depth, mode, direct)
                out(f"{mode}, depth {depth}; peer: the best of QEMU's settings, {peer.name}")
                out(pairs.HEADER)
                for pinned in (True, False):
                    cpu = {"ours": [], "peer": []}

                    def one(machine, side):
                        result = run(machine, disk, depth, mode, pinned, direct)
                        cpu[side].append(result.cpu_us)
                        return result.iops

                    series = pairs.measure(lambda: one(ours, "ours"), lambda: one(peer, "peer"),
                                           count)
                    where = "pinned" if pinned else "free"
                    goal = goals.get((place, depth), "") if mode == "poll" and pinned else ""
                    out(series.row(f"{mode}, depth {depth}, {where}", "kIOPS", goal, 1e-3))
                    out(f"{'':<8}CPU time per request: ours "
                        f"{statistics.median(cpu['ours']):.2f} us, "
                        f"peer {statistics.median(cpu['peer']):.2f} us")
        if direct:
            for depth in DEPTHS:
                series = pairs.measure(lambda: run(ours, disk, depth, "poll", True, direct).iops,
                                       lambda: fio_iops(disk, depth), count)
                out(series.row(f"poll, depth {depth}, pinned / fio on the host", "kIOPS",
                               ">= 0.95", 1e-3))
