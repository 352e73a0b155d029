"""Real PgBouncers and HAProxy in front of a cluster, run as an ordinary user from configurations that `ttorch` prints."""
import contextlib
import re
import subprocess
import threading

import psycopg2

from cluster import Cluster, Member, PASSWORD, as_user, free_ports, give, postgres_programs

USERS = f'"pgbouncer" "{PASSWORD}"\n"postgres" "{PASSWORD}"\n'


class HostMember(Member):
    """On an address of its own, so that all have the same port for HTTP, as hosts have."""

    clients = "127.0.0.0/8"

    def __init__(self, cluster, name, peer_port, postgres_port):
        super().__init__(cluster, name, peer_port, postgres_port)
        self.address = f"127.0.0.{name[1:]}"

    def settings(self):
        base = super().settings()
        base["http"] = {"listen": self.address, "port": self.cluster.http_port}
        base["publish"] = {"pgbouncer_file": str(self.directory / "databases.ini"), "user": "postgres"}
        base["postgresql"]["hba"].append("host replication all 127.0.0.0/8 trust")  # from any of these addresses
        base["pgbouncer"] = {"poolers": {name: f"127.0.0.1:{port}" for name, port in self.cluster.pooler_ports.items()},
                             "password_file": str(self.cluster.directory / "password")}
        return base


class PooledCluster(Cluster):
    """Each PgBouncer belongs to a member, whose file it reads; all members are told of all of them."""

    member_type = HostMember

    def __init__(self):
        self.http_port, *ports = free_ports(4)
        self.pooler_ports = dict(zip(("m1", "m2", "m3"), ports))
        self.poolers = {}
        super().__init__(3)

    def start_poolers(self):
        self.poolers = {name: PgBouncer(self[name], port).start() for name, port in self.pooler_ports.items()}

    def drives(self, *names):
        """Every member has led these poolers to the primary, or all, and has no complaint."""
        now, names = self.primary(), names or tuple(self.poolers)
        rows = [self.pooler_row(member, name) for member in self.members for name in names]
        return (now and all(row and row["index"] and not row["error"] for row in rows)
                and all(self.poolers[name].leads_to(now) and not self.poolers[name].is_paused() for name in names))

    def wait_drives(self, *names):
        self.wait(lambda: self.drives(*names), 30, "the poolers lead to the primary, and their clients go on")

    @staticmethod
    def pooler_row(member, name):
        """What the member's status says of a pooler."""
        status = member.status()
        rows = status["publishing"] if status else []
        return next((row for row in rows if row["output"] == "pgbouncer.poolers" and row["where"].startswith(f"{name} ")), None)

    def switch_over(self, to):
        self.primary().ttorch("switchover", "--to", to.name, "--yes")
        self.wait(lambda: self.primary() is to, 15, f"{to} is primary")


class Server:
    """A process in a directory of the cluster, so that it ends with it."""

    def __init__(self, cluster, name):
        self.cluster = cluster
        self.directory = cluster.directory / name
        self.directory.mkdir(mode=0o700)
        give(self.directory)
        self.output = cluster.directory / f"{name}.log"
        self.process = None

    def write(self, name, text):
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        give(path)
        return path

    def run(self, *command):
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(as_user(command), cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)

    def stop(self):
        self.process.kill()
        self.process.wait()


class PgBouncer(Server):
    def __init__(self, member, port):
        super().__init__(member.cluster, f"pgbouncer-{member}")
        self.port = port
        users = self.write("users", USERS)
        self.config = self.write("pgbouncer.ini", member.ttorch(
            "pgbouncer-config", "--listen", "127.0.0.1", "--port", str(port), "--directory", str(self.directory),
            "--users", str(users), "--log", str(self.directory / "pgbouncer.log")))

    def start(self):
        self.run("/usr/sbin/pgbouncer", "-q", self.config)
        self.cluster.wait(self.answers, 10, f"PgBouncer on port {self.port} answers")
        return self

    def restart(self, users):
        """With other users' passwords."""
        self.stop()
        self.write("users", users)
        self.run("/usr/sbin/pgbouncer", "-q", self.config)

    def answers(self):
        try:
            return self.ask("SHOW VERSION")
        except psycopg2.OperationalError:
            return None

    @contextlib.contextmanager
    def session(self):
        """A client's, in a transaction."""
        connection = psycopg2.connect(f"host=127.0.0.1 port={self.port} user=postgres password='{PASSWORD}' dbname=postgres")
        try:
            yield connection.cursor()
        finally:
            connection.close()

    def ask(self, command):
        """Rows of the console's answer, as dictionaries."""
        connection = psycopg2.connect(f"host=127.0.0.1 port={self.port} user=pgbouncer password='{PASSWORD}' "
                                      "dbname=pgbouncer connect_timeout=5")
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(command)
                names = [column.name for column in cursor.description or []]
                return [dict(zip(names, row)) for row in (cursor.fetchall() if names else [])]
        finally:
            connection.close()

    def database(self, name="postgres"):
        return next((row for row in self.ask("SHOW DATABASES") if row["name"] == name), None)

    def is_paused(self):
        return self.database()["paused"] == 1

    def leads_to(self, member):
        row = self.database()
        return row is not None and (row["host"], int(row["port"])) == (member.address, member.port)


class Question(threading.Thread):
    """Asks through a PgBouncer, and waits for as long as that takes."""

    def __init__(self, bouncer, sql):
        super().__init__(daemon=True)
        self.bouncer, self.sql = bouncer, sql
        self.answer = self.error = None
        self.start()

    def run(self):
        try:
            with self.bouncer.session() as cursor:
                cursor.execute(self.sql)
                self.answer = cursor.fetchone()[0]
        except psycopg2.Error as error:
            self.error = str(error)

    def result(self):
        self.join(60)
        return self.answer if self.error is None else self.error


class HAProxy(Server):
    def __init__(self, member):
        super().__init__(member.cluster, "haproxy")
        self.port, self.read_port = free_ports(2)
        self.config = self.write("haproxy.cfg", member.ttorch(
            "haproxy-config", "--bind", "127.0.0.1", "--port", str(self.port), "--read-port", str(self.read_port)))

    def start(self):
        checked = subprocess.run(as_user(["/usr/sbin/haproxy", "-c", "-f", self.config]), capture_output=True, text=True,
                                 timeout=20, check=False)
        assert checked.returncode == 0, checked.stderr
        self.run("/usr/sbin/haproxy", "-db", "-f", self.config)
        return self

    def leads_to(self, port):
        """(address, port) of the server behind it, None if it leads nowhere."""
        try:
            connection = psycopg2.connect(f"host=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout=5")
        except psycopg2.OperationalError:
            return None
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT host(inet_server_addr()), inet_server_port()")
                return cursor.fetchone()
        except psycopg2.OperationalError:
            return None
        finally:
            connection.close()

    def leads_right(self):
        """One port leads to the primary, the other to a standby."""
        now = self.cluster.primary()
        return (now and self.leads_to(self.port) == (now.address, now.port)
                and self.leads_to(self.read_port) in {(m.address, m.port) for m in self.cluster.standbys()})


class Bench:
    """pgbench through a PgBouncer, as fast as it can, until told to end."""

    def __init__(self, bouncer, clients=8):
        self.cluster = bouncer.cluster
        self.output = bouncer.directory / "pgbench.log"
        with self.output.open("wb") as log:
            self.process = subprocess.Popen(
                [*self.command(bouncer), "-n", "-c", str(clients), "-j", "2", "-T", "3600", "-P", "1", "postgres"],
                env={"PGPASSWORD": PASSWORD}, cwd=bouncer.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_progress()

    @staticmethod
    def command(bouncer):
        return [postgres_programs() / "pgbench", "-h", "127.0.0.1", "-p", str(bouncer.port), "-U", "postgres"]

    @classmethod
    def make_tables(cls, bouncer):
        subprocess.run([*cls.command(bouncer), "-i", "-q", "postgres"], env={"PGPASSWORD": PASSWORD}, check=True,
                       capture_output=True, timeout=60)

    def said(self):
        return self.output.read_text(encoding="utf-8")

    def seconds(self):
        """(transactions a second, failed transactions) of each second so far."""
        return [(float(tps), int(failed))
                for tps, failed in re.findall(r"^progress: .* s, ([\d.]+) tps, .* (\d+) failed", self.said(), re.MULTILINE)]

    def wait_progress(self, seconds=2):
        """Until it has worked on for so many more seconds."""
        before = len(self.seconds())
        self.cluster.wait(lambda: sum(tps > 0 for tps, _ in self.seconds()[before:]) >= seconds or self.process.poll() is not None,
                          30, "pgbench goes on")

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def check(self):
        """It still runs, no client of it has met an error, and no transaction has failed."""
        assert self.process.poll() is None and "error" not in self.said() and "abort" not in self.said(), self.said()
        assert not any(failed for _, failed in self.seconds()), self.said()
