"""Holds the include arrows of docs/ARCHITECTURE.md: which folder may include which, and who alone knows a library.

usage: includes.py SOURCE_ROOT. Prints TAP, one case a folder and one a library.
"""
import pathlib
import re
import sys

ARROWS = {  # folder: what else it may include
    "base": set(),
    "model": {"base"},
    "orchestrator": {"model", "base"},
    "raft": {"model", "base"},
    "session": {"base"},
    "tls": {"base"},
    "pgctl": {"model", "session", "base"},
    "config": {"tls", "base"},
    "publish": {"model", "session", "tls", "base"},
    "systemd": {"base"},
    "daemon": {"base", "model", "orchestrator", "raft", "session", "tls", "pgctl", "config", "publish", "systemd"},
    "cli": {"model", "config", "base"},
}
LIBRARIES = {  # header: the folders that may know it
    r"raft\.h|raft/.*": {"raft"},
    r"libpq-fe\.h": {"session", "pgctl", "publish", "cli"},
    r"yaml\.h": {"config"},
    r"microhttpd\.h": {"publish"},
    r"gnutls/.*": {"tls", "publish"},
    r"ldns/.*": {"publish"},
    r"curl/.*": {"cli"},
    r"systemd/.*": {"base", "systemd"},
    r"uv\.h|sys/socket\.h|pthread\.h|unistd\.h|time\.h": set(ARROWS) - {"model", "orchestrator"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def includes(root, folder):
    """Yields (file, line, quoted, header) for each include of the folder."""
    for file in sorted((root / folder).glob("**/*.[ch]")):
        text = file.read_text(encoding="utf-8")
        for match in INCLUDE.finditer(text):
            line = text.count("\n", 0, match.start(1) if match.group(1) else match.start(2)) + 1
            yield file.relative_to(root), line, match.group(1) is not None, match.group(1) or match.group(2)


def folder_of(header, here):
    if header.endswith(".pb.h"):
        return "model"
    return header.split("/")[0] if "/" in header else here


def wrong_arrows(found, folder):
    allowed = ARROWS[folder] | {folder}
    return [f"{file}:{line}: {folder}/ may not include {header}"
            for file, line, quoted, header in found
            if quoted and folder_of(header, folder) not in allowed]


def wrong_libraries(found, folder, pattern):
    if folder in LIBRARIES[pattern]:
        return []
    return [f"{file}:{line}: {folder}/ may not know <{header}>"
            for file, line, quoted, header in found
            if not quoted and re.fullmatch(pattern, header)]


def main(root):
    found = {folder: list(includes(root, folder)) for folder in ARROWS}
    cases = [(f"{folder} includes only what it may", wrong_arrows(found[folder], folder)) for folder in ARROWS]
    cases += [(f"who knows {pattern}", [line for folder in ARROWS for line in wrong_libraries(found[folder], folder, pattern)])
              for pattern in LIBRARIES]
    unknown = sorted(path.parent.name for path in root.glob("*/meson.build") if path.parent.name not in {*ARROWS, "tests"})
    cases.append(("every folder is in the table", unknown))
    print(f"1..{len(cases)}")
    for number, (name, wrong) in enumerate(cases, 1):
        print(f"{'not ok' if wrong else 'ok'} {number} - {name}")
        for line in wrong:
            print(f"# {line}")
    return 1 if any(wrong for _, wrong in cases) else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
