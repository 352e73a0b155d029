"""The first process of a User-Mode Linux guest (machine.py): one member, alone, on the guest's own disk.

It tells over the console what happens. What it is to do, and where the programs are, the kernel's command line says.
"""
import contextlib
import ctypes
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import time

import psycopg2

DISK = pathlib.Path("/mnt")
SYSTEM_CALL_FINIT_MODULE = 313  # x86-64
POSTGRES = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4])).parent
SETTINGS = f"""
cluster: guest
member: m1
lease: 10s
members: {{m1: {{peer: "127.0.0.1:7400", postgres: "127.0.0.1:5432"}}}}
data_directory: {DISK}/ttorch
runtime_directory: /run/ttorch
replication: {{user: ttorch, password_file: {DISK}/password}}
postgresql:
  bin_directory: {POSTGRES}
  data_directory: {DISK}/data
  socket_directory: /run/ttorch
  parameters: {{shared_buffers: 16MB, max_connections: "20"}}
  hba: ["host all all 127.0.0.1/32 trust"]
"""


def say(*words):
    print("guest:", *words, flush=True)


def mount(kind, target):
    subprocess.run(["mount", "-t", kind, "none", target], check=True)


def load_module(path, options):
    with open(path, "rb") as file:
        if ctypes.CDLL(None, use_errno=True).syscall(SYSTEM_CALL_FINIT_MODULE, file.fileno(), options.encode(), 0) != 0:
            raise OSError(ctypes.get_errno(), str(path))


def boot():
    mount("proc", "/proc")
    mount("sysfs", "/sys")
    os.makedirs("/dev/shm")
    for directory in ("/run", "/dev/shm"):
        mount("tmpfs", directory)
    subprocess.run(["mount", "/dev/ubda", DISK], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def start(build, more=""):
    user = pwd.getpwnam("postgres")
    programs = pathlib.Path("/run/programs")
    programs.mkdir()
    for program in ("daemon/ttorchd", "pgctl/ttorch-guard"):
        shutil.copy2(pathlib.Path(build) / program, programs)
    (DISK / "password").write_text("only for this test\n", encoding="utf-8")
    (DISK / "password").chmod(0o600)
    (DISK / "m1.yaml").write_text(SETTINGS + more, encoding="utf-8")
    os.makedirs("/run/ttorch", mode=0o700)
    for path in (DISK, DISK / "password", "/run/ttorch"):
        os.chown(path, user.pw_uid, user.pw_gid)
    subprocess.Popen(["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", programs / "ttorchd",
                      "--config", DISK / "m1.yaml"], cwd=DISK)


def connect():
    """As soon as it can be written to."""
    while True:
        try:
            connection = psycopg2.connect("host=127.0.0.1 user=postgres dbname=postgres target_session_attrs=read-write")
            connection.autocommit = True
            return connection.cursor()
        except psycopg2.OperationalError:
            time.sleep(0.1)


def write(build):
    """Until the power is cut."""
    start(build)
    cursor = connect()
    cursor.execute("CREATE TABLE ledger (number bigint)")
    number = 0
    while True:
        number += 1
        cursor.execute("INSERT INTO ledger VALUES (%s)", (number,))
        say("acknowledged", number)


def read(build):
    start(build)
    cursor = connect()
    cursor.execute("SELECT count(DISTINCT number), max(number) FROM ledger")
    say("there", *cursor.fetchone())
    signal.pause()


def hang(build):
    """The guard is frozen, and nobody feeds the watchdog any more. A guest cannot start itself anew, so it panics."""
    load_module(f"/usr/lib/uml/modules/{os.uname().release}/kernel/drivers/watchdog/softdog.ko", "soft_margin=60 soft_panic=1 nowayout=0")
    # The kernel has one of its own already, which takes the first number.
    device = sorted(pathlib.Path("/dev").glob("watchdog[0-9]*"))[-1]
    os.chown(device, pwd.getpwnam("postgres").pw_uid, -1)
    start(build, f"watchdog: required\nwatchdog_device: {device}\n")
    connect()
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            if (directory / "comm").read_text(encoding="utf-8").startswith("ttorch-guard"):
                os.kill(int(directory.name), signal.SIGSTOP)
    say("frozen")
    signal.pause()


if __name__ == "__main__":
    boot()
    {"write": write, "read": read, "hang": hang}[sys.argv[1]](sys.argv[2])
