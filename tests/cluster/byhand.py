"""A PostgreSQL that somebody has made by hand, where a member will find it."""
import subprocess

from cluster import as_user, postgres_programs


def run(member, *command):
    subprocess.run(as_user(command), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   cwd=member.cluster.directory)


def initdb(member):
    run(member, postgres_programs() / "initdb", "-D", member.pgdata, "-U", "postgres", "--no-sync", "-A", "trust")


def make(member, *statements, settings="", hba=""):
    """Made with what the member's files are to have, run for the statements, and stopped."""
    initdb(member)
    for name, lines in (("postgresql.conf", settings), ("pg_hba.conf", hba)):
        with (member.pgdata / name).open("a", encoding="utf-8") as file:
            file.write(lines)
    ctl = (postgres_programs() / "pg_ctl", "-D", member.pgdata, "-w", "-o",
           f"-p {member.port} -c listen_addresses=127.0.0.1 -k {member.directory}")
    run(member, *ctl, "-l", member.directory / "by-hand.log", "start")
    for statement in statements:
        member.query(statement)
    run(member, *ctl, "-m", "fast", "stop")
