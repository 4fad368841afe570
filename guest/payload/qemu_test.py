#!/usr/bin/env python3
"""Boots the payload under QEMU and reads its table: qemu_test.py PAYLOAD."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import unittest

PAYLOAD = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else None
MARK = b"TROUPE-SCRATCH"
DISK_BYTES = 16 << 20

MACHINES = {
    "microvm": ["-M", "microvm,x-option-roms=off,pit=off,pic=off,isa-serial=on,rtc=off,pcie=on,"
                "acpi=on", "-bios", "/usr/share/qemu/qboot.rom"],
    "q35": ["-M", "q35"],
    # This firmware leaves BARs unassigned.
    "q35-qboot": ["-M", "q35", "-bios", "/usr/share/qemu/qboot.rom"],
}
CPUS = {"kvm": "host,-arch-capabilities", "tcg": "max"}


class Machine:
    """A machine with a scratch disk, a read-only disk, a console and a random number device."""

    def __init__(self, folder, machine, accel="kvm", words="", disks=True, mark=MARK,
                 queues=1):
        self.console = os.path.join(folder, "console")
        self.scratch = os.path.join(folder, "scratch")
        fixed = os.path.join(folder, "fixed")
        for path, start in ((self.scratch, mark), (fixed, b"")):
            with open(path, "wb") as file:
                file.write(start)
                file.truncate(DISK_BYTES)
        self.command = [
            "qemu-system-x86_64", *MACHINES[machine], "-accel", accel, "-cpu", CPUS[accel],
            "-m", "128", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
            "-kernel", PAYLOAD, "-append", words]
        if disks:
            self.command += [
                "-drive", f"if=none,id=d0,format=raw,file={self.scratch}",
                "-device", "virtio-blk-pci,disable-legacy=on,drive=d0,serial=the-scratch-disk,"
                f"num-queues={queues}",
                "-drive", f"if=none,id=d1,format=raw,readonly=on,file={fixed}",
                "-device", "virtio-blk-pci,disable-legacy=on,drive=d1",
                "-device", "virtio-serial-pci,disable-legacy=on,max_ports=2",
                "-chardev", f"file,id=c0,path={self.console}", "-device", "virtconsole,chardev=c0",
                "-chardev", f"file,id=c1,path={self.console}.agent",
                "-device", "virtserialport,chardev=c1,name=agent",
                "-device", "virtio-rng-pci,disable-legacy=on"]

    def run(self, keys=b"", timeout=60):
        """What came over the serial port until the machine was off."""
        done = subprocess.run(self.command, input=keys, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=timeout, check=False)
        text = done.stdout.decode("latin-1").replace("\r", "")
        assert done.returncode == 0, text
        return text


def rows(text):
    """{"blk0 verify": "ok", ...}"""
    return {f"{m[2]} {m[3]}": m[1]
            for m in re.finditer(r"^(ok|FAIL) +(\S+) +((?:\S| (?! ))+)", text, re.M)}


MACHINE_ROWS = {"machine0 " + row for row in
                ("start info", "memory", "acpi", "power-off", "local apic", "ecam")} | {"pci0 functions"}
DEVICE_ROWS = {
    *("blk0 " + row for row in ("start", "capacity", "interrupt", "id", "read", "last sector",
                                "past the end", "unknown type", "scratch", "write", "flush",
                                "verify")),
    *("blk1 " + row for row in ("start", "capacity", "interrupt", "id", "read", "last sector",
                                "past the end", "unknown type", "read-only")),
    *("console0 " + row for row in ("ports", "port", "start", "interrupt", "write")),
    *("rng0 " + row for row in ("start", "interrupt", "bytes", "fresh")),
}


class SelfTest(unittest.TestCase):
    maxDiff = None

    def expect_all_rows(self, *args, also=frozenset(), **kwargs):
        with tempfile.TemporaryDirectory() as folder:
            machine = Machine(folder, *args, **kwargs)
            text = machine.run()
            table = rows(text)
            if "microvm" not in args[0]:  # which has no ports for PCI
                also = also | {"pci0 ports"}
            self.assertEqual(set(table), MACHINE_ROWS | DEVICE_ROWS | also, text)
            self.assertEqual(set(table.values()), {"ok"}, text)
            # The two ports of the console have a row each, of the same name.
            self.assertEqual(text.splitlines()[-1], f"payload: {len(table) + 1} passed, 0 failed")
            self.assertTrue(text.startswith("payload: "), text)
            with open(machine.console, "rb") as console:
                self.assertEqual(console.read(),
                                 b"payload: hello from port 0\n"
                                 + b"payload: hello from the virtio console\n" * 2)
            with open(machine.scratch, "rb") as scratch:
                content = scratch.read()
            self.assertEqual(content[:len(MARK)], MARK)
            self.assertNotEqual(content[-8192:], bytes(8192))
            return text

    def test_microvm(self):
        text = self.expect_all_rows("microvm")
        self.assertRegex(text, r"hardware-reduced")
        self.assertRegex(text, r'id +"the-scratch-disk"')
        self.assertRegex(text, r"[1-9]\d* BARs were unassigned")

    def test_q35(self):
        self.expect_all_rows("q35")

    def test_q35_with_unassigned_bars(self):
        self.assertRegex(self.expect_all_rows("q35-qboot"), r"[1-9]\d* BARs were unassigned")

    def test_emulated_processor(self):
        for machine in ("microvm", "q35"):
            with self.subTest(machine):
                self.expect_all_rows(machine, accel="tcg")

    def test_pin_interrupts(self):
        for machine in ("microvm", "q35"):
            with self.subTest(machine):
                self.expect_all_rows(machine, words="intx", also={"machine0 i/o apic"})

    def test_plain_rings(self):
        self.expect_all_rows("microvm", words="eventidx=0 indirect=0")

    def test_disk_without_the_mark_is_not_written(self):
        with tempfile.TemporaryDirectory() as folder:
            machine = Machine(folder, "microvm", mark=b"precious")
            text = machine.run()
            self.assertRegex(text, r"passed, 0 failed\n$")
            self.assertNotIn("blk0 write", rows(text))
            with open(machine.scratch, "rb") as disk:
                self.assertEqual(disk.read(), b"precious".ljust(DISK_BYTES, b"\0"))


class Bench(unittest.TestCase):
    def lines(self, words, machine="microvm", queues=1):
        with tempfile.TemporaryDirectory() as folder:
            text = Machine(folder, machine, words=words, queues=queues).run()
        self.assertRegex(text, r"passed, 0 failed\n$")
        found = [dict(pair.split("=", 1) for pair in line.split()[2:])
                 for line in text.splitlines() if line.startswith("bench blk ")]
        self.assertTrue(found, text)
        for line in found:
            self.assertGreater(int(line["iops"]), 100)
            self.assertGreater(int(line["tsc_hz"]), 100_000_000)
            times = [int(line[key]) for key in ("p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns")]
            self.assertEqual(times, sorted(times))
            self.assertGreater(times[0], 0)
        return found

    def test_polling_takes_no_interrupt(self):
        lines = self.lines("bench=blk depth=4 count=2000 rounds=3 mode=poll")
        self.assertEqual([line["round"] for line in lines], ["0", "1", "2"])
        for line in lines:
            self.assertEqual((line["mode"], line["interrupts"]), ("poll", "0"))

    def test_interrupt_mode_takes_them(self):
        for machine in ("microvm", "q35"):
            for words in ("", "eventidx=0", "intx"):
                with self.subTest(machine=machine, words=words):
                    line, = self.lines(f"bench=blk count=500 mode=irq {words}", machine)
                    self.assertEqual(line["mode"], "irq")
                    self.assertGreater(int(line["interrupts"]), 0)

    def test_event_index_spares_notifications(self):
        line, = self.lines("bench=blk depth=32 count=10000 mode=poll")
        self.assertLess(int(line["notifications"]), 10000)

    def test_requests_are_dealt_to_the_queues(self):
        for words in ("mode=poll", "mode=irq", "mode=irq eventidx=0", "mode=poll indirect=0"):
            with self.subTest(words=words):
                line, = self.lines(f"bench=blk depth=7 queues=3 count=500 {words}", queues=3)
                self.assertEqual(line["queues"], "3")

    def test_more_queues_than_the_disk_has_are_a_failure(self):
        with tempfile.TemporaryDirectory() as folder:
            text = Machine(folder, "microvm", words="bench=blk depth=2 queues=2").run()
        self.assertRegex(text, r"FAIL +bench0 +queues +the disk has 1\n")
        self.assertNotIn("bench blk", text)

    def test_writes_go_to_a_scratch_disk_only(self):
        line, = self.lines("bench=blk count=200 write=1")
        self.assertEqual(line["op"], "write")
        with tempfile.TemporaryDirectory() as folder:
            text = Machine(folder, "microvm", words="bench=blk write=1", mark=b"precious").run()
        self.assertEqual(rows(text)["bench0 write"], "FAIL")
        self.assertNotIn("bench blk", text)


class Ends(unittest.TestCase):
    def test_hello_is_one_line(self):
        for end in ("poweroff", "reset", "crash"):
            for machine in ("microvm", "q35"):
                with self.subTest(end=end, machine=machine), \
                        tempfile.TemporaryDirectory() as folder:
                    text = Machine(folder, machine, words=f"hello end={end}", disks=False).run()
                    self.assertEqual(text, "payload: hello\n")

    def test_a_bad_value_is_a_failure_by_name(self):
        with tempfile.TemporaryDirectory() as folder:
            text = Machine(folder, "microvm", words="end=never", disks=False).run()
        self.assertIn('FAIL  word "end=never"', text)
        self.assertRegex(text, r"passed, 1 failed\n$")

    def test_keys_are_echoed_until_q(self):
        with tempfile.TemporaryDirectory() as folder:
            machine = Machine(folder, "microvm", words="keys=echo intx")
            with subprocess.Popen(machine.command, stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE) as process:
                for line in process.stdout:
                    if b"until q" in line:
                        break
                process.stdin.write(b"abcq")
                process.stdin.flush()
                rest = process.stdout.read()
        self.assertTrue(rest.replace(b"\r", b"").startswith(b"abc\npayload: "), rest)

    def test_keys_are_echoed_on_the_console(self):
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            path = os.path.join(folder, "socket")
            machine = Machine(folder, "microvm", words="keys=console", disks=False)
            machine.command += ["-device", "virtio-serial-pci,disable-legacy=on,max_ports=1",
                                "-chardev", f"socket,id=c0,server=on,wait=on,path={path}",
                                "-device", "virtconsole,chardev=c0"]
            with subprocess.Popen(machine.command, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE) as process, \
                    socket.socket(socket.AF_UNIX) as client:
                connect(client, path)
                client.settimeout(20)
                received = b""
                while received.count(b"\n") < 2:
                    received += client.recv(1000)
                client.sendall(b"abc")
                while not received.endswith(b"abc"):
                    received += client.recv(1000)
                client.sendall(b"q")
                self.assertIn(b"passed, 0 failed", process.stdout.read())

    def test_idle_spends_next_to_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            machine = Machine(folder, "microvm", words="idle")
            with subprocess.Popen(machine.command, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE) as process:
                for line in process.stdout:
                    if b" failed" in line:
                        break
                time.sleep(1)  # what woke last may still run
                before = cpu_seconds(process.pid)
                time.sleep(2)
                spent = cpu_seconds(process.pid) - before
                process.kill()
        self.assertLess(spent, 0.2)


def connect(client, path):
    """Once QEMU listens there."""
    for _ in range(1000):
        try:
            return client.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.01)
    raise TimeoutError(path)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    unittest.main(verbosity=2)
