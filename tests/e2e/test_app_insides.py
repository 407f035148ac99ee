"""What a compose file says of a container, seen from inside it: limits, capabilities, names, mounts; and where its secrets are not."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator

import pytest
from composing import IMAGE, Apps

MARKS = "/srv/e2e-marks"  # on the nodes; what containers write there outlives them
CHOWN, NET_BIND_SERVICE, SYS_NICE = 1 << 0, 1 << 10, 1 << 23  # as linux/capability.h numbers them
LIVING = "trap 'echo caught > /marks/signal; exit 0' USR1; echo said $$*; while :; do sleep 0.1; done"
ODD = f"""
services:
  odd:
    image: {IMAGE}
    entrypoint: [sh, -c, "{LIVING}"]
    command: [nothing, one, "two three"]
    working_dir: /www
    hostname: odd-one
    labels: {{team.e2e: "yes"}}
    stop_signal: SIGUSR1
    stop_grace_period: 100s
    ulimits: {{nofile: {{soft: 1234, hard: 2345}}, nproc: 777}}
    sysctls: {{net.core.somaxconn: 321, net.ipv4.ip_default_ttl: "77"}}
    extra_hosts: ["printer:192.0.2.7"]
    logging: {{driver: json-file, options: {{max-size: 64k, max-file: "2"}}}}
    tmpfs: ["/scratch:size=1m,mode=1777"]
    volumes: ["{MARKS}:/marks"]
    user: "1000:1001"
    read_only: true
    init: true
    cap_drop: [ALL]
    cap_add: [NET_BIND_SERVICE, SYS_NICE]
    networks: {{front: {{aliases: [shown]}}, back: {{aliases: [hidden]}}}}
    deploy: {{update_config: {{monitor: 0s}}}}
  ahead:
    image: {IMAGE}
    init: true
    cap_drop: [ALL]
    cap_add: [CHOWN]
    networks: [front]
    deploy: {{update_config: {{monitor: 0s}}}}
  behind:
    image: {IMAGE}
    init: true
    volumes: ["/var/run/docker.sock:/var/run/docker.sock"]
    networks: [back]
    deploy: {{update_config: {{monitor: 0s}}}}
networks: {{front: {{}}, back: {{}}}}
"""
HERE = f"image: {IMAGE}, init: true, deploy: {{placement: {{constraints: [node.hostname == node1]}}, update_config: {{monitor: 0s}}}}"
NEAR = f"""
services:
  both: {{hostname: both-host, networks: {{front: {{aliases: [shown]}}, back: {{aliases: [hidden]}}}}, {HERE}}}
  ahead: {{networks: [front], {HERE}}}
  behind: {{networks: [back], {HERE}}}
networks: {{front: {{}}, back: {{}}}}
"""
STRANGER = f"""
services:
  stranger: {{hostname: behind, {HERE}}}
  apart: {{volumes: ["/etc/passwd:/etc/resolv.conf:ro"], {HERE}}}
"""
ALMIGHTY = f"""
services:
  almighty:
    image: {IMAGE}
    init: true
    privileged: true
    deploy: {{update_config: {{monitor: 0s}}}}
"""
MOUNTING = f"""
services:
  vault:
    image: {IMAGE}
    init: true
    secrets: [external, own]
    configs: [{{source: motd, target: /motd}}]
    environment: {{KNOWN: "%(known)s"}}
    deploy: {{mode: global, update_config: {{monitor: 0s, parallelism: 0}}}}
secrets:
  external: {{external: true, name: e2e-external}}
  own: {{environment: E2E_OWN}}
configs:
  motd: {{environment: E2E_MOTD}}
"""
# Words come by stdin, so that searching for them does not write them down. Packages and their lists are the base image's.
SEARCH = """cat > /run/e2e-words
grep --recursive --files-with-matches --binary-files=text --fixed-strings --file=/run/e2e-words --devices=skip --exclude-dir=packages \\
     --exclude-dir=dpkg --exclude-dir=apt "$@" || [ $? = 1 ]
rm /run/e2e-words"""
# What stays of a host without power; programs that nobody changes are left out.
DISK = ("/etc", "/home", "/root", "/srv", "/tmp", "/var")


@pytest.fixture
def marks(apps: Apps) -> Iterator[None]:
    """A folder on every node that anybody may write to."""
    for node in apps.cluster.names:
        apps.cluster.inside(node, "install", "-d", "-m", "1777", MARKS)
    yield
    for node in apps.cluster.names:
        apps.cluster.inside(node, "rm", "-r", MARKS)


def shell(apps: Apps, where: str, script: str) -> str:
    """What it prints in a replica."""
    return str(apps.run("exec", where, "--", "sh", "-ec", script).stdout)


def capabilities(status: str) -> dict[str, int]:
    """By their sets' names, of a /proc/PID/status."""
    words = [line.split() for line in status.splitlines() if line.startswith("Cap")]
    return {name.rstrip(":"): int(mask, 16) for name, mask in words}


def table(text: str) -> list[list[str]]:
    """Its words, by line."""
    return [line.split() for line in text.splitlines() if line.strip()]


def on_node1(apps: Apps, service: str) -> dict[str, str]:
    """The id, name and address that Docker knows of a service's one container."""
    (replica,) = apps.replicas(service)
    form = "{{.Name}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    name, address = apps.cluster.inside("node1", "docker", "inspect", "-f", form, replica["container"]).split()
    return {"id": replica["container"], "name": name.lstrip("/"), "address": address}


def test_a_container_is_what_its_service_says(apps: Apps, marks: None) -> None:
    done = apps.deploy("odd", ODD)
    assert done["ending"] == "healthy"
    assert "services.behind.volumes[0]: Docker's socket is mounted" in done["said"]
    (odd,) = apps.replicas("odd/odd")
    (told,) = json.loads(apps.cluster.inside(odd["node"], "docker", "inspect", odd["container"]))
    assert told["Config"]["Labels"]["team.e2e"] == "yes"
    assert told["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "64k", "max-file": "2"}}
    assert apps.run("logs", "odd/odd").stdout.endswith(" odd.1 said one two three\n")

    assert shell(apps, "odd/odd", "pwd; hostname; busybox id -u; busybox id -g").split() == ["/www", "odd-one", "1000", "1001"]
    assert shell(apps, "odd/odd", "cat /proc/1/comm").strip() in ("docker-init", "tini")
    assert shell(apps, "odd/odd", "cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/ip_default_ttl").split() == ["321", "77"]
    assert ["192.0.2.7", "printer"] in table(shell(apps, "odd/odd", "cat /etc/hosts"))
    limits = table(shell(apps, "odd/odd", "cat /proc/self/limits"))
    assert ["Max", "open", "files", "1234", "2345", "files"] in limits
    assert ["Max", "processes", "777", "777", "processes"] in limits
    held = capabilities(shell(apps, "odd/odd", "cat /proc/self/status"))
    assert (held["CapEff"], held["CapBnd"]) == (0, NET_BIND_SERVICE | SYS_NICE), "who is not root has only what it may come to"
    assert capabilities(shell(apps, "odd/ahead", "cat /proc/self/status"))["CapEff"] == CHOWN

    mounts = {words[1]: (words[2], words[3].split(",")) for words in table(shell(apps, "odd/odd", "cat /proc/mounts"))}
    assert "ro" in mounts["/"][1]
    assert "ro" in mounts["/etc/resolv.conf"][1]
    asked = shell(apps, "odd/odd", "busybox nslookup ahead > /dev/null; cat /etc/resolv.conf")
    assert ["nameserver", "127.0.0.11"] not in table(asked)
    assert mounts["/scratch"][0] == "tmpfs"
    assert {"rw", "size=1024k"} <= set(mounts["/scratch"][1])
    assert (
        shell(apps, "odd/odd", "echo kept > /scratch/file; cat /scratch/file; (echo no > /www/file) 2> /dev/null || echo no")
        == "kept\nno\n"
    )
    (helper,) = apps.replicas("odd/behind")
    asked = ("stat", "-c", "%F %i", "/var/run/docker.sock")
    assert apps.run("exec", "odd/behind", "--", *asked).stdout == apps.cluster.inside(helper["node"], *asked)

    apps.change("rm", "odd", "--yes")  # in less time than it would have: it heeds its signal
    assert apps.cluster.inside(odd["node"], "cat", f"{MARKS}/signal") == "caught\n"


def test_only_who_shares_a_network_finds_a_name(apps: Apps) -> None:
    """Wherever they are: Docker's own server of names knows the containers of its node."""
    apps.deploy("near", NEAR)
    names = ("both", "shown", "hidden", "ahead", "behind", "both.near", "behind.near")
    asking = f"for name in {' '.join(names)}; do busybox nslookup $name > /dev/null 2>&1 && echo $name; done; true"
    found = {service: set(shell(apps, f"near/{service}", asking).split()) for service in ("both", "ahead", "behind")}
    assert found["both"] == set(names)
    assert found["ahead"] == {"both", "shown", "ahead", "both.near"}
    assert found["behind"] == {"both", "hidden", "behind", "both.near", "behind.near"}


def test_a_name_leads_to_ones_own_app_whatever_strangers_on_the_node_are_called(apps: Apps) -> None:
    """Docker's own server of names would answer first: by what containers are called, and by what they call their hosts."""
    apps.deploy("stranger", STRANGER)
    apps.deploy("near", NEAR)
    stranger, behind = on_node1(apps, "stranger/stranger"), on_node1(apps, "near/behind")
    answer = shell(apps, "near/both", "busybox nslookup behind").split()
    assert (behind["address"] in answer, stranger["address"] in answer) == (True, False)
    strange = (stranger["name"], stranger["id"][:12], "both-host")
    asking = f"for name in {' '.join(strange)}; do busybox nslookup $name > /dev/null 2>&1 && echo $name; done; true"
    assert shell(apps, "near/ahead", asking) == ""
    assert shell(apps, "stranger/apart", "cat /etc/resolv.conf") == apps.cluster.inside("node1", "cat", "/etc/passwd")


def test_a_privileged_container_has_all_that_its_node_has(apps: Apps) -> None:
    """Docker gives it every capability that the kernel knows; on a machine that lacks one itself it cannot be, and that is said."""
    cluster = apps.cluster
    last = int(cluster.inside("node1", "cat", "/proc/sys/kernel/cap_last_cap"))
    whole = capabilities(cluster.inside("node1", "cat", "/proc/1/status"))["CapBnd"] == (2 << last) - 1
    done = apps.deploy("almighty", ALMIGHTY, check=whole)
    assert "services.almighty.privileged: whoever is in this container may do anything on its node" in done["said"]
    (replica,) = apps.replicas("almighty")
    assert cluster.inside(replica["node"], "docker", "inspect", "-f", "{{.HostConfig.Privileged}}", replica["container"]) == "true\n"
    if whole:
        assert done["ending"] == "healthy"
        assert capabilities(shell(apps, "almighty/almighty", "cat /proc/self/status"))["CapEff"] == (2 << last) - 1
    else:
        assert (done["code"], done["ending"]) == (1, "paused")
        assert "unable to apply caps" in done["error"]


def test_what_is_secret_is_in_memory_and_on_no_disk(apps: Apps) -> None:
    cluster = apps.cluster
    words = {name: secrets.token_hex(16) for name in ("external", "own", "motd")}
    known = secrets.token_hex(16)  # is no secret: that it is found shows that the others would be
    cluster.run("secret", "set", "e2e-external", "-", stdin=words["external"])
    try:
        apps.deploy("mounting", MOUNTING % {"known": known}, env={"E2E_OWN": words["own"], "E2E_MOTD": words["motd"]})
        for each in apps.replicas("mounting"):
            where = f"mounting/vault@{each['node']}"
            files = ("/run/secrets/external", "/run/secrets/own", "/motd")
            assert shell(apps, where, f"cat {' '.join(files)}") == "".join(words.values())
            mounted = {line.split()[1]: line.split()[2] for line in shell(apps, where, "cat /proc/mounts").splitlines()}
            assert {file: mounted.get(file) for file in files} == dict.fromkeys(files, "tmpfs")
        everything = [form for word in words.values() for form in forms(word)]
        for node in cluster.names:
            assert len(holding(apps, node, [*words.values()], "/run/hypermesh")) == 3
            assert holding(apps, node, [known], "/var/lib/docker/containers"), "Docker notes what is in its environment"
            assert holding(apps, node, everything, *DISK) == []
        apps.change("rm", "mounting", "--yes")
        for node in cluster.names:
            assert holding(apps, node, everything, "/run/hypermesh", "/var/lib/hypermesh", "/var/lib/docker", "/var/log") == []
    finally:
        apps.remove_all()
        cluster.run("secret", "rm", "e2e-external", "--yes")


def forms(word: str) -> list[str]:
    """As it is, and as base64 has it, wherever in a text it stands."""
    encoded = [base64.b64encode(b"\0" * shift + word.encode()).decode()[4:-4] for shift in range(3)]
    return [word, word.encode().hex(), *encoded]


def holding(apps: Apps, node: str, words: list[str], *folders: str) -> list[str]:
    """Files below `folders` of a node with one of the words in them."""
    argv = ["sh", "-ec", SEARCH, "-", *folders]
    done = apps.cluster.lab.exec(node, argv, stdin="\n".join(words).encode(), timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().split()
