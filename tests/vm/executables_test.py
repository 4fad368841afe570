#!/usr/bin/env -S python3 -B
"""The executables as shipped: static, position-independent, hardened, and without a resolver."""

import os
import subprocess
import unittest

import machine
import report

JAILED = ("troupe-broker", "troupe-devices", "troupe-front")
ALL = ("troupe", "troupe-policy") + JAILED


def readelf(name, *flags):
    path = os.path.join(machine.BIN, name)
    return subprocess.run(["readelf", "-W", *flags, path], capture_output=True, text=True,
                          check=True).stdout


class Executables(unittest.TestCase):
    def testTheyAreStaticPie(self):
        for name in ALL:
            with self.subTest(name):
                self.assertIn("DYN (Position-Independent", readelf(name, "-h"))
                segments = readelf(name, "-l")
                self.assertNotIn("INTERP", segments)
                self.assertNotIn("NEEDED", readelf(name, "-d"))

    def testRelocatedDataIsReadOnlyAndTheStackIsNotExecutable(self):
        for name in ALL:
            with self.subTest(name):
                segments = readelf(name, "-l").splitlines()
                self.assertTrue(any("GNU_RELRO" in line for line in segments))
                stack = next(line for line in segments if "GNU_STACK" in line)
                self.assertNotIn("E", stack.split()[6])
                for line in segments:
                    if line.split()[:1] == ["LOAD"]:
                        self.assertNotIn("RWE", line.replace(" ", ""))

    def testNoJailedProgramCanLookUpNames(self):
        """kj refers to getaddrinfo; what is linked in its place always refuses."""
        for name in ("troupe",) + JAILED:
            with self.subTest(name):
                symbols = readelf(name, "-s").split()
                self.assertIn("getaddrinfo", symbols)
                for symbol in ("gaih_inet", "__nss_lookup_function", "__nss_lookup",
                               "__res_nsend", "__libc_res_nsearch"):
                    self.assertNotIn(symbol, symbols)

    def testOneExecutableServesEveryDevice(self):
        with open(os.path.join(machine.BIN, "troupe-devices"), "rb") as file:
            devices = file.read()
        names = set(os.listdir("bin")) - set(ALL)
        self.assertLessEqual({"troupe-blk", "troupe-net", "troupe-recorder", "troupe-serial"}, names)
        for name in sorted(names):
            with self.subTest(name), open(os.path.join(machine.BIN, name), "rb") as file:
                self.assertTrue(file.read() == devices)


if __name__ == "__main__":
    report.main()
