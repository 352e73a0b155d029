"""Small disks with a file system on each, which can be slow, hang, fail, and lose what was not flushed (disk.c)."""
import os
import subprocess
import threading
import time

from cluster import BUILD, give

SERVER = BUILD / "tests" / "faults" / "disk"
MEGABYTE = 1 << 20


def run(*command):
    subprocess.run([str(word) for word in command], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


class Disk:
    def __init__(self, name, at, megabytes, workshop):
        """A new one, mounted at `at`, and the servers' user's."""
        self.at = at
        self._lock = threading.Lock()
        self._ballast = at / "ballast"
        self._full = False
        self._device = workshop / name
        self._device.mkdir(parents=True)
        self._server = subprocess.Popen([SERVER, self._device, str(megabytes * MEGABYTE)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self._server.stdout.readline()
        run("mkfs.ext4", "-q", "-F", "-b", 4096, "-m", 0, "-N", 16384, "-J", "size=8", "-E",
            "nodiscard,lazy_itable_init=0", self._device / "disk")
        at.mkdir(exist_ok=True)
        self._mount()
        (at / "lost+found").rmdir()
        give(at)
        run("sync", "--file-system", at)

    def tell(self, command):
        """`well`, `slow 50`, `hang`, `fail` or `off`; done on return."""
        with self._lock:
            self._server.stdin.write(command + "\n")
            self._server.stdin.flush()
            self._server.stdout.readline()

    def _mount(self):
        run("mount", "-o", "loop,noatime,errors=remount-ro", self._device / "disk", self.at)

    def _unmount(self):
        deadline = time.monotonic() + 20  # the kernel lets go of killed processes' files a little later
        while subprocess.run(["umount", self.at], stderr=subprocess.DEVNULL, check=False).returncode != 0:
            assert time.monotonic() < deadline, f"{self.at} cannot be unmounted"
            time.sleep(0.01)

    def power_cut(self):
        """Whoever waits for it fails."""
        self.tell("off")

    def power_on(self):
        """Nobody may use it. What was not flushed is gone, or not."""
        self._unmount()
        self.tell("well")
        self._mount()
        if not self._full:  # that it was emptied may be what was not flushed
            self._ballast.unlink(missing_ok=True)

    def fill(self):
        """To the last block; returns what empties it."""
        self._full, size = True, 256 * MEGABYTE
        descriptor, end = os.open(self._ballast, os.O_CREAT | os.O_WRONLY), 0
        while size >= 4096:
            try:
                os.posix_fallocate(descriptor, end, size)
                end += size
            except OSError:
                size //= 2
        os.close(descriptor)

        def empty():
            self._full = False
            self._ballast.unlink(missing_ok=True)
        return empty

    def close(self):
        self.power_cut()
        self._unmount()
        run("umount", self._device)
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()
        self._device.rmdir()
