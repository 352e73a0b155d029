"""Adds up what every kind of test left behind and prints one line, `N passed, N failed`.

Reads meson's test logs (one JSON object a test program; its output is TAP, so each case in it counts) and pytest's
junit files. What left nothing behind, or ran nothing, counts as a failure.
"""
import json
import re
import sys
import xml.etree.ElementTree


def count_meson(lines):
    passed = failed = 0
    for line in lines:
        program = json.loads(line)
        cases = re.findall(r"^(ok|not ok)\b(?!.*# SKIP)", program.get("stdout") or "", re.MULTILINE)
        good, bad = cases.count("ok"), cases.count("not ok")
        if program["result"] == "OK" and not cases:  # not TAP: the program is the case
            good = 1
        if program["result"] not in ("OK", "SKIP") and bad == 0:  # crashed, timed out, or sanitized
            print(f"{program['name']}: {program['result']}")
            bad = 1
        passed += good
        failed += bad
    return passed, failed


def count_junit(file):
    cases = list(xml.etree.ElementTree.parse(file).iter("testcase"))
    failed = sum(1 for case in cases if case.find("failure") is not None or case.find("error") is not None)
    skipped = sum(1 for case in cases if case.find("skipped") is not None)
    return len(cases) - failed - skipped, failed


def main(files):
    passed = failed = 0
    for name in files:
        try:
            with open(name, encoding="utf-8") as file:
                counts = count_junit(file) if name.endswith(".xml") else count_meson(file)
        except (OSError, ValueError, xml.etree.ElementTree.ParseError) as error:
            print(f"{name}: {error}")
            counts = (0, 1)
        if counts == (0, 0):
            print(f"{name}: no test ran")
            counts = (0, 1)
        passed += counts[0]
        failed += counts[1]
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
