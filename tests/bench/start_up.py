"""Start-up time, CPU time and memory of one VM, and how they grow with the number of disks."""

import os
import resource
import statistics
import time

import machines
import pairs
import plot
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

    def __init__(self, machine, disks, more=()):
        self.process = machine.start("idle", disks, more=more)
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


def idle_cpu_shares(machine, disks, seconds=5, more=()):
    """CPU used by an idle VM, in percent of one CPU, from 1 s after it went idle: [(program,
    percent)…] of each of its processes, those that used most first."""
    with Idle(machine, disks, more) as pid:
        time.sleep(1)
        before = processes.cpu_by_process(pid)
        time.sleep(seconds)
        after = processes.cpu_by_process(pid)
        shares = [(processes.program(one), (used - before.get(one, 0)) / seconds * 100)
                  for one, used in after.items()]
        return sorted(shares, key=lambda share: -share[1])


def idle_cpu_percent(machine, disks, seconds=5, more=()):
    return sum(percent for _, percent in idle_cpu_shares(machine, disks, seconds, more))


def slope(points):
    """Least-squares growth of y per x over [(x, y)…]."""
    mean_x = statistics.mean(x for x, _ in points)
    mean_y = statistics.mean(y for _, y in points)
    return (sum((x - mean_x) * (y - mean_y) for x, y in points)
            / sum((x - mean_x) ** 2 for x, _ in points))


def fastest(peers, disks):
    return min(peers, key=lambda peer: statistics.median(
        first_byte_ms(peer, disks) for _ in range(3)))


def report(ours, peers, disk_files, count, out):
    disks = [machines.Disk(disk_files[0])]
    out("\n## Start-up: blk + console + rng, 128 MiB, 1 vCPU")
    best = fastest(peers, disks)
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
    shares = idle_cpu_shares(ours, disks, 20, ours.everything())
    percent = sum(share for _, share in shares)
    out(f"the same with net, vsock and balloon, passt included: {percent:.3f} % (goal <= 0.1 "
        f"{'met' if percent <= 0.1 else 'MISSED'}); of this "
        + ", ".join(f"{program} {share:.3f} %" for program, share in shares))


# What one more disk may cost: column of growth(), unit, goal.
SLOPES = [("time to the first byte", "ms", 0.7), ("CPU time", "ms", 1.1),
          ("private memory", "MB", 0.5)]


def growth(ours, peers, disk_files, count, out):
    """The same with more and more disks; the curve for the plot."""
    out("\n## Growth with the number of disks")
    best = fastest(peers, [machines.Disk(disk_files[0])])
    out(f"peer: {best.name}; medians of {count}, one idle VM for the memory")
    out(f"{'disks':>6} {'ours ms':>9} {'peer ms':>9} {'ours CPU ms':>12} {'peer CPU ms':>12} "
        f"{'ours private MB':>16} {'peer private MB':>16}")
    columns = {machine: [[], [], []] for machine in (ours, best)}
    for number in DISK_COUNTS:
        disks = [machines.Disk(path) for path in disk_files[:number]]
        sides = [lambda machine=machine, call=call: call(machine, disks)
                 for call in (first_byte_ms, cpu_ms) for machine in (ours, best)]
        values, _ = pairs.measure_all(sides, count)
        row = [statistics.median(value) for value in values]
        row += [memory_mb(machine, disks)["private"] for machine in (ours, best)]
        out(f"{number:>6} {row[0]:>9.2f} {row[1]:>9.2f} {row[2]:>12.2f} {row[3]:>12.2f} "
            f"{row[4]:>16.2f} {row[5]:>16.2f}")
        for side, machine in enumerate((ours, best)):
            for column in range(3):
                columns[machine][column].append((number, row[2 * column + side]))
    for column, (label, unit, goal) in enumerate(SLOPES):
        per_disk = slope(columns[ours][column])
        out(f"{label} per disk: {per_disk:.2f} {unit} (goal <= {goal} "
            f"{'met' if per_disk <= goal else 'MISSED'}); peer "
            f"{slope(columns[best][column]):.2f} {unit}")
    return plot.Curve("start-up by the number of disks", "disks", "ms to the guest's first byte",
                      {"ours": columns[ours][0], best.name: columns[best][0]})
