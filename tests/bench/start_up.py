"""Start-up time, CPU time and memory of one VM, and how they grow with the number of disks."""

import os
import resource
import statistics
import time

import pairs
import processes

DISK_COUNTS = (1, 2, 4, 8, 16)


def first_byte_ms(machine, disks):
    """From just before the exec to the first byte of the guest's own output."""
    started = time.perf_counter()
    process = machine.start("hello", disks)
    byte = process.stdout.read(1)
    took = (time.perf_counter() - started) * 1e3
    process.stdout.read()
    process.wait()
    if not byte:
        raise RuntimeError(f"{machine.name}: the guest never spoke")
    return took


def cpu_ms(machine, disks):
    """User and system time of all processes of one VM that says hello and powers off."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = machine.start("hello", disks)
    process.stdout.read()
    process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


class Idle:
    """A VM whose guest has initialised every device and halts."""

    def __init__(self, machine, disks):
        self.process = machine.start("idle", disks)
        self.said = b""
        while b"passed," not in self.said:
            chunk = os.read(self.process.stdout.fileno(), 4096)
            if not chunk:
                raise RuntimeError(f"{machine.name}: ended instead of idling: {self.said!r}")
            self.said += chunk

    def __enter__(self):
        return self.process.pid

    def __exit__(self, *_):
        self.process.terminate()
        self.process.stdout.read()
        self.process.wait()


def memory_mb(machine, disks):
    with Idle(machine, disks) as pid:
        time.sleep(0.5)
        used = processes.memory_kib(pid)
    return {kind: kib / 1000 for kind, kib in used.items()}


def idle_cpu_percent(machine, disks, seconds=5):
    """CPU used by an idle VM, in percent of one CPU, from 1 s after it went idle."""
    with Idle(machine, disks) as pid:
        time.sleep(1)
        before = processes.cpu_seconds(pid)
        time.sleep(seconds)
        return (processes.cpu_seconds(pid) - before) / seconds * 100


def slope(points):
    """Least-squares growth of y per x over [(x, y)…]."""
    mean_x = statistics.mean(x for x, _ in points)
    mean_y = statistics.mean(y for _, y in points)
    return (sum((x - mean_x) * (y - mean_y) for x, y in points)
            / sum((x - mean_x) ** 2 for x, _ in points))


def report(ours, peers, disk_files, count, out):
    disks = disk_files[:1]
    out("\n## Start-up: blk + console + rng, 128 MiB, 1 vCPU")
    best = min(peers, key=lambda peer: statistics.median(
        first_byte_ms(peer, disks) for _ in range(3)))
    out(f"peer: the faster to its first byte, {best.name}")
    out(pairs.HEADER)
    for label, call, unit, goal in [
            ("exec to the first guest byte", first_byte_ms, "ms", "<= 0.40"),
            ("CPU of all processes, start to end", cpu_ms, "ms", "<= 0.5")]:
        series = pairs.measure(lambda: call(ours, disks), lambda: call(best, disks), count)
        out(series.row(label, unit, goal))
    memory = [(memory_mb(ours, disks), memory_mb(best, disks)) for _ in range(3)]
    for kind, label, goal in [("pss", "memory without guest RAM, PSS", "<= 0.40"),
                              ("private", "memory without guest RAM, private dirty", "<= 0.25")]:
        series = pairs.Series([a[kind] for a, _ in memory], [b[kind] for _, b in memory], 0)
        out(series.row(label, "MB", goal))
    out("\n## Idle VM")
    percent = idle_cpu_percent(ours, disks)
    out(f"CPU of all processes of an idle VM: {percent:.3f} % (goal <= 0.1 "
        f"{'met' if percent <= 0.1 else 'MISSED'}); {best.name}: "
        f"{idle_cpu_percent(best, disks):.3f} %")

    out("\n## Growth with the number of disks")
    out(f"{'disks':>6} {'ours ms':>9} {'peer ms':>9} {'ours private MB':>16} "
        f"{'peer private MB':>16}")
    times, privates, peer_times, peer_privates = [], [], [], []
    for number in DISK_COUNTS:
        some = disk_files[:number]
        a = statistics.median(first_byte_ms(ours, some) for _ in range(count))
        b = statistics.median(first_byte_ms(best, some) for _ in range(count))
        a_private = memory_mb(ours, some)["private"]
        b_private = memory_mb(best, some)["private"]
        out(f"{number:>6} {a:>9.2f} {b:>9.2f} {a_private:>16.2f} {b_private:>16.2f}")
        times.append((number, a))
        privates.append((number, a_private))
        peer_times.append((number, b))
        peer_privates.append((number, b_private))
    for label, points, peer_points, unit, goal in [
            ("time to the first byte", times, peer_times, "ms", 0.7),
            ("private memory", privates, peer_privates, "MB", 0.5)]:
        per_disk = slope(points)
        out(f"{label} per disk: {per_disk:.2f} {unit} (goal <= {goal} "
            f"{'met' if per_disk <= goal else 'MISSED'}); peer {slope(peer_points):.2f} {unit}")
