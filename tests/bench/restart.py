"""How long a disk is away when its process is killed, and what being ready for that costs."""

import ctypes
import math
import mmap
import os
import re
import select
import signal
import statistics
import struct
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


def wake_on_time():
    """Sleeps of this thread end when they are to, not 50 us later."""
    PR_SET_TIMERSLACK = 29
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)


class Answers:
    """How many requests the only disk of a VM has answered: what its process counts in memory that
    `troupe` holds, whichever process that is."""

    REQUESTS = 128   # CounterPage.queues[0].requests (devices/virtio/queue_counters.h)
    BEGINS_NS = 1e6  # a process that is killed has stopped by then
    LOOK = 1e-4      # more often, and who looks takes the CPU that a replacement needs

    def __init__(self, pid):
        folder = f"/proc/{pid}/fd"
        found = [name for name in os.listdir(folder)
                 if os.readlink(f"{folder}/{name}").startswith("/memfd:journals")]
        fd = os.open(f"{folder}/{found[0]}", os.O_RDONLY)
        self.page = mmap.mmap(fd, 4096, prot=mmap.PROT_READ)
        os.close(fd)

    def close(self):
        self.page.close()

    def count(self):
        return struct.unpack_from("=Q", self.page, self.REQUESTS)[0]

    def kill(self, pid):
        """Kills that process. When, in ms, the pause of the answers ended that this makes; it is seen up
        to 0.15 ms late."""
        last = self.count()
        killed = changed = now = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        longest, end = 0, None
        while changed - killed < self.BEGINS_NS:
            time.sleep(self.LOOK)
            now = time.monotonic_ns()
            if now - killed > 30e9:
                raise RuntimeError("nothing is answered any more")
            count = self.count()
            if count == last:
                continue
            if now - changed > longest:
                longest, end = now - changed, now
            last, changed = count, now
        return (end - killed) / 1e6


class Stalls:
    """Of one kind of disk, in ms: from each kill to the first answer; the longest waits of the rounds in
    which they lay, the other work of a replacement included; and what a spare takes for itself."""

    def __init__(self):
        self.answers = []
        self.waits = []
        self.spare_bytes = 0

    def say(self, name, goal):
        def three(values):
            p99 = values[math.ceil(len(values) * 0.99) - 1]
            return f"p50 {statistics.median(values):.2f} ms, p99 {p99:.1f} ms, worst {values[-1]:.1f} ms"
        return (f"{name}: to the first answer {three(sorted(self.answers))} ({goal}); the longest wait its "
                f"guest sees {three(sorted(self.waits)[-KILLS:])}")


class Rounds:
    """What the guest prints: the longest wait of each round, in ms."""

    def __init__(self, vm):
        self.fd = vm.stdout.fileno()
        self.text = b""
        self.waits = []

    def read(self, timeout):
        """Takes what has been printed, or comes within so many seconds."""
        while select.select([self.fd], [], [], timeout)[0]:
            chunk = os.read(self.fd, 65536)
            if not chunk:
                raise RuntimeError("the guest ended before its disk's process was killed often enough")
            *lines, self.text = (self.text + chunk).split(b"\n")
            for line in lines:
                figure = re.search(rb"^bench blk .*\bmax_ns=(\d+)", line)
                if figure:
                    self.waits.append(int(figure[1]) / 1e6)
            timeout = 0

    def more(self, count):
        """Until so many more rounds are over."""
        wanted = len(self.waits) + count
        until = time.monotonic() + 60
        while len(self.waits) < wanted:
            self.read(1)
            if time.monotonic() > until:
                raise RuntimeError("the guest stands still")


def stalls(disk, depth, write=False, spare=False):
    ours = Restarting(AGAIN_AND_AGAIN % spare)
    found = Stalls()
    # A round is long enough for the kill and the pause to lie in it.
    count = 8000 if disk.direct else 20000
    words = f"bench=blk depth={depth} count={count} rounds=1000000 mode=irq"
    if write:
        words += " write=1 scratch"
    wake_on_time()
    vm = ours.start(words, [disk], devices=False)
    rounds = Rounds(vm)
    try:
        rounds.more(1)
        answers = Answers(vm.pid)
        for number in range(KILLS + 1):
            rounds.more(1)
            if number == 1:  # the first kill is not counted
                found.answers.clear()
                rounds.waits.clear()
            if spare:
                serving, waiting = with_spare(vm.pid)
                found.spare_bytes = private_bytes(waiting)
                rounds.read(0)
                found.answers.append(answers.kill(serving))
            else:
                found.answers.append(answers.kill(blk_below(vm.pid)[-1]))
        rounds.more(2)
        found.waits = rounds.waits
        answers.close()
    finally:
        vm.kill()
        vm.wait()
        ours.close()
    return found


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
    out(f"\n## kill -9 of a disk's process: {KILLS} kills after a first one that does not count, 4 KiB, depth 32, "
        "interrupts, jail on")
    tried = [(f"{place.name}, read", place.disk, False) for place in places]
    tried += [(f"qcow2 on {place.name}, write", place.disk, True) for place in images]
    for name, disk, write in tried:
        found = stalls(disk, 32, write)
        out(found.say(name, "goal for reads on tmpfs: p50 <= 6 ms, p99 <= 25 ms"))
    for place in places:
        found = stalls(place.disk, 32, spare=True)
        out(found.say(f"{place.name}, read, with a spare ({found.spare_bytes / 1e6:.2f} MB private)",
                      "goal on tmpfs: p50 <= 1 ms"))
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
