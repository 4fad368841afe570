"""Runs the built `troupe` and looks for what it leaves behind."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import unittest

# What `troupe run` says before the guest runs of a machine that lacks a part of the jail.
NOTES = re.compile(r"^troupe: (not every limit of its jails is in force|this kernel lacks layers|"
                   r"the actors' filters are attested).*\n", re.M)

BIN = os.path.join(os.getcwd(), "bin")
DYING_ACTOR = os.path.join(os.getcwd(), "vmm/testing/dying_actor")


def run_folder():
    if os.geteuid() == 0:
        return "/run/troupe"
    if os.environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(os.environ["XDG_RUNTIME_DIR"], "troupe")
    return f"/tmp/troupe-{os.geteuid()}"


class ProgramTest(unittest.TestCase):
    """Each test has a folder of its own with its own copy of the programs, so that their processes
    can be told from anybody else's."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="troupe-test-", dir="/tmp")
        os.chmod(self.folder, 0o755)
        self.bin = os.path.join(self.folder, "bin")
        shutil.copytree(BIN, self.bin, symlinks=False)
        self.troupe = os.path.join(self.bin, "troupe")
        self.started = []
        # Root's VMs of all tests share one run-time folder.
        self.name = f"test-{os.getpid()}-{self.id().split('.')[-1]}"[:60]
        self.cid = 4100000000 + os.getpid()

    def tearDown(self):
        for process in self.started:
            self.end(process)
        self.assertNothingLeft()
        shutil.rmtree(self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def file(self, name, content=b"", size=None):
        with open(self.path(name), "wb") as file:
            file.write(content)
            if size is not None:
                file.truncate(size)
        return self.path(name)

    def run_troupe(self, *words, **more):
        """The finished process of `troupe WORDS`."""
        result = subprocess.run([self.troupe, *words], stdin=subprocess.DEVNULL,
                                capture_output=True, timeout=60, errors="surrogateescape", **more)
        result.stderr = NOTES.sub("", result.stderr)
        return result

    def start(self, kernel, *words, **more):
        """`troupe run` in the background, running under self.name when this returns."""
        process = subprocess.Popen(
            [self.troupe, "run", "--kernel", kernel, "--memory", "64M", "--name", self.name,
             "--serial", f"file={self.path('serial')}", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            errors="surrogateescape", **more)
        self.started.append(process)
        deadline = time.time() + 30
        while time.time() < deadline and process.poll() is None:
            status = self.run_troupe("status", self.name, "--json")
            if status.returncode == 0 and json.loads(status.stdout)["state"] == "running":
                return process
            time.sleep(0.02)
        self.fail(f"the VM does not run: {process.poll()} {process.communicate(timeout=5)}")

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=10)
        for pipe in (process.stdout, process.stderr):
            if pipe and not pipe.closed:
                pipe.close()

    def actors(self):
        """The actors of the running VM: pid by name."""
        status = json.loads(self.run_troupe("status", self.name, "--json").stdout)
        return {actor["name"]: actor["pid"] for actor in status["actors"]}

    def processes(self):
        """Living processes of this test's programs."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/exe").startswith(self.bin + "/"):
                    found.append(int(pid))
            except OSError:
                pass
        return found

    def assertNothingLeft(self):
        deadline = time.time() + 2  # a killed process needs a moment to be gone
        while self.processes() and time.time() < deadline:
            time.sleep(0.02)
        self.assertEqual(self.processes(), [])
        folder = run_folder()
        mine = [name for name in os.listdir(folder) if name.startswith(self.name)] \
            if os.path.isdir(folder) else []
        self.assertEqual(mine, [])

    def assertError(self, result, exit_code, code, *words):
        """One clear error: its code in front, the exit code documented, the words in it."""
        shown = f"{result.returncode}: {result.stderr}"
        self.assertEqual(result.returncode, exit_code, shown)
        lines = result.stderr.splitlines()
        self.assertTrue(lines, "no error was printed")
        self.assertTrue(lines[0].startswith(f"troupe: {code}: "), shown)
        self.assertEqual(result.stderr.count("TRP-"), 1, shown)
        self.assertTrue(all(line.startswith("  ") for line in lines[1:]), shown)
        for word in words:
            self.assertIn(word, result.stderr)
        self.assertNothingLeft()
