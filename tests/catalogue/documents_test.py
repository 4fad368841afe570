#!/usr/bin/env python3
"""What documents and tools name is there: files, folders, tests, Bazel's labels and configurations, places of pages."""

import functools
import os
import pathlib
import re
import unittest

ROOT = pathlib.Path(os.path.realpath(__file__)).parents[2]
CODE = (".S", ".bzl", ".capnp", ".cc", ".h", ".ld", ".md", ".profile", ".proto", ".py", ".reach", ".sh")
# Made by a build or a run, or of another project; and words that stand for others.
ELSEWHERE = ("bazel-bin/", "devices/blk/blk_profile.h", "docs/interop/", "tests/bench/out/", "DIR/", "NAME.",
             "mine/")

LINK = re.compile(r"\]\(([^)\s]+)\)")
LABEL = re.compile(r"(?<![^\s`'\"=(])//(?=[\w.:])([\w./-]*)(?::([\w./-]+))?")
QUOTED = re.compile(r"`([^`\n]+)`|(?s:^```(?:sh)?\n(.*?)^```$)", re.MULTILINE)


def anchor_of(heading):
    """What a page's heading is called in a link to it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@functools.lru_cache(None)
def pieces_of(package):
    """The texts in a package's BUILD file, of which names of targets are put together; none if it is no package."""
    build = package / "BUILD.bazel"
    texts = re.findall(r'"([^"\n]*)"', build.read_text()) if build.exists() else []
    return {piece for text in texts for piece in re.split("%s|{}", text)} - {""}


@functools.lru_cache(None)
def is_target(package, name):
    pieces = pieces_of(package)
    if name in pieces or pieces and (package / name).is_file():
        return True
    return any(name.startswith(piece) and is_end(package, name[len(piece):]) for piece in pieces)


def is_end(package, rest):
    return rest == "" or any(rest.startswith(piece) and is_end(package, rest[len(piece):])
                             for piece in pieces_of(package))


class Documents(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        # Links that a build leaves are not followed.
        files = [path for path in ROOT.rglob("*") if ".git" not in path.relative_to(ROOT).parts]
        self.names = {path.name for path in files}
        self.packages = [path.parent for path in files if path.name == "BUILD.bazel"]
        self.pages = [path for path in files if path.suffix == ".md"]
        self.assertGreater(len(self.pages), 25)
        self.tools = [path for path in files if path.parent in (ROOT / "tools", ROOT / ".ci")]
        self.assertGreater(len(self.tools), 5)

    def each(self, pattern, pages=None):
        return [(page, match) for page in pages or self.pages for match in pattern.finditer(page.read_text())]

    def words(self):
        """What stands in backticks or in an example: each page, and a word."""
        return [(page, word.strip('",;').removeprefix("./")) for page, match in self.each(QUOTED)
                for word in (match[1] or match[2] or "").split()]

    def lost(self, what, isThere):
        """Those of (page, word) that are not there; there is something to look at."""
        what = list(what)
        self.assertGreater(len(what), 5)
        return sorted({f"{page.relative_to(ROOT)}: {word}" for page, word in what if not isThere(page, word)})

    def testLinksLeadSomewhere(self):
        def isThere(page, link):
            path, _, place = link.partition("#")
            to = page.parent / path if path else page
            if place == "" or not to.exists():
                return to.exists()
            return place in map(anchor_of, re.findall(r"(?m)^#+ (.*)$", to.read_text()))

        links = [(page, match[1]) for page, match in self.each(LINK) if not re.match("https?:", match[1])]
        self.assertEqual(self.lost(links, isThere), [])

    def testLabelsAreThoseOfTargets(self):
        def isThere(page, label):
            package, name = LABEL.fullmatch(label).groups()
            if package.endswith("..."):
                return (ROOT / package[:-3]).is_dir()
            folder = ROOT / package
            return bool(pieces_of(folder)) if name == "all" else is_target(folder, name or folder.name)

        # In a tool two slashes can be something else.
        named = self.each(LABEL) + [(tool, match) for tool, match in self.each(LABEL, self.tools)
                                    if match[2] or match[1].endswith("...")]
        self.assertEqual(self.lost([(page, match[0]) for page, match in named], isThere), [])

    def testPathsAreThoseOfFiles(self):
        def isNamed(page, word):
            folder = any((start / word.split("/")[0]).is_dir() for start in (ROOT, page.parent))
            return re.fullmatch(r"[\w./*-]*[\w*/]", word) and word[0] != "/" and \
                not word.startswith(ELSEWHERE) and word not in CODE and \
                (("/" in word and folder) or word.endswith(CODE))

        def isThere(page, word):
            """As it is, without its end, or as something that is built there."""
            if "/" not in word and word in self.names:
                return True
            return any(any(start.glob(word + end)) for start in (ROOT, page.parent) for end in ("", *CODE)) or \
                any(is_target((start / word).parent, pathlib.Path(word).name) for start in (ROOT, page.parent))

        self.assertEqual(self.lost([one for one in self.words() if isNamed(*one)], isThere), [])

    def testTestsAreThere(self):
        named = [(page, word) for page, word in self.words() if re.fullmatch(r"\w+_test", word)]
        self.assertEqual(self.lost(named, lambda page, name: any(
            is_target(package, name) for package in self.packages)), [])

    def testConfigurationsOfTheBuildAreThoseOfBazelrc(self):
        there = set(re.findall(r"(?m)^\w+:([\w-]+) ", (ROOT / ".bazelrc").read_text()))
        named = [(page, match[1]) for page, match in self.each(
            re.compile(r"--config=([\w-]+)"), self.pages + self.tools)]
        self.assertEqual(self.lost(named, lambda page, name: name in there), [])


if __name__ == "__main__":
    unittest.main()
