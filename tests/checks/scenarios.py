"""Holds docs/SCENARIOS.md to what there is: every test that it names exists, and every row says something.

usage: scenarios.py SOURCE_ROOT. Prints TAP.
"""
import pathlib
import re
import sys

NAMED = re.compile(r"`([\w.]+)::(\w+)`")
PATH = re.compile(r"`(tests/[\w./-]+)`")
ROW = re.compile(r"^\|(?!\s*-|---)(.*)\|$", re.MULTILINE)


def exists(root, file, test):
    pattern = rf"\bdef {test}\(" if file.endswith(".py") else rf"\bstatic void {test}\(void"
    return any(re.search(pattern, path.read_text(encoding="utf-8")) for path in (root / "tests").rglob(file))


def main(root):
    text = (root / "docs/SCENARIOS.md").read_text(encoding="utf-8")
    missing = sorted({f"{file}::{test}" for file, test in NAMED.findall(text) if not exists(root, file, test)})
    missing += sorted({path for path in PATH.findall(text) if not (root / path).exists()})
    rows = [[cell.strip() for cell in row.split("|")] for row in ROW.findall(text)]
    empty = [row[1] for row in rows
             if len(row) != 3 or not re.search(r"covered by|::|`tests/|\bno: |not yet", row[2])]
    numbers = [int(row[0]) for row in rows if row[0].isdigit()]
    cases = [("every test that is named exists", missing or (["it names none"] if not NAMED.search(text) else [])),
             ("every row says what covers it or why nothing does", empty),
             ("the scenarios are complete", [] if numbers == list(range(1, 53)) else [f"numbers: {numbers}"])]
    print(f"1..{len(cases)}")
    for number, (name, wrong) in enumerate(cases, 1):
        print(f"{'not ok' if wrong else 'ok'} {number} - {name}")
        for line in wrong:
            print(f"# {line}")
    return 1 if any(wrong for _, wrong in cases) else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
