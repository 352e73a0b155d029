"""Asking name servers, and running real ones: BIND's named and Knot's knotd, as an ordinary user on loopback."""
import socket
import struct
import subprocess
import time

from cluster import as_user, free_ports, give

SOA, TXT, SRV = 6, 16, 33
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


def dig(port, *words, server="127.0.0.1"):
    """What dig prints. Never asks twice, so that an answer that does not come is seen."""
    command = ["dig", f"@{server}", "-p", str(port), "+tries=1", "+time=2", *words]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False).stdout


def short(port, *words, **more):
    """The data of the answers, in order."""
    return sorted(dig(port, "+short", *words, **more).splitlines())


def rcode(port, *words, **more):
    text = dig(port, *words, **more)
    return text.partition("status: ")[2].partition(",")[0] or text


def query(name, kind, identifier=7):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    return struct.pack(">HHHHHH", identifier, 0x100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, kind, 1)


def ask(port, name, kind):
    """The bytes of the answer to one datagram, None if there is none. Faster than dig."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        try:
            client.sendto(query(name, kind), ("127.0.0.1", port))
            return client.recv(4096)
        except OSError:
            return None


def ask_srv(port, name):
    """(code, port of the first SRV or None) of ttorchd, which has the question's name as a pointer; None if silent."""
    answer = ask(port, name, SRV)
    if answer is None:
        return None
    found = answer[6:8] != b"\0\0"
    at = len(query(name, SRV)) + 12 + 4  # behind the record's frame, its priority and its weight
    return RCODES[answer[3] & 15], struct.unpack(">H", answer[at:at + 2])[0] if found else None


class NameServer:
    """A process in a directory of the cluster, so that it ends with it. `place` is another one for what it writes down
    before it answers."""

    def __init__(self, cluster, name, place=None):
        place = place or cluster.directory
        self.directory = place / f"{name}-{len(list(place.iterdir()))}"
        self.directory.mkdir(mode=0o700)
        give(self.directory)
        self.port = free_ports(1)[0]
        self.log_file = cluster.directory / f"{name}.log"
        self.process = None
        self.command = None

    def write(self, name, text):
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        give(path)
        return path

    def start(self, probe):
        """Runs until the name `probe` is answered."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(as_user(self.command), cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        deadline = time.monotonic() + 10
        while rcode(self.port, *probe.split()) != "NOERROR":
            assert self.process.poll() is None and time.monotonic() < deadline, self.log_file.read_text(encoding="utf-8")
            time.sleep(0.05)
        return self

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


class Forwarder(NameServer):
    """named as those run it that ask ours for one domain."""

    def __init__(self, cluster, ports):
        super().__init__(cluster, "forwarder")
        forwarders = " ".join(f"127.0.0.1 port {port};" for port in ports)
        file = self.write("named.conf", f"""
            options {{ directory "{self.directory}"; pid-file none; session-keyfile none; listen-on-v6 {{ none; }};
                       listen-on port {self.port} {{ 127.0.0.1; }}; recursion yes; dnssec-validation no; }};
            controls {{ }};
            zone "db.example.org" {{ type forward; forward only; forwarders {{ {forwarders} }}; }};
        """)
        self.command = ["/usr/sbin/named", "-g", "-n", "1", "-c", str(file)]


KEY = "ttorch-key"
SECRET = "c2VjcmV0LW9mLXRoZS10ZXN0LXNlY3JldC1vZi10aGU="
ZONE = """$TTL 1
@ IN SOA ns.example.org. hostmaster.example.org. 1 60 10 600 1
@ IN NS ns.example.org.
ns IN A 127.0.0.1
"""


class Named(NameServer):
    """BIND's, which holds example.org and takes updates that are signed with our key."""

    def __init__(self, cluster, place=None):
        super().__init__(cluster, "named", place)
        self.write("example.org.zone", ZONE)
        file = self.write("named.conf", f"""
            options {{ directory "{self.directory}"; pid-file none; session-keyfile none; listen-on-v6 {{ none; }};
                       listen-on port {self.port} {{ 127.0.0.1; }}; recursion no; }};
            controls {{ }};
            key {KEY} {{ algorithm hmac-sha256; secret "{SECRET}"; }};
            zone "example.org" {{ type primary; file "example.org.zone"; notify no;
                                  update-policy {{ grant {KEY} zonesub ANY; }}; }};
        """)
        self.command = ["/usr/sbin/named", "-g", "-n", "1", "-c", str(file)]


class Knotd(NameServer):
    """Knot's, which does the same."""

    def __init__(self, cluster, place=None):
        super().__init__(cluster, "knotd", place)
        self.write("example.org.zone", ZONE)
        file = self.write("knot.conf", f"""
server:
    rundir: "{self.directory}"
    listen: 127.0.0.1@{self.port}
    background-workers: 1
    udp-workers: 1
    tcp-workers: 1
database:
    storage: "{self.directory}"
key:
  - id: {KEY}
    algorithm: hmac-sha256
    secret: {SECRET}
acl:
  - id: ttorch
    key: {KEY}
    action: [update, query]
zone:
  - domain: example.org
    storage: "{self.directory}"
    file: example.org.zone
    acl: ttorch
""")
        self.command = ["/usr/sbin/knotd", "-c", str(file)]
