"""Starts `troupe` in tests, as this user or as an ordinary one, and looks at what it leaves."""

import json
import os
import shutil
import subprocess
import tempfile
import time

BIN = os.path.dirname(os.path.realpath("bin/troupe"))
PAYLOAD = os.path.realpath("guest/payload/payload.elf")
KVM_GROUP = 107  # stands for the group kvm, which this machine's /etc/group may lack
ROOTS_FOLDER = "/run/troupe"
ORDINARY_USER = 1000  # any id but 0; it need not have an entry in /etc/passwd

# An ordinary user of group kvm, whatever the mode of this machine's /dev/kvm: a private mount
# namespace shows the command a node of the right group there.
AS_USER = """
set -e
mount --make-rprivate /
mknod -m 660 "$1/kvm" c 10 232
chgrp %d "$1/kvm"
mount --bind "$1/kvm" /dev/kvm
shift
exec setpriv --reuid=%d --regid=%d --groups=%d "$@"
"""


class Folder:
    """A scratch folder with a run-time folder and copies of the executables any user may read."""

    def __init__(self, user=None):
        self.user = user
        self.path = tempfile.mkdtemp(prefix="troupe-test.", dir="/tmp")
        os.chmod(self.path, 0o755)
        self.bin = BIN
        self.payload = PAYLOAD
        if user is not None:
            self.bin = self.file("bin")
            os.mkdir(self.bin)
            for name in os.listdir(BIN):
                shutil.copy(os.path.join(BIN, name), self.bin)
                os.chmod(os.path.join(self.bin, name), 0o755)
            self.payload = shutil.copy(PAYLOAD, self.file("payload"))
            os.chmod(self.payload, 0o644)
        os.mkdir(self.file("run"), 0o700)
        os.mkdir(self.file("guest"), 0o700)
        if user is not None:
            for name in ("run", "guest"):
                os.chown(self.file(name), user, user)

    def file(self, name):
        return os.path.join(self.path, name)

    def vm(self, word):
        """A name for a VM of this test alone: root's VMs of all tests share one run-time folder."""
        return f"{word}-{self.path.rpartition('.')[2]}"

    def cid(self):
        """An address of sockets for a VM of this test alone, for the same reason."""
        return 4100000000 + os.getpid()

    def disk(self, name, size=1 << 20):
        """A disk of zeroes that the user of this folder owns."""
        path = os.path.join(self.file("guest"), name)
        with open(path, "wb") as file:
            file.truncate(size)
        if self.user is not None:
            os.chown(path, self.user, self.user)
        return path

    def command(self, *words):
        """The command line that runs `troupe WORDS` as this folder's user."""
        command = [os.path.join(self.bin, "troupe"), *map(str, words)]
        if self.user is not None:
            script = AS_USER % (KVM_GROUP, self.user, self.user, KVM_GROUP)
            private = tempfile.mkdtemp(dir=self.path)
            command = ["unshare", "-m", "sh", "-c", script, "sh", private, *command]
        return command

    def environment(self):
        return dict(os.environ, XDG_RUNTIME_DIR=self.file("run"))

    def start(self, *words, stdin=subprocess.DEVNULL, **kwargs):
        return subprocess.Popen(self.command(*words), env=self.environment(), stdin=stdin,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)

    def run(self, *words, seconds=60, **kwargs):
        """(exit status, stdout, stderr) of `troupe WORDS`, both as text."""
        process = self.start(*words, **kwargs)
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += b"\n(killed by the test: it took too long)"
        return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")

    def status(self, name, seconds=20, state="running"):
        """`troupe status NAME --json` once the VM runs."""
        until = time.monotonic() + seconds
        said = ""
        while time.monotonic() < until:
            code, out, said = self.run("status", name, "--json")
            if code == 0:
                status = json.loads(out)
                if status["state"] == state:
                    return status
            time.sleep(0.05)
        raise AssertionError(f"VM {name} did not come to run: {said}")

    def left_over(self):
        """Files in the run-time folder."""
        files = [os.path.join(folder, name) for folder, _, names in os.walk(self.file("run"))
                 for name in names]
        mark = self.vm("")
        if self.user is None and os.path.isdir(ROOTS_FOLDER):
            files += [os.path.join(ROOTS_FOLDER, name) for name in os.listdir(ROOTS_FOLDER)
                      if mark in name]
        return files

    def close(self):
        shutil.rmtree(self.path, ignore_errors=True)


def processes_of(path):
    """pids whose executable lies below `path`, as far as this user can see."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/exe").startswith(path):
                found.append(int(pid))
        except OSError:
            continue
    return found
