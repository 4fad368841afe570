"""Runs a module's unittest cases and reports each of them to Bazel (XML_OUTPUT_FILE)."""

import os
import time
import unittest
import xml.etree.ElementTree as ElementTree


class Result(unittest.TextTestResult):
    """Keeps (name, seconds, trouble) of every case but those that are skipped."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.cases = []

    def startTest(self, test):
        super().startTest(test)
        self.started, self.trouble, self.isSkipped = time.monotonic(), "", False

    def addError(self, test, err):
        super().addError(test, err)
        self.trouble = self.errors[-1][1]

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.trouble = self.failures[-1][1]

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.isSkipped = True

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.trouble += f"{subtest}\n{self._exc_info_to_string(err, test)}"

    def stopTest(self, test):
        if self.trouble or not self.isSkipped:
            self.cases.append((test.id(), time.monotonic() - self.started, self.trouble))
        super().stopTest(test)


def main():
    runner = unittest.TextTestRunner(resultclass=Result, verbosity=2)
    result = unittest.main(module="__main__", testRunner=runner, exit=False).result
    if "XML_OUTPUT_FILE" in os.environ:
        suite = ElementTree.Element("testsuite", name="vm")
        for name, seconds, trouble in result.cases:
            group, _, case = name.rpartition(".")
            element = ElementTree.SubElement(suite, "testcase", classname=group, name=case,
                                             time=f"{seconds:.3f}", status="run")
            if trouble:
                ElementTree.SubElement(element, "failure").text = trouble
        ElementTree.ElementTree(suite).write(os.environ["XML_OUTPUT_FILE"])
    raise SystemExit(0 if result.wasSuccessful() and result.cases else 1)
