"""Holds the product to one clock for decisions, CLOCK_BOOTTIME through time_now: only the files listed here may read the
wall clock, which people and time servers set, each for what it says.

usage: clocks.py SOURCE_ROOT. Prints TAP.
"""
import pathlib
import re
import sys

FOLDERS = ("base", "model", "orchestrator", "raft", "pgctl", "config", "publish", "systemd", "daemon", "cli")
OTHER_CLOCKS = re.compile(r"\bCLOCK_(?!BOOTTIME)[A-Z_]+|\bgettimeofday\b|\btime\((?:NULL|&)|\btime_wall_ms\b")
ALLOWED = {
    "base/log.c": "the time of a line",
    "base/time.c": "time_wall_ms itself",
    "base/time.h": "and its declaration",
    "daemon/hands.c": "the history",
    "daemon/inbox.c": "the history",
    "pgctl/diverged.c": "names and lists of diverged WAL",
    "pgctl/guard_say.c": "the time of a line",
    "pgctl/operate.c": "against pg_conf_load_time(), beside the value itself: after a jump it asks again",
    "publish/face_status.c": "what people read",
    "publish/forms.c": "what people read",
    "publish/web.c": "whether a certificate has run out",
}


def main(root):
    readers = {str(path.relative_to(root)) for folder in FOLDERS for path in (root / folder).rglob("*.[ch]")
               if OTHER_CLOCKS.search(path.read_text(encoding="utf-8"))}
    cases = [("no other file reads the wall clock", readers - set(ALLOWED)),
             ("every file that may read it does", set(ALLOWED) - readers)]
    print(f"1..{len(cases)}")
    for number, (name, wrong) in enumerate(cases, 1):
        print(f"{'not ok' if wrong else 'ok'} {number} - {name}")
        for file in sorted(wrong):
            print(f"# {file}")
    return 1 if any(wrong for _, wrong in cases) else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
