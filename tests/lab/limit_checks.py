"""Whole VMs whose actors have limits, inside the lab: usage: limit_checks.py BIN_DIR PAYLOAD TREE

TREE holds the profiles. Prints a line for each check; the exit status is 0 when none failed.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

bin_dir, payload, tree = sys.argv[1:4]
GROUPS = "/sys/fs/cgroup"
USER, KVM_GROUP = 1000, 107
MIB = 1 << 20
RAM = 64 * MIB
RAM_COST = RAM + RAM // 32
GROUP_COST = 16 * MIB
PROFILES = {"broker": "broker/broker.profile", "front": "vmm/front/front.profile",
            "serial": "devices/console/serial.profile", "console": "devices/console/console.profile",
            "blk": "devices/blk/blk.profile", "rng": "devices/rng/rng.profile",
            "balloon": "devices/balloon/balloon.profile"}
MAPS_RAM = {"balloon", "broker", "blk", "console", "rng"}
failures = 0


def check(name, passed, why=""):
    global failures
    failures += not passed
    print(f"{'ok  ' if passed else 'FAIL'} {name}" + ("" if passed else f": {why}"), flush=True)


def read(*path):
    try:
        with open(os.path.join(*path)) as file:
            return file.read().strip()
    except OSError as error:
        return f"({error.strerror})"


def write(text, *path):
    with open(os.path.join(*path), "w") as file:
        file.write(text)


def limit(kind, name):
    """What an actor's profile says of memory_max or pids_max."""
    text = read(tree, PROFILES[kind])
    return int(re.search(name + r" { value: (\d+)", text).group(1))


def groups_below(folder):
    return sorted(os.path.join(where, name)[len(folder) + 1:]
                  for where, names, _ in os.walk(folder) for name in names)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()


class Vm:
    def __init__(self, name, user=False, group=None):
        self.name, self.user = name, user
        self.folder = tempfile.mkdtemp(prefix=f"{name}.")
        disk = os.path.join(self.folder, "disk")
        with open(disk, "wb") as file:
            file.truncate(MIB)
        run = os.path.join(self.folder, "run")
        os.mkdir(run, 0o700)
        self.environment = dict(os.environ, XDG_RUNTIME_DIR=run)
        self.command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", f"--groups={KVM_GROUP}"] \
            if user else []
        if user:
            for path in (self.folder, disk, run):
                os.chown(path, USER, USER)
        self.process = subprocess.Popen(
            self.command + [
                f"{bin_dir}/troupe", "run", "--name", name, "--kernel", payload, "--memory", "64M",
                "--cmdline", "idle", "--disk", disk, "--serial", f"file={self.folder}/serial",
                "--console", f"file={self.folder}/console"],
            env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
            preexec_fn=lambda: write(str(os.getpid()), group, "cgroup.procs") if group else None)
        self.actors = {}
        until(self.is_running)

    def troupe(self, *words):
        return subprocess.run(self.command + [f"{bin_dir}/troupe", *words], env=self.environment,
                              capture_output=True, text=True)

    def is_running(self):
        if self.process.poll() is not None:
            return True
        result = self.troupe("status", self.name, "--json")
        if result.returncode != 0 or json.loads(result.stdout)["state"] != "running":
            return False
        self.actors = {one["name"]: one for one in json.loads(result.stdout)["actors"]}
        return True

    def group_of(self, actor):
        return GROUPS + read("/proc", str(self.actors[actor]["pid"]), "cgroup").split("::")[-1]

    def finish(self):
        try:
            return self.process.wait(timeout=60), self.process.stdout.read()
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "it did not end", self.process.stdout.read()

    def stop(self):
        self.process.terminate()
        return self.finish()


def check_limits(vm, ground):
    """Every actor is in the group it should be in, with the limits of its profile."""
    whole = f"{ground}/troupe/vm-{vm.name}-{vm.process.pid}"
    check(f"{vm.name}: it has all its actors",
          sorted(vm.actors) == ["blk0", "broker", "console0", "front", "rng0", "serial"],
          f"{sorted(vm.actors)} {vm.process.poll()}")
    total = 0
    for name, actor in vm.actors.items():
        group, kind = vm.group_of(name), actor["kind"]
        check(f"{vm.name}: {name} is in its group", group == f"{whole}/{name}", group)
        # KVM puts its kernel threads beside the process that made the VM.
        others = [pid for pid in read(group, "cgroup.procs").split() if read("/proc", pid, "cmdline")]
        check(f"{vm.name}: {name} is alone there", others == [str(actor["pid"])], others)
        shared = RAM_COST if kind in MAPS_RAM else 0
        own = limit(kind, "memory_max")
        total += own
        for file, value in (("memory.max", own + shared), ("memory.swap.max", shared),
                            ("pids.max", limit(kind, "pids_max"))):
            check(f"{vm.name}: {name} has {file} = {value}", read(group, file) == str(value),
                  read(group, file))
        check(f"{vm.name}: {name} has met no limit",
              "oom 0" in read(group, "memory.events.local") and read(group, "pids.events") == "max 0",
              read(group, "memory.events.local"))
        print(f"     {name}: {int(read(group, 'memory.peak')) // 1024} KiB at most, "
              f"{read(group, 'pids.current')} threads")
    check(f"{vm.name}: together they have what they have, and guest RAM once",
          read(whole, "memory.max") == str(total + RAM_COST + GROUP_COST), read(whole, "memory.max"))
    check(f"{vm.name}: no process lives beside them", read(whole, "cgroup.procs") == "")
    jail = vm.troupe("inspect", vm.name, "jail")
    check(f"{vm.name}: `troupe inspect` shows the limits", "pids.max" in jail.stdout,
          jail.stdout + jail.stderr)


os.chown("/dev/kvm", 0, KVM_GROUP)
os.chmod("/dev/kvm", 0o660)
before = groups_below(GROUPS)

# As root, two at once.
first, second = Vm("first"), Vm("second")
check_limits(first, GROUPS)
check("second: it has a group of its own", os.path.dirname(second.group_of("rng0")) ==
      f"{GROUPS}/troupe/vm-second-{second.process.pid}", second.group_of("rng0"))
front = first.actors["front"]["pid"]
os.kill(front, signal.SIGKILL)
check("first: a new front end takes the place of one that died", until(
    lambda: first.is_running() and first.actors["front"]["pid"] != front))
check("first: the new one is in a group with the limits",
      read(first.group_of("front"), "pids.max") == str(limit("front", "pids_max")))
status, said = first.stop()
check("first: it stops", status == 18, f"{status}: {said}")
check("first: its groups are gone", not os.path.exists(f"{GROUPS}/troupe/vm-first-{first.process.pid}"))

# One whose supervisor is killed: the next one that starts cleans up, and lets the living be.
second.process.kill()
second.finish()
left = f"{GROUPS}/troupe/vm-second-{second.process.pid}"
check("second: a killed supervisor leaves its groups", os.path.exists(left))
third = Vm("third")
fourth = Vm("fourth")
check("third: it removed them", not os.path.exists(left))
check("third: its own stay when another VM starts",
      os.path.exists(f"{GROUPS}/troupe/vm-third-{third.process.pid}/blk0"))

# Real ends: the limit is lowered below what the actor has.
disk = third.actors["blk0"]["pid"]
of_profile = read(third.group_of("blk0"), "memory.max")
write("4096", third.group_of("blk0"), "memory.max")
check("third: a disk that died of its memory limit is replaced", until(lambda: third.is_running() and
      third.actors["blk0"]["pid"] != disk))
check("third: the limit is its profile's again", read(third.group_of("blk0"), "memory.max") == of_profile)
status, said = third.stop()
check("third: it goes on until it is stopped", status == 18, status)
check("third: one message tells it", said.count("TRP-") == 1 and re.search(
    r'^troupe: TRP-run-010: blk0 \(disk ".*"\) died: it met a limit of its jail, and the kernel ended it\n'
    r"  1\. it used all of its memory_max of \d+ MiB beside 64 MiB of guest RAM\n"
    r"  see: devices/blk/blk.profile; `troupe policy show blk`\n  mend: unless somebody has broken "
    r"into it: write into devices/blk/blk.profile: cgroup { memory_max { value: \d+ } }\n", said, re.M),
      said)
write("4096", fourth.group_of("broker"), "memory.max")
status, said = fourth.finish()
check("fourth: the broker's death of its memory limit ends the VM", status == 20, status)
check("fourth: one message tells it", said.count("TRP-") == 1 and
      'troupe: TRP-run-010: the broker of VM "fourth" died: it met a limit' in said, said)
fifth = Vm("fifth")
front = fifth.actors["front"]["pid"]
write("4096", fifth.group_of("front"), "memory.max")
check("fifth: it goes on without its front end", until(lambda: fifth.is_running() and
      fifth.process.poll() is None and fifth.actors["front"]["pid"] != front))
status, said = fifth.stop()
check("fifth: the front end's death is told", "TRP-run-010: the front end of the control socket died" in
      said and "it used all of its memory_max of" in said, said)
check("as root nothing is left", groups_below(GROUPS) == before, groups_below(GROUPS))

# An ordinary user: alone in a delegated group, and without one.
ground = f"{GROUPS}/lab-user"
os.mkdir(ground)
for path in (ground, *(f"{ground}/cgroup.{name}" for name in ("procs", "subtree_control", "threads"))):
    os.chown(path, USER, USER)
sixth = Vm("sixth", user=True, group=ground)
check_limits(sixth, ground)
status, said = sixth.stop()
check("sixth: it stops, and says nothing is missing", status == 18 and "not every limit" not in said, said)
check("sixth: nothing is left in the user's group", groups_below(ground) == [], groups_below(ground))
os.rmdir(ground)
seventh = Vm("seventh", user=True)
check("seventh: without a group of its own it runs", len(seventh.actors) == 6, seventh.process.poll())
doctor = seventh.troupe("doctor")
status, said = seventh.stop()
check("seventh: what is missing is named",
      "\ntroupe: not every limit of its jails is in force: memory_max, pids_max: " in "\n" + said, said)
check("seventh: `troupe doctor` says how to mend it", re.search(
    r"control groups +reduced", doctor.stdout) and "systemd-run --user --scope" in doctor.stdout,
      doctor.stdout)
# Frozen: one device, and a whole VM.
eighth = Vm("eighth")
whole = os.path.dirname(eighth.group_of("rng0"))
for name in ("rng0", "blk0"):
    pid = eighth.actors[name]["pid"]
    time.sleep(3)  # by now it is at rest, or nothing is lost
    write("1", eighth.group_of(name), "cgroup.freeze")
    check(f"eighth: {name}, frozen while it has nothing to do, is replaced", until(
        lambda: eighth.is_running() and eighth.actors[name]["pid"] != pid))
    check(f"eighth: nobody froze the next {name}", read(whole, name, "cgroup.freeze") == "0")
pids = {name: actor["pid"] for name, actor in eighth.actors.items()}
write("1", whole, "cgroup.freeze")
# But for KVM's threads beside the broker, which the kernel lets nobody freeze.
check("eighth: all of it can be frozen", until(lambda: all(
    "frozen 1" in read(whole, name, "cgroup.events") for name in pids if name != "broker")))
time.sleep(5)
check("eighth: its processes are let be while all are frozen", all(
    read("/proc", str(pid), "cgroup").endswith(f"/{name}") for name, pid in pids.items()))
write("0", whole, "cgroup.freeze")
check("eighth: all of it goes on", eighth.is_running() and eighth.process.poll() is None and
      {name: actor["pid"] for name, actor in eighth.actors.items()} == pids, eighth.actors)
status, said = eighth.stop()
check("eighth: it stops, and says who was frozen", status == 18 and all(
    re.search(name + r" \(.*\) hung \(it is frozen\) and was killed; another", said) for name in
    ("rng0", "blk0")), f"{status}: {said}")
check("nothing is left", groups_below(GROUPS) == before, groups_below(GROUPS))

print(f"{failures} checks failed" if failures else "all checks passed")
sys.exit(1 if failures else 0)
