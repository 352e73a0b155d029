"""Hosts whose disks are memory, and whose clocks cannot be set: what is measured is ttorch, not what the faults need."""
from disks import run
from cluster import give
from hosts import Host, Hosts


class Memory:
    """In place of `disks.Disk`; it loses nothing."""

    def __init__(self, _name, at, megabytes, _workshop):
        self.at = at
        at.mkdir(exist_ok=True)
        # Room for a hundred changes of primary: each begins a file of WAL, and the old ones go when that has moved on.
        run("mount", "-t", "tmpfs", "-o", f"size={10 * megabytes}m,mode=0700", "none", at)
        give(at)

    def power_cut(self):
        pass

    def power_on(self):
        pass

    def close(self):
        run("umount", self.at)


class SwiftHost(Host):
    disk_type = Memory

    def preload(self):
        return []


class SwiftHosts(Hosts):
    member_type = SwiftHost
