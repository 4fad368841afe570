"""Counts the test cases of one or more `bazel test` runs and prints the closing line.

usage: count_results.py collect EVENTS.json            at once after each run: prints what it came to
       count_results.py total RUN... -- [FAILED_STEP...]    at the end, of the files of the above

Reads Bazel's build event file, then each test's own XML report, which the next run writes over. A
googletest program counts with each of its cases but those it skips, any other test as one. A test that
was tried again counts as it came out the last time, and is named. A target that failed to build, or a
step that failed without a failed case, counts as one failure. The exit status is 0 when nothing failed.
"""

import json
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree


def cases(report):
    """(passed, [names of failed cases]) of one XML report, or None when it holds no case."""
    try:
        root = ElementTree.parse(report).getroot()
    except (OSError, ElementTree.ParseError):
        return None
    passed, failed = 0, []
    for case in root.iter("testcase"):
        if case.get("status") == "notrun" or case.get("result") in ("suppressed", "skipped"):
            continue
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname', '')}.{case.get('name', '')}")
        else:
            passed += 1
    return (passed, failed) if passed or failed or root.find(".//testcase") is not None else None


def last_attempts(path):
    """The events of a run, of each test only its last attempt; and the labels of those tried again."""
    events, last, again = [], {}, []
    with open(path) as lines:
        for event in map(json.loads, lines):
            id = event["id"].get("testResult")
            if id is None:
                events.append(event)
                continue
            key = (id["label"], id.get("run"), id.get("shard"))
            if key in last and id["label"] not in again:
                again.append(id["label"])
            if id.get("attempt", 1) >= last.get(key, event)["id"]["testResult"].get("attempt", 1):
                last[key] = event
    return events + list(last.values()), again


def collect(path):
    """What one run came to: how many cases passed, which failed, which tests were tried again."""
    step = path.rsplit("/", 1)[-1].removesuffix(".json")
    passed, failed = 0, []
    events, again = last_attempts(path)
    for event in events:
        label = event["id"].get("testResult", {}).get("label")
        if label:
            result = event["testResult"]
            ok = result["status"] == "PASSED"
            reports = [urllib.parse.unquote(urllib.parse.urlparse(output["uri"]).path)
                       for output in result.get("testActionOutput", [])
                       if output["name"] == "test.xml"]
            counted = cases(reports[0]) if reports else None
            if counted is None:
                counted = (1, []) if ok else (0, ["did not report"])
            if not ok and not counted[1]:
                counted = (counted[0], [result["status"].lower()])
            passed += counted[0]
            failed += [f"{step}: {label}: {name}" for name in counted[1]]
        label = event["id"].get("targetCompleted", {}).get("label")
        # One that was not come to, since the run was ended, is the step's failure.
        if label and not event.get("completed", {}).get("success") \
                and event.get("aborted", {}).get("reason") not in ("SKIPPED", "USER_INTERRUPTED"):
            failed.append(f"{step}: {label}: did not build")
    return {"step": step, "passed": passed, "failed": failed,
            "again": [f"{step}: {label}" for label in again]}


def total(files, failed_steps):
    runs = []
    for path in files:
        step = path.rsplit("/", 1)[-1].removesuffix(".run")
        try:
            with open(path) as run:
                runs.append(json.load(run))
        except ValueError:
            runs.append({"step": step, "passed": 0, "failed": [f"{step}: no result"], "again": []})
    passed = sum(run["passed"] for run in runs)
    failed = [name for run in runs for name in run["failed"]]
    told = {run["step"] for run in runs if run["failed"]}
    failed += [f"{step}: the step failed" for step in failed_steps if step not in told]
    for name in (name for run in runs for name in run["again"]):
        print(f"TRIED AGAIN {name}")
    for name in failed:
        print(f"FAILED {name}")
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed or not passed else 0


if sys.argv[1] == "collect":
    print(json.dumps(collect(sys.argv[2])))
else:
    split = sys.argv.index("--")
    sys.exit(total(sys.argv[2:split], sys.argv[split + 1:]))
