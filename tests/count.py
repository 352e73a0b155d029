"""Adds up what every kind of test left behind and prints one line, `N passed, N failed`, and
`, N skipped` if there were any.

Reads meson's test logs (one JSON object a test program; its output is TAP, so each case in it counts) and pytest's
junit files. What left nothing behind, or ran nothing, counts as a failure.
"""
import json
import re
import sys
import xml.etree.ElementTree


def count_meson(lines):
    passed = failed = skipped = 0
    for line in lines:
        program = json.loads(line)
        text = program.get("stdout") or ""
        cases = re.findall(r"^(ok|not ok)\b(?!.*# SKIP)", text, re.MULTILINE)
        left_out = len(re.findall(r"^(?:ok|not ok)\b.*# SKIP", text, re.MULTILINE))
        good, bad = cases.count("ok"), cases.count("not ok")
        if program["result"] == "SKIP" and not left_out:
            left_out = 1
        if program["result"] == "OK" and not cases and not left_out:  # not TAP: the program is the case
            good = 1
        if program["result"] not in ("OK", "SKIP") and bad == 0:  # crashed, timed out, or sanitized
            print(f"{program['name']}: {program['result']}")
            bad = 1
        passed += good
        failed += bad
        skipped += left_out
    return passed, failed, skipped


def count_junit(file):
    cases = list(xml.etree.ElementTree.parse(file).iter("testcase"))
    failed = sum(1 for case in cases if case.find("failure") is not None or case.find("error") is not None)
    skipped = sum(1 for case in cases if case.find("skipped") is not None)
    return len(cases) - failed - skipped, failed, skipped


def count(name):
    """What one file tells; that it tells nothing is a failure."""
    try:
        with open(name, encoding="utf-8") as file:
            counts = count_junit(file) if name.endswith(".xml") else count_meson(file)
    except (OSError, ValueError, xml.etree.ElementTree.ParseError) as error:
        print(f"{name}: {error}")
        return 0, 1, 0
    if counts[:2] == (0, 0):
        print(f"{name}: no test ran")
        return 0, 1, counts[2]
    return counts


def main(files):
    passed, failed, skipped = (sum(numbers) for numbers in zip((0, 0, 0), *map(count, files)))
    print(f"{passed} passed, {failed} failed{f', {skipped} skipped' if skipped else ''}")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
