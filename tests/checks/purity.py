"""Holds the pure libraries pure: with `nm`, that they call nothing but what is listed here.

usage: purity.py LIBRARY.a [LIBRARY.a...]. A library may also call those before it. Prints TAP, one case a library.
"""
import re
import subprocess
import sys

ALLOWED = re.compile(
    r"(__)?mem(cpy|set|cmp|move)(_chk)?|str(n?len|n?cmp|r?chr|spn|cspn|str)|n?bcmp"
    r"|(__)?v?snprintf(_chk)?|__isoc(99|23)_v?sscanf|__isoc23_strtou?ll?|strtou?ll?|__ctype_b_loc"
    r"|qsort|abs|labs"
    r"|error_set|error_prefix"  # base/error.h
    r"|abort|stderr|(__)?fprintf(_chk)?|fwrite"  # only through panic
    r"|pb_\w+|\w+_msg"  # nanopb and its descriptors
    r"|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_|_DYNAMIC|__(asan|ubsan|tsan|gcov|sanitizer)_\w+|__start___\w+|__stop___\w+"
)


def symbols(library):
    """Returns what the library defines and what it needs."""
    listing = subprocess.run(["nm", "-P", library], check=True, capture_output=True, text=True).stdout
    defined, needed = set(), set()
    for line in listing.splitlines():
        if re.match(r"\S+ [A-Za-z]\b", line):
            name, kind = line.split()[:2]
            (needed if kind in "Uvw" else defined).add(name)
    return defined, needed - defined


def main(libraries):
    known, failed = set(), False
    print(f"1..{len(libraries)}")
    for number, library in enumerate(libraries, 1):
        defined, needed = symbols(library)
        impure = sorted(name for name in needed - known if not ALLOWED.fullmatch(name))
        known |= defined
        bad = impure or not defined
        failed |= bool(bad)
        name = library.rsplit("/", 1)[-1]
        print(f"{'not ok' if bad else 'ok'} {number} - {name} is pure")
        for symbol in impure:
            print(f"# {name} calls {symbol}")
        if not defined:
            print(f"# {name} defines nothing")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
