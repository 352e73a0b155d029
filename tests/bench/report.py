"""What a verb measured: printed as a table for people, as JSON for programs, and as Markdown for docs/PERFORMANCE.md."""
import datetime
import os
import pathlib
import platform
import re
import statistics
import subprocess
import time

from cluster import BUILD, postgres_programs


def spread(values):
    """(median, least, most)"""
    return statistics.median(values), min(values), max(values)


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else None


def processor_time():
    """(busy, all) seconds of all processors, since the machine started."""
    words = pathlib.Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:9]
    ticks = [int(word) / os.sysconf("SC_CLK_TCK") for word in words]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def machine():
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    version = subprocess.run([postgres_programs() / "postgres", "--version"], capture_output=True, text=True, check=True)
    buildtype = subprocess.run([BUILD / "cli/ttorch", "version"], capture_output=True, text=True, check=False)
    return {"processor": model[1].strip() if model else platform.machine(), "processors": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "kernel": platform.release(), "postgresql": version.stdout.split()[2], "ttorch": buildtype.stdout.strip()}


def text_of(value):
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    if isinstance(value, list):
        return " ".join(text_of(each) for each in value)
    return str(value)


class Report:
    """Columns are (key of a row, title)."""

    def __init__(self, verb, title, columns, **options):
        self.verb, self.title, self.columns, self.options = verb, title, columns, options
        self.rows, self.notes = [], []
        self.began = datetime.datetime.now(datetime.timezone.utc)
        self._clock, self._processor = time.monotonic(), processor_time()

    def add(self, **row):
        self.rows.append(row)

    def as_dict(self):
        busy, every = (now - then for now, then in zip(processor_time(), self._processor))
        return {"verb": self.verb, "title": self.title, "when": self.began.strftime("%Y-%m-%d %H:%M UTC"),
                "seconds": round(time.monotonic() - self._clock, 1), "processors_busy": round(busy / max(every, 1e-9), 2),
                "options": self.options, "machine": machine(), "columns": self.columns, "rows": self.rows,
                "notes": self.notes}


def columns_in_use(run):
    return [(key, title) for key, title in run["columns"] if any(row.get(key) is not None for row in run["rows"])]


def as_table(run):
    columns = columns_in_use(run)
    cells = [[title for _, title in columns]] + [[text_of(row.get(key)) for key, _ in columns] for row in run["rows"]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    numeric = [all(isinstance(row.get(key), (int, float, type(None))) for row in run["rows"]) for key, _ in columns]
    lines = ["  ".join(text.rjust(width) if right else text.ljust(width)
                       for text, width, right in zip(row, widths, numeric)).rstrip() for row in cells]
    return "\n".join([run["title"], "", *lines, *([""] if run["notes"] else []), *run["notes"]])


def as_markdown(run):
    columns = [(key, title) for key, title in columns_in_use(run) if key != "all"]
    lines = ["| " + " | ".join(title for _, title in columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(text_of(row.get(key)) for key, _ in columns) + " |" for row in run["rows"]]
    options = ", ".join(f"{key} {text_of(value)}" for key, value in run["options"].items() if value is not None)
    about = f"{run['when']}, {run['seconds']:.0f} s, processors {run['processors_busy'] * 100:.0f} % busy"
    return "\n".join([*lines, "", *(f"- {note}" for note in run["notes"]), *([""] if run["notes"] else []),
                      f"*{about}{'; ' + options if options else ''}.*"])


def fill_page(page, runs):
    """Puts the tables between the page's marks `<!-- run VERB -->` and `<!-- end -->`."""
    text = page.read_text(encoding="utf-8")
    for run in runs:
        pattern = re.compile(rf"(<!-- run {run['verb']} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"bench: {page} has no mark for {run['verb']}")
        text = pattern.sub(lambda match, run=run: match[1] + as_markdown(run) + "\n" + match[2], text)
    host = runs[-1]["machine"]
    text = re.sub(r"(<!-- machine -->\n).*?(<!-- end -->)", lambda match: (
        f"{match[1]}{host['processors']} x {host['processor']}, {host['memory_gb']} GB, Linux {host['kernel']}, PostgreSQL "
        f"{host['postgresql']}, {host['ttorch']}.\n{match[2]}"), text, flags=re.DOTALL)
    page.write_text(text, encoding="utf-8")
