"""HTTPS: who gets an answer, and what happens when a certificate is renewed."""
import shutil
import signal
import subprocess

import pytest

from cluster import SOURCE, free_ports, give


class Secured:
    """One member that speaks HTTPS; its files are `now.pem`, `now.key` and, if wanted, `ca.pem` for clients."""

    def __init__(self, cluster):
        self.cluster, self.member = cluster, cluster.members[0]
        self.directory = cluster.directory / "certificates"
        self.directory.mkdir()
        self.port, = free_ports(1)
        subprocess.run([SOURCE / "tests/certificates.sh", self.directory], check=True, timeout=60)
        self.directory.chmod(0o755)
        self.install("server")

    def install(self, name, kinds=("pem", "key")):
        for kind in kinds:
            shutil.copy(self.directory / f"{name}.{kind}", self.directory / f"now.{kind}")
            give(self.directory / f"now.{kind}")

    def start(self, **more):
        self.member.write_config(http={"listen": "127.0.0.1", "port": self.port,
                                       "certificate_file": str(self.directory / "now.pem"),
                                       "key_file": str(self.directory / "now.key"), **more})
        self.cluster.found()
        self.cluster.wait(lambda: self.ask("ca", *(["client"] if more else [])) == "200", 15, "the primary says so")
        return self

    def ask(self, ca, who=None, scheme="https"):
        """The status that curl got, or "000" if it got no answer."""
        words = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*", "-m", "5"]
        words += ["--cacert", self.directory / f"{ca}.pem"] if ca else []
        words += ["--cert", self.directory / f"{who}.pem", "--key", self.directory / f"{who}.key"] if who else []
        done = subprocess.run([*words, f"{scheme}://127.0.0.1:{self.port}/primary"], capture_output=True, text=True,
                              timeout=20, check=False)
        return done.stdout

    def ttorch(self, *words, check=True):
        return self.member.ttorch("--url", f"https://127.0.0.1:{self.port}", *words, check=check)

    def trouble(self):
        """What `ttorch status` says of the certificate; None if nothing."""
        rows = {row["output"]: row["error"] for row in self.member.status()["publishing"]}
        return rows["http.certificate_file"]

    def reload(self, until, what):
        self.member.signal(signal.SIGHUP)
        self.cluster.wait(until, 10, what)


@pytest.mark.limit(90)
def test_certificate_and_its_renewal(make_cluster):
    secured = Secured(make_cluster(1)).start()
    daemon = secured.member.daemon.pid
    assert secured.ask("other-ca") == "000" and secured.ask(None) == "000", "it is believed without its CA"
    assert secured.ask(None, scheme="http") == "000"
    assert "primary" in secured.ttorch("--ca", secured.directory / "ca.pem", "status")
    assert "--ca FILE" in secured.ttorch("status", check=False).stderr

    secured.install("renewed", kinds=["pem"])
    secured.reload(secured.trouble, "a certificate without its key is told")
    assert "now.key: does not belong to the certificate" in secured.trouble()
    assert secured.trouble() in secured.member.log() and "does not belong" in secured.member.ttorch("status")
    assert secured.ask("ca") == "200", "the old one is kept"

    secured.install("expired")
    secured.reload(lambda: secured.ask("ca") == "000", "the new one is used")
    assert "expired at" in secured.trouble()
    secured.install("renewed")
    secured.reload(lambda: secured.ask("ca") == "200", "the renewed one is used")
    assert secured.trouble() is None and secured.member.daemon.pid == daemon and secured.member.runs()


@pytest.mark.limit(60)
def test_clients_need_a_certificate(make_cluster):
    cluster = make_cluster(1)
    secured = Secured(cluster)
    secured.start(client_ca_file=str(secured.directory / "ca.pem"))
    assert secured.ask("ca") == "000" and secured.ask("ca", "stranger") == "000" and secured.ask("ca", "server") == "000"
    files = {name: secured.directory / name for name in ("ca.pem", "client.pem", "client.key")}
    give(files["client.key"])
    assert "primary" in secured.ttorch("--ca", files["ca.pem"], "--cert", files["client.pem"], "--key",
                                       files["client.key"], "status")
    assert secured.ttorch("--ca", files["ca.pem"], "status", check=False).returncode == 1
    printed = secured.member.ttorch("haproxy-config", "--check-ca", files["ca.pem"], "--check-cert", "/both.pem")
    assert f"check port {secured.port} check-ssl verify required ca-file {files['ca.pem']} crt /both.pem" in printed
    assert "--check-cert" in secured.member.ttorch("haproxy-config", check=False).stderr
