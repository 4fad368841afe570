"""How long a disk is away when its process is killed, and what being ready for that costs."""

import math
import os
import re
import signal
import statistics
import subprocess
import time

import block
import host
import machines
import pairs
import start_up

KILLS = 100
KINDS = ("balloon", "blk", "console", "net", "rng", "vsock")
AGAIN_AND_AGAIN = "restart { policy: ALWAYS restarts: 1000 seconds: 1 spare: %d }"


class Restarting(machines.Troupe):
    """Ours, with `restart` in the profiles of all devices."""

    def __init__(self, restart):
        super().__init__()
        for kind in KINDS:
            path = f"devices/{kind}/{kind}.profile"
            copy = os.path.join(self.folder, "profiles", path)
            os.makedirs(os.path.dirname(copy))
            with open(os.path.join(machines.ROOT, path)) as file:
                text = re.sub(r"restart \{[^}]*\}", restart, file.read())
            with open(copy, "w") as file:
                file.write(text)

    def command(self, words, disks, devices):
        return super().command(words, disks, devices) + [
            "--profile-dir", os.path.join(self.folder, "profiles")]


def blk_below(pid):
    """The disk's processes among the children of `pid`, the one that serves first."""
    found = subprocess.run(["pgrep", "-P", str(pid), "-f", "^troupe-blk"], capture_output=True,
                           text=True, check=True)
    return sorted(map(int, found.stdout.split()))


def is_ready(pid):
    """Whether a process has taken the filter under which it serves."""
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(r"Seccomp_filters:\s*(\d+)", file.read())[1]) >= 2


def private_bytes(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return 1024 * sum(map(int, re.findall(r"Private_\w+:\s*(\d+)", file.read())))


def with_spare(pid):
    """The process that serves and the one that waits, once there are two."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found = blk_below(pid)
        if len(found) == 2 and is_ready(found[1]):
            time.sleep(0.02)  # it is looked at from outside before it counts
            return found
        time.sleep(0.002)
    raise RuntimeError("there is no spare process")


def stalls(disk, depth, write=False, spare=False):
    """The longest wait of a request in each round in which the process was killed, in ms; and what a
    spare takes for itself."""
    ours = Restarting(AGAIN_AND_AGAIN % spare)
    memory = 0
    # A round is long enough for the kill and the pause to lie in it.
    count = 8000 if disk.direct else 20000
    # While a spare is awaited rounds go by without a kill: the longest waits are those of the kills.
    rounds = (KILLS + 2) * (8 if spare else 1)
    kills = 0
    words = f"bench=blk depth={depth} count={count} rounds={rounds} mode=irq"
    if write:
        words += " write=1 scratch"
    vm = ours.start(words, [disk], devices=False)
    waits = []
    try:
        for line in iter(vm.stdout.readline, b""):
            figure = re.search(rb"^bench blk .* round=(\d+) .*\bmax_ns=(\d+)", line)
            if not figure:
                continue
            if int(figure[1]) > 1:  # the first kill is not counted
                waits.append(int(figure[2]) / 1e6)
            if kills <= KILLS and int(figure[1]) < rounds - 1:
                kills += 1
                if spare:
                    serving, waiting = with_spare(vm.pid)
                    memory = private_bytes(waiting)
                    os.kill(serving, signal.SIGKILL)
                else:
                    os.kill(blk_below(vm.pid)[-1], signal.SIGKILL)
    finally:
        vm.kill()
        vm.wait()
        ours.close()
    if min(len(waits), kills) < KILLS:
        raise RuntimeError(f"only {kills} kills in {len(waits)} rounds")
    return sorted(waits)[-KILLS:], memory


class Recorded(machines.Troupe):
    """Ours, with what its disk sees recorded into a file on tmpfs."""

    def command(self, words, disks, devices):
        path = os.path.join(self.folder, "recording")
        if os.path.exists(path):
            os.unlink(path)
        return super().command(words, disks, devices) + [
            "--record", f"blk0={path}", "--record-limit", "1G"]


def idle_cost(disk, out):
    """A VM with every device, whose guest halts, with and without anybody who looks after them."""
    out("\n## What it costs an idle VM that its devices are looked after: CPU, 20 s each")
    disks = [machines.Disk(disk)]
    used = []
    for restart in (AGAIN_AND_AGAIN % 0, AGAIN_AND_AGAIN % 1, "restart { policy: NEVER }"):
        ours = Restarting(restart)
        try:
            used.append(start_up.idle_cpu_percent(ours, disks, 20, ours.everything()))
        finally:
            ours.close()
    out(f"heartbeats and journals {used[0]:.3f} %, with a spare for each device as well "
        f"{used[1]:.3f} %, without either {used[2]:.3f} % (goal for the whole VM <= 0.1 "
        f"{'met' if used[0] <= 0.1 else 'MISSED'})")


def recording_cost(place, count, out):
    """Short runs: what is recorded has room in memory, and its writer the other CPU."""
    plain, recorded = machines.Troupe(), Recorded()
    load = block.Load(32, count=20000, warmup=1000)
    try:
        series = pairs.measure(lambda: block.run(recorded, place.disk, load).iops,
                               lambda: block.run(plain, place.disk, load).iops, count)
        out(series.row(f"{place.name}, read, depth 32: with --record / without", "kIOPS", "", 1e-3))
    finally:
        plain.close()
        recorded.close()


def report(places, images, count, out):
    """`places`: on tmpfs first. `images`: the same with the disk in a qcow2 image."""
    out(f"\n## kill -9 of a disk's process: the longest wait its guest sees, {KILLS} kills after a first one "
        "that does not count, 4 KiB, depth 32, interrupts, jail on")
    tried = [(f"{place.name}, read", place.disk, False) for place in places]
    tried += [(f"qcow2 on {place.name}, write", place.disk, True) for place in images]
    for name, disk, write in tried:
        waits, _ = stalls(disk, 32, write)
        out(f"{name}: p50 {statistics.median(waits):.1f} ms, "
            f"p99 {waits[math.ceil(len(waits) * 0.99) - 1]:.1f} ms, worst {waits[-1]:.1f} ms "
            "(goal for reads on tmpfs: p50 <= 6 ms, p99 <= 25 ms)")
    for place in places:
        waits, memory = stalls(place.disk, 32, spare=True)
        out(f"{place.name}, read, with a spare ({memory / 1e6:.2f} MB private): "
            f"p50 {statistics.median(waits):.2f} ms, "
            f"p99 {waits[math.ceil(len(waits) * 0.99) - 1]:.1f} ms, worst {waits[-1]:.1f} ms "
            "(goal on tmpfs: p50 <= 1 ms)")
    out("\n## What journals and counters cost: the device alone, 4 KiB at random, polling, pinned")
    out(pairs.HEADER)
    for place in places:
        series = pairs.measure(lambda: host.run("device", place.disk, 32, journal=True),
                               lambda: host.run("device", place.disk, 32, counters=True), count)
        out(series.row(f"{place.name}, read, depth 32: with journals and counters / with counters",
                       "kIOPS", ">= 0.98", 1e-3))
        series = pairs.measure(lambda: host.run("device", place.disk, 32, counters=True),
                               lambda: host.run("device", place.disk, 32), count)
        out(series.row(f"{place.name}, read, depth 32: with counters / without", "kIOPS",
                       ">= 0.99", 1e-3))
    recording_cost(places[0], count, out)
    idle_cost(places[0].disk.path, out)
