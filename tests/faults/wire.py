"""A bad cable: loses, delays and reorders what goes through it."""
import heapq
import random
import select
import socket
import threading
import time

from disks import run

PACKET_VNET_HDR = (263, 15)  # (SOL_PACKET, ...): segments and checksums that are still to be made stay so
OUTGOING = 4
ALL_FRAMES = 0x0003
FRAME_MAX = 1 << 17


class Wire:
    """Between a host's network card and the bridge, in place of the good cable. Ways: (loss, delay, jitter) of what the
    host sends, and of what it is sent; a fraction, and seconds. With jitter, frames overtake each other."""

    def __init__(self, host, sent, received):
        self._name = host.name
        self._stop = threading.Event()
        run("ip", "link", "add", f"{host.name}w", "type", "veth", "peer", "name", f"{host.name}b")
        run("ip", "link", "set", f"{host.name}w", "arp", "off", "up")
        run("ip", "link", "set", host.name, "nomaster", "arp", "off")
        run("ip", "link", "set", f"{host.name}b", "master", "bridge", "up")
        near, far = (self._socket(name) for name in (host.name, f"{host.name}w"))
        self._ways = {near: (far, *sent), far: (near, *received)}
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    @staticmethod
    def _socket(device):
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_FRAMES))
        end.setsockopt(*PACKET_VNET_HDR, 1)
        end.bind((device, ALL_FRAMES))
        end.setblocking(False)
        return end

    def _take(self, end, under_way):
        to, loss, delay, jitter = self._ways[end]
        frame, source = end.recvfrom(FRAME_MAX)
        if source[2] != OUTGOING and random.random() >= loss:
            heapq.heappush(under_way, (time.monotonic() + delay + random.random() * jitter, id(frame), to, frame))

    def _carry(self):
        under_way = []  # by the time of arrival
        while not self._stop.is_set():
            wait = max(0, under_way[0][0] - time.monotonic()) if under_way else 0.05
            for end in select.select(list(self._ways), [], [], min(wait, 0.05))[0]:
                try:
                    self._take(end, under_way)
                except OSError:  # it is unplugged
                    pass
            while under_way and under_way[0][0] <= time.monotonic():
                _, _, to, frame = heapq.heappop(under_way)
                try:
                    to.send(frame)
                except OSError:
                    pass

    def close(self):
        """The good cable is back."""
        self._stop.set()
        self._thread.join()
        for end in self._ways:
            end.close()
        run("ip", "link", "delete", f"{self._name}w")
        run("ip", "link", "set", self._name, "master", "bridge", "arp", "on")
