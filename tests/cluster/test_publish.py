"""What docs/PUBLISHING.md and docs/openapi.yaml promise: every form, with its settings and commands as printed there."""
import http.client
import json
import re
import subprocess

import pytest
import yaml

from cluster import SOURCE, free_ports, give

MANUAL = (SOURCE / "docs/PUBLISHING.md").read_text(encoding="utf-8")
API = yaml.safe_load((SOURCE / "docs/openapi.yaml").read_text(encoding="utf-8"))


def blocks(kind):
    """Texts of the manual's fenced blocks of this kind, "" for those without a kind."""
    every = re.findall(r"^```(\w*)\n(.*?)^```$", MANUAL, re.MULTILINE | re.DOTALL)
    return [text for word, text in every if word == kind]


def as_here(text, member):
    """The manual's paths and port, as they are for this member."""
    text = text.replace("/run/ttorch", f"{member.directory}/run").replace("/etc/ttorch", f"{member.directory}/etc")
    return text.replace("localhost:8008", f"127.0.0.1:{member.http_port}")


def publish_everything(cluster):
    """The manual's settings, template and hook for every member, each with a port of its own."""
    settings, = blocks("yaml")
    template = next(block for block in blocks("") if "{{#primary}}" in block)
    hook = next(block for block in blocks("") if block.startswith("#!"))
    for member, port in zip(cluster.members, free_ports(len(cluster.members))):
        member.http_port = port
        for name in ("run", "etc"):
            (member.directory / name).mkdir()
            give(member.directory / name)
        (member.directory / "etc/backends.conf.in").write_text(template, encoding="utf-8")
        (member.directory / "etc/on-change").write_text(as_here(hook, member), encoding="utf-8")
        (member.directory / "etc/on-change").chmod(0o755)
        changes = yaml.safe_load(as_here(settings, member))
        changes["http"] = {"listen": "127.0.0.1", "port": port}
        member.write_config(**changes)
    return cluster


def ask(member, path, method="GET", timeout=3):
    connection = http.client.HTTPConnection("127.0.0.1", member.http_port, timeout=timeout)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type"), response.read().decode()
    finally:
        connection.close()


def read(member, name):
    return (member.directory / "run" / name).read_text(encoding="utf-8")


def found(pattern, text):
    match = re.search(pattern, text, re.MULTILINE)
    return match.group(1) if match else None


def forms(member):
    """(index, primary) as each form of this member says; primary None while it names none."""
    ports = {str(m.port): m.name for m in member.cluster.data_members}
    topology = json.loads(member.topology_file.read_text(encoding="utf-8"))
    body = json.loads(ask(member, "/v1/topology")[2])
    env, bouncer, made = read(member, "database.env"), read(member, "databases.ini"), read(member, "backends.conf")
    service = read(member, "pg_service.conf")
    none = "There is no primary|Not fresh"
    first = found(r"^port=(\d+)", service)
    head = r"index (\d+)\."
    return {
        "file": (topology["index"], topology["primary"] and topology["primary"]["member"]),
        "http": (body["index"], body["primary"] and body["primary"]["member"]),
        "env": (int(found(head, env)), found(r'^TTORCH_PRIMARY="(.+)"$', env)),
        "service": (int(found(head, service)), None if re.search(none, service) else ports[first]),
        "pgbouncer": (int(found(head, bouncer)), ports.get(found(r"^postgres = .* port=(\d+)", bouncer))),
        "template": (None, ports.get(found(r"^primary .*:(\d+)$", made))),
        "check": (None, member.name if ask(member, "/primary", "OPTIONS")[0] == 200 else None),
    }


def settled(cluster, primary):
    """Every form of every member names this primary; only its own member passes the check."""
    return all(name == primary.name for member in cluster.members for form, (_, name) in forms(member).items()
               if form != "check" or member is primary)


def schema_of(response):
    while "$ref" in response:
        response = resolve(response["$ref"])
    return response


def resolve(reference):
    node = API
    for key in reference.removeprefix("#/").split("/"):
        node = node[key]
    return node


KINDS = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
KEYWORDS = {"type", "nullable", "enum", "minimum", "required", "properties", "additionalProperties", "items", "description"}


def check_object(schema, value, where):
    properties = schema.get("properties", {})
    missing = set(schema.get("required", [])) - set(value)
    assert not missing, f"{where}: {missing} missing"
    if schema.get("additionalProperties") is False:
        assert set(value) <= set(properties), f"{where}: {set(value) - set(properties)} not described"
    for key in set(properties) & set(value):
        check_schema(properties[key], value[key], f"{where}.{key}")


def check_schema(schema, value, where):
    """As much of JSON Schema as the file uses."""
    while "$ref" in schema:
        schema = resolve(schema["$ref"])
    assert set(schema) <= KEYWORDS, f"{where}: a keyword that nobody checks: {set(schema) - KEYWORDS}"
    if value is None and schema.get("nullable"):
        return
    if "type" in schema:
        kind = schema["type"]
        assert isinstance(value, KINDS[kind]) and isinstance(value, bool) == (kind == "boolean"), f"{where}: {value!r} is no {kind}"
    assert value in schema.get("enum", [value]), f"{where}: {value!r} is none of {schema['enum']}"
    assert "minimum" not in schema or value >= schema["minimum"], f"{where}: {value!r} is too small"
    if isinstance(value, dict):
        check_object(schema, value, where)
    for part in value if isinstance(value, list) and "items" in schema else []:
        check_schema(schema["items"], part, f"{where}[]")


def check_api(member):
    """Every path of openapi.yaml answers with a status and a body that stand there; and none is missing in it."""
    listed = re.search(r"but at (.*)", json.loads(ask(member, "/nothing")[2])["error"]).group(1).split(", ")
    assert set(listed) <= set(API["paths"])
    for path, methods in API["paths"].items():
        if path.endswith("/stream"):
            assert ask(member, path, "HEAD")[:2] == (200, "text/event-stream")
            continue
        for method, described in methods.items():
            status, kind, body = ask(member, path, method.upper())
            assert str(status) in described["responses"], f"{method} {path}: {status}"
            contents = schema_of(described["responses"][str(status)])["content"]
            assert kind.split(";")[0] in contents, f"{method} {path}: {kind}"
            if kind == "application/json":
                check_schema(contents[kind]["schema"], json.loads(body), f"{method} {path}")
        if "get" in methods:
            member.cluster.wait(lambda at=path: ask(member, at, "HEAD")[0] == ask(member, at)[0], 5, f"HEAD {path} as GET")
            assert ask(member, path, "OPTIONS")[2] == ""


def run_commands(member):
    for block in blocks("sh"):
        done = subprocess.run(["bash", "-euc", as_here(block, member)], capture_output=True, text=True, timeout=20,
                              check=False)
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        if "database.env" in block:
            assert done.stdout.split() == ["f", "t"], "the first is the primary, the second a standby"


def await_all(cluster, primary, seen):
    """Polls every form until all have named `primary`, and none contradicted another one of the same index."""
    wanted = sum(len(forms(member)) for member in cluster.members) - len(cluster.members) + 1
    named = set()

    def look():
        for member in cluster.members:
            for form, (index, name) in forms(member).items():
                if index is not None and name is not None:
                    assert seen.setdefault(index, name) == name, \
                        f"index {index}: {member}'s {form} says {name}, another one {seen[index]}"
                if name is not None and name == primary():
                    named.add((member.name, form))
        return len(named) == wanted

    cluster.wait(look, 15, "every form names the new primary")


@pytest.mark.limit(120)
def test_every_form_follows_a_failover(make_cluster):
    cluster = publish_everything(make_cluster(3)).found()
    old = cluster.primary()
    cluster.wait(lambda: settled(cluster, old), 10, "every form names the primary")
    check_api(old)
    run_commands(old)
    standby = cluster.standbys()[0]
    check_api(standby)
    assert ask(standby, "/replica?lag=16MB")[0] == 200 and ask(old, "/replica")[0] == 503
    assert "\nttorch_primary{" in ask(old, "/metrics")[2]

    epoch, seen = cluster.epoch(), {}
    old.kill_postgres()
    newest = {}

    def primary():
        """Known from the record's history, not from what is tested."""
        if "name" not in newest:
            status = cluster.status()
            if status and status["open"] and status["epoch"] > epoch:
                newest["name"] = status["primary"]
        return newest.get("name")

    await_all(cluster, primary, seen)
    cluster.wait(lambda: all(f"primary is {newest['name']}" in read(m, "changes.log").splitlines()[-1]
                             for m in cluster.members), 10, "every hook was told")
    rows = {row["output"]: row for row in cluster.members[0].status()["publishing"]}
    assert rows["publish.hook"]["index"] and not any(row["error"] for row in rows.values())
    cluster.wait_redundant()


@pytest.mark.limit(90)
def test_without_quorum_nobody_is_named(make_cluster):
    cluster = publish_everything(make_cluster(3)).found()
    last = cluster.primary()
    cluster.wait(lambda: settled(cluster, last), 10, "every form names the primary")
    for member in cluster.standbys():
        member.kill_everything()
    cluster.wait(lambda: ask(last, "/primary")[0] == 503, 10, "the check fails")
    cluster.wait(lambda: all(name is None for _, name in forms(last).values()), 5, "no form names anybody")
    assert "fresh=false" in read(last, "fresh")
    assert ask(last, "/v1/topology")[0] == 503 and ask(last, "/replica")[0] == 503
    assert ask(last, "/liveness")[0] == 200
    for _ in range(20):
        assert all(name is None for _, name in forms(last).values())
    check_api(last)


@pytest.mark.limit(90)
def test_what_cannot_be_published_is_told(make_cluster):
    """An unwritable path, a hook that is none, an occupied port: the rest goes on."""
    cluster = make_cluster(1)
    member, = cluster.members
    member.write_config(http={"listen": "127.0.0.1", "port": member.peer_port},
                        publish={"env_file": "/proc/nowhere/x.env", "hook": f"{member.directory}/no-hook",
                                 "service_file": str(member.directory / "pg_service.conf")})
    cluster.found()
    expected = {"publish.env_file": "No such file", "publish.hook": "no such file", "http.listen": "in use"}

    def told():
        rows = {row["output"]: row["error"] for row in member.status()["publishing"]}
        return rows if all(rows[name] for name in expected) else None

    rows = cluster.wait(told, 10, "all three are told")
    for name, words in expected.items():
        assert words in rows[name] and rows[name] in member.log()
    assert rows["publish.service_file"] is None
    cluster.wait(lambda: "[rw]" in (member.directory / "pg_service.conf").read_text(encoding="utf-8"), 5, "a service file")
