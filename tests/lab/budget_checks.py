"""Budgets of a VM's actors inside the lab: usage: budget_checks.py BIN_DIR PAYLOAD TREE

TREE holds the profiles. What `troupe top` says of limits is what the kernel says, and a network device
that takes all the CPU it can get leaves a disk its share. Prints a line for each check; the exit
status is 0 when none failed.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

bin_dir, payload, tree = sys.argv[1:4]
GROUPS = "/sys/fs/cgroup"
NET_PERCENT = 25  # of one CPU
BUSY_NET = 8      # threads' worth of work
SECONDS = 5
failures = 0


def check(name, passed, why=""):
    global failures
    failures += not passed
    print(f"{'ok  ' if passed else 'FAIL'} {name}" + ("" if passed else f": {why}"), flush=True)


def read(*path):
    with open(os.path.join(*path)) as file:
        return file.read().strip()


class Vm:
    """A VM with a disk and a network that leads nowhere."""

    def __init__(self, name, *options):
        self.name = name
        self.folder = tempfile.mkdtemp(prefix=f"{name}.")
        with open(f"{self.folder}/disk", "wb") as file:
            file.truncate(1 << 20)
        os.mkdir(f"{self.folder}/run", 0o700)
        self.environment = dict(os.environ, XDG_RUNTIME_DIR=f"{self.folder}/run")
        self.wire, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen(
            [f"{bin_dir}/troupe", "run", "--name", name, "--kernel", payload, "--memory", "64M",
             "--cmdline", "idle", "--disk", f"{self.folder}/disk", "--net", f"fd={theirs.fileno()}",
             "--serial", f"file={self.folder}/serial", *options],
            env=self.environment, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        theirs.close()
        while not self.is_running():
            if self.process.poll() is not None:
                raise SystemExit(f"FAIL {name}: it ended with {self.process.returncode}")
            time.sleep(0.1)

    def troupe(self, *words):
        return subprocess.run([f"{bin_dir}/troupe", *words], env=self.environment,
                              capture_output=True, text=True)

    def is_running(self):
        result = self.troupe("status", self.name, "--json")
        return result.returncode == 0 and json.loads(result.stdout)["state"] == "running"

    def top(self):
        result = self.troupe("top", self.name, "--count", "1", "--interval", "0.2", "--json")
        if result.returncode != 0:
            raise SystemExit(f"FAIL {self.name}: {result.stderr}")
        return {one["name"]: one for one in json.loads(result.stdout)["processes"]}

    def group(self, actor):
        return f"{GROUPS}/troupe/vm-{self.name}-{self.process.pid}/{actor}"

    def feed(self, over):
        """Sends frames to the guest until then, as many as its device takes."""
        frame = b"\xff" * 6 + b"\x02" * 6 + bytes(48)
        self.wire.settimeout(0.1)
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                self.wire.send(frame)

    def restarts(self):
        result = self.troupe("status", self.name, "--json")
        return {one["name"]: one["restarts"] for one in json.loads(result.stdout)["actors"]}

    def stop(self):
        self.process.terminate()
        self.process.wait()


def spin_in(group, count):
    """So many processes that never rest, in this group and on the first CPU."""
    def enter():
        os.sched_setaffinity(0, {0})
        with open(f"{group}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
    return [subprocess.Popen(["/bin/busybox", "sh", "-c", "while :; do :; done"], preexec_fn=enter)
            for _ in range(count)]


def used(group):
    """CPU time in microseconds."""
    return int(re.search(r"usage_usec (\d+)", read(group, "cpu.stat")).group(1))


def share_of_blk(vm):
    """Of one CPU that a busy net and a busy blk both want: (blk's, net's) part of it."""
    groups = vm.group("blk0"), vm.group("net0")
    spinners = spin_in(groups[1], BUSY_NET) + spin_in(groups[0], 1)
    try:
        time.sleep(1)  # until all of them spin
        before, begin = [used(group) for group in groups], time.monotonic()
        time.sleep(SECONDS)
        took = time.monotonic() - begin
        return [(used(group) - start) / took / 1e6 for group, start in zip(groups, before)]
    finally:
        for one in spinners:
            one.kill()
            one.wait()


def budgeted():
    """A folder with a profile for net that has a budget of CPU time."""
    folder = tempfile.mkdtemp(prefix="profiles.")
    text = read(tree, "devices/net/net.profile")
    text, count = re.subn(r"(?m)^cgroup \{$", f"cgroup {{\n  cpu_max {{ value: {NET_PERCENT} }}", text)
    assert count == 1, text
    os.makedirs(f"{folder}/devices/net")
    with open(f"{folder}/devices/net/net.profile", "w") as file:
        file.write(text)
    return folder


plain = Vm("plain")
for name, process in plain.top().items():
    limits = {one["name"]: one for one in process["limits"]}
    if name == "troupe":
        check("top: troupe itself has no limits", limits == {}, limits)
        continue
    group = plain.group(name)
    check(f"top: {name} has the limits of its group",
          {key: one["allowed"] for key, one in limits.items()} ==
          {"memory_max": int(read(group, "memory.max")), "pids_max": int(read(group, "pids.max"))},
          limits)
    memory, tasks = limits["memory_max"]["used"], limits["pids_max"]["used"]
    check(f"top: {name} uses what its group does", 0 < memory <= limits["memory_max"]["allowed"] and
          tasks == int(read(group, "pids.current")), f"{memory}, {tasks}")
table = plain.troupe("top", "plain", "--count", "1", "--interval", "0.1").stdout
check("top: the table shows them", re.search(r"(?m)^blk0 .*memory [\d.]+[KM]/[\d.]+[MG], tasks 2/160",
                                             table), table)
blk, net = share_of_blk(plain)
print(f"     without a budget blk has {blk:.0%} of the CPU beside a net that has {net:.0%}")
plain.stop()

bounded = Vm("bounded", "--profile-dir", budgeted())
limits = {one["name"]: one["allowed"] for one in bounded.top()["net0"]["limits"]}
check("top: net0 has its budget of CPU time", limits.get("cpu_max") == NET_PERCENT * 10_000_000, limits)
over = threading.Event()
feeder = threading.Thread(target=bounded.feed, args=(over,))
feeder.start()
blk, net = share_of_blk(bounded)
over.set()
feeder.join()
print(f"     with a budget of {NET_PERCENT}% for net, blk has {blk:.0%} of the CPU and net {net:.0%}")
check("a busy net device cannot starve blk", blk > 0.6 and net < NET_PERCENT / 100 + 0.1,
      f"{blk:.0%}, {net:.0%}")
check("who has no CPU time for what it has to do is not taken for hung", not any(bounded.restarts().values()),
      bounded.restarts())
text = bounded.troupe("top", "bounded", "--count", "1", "--interval", "0.1").stdout
check("top: the table shows that", f"/{NET_PERCENT}%" in text, text)
bounded.stop()

print(f"{failures} checks failed" if failures else "all checks passed")
sys.exit(1 if failures else 0)
