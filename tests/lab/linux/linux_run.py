"""A run of unmodified Debian Linux inside the lab, and what is checked of each.

A script that imports this takes BIN_DIR INITRD ROOT_DISK as its first arguments: BIN_DIR holds
troupe and the actors' executables. It runs as root inside the lab's level-1 guest (environment:
LAB_KERNEL).
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from lost import ASTRAY, SHUTDOWN, STANDSTILL, give_up

bin_dir, initrd, root_disk = (os.path.abspath(path) for path in sys.argv[1:4])
# Copied to where an ordinary user may read it, as the executables are.
kernel = shutil.copy(os.environ["LAB_KERNEL"], "/tmp/vmlinuz")
failures = 0
printing = threading.Lock()
KVM_GROUP = 107  # stands for the group kvm, which this tree's /etc/group may lack


class Trace:
    """What KVM saw last, for the case that it loses a guest."""

    FOLDER = "/sys/kernel/tracing"
    EVENTS = ("kvm_exit", "kvm_inj_virq", "kvm_inj_exception")

    def __init__(self):
        subprocess.run(["mount", "-t", "tracefs", "tracefs", self.FOLDER], capture_output=True)
        self.write("buffer_size_kb", "256")
        for event in self.EVENTS:
            self.write(f"events/kvm/{event}/enable", "1")

    def write(self, name, value):
        try:
            with open(os.path.join(self.FOLDER, name), "w") as file:
                file.write(value)
        except OSError as error:
            print(f"no trace: {name}: {error}", flush=True)

    def last(self):
        """The lines up to the last shutdown, each processor's in their order."""
        self.write("tracing_on", "0")
        try:
            with open(os.path.join(self.FOLDER, "trace")) as file:
                lines = file.read().splitlines()
        except OSError as error:
            return str(error)
        ends = [number for number, line in enumerate(lines) if "reason shutdown" in line]
        end = ends[-1] + 1 if ends else len(lines)
        return "\n".join(line[:170] for line in lines[max(0, end - 40):end])


def check(name, passed, why=""):
    global failures
    with printing:
        failures += not passed
        print(f"{'ok  ' if passed else 'FAIL'} {name}" + ("" if passed else f": {why}"), flush=True)


class Run:
    """One VM: its folder, its command and, after finish(), what it left behind."""

    def __init__(self, name, cpus=1, end="poweroff", user=None, memory="256M", words="",
                 extra=(), on_reboot="exit"):
        self.name = name
        self.folder = tempfile.mkdtemp(prefix=f"{name}.")
        self.disk = os.path.join(self.folder, "root.ext4")
        shutil.copy(root_disk, self.disk)
        self.serial = os.path.join(self.folder, "serial")
        self.console = os.path.join(self.folder, "console")
        environment = dict(os.environ, XDG_RUNTIME_DIR=os.path.join(self.folder, "run"))
        os.mkdir(environment["XDG_RUNTIME_DIR"], 0o700)
        self.environment = environment
        command = [
            os.path.join(bin_dir, "troupe"), "run", "--name", name,
            "--kernel", kernel, "--initrd", initrd, "--memory", memory, "--cpus", str(cpus),
            "--disk", self.disk, "--serial", f"file={self.serial}",
            "--console", f"file={self.console}", "--on-reboot", on_reboot,
            "--cmdline", f"+quiet panic=-1 root=/dev/vda cpus={cpus} end={end} {words}", *extra,
        ]
        self.become = []  # what stands before a command of the VM's user
        if user:
            for path in (self.folder, self.disk, environment["XDG_RUNTIME_DIR"]):
                os.chown(path, user, user)
            self.become = ["setpriv", f"--reuid={user}", f"--regid={user}",
                           f"--groups={KVM_GROUP}"]
        command = self.become + command
        self.paused = False  # told by who pauses it: then it may be silent
        self.silent = False
        self.said = tempfile.TemporaryFile()  # by `troupe run`
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL,
                                        stdout=self.said, stderr=subprocess.STDOUT)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        """Ends a guest that says nothing any more. What counts are the seconds in which we were running."""
        heard, quiet = 0, 0
        while self.process.poll() is None and quiet <= STANDSTILL:
            time.sleep(1)
            size = os.path.getsize(self.serial) if os.path.exists(self.serial) else 0
            quiet = 0 if size != heard or self.paused else quiet + 1
            heard = size
        if self.process.poll() is None:
            self.silent = True
            self.process.kill()

    def output(self):
        """What `troupe run` has said."""
        return os.pread(self.said.fileno(), 1 << 20, 0).decode(errors="replace")

    def look(self):
        """Ends the script when the emulated processor has lost the guest."""
        astray = SHUTDOWN.search(self.output()) or ASTRAY.search(self.serial_text())
        why = f"it has said nothing for {STANDSTILL} s" if self.silent else astray and astray[0].strip()
        if not why:
            return
        with printing:
            give_up(f"{self.output()}\n{self.serial_text()[-3000:]}\n{trace.last()}",
                    f"{self.name}, after {time.monotonic() - self.started:.1f} s: {why}")

    def serial_text(self):
        try:
            with open(self.serial, errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def troupe(self, *words):
        """A `troupe` command of the VM's user, ended: its output and exit status."""
        return subprocess.run([*self.become, os.path.join(bin_dir, "troupe"), *words],
                              env=self.environment, capture_output=True, text=True)

    def status(self):
        """What `troupe status --json` says of it."""
        for _ in range(5):  # everything is emulated: it may not have answered in time
            said = self.troupe("status", self.name, "--json")
            if said.returncode == 0:
                return json.loads(said.stdout)
            time.sleep(1)
        raise RuntimeError(f"troupe status: {said.returncode}: {said.stderr}")

    def wait_for(self, line, seconds=240, times=1):
        """Whether the serial output holds `line` so often before the time is over or the VM ends."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            self.look()
            if self.serial_text().count(line) >= times:
                return True
            time.sleep(0.2)
        self.look()
        return self.serial_text().count(line) >= times

    def finish(self, status, seconds=240):
        try:
            self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            print(f"{self.name}: it did not end within {seconds} s", flush=True)
        took = time.monotonic() - self.started
        self.look()
        check(f"{self.name}: exit status {status} (after {took:.1f} s)",
              self.process.returncode == status, f"{self.process.returncode}: {self.output()[-2000:]}")
        serial = self.serial_text()
        checks = re.findall(r"CHECK (\w+) (ok|FAILED)(.*)", serial)
        for name, verdict, why in checks:
            check(f"{self.name}: guest: {name}", verdict == "ok", why)
        check(f"{self.name}: the guest came to its end", "CHECKS DONE" in serial, serial[-3000:])
        left = os.listdir(self.environment["XDG_RUNTIME_DIR"])
        left = [os.path.join(d, f) for d, _, fs in os.walk(self.environment["XDG_RUNTIME_DIR"])
                for f in fs]
        check(f"{self.name}: nothing left in the run-time folder", not left, str(left))
        return serial


def check_disk(run):
    """The image is clean, and the file the guest wrote has the checksum the guest computed."""
    fsck = subprocess.run(["e2fsck", "-fn", run.disk], capture_output=True, text=True)
    check(f"{run.name}: e2fsck finds nothing", fsck.returncode == 0, fsck.stdout + fsck.stderr)
    data = subprocess.run(["debugfs", "-R", "cat /data", run.disk], capture_output=True).stdout
    want = subprocess.run(["debugfs", "-R", "cat /data.md5", run.disk], capture_output=True,
                          text=True).stdout.split()
    got = subprocess.run(["md5sum"], input=data, capture_output=True).stdout.decode().split()
    check(f"{run.name}: the host reads what the guest wrote",
          len(data) == 8 << 20 and want[:1] == got[:1], f"{len(data)} bytes, {got} for {want}")


def console_has_hello(run):
    text = ""
    if os.path.exists(run.console):
        with open(run.console, errors="replace") as file:
            text = file.read()
    check(f"{run.name}: hvc0's line arrived", "hello from hvc0" in text, repr(text[-300:]))


def finish():
    """Ends the script: with status 0 when no check failed."""
    print(f"{failures} checks failed" if failures else "all checks passed")
    sys.exit(1 if failures else 0)


os.environ["PATH"] += ":/sbin:/usr/sbin"
trace = Trace()
os.chown("/dev/kvm", 0, KVM_GROUP)
os.chmod("/dev/kvm", 0o660)
