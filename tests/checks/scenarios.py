"""Holds docs/SCENARIOS.md to what there is: every test that it names exists and is run, every row says something, and
each hole of the protocol has what finds it.

usage: scenarios.py SOURCE_ROOT. Prints TAP.
"""
import pathlib
import re
import sys

NAMED = re.compile(r"`([\w.]+)::(\w+)`")
PATH = re.compile(r"`(tests/[\w./-]+)`")
ROW = re.compile(r"^\|(?!\s*-|---)(.*)\|$", re.MULTILINE)
PLANTED = re.compile(r"`([A-Z]+)`")
SAYS = re.compile(r"covered by|found by|::|`tests/|\bno: |planted `")


def is_run(path, test):
    """pytest finds its tests; one of cmocka has to be in the list of its program."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return re.search(rf"\bdef {test}\(", text)
    listed = text.partition("int main(")[2]
    return re.search(rf"\bstatic void {test}\(void", text) and re.search(rf"\b{test}[),}}]", listed)


def exists(root, file, test):
    return any(is_run(path, test) for path in (root / "tests").rglob(file))


def main(root):
    text = (root / "docs/SCENARIOS.md").read_text(encoding="utf-8")
    planted = set(re.findall(r"\bPLANTED_([A-Z]+),", (root / "model/planted.h").read_text(encoding="utf-8")))
    missing = sorted({f"{file}::{test}" for file, test in NAMED.findall(text) if not exists(root, file, test)})
    missing += sorted({path for path in PATH.findall(text) if not (root / path).exists()})
    rows = [[cell.strip() for cell in row.split("|")] for row in ROW.findall(text)]
    silent = [row[1] for row in rows
              if len(row) != 3 or not SAYS.search(row[2]) or re.search(r"not yet|partly", row[2])]
    numbers = [int(row[0]) for row in rows if row[0].isdigit()]
    holes = [row for row in rows if re.fullmatch(r"H\d+", row[0])]
    unknown = [name for row in holes for name in PLANTED.findall(row[2]) if name not in planted]
    if not NAMED.search(text):
        missing = ["it names none"]
    cases = [("every test that is named exists and is run", missing),
             ("every row says what covers it, or why nothing does", silent),
             ("the scenarios are complete", [] if numbers == list(range(1, 53)) else [f"numbers: {numbers}"]),
             ("the holes are complete",
              [] if [row[0] for row in holes] == [f"H{i}" for i in range(1, 20)] else ["not H1 to H19"]),
             ("every bug that is named is planted", unknown)]
    print(f"1..{len(cases)}")
    for number, (name, wrong) in enumerate(cases, 1):
        print(f"{'not ok' if wrong else 'ok'} {number} - {name}")
        for line in wrong:
            print(f"# {line}")
    return 1 if any(wrong for _, wrong in cases) else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
