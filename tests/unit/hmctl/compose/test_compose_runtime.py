"""What a container is and may do: command, environment, labels, rights, limits, devices."""

from __future__ import annotations

import pytest
from composing import refused, service, warnings

from hmcore.apps.spec import Logging, Ulimit


def container(body, **options):
    return service(body, **options).container


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("~", None),
        ("''", ()),
        ("[]", ()),
        ("nginx -g 'daemon off;'", ("nginx", "-g", "daemon off;")),
        ("[sh, -c, 'a && b']", ("sh", "-c", "a && b")),
        ("[sleep, 10]", ("sleep", "10")),
        ("['a b', '']", ("a b", "")),
    ],
)
def test_command_and_entrypoint(text, expected):
    assert container(f"command: {text}").command == expected
    assert container(f"entrypoint: {text}").entrypoint == expected


def test_what_no_shell_runs_is_dropped_and_said():
    assert container("command: a && b").command == ("a",)
    assert "'&& b'" in warnings("command: a && b")[0]
    assert "cannot be split" in refused('command: "it\'s"')[0]
    assert "must be a list" in refused("command: {a: b}")[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{A: b, C: 5, D: true, E: 1.5, F: '', G: , H: null}", {"A": "b", "C": "5", "D": "true", "E": "1.5", "F": ""}),
        ("[A=b, C=, D, E=x=y, 'F=a b']", {"A": "b", "C": "", "E": "x=y", "F": "a b"}),
        ("{spring.datasource.url: x, npm_config_//r: y}", {"spring.datasource.url": "x", "npm_config_//r": "y"}),
        ("[A=1, A=2]", {"A": "2"}),
        ("[]", {}),
        ("", {}),
    ],
)
def test_environment(text, expected):
    assert container(f"environment: {text}").environment == expected


@pytest.mark.parametrize("text", ["{'A B': x}", "{'': x}", "[=x]", "[5]", "{A: [b]}", "{A: .inf}", "text", '{A: "a\\0b"}'])
def test_environments_that_cannot_be(text):
    assert refused(f"environment: {text}")[0].startswith("compose.yaml:4: services.web.environment")


def test_labels():
    assert container("labels: {a: 1, b: , c: true}").labels == {"a": "1", "b": "", "c": "true"}
    assert container("labels: [a=1, b, 'traefik.http.routers.x.rule=Host(`x`)']").labels == {
        "a": "1", "b": "", "traefik.http.routers.x.rule": "Host(`x`)",
    }  # fmt: skip
    assert container("labels: {hypermesh.port: 8080}").labels == {"hypermesh.port": "8080"}
    assert "HyperMesh's own" in refused("labels: {hypermesh.allocation: x}")[0]
    assert "HyperMesh's own" in refused("deploy: {labels: [hypermesh.app=x]}")[0]
    assert "Compose's own" in refused("labels: {com.docker.compose.project: x}")[0]
    spec = service("deploy: {labels: {a: b}}")
    assert spec.labels == {"a": "b"}
    assert spec.container.labels == {}


def test_plain_keys():
    found = container(
        "user: 1000:1000\nworking_dir: /srv\nhostname: web1\nstop_signal: SIGQUIT\nstop_grace_period: 1m30s\nread_only: true\n"
        "init: true\ntty: 'true'\nstdin_open: yes\nshm_size: 64m\noom_score_adj: -500\nsecurity_opt: ['no-new-privileges:true']\n"
        "group_add: [mail, 44]\npid: host\nipc: shareable"
    )
    assert (found.user, found.working_dir, found.hostname, found.stop_signal, found.stop_grace) == (
        "1000:1000",
        "/srv",
        "web1",
        "SIGQUIT",
        90,
    )
    assert (found.read_only, found.init, found.tty, found.stdin_open) == (True, True, True, True)
    assert (found.shm_size, found.oom_score_adj, found.security_opt) == (64 << 20, -500, ("no-new-privileges:true",))
    assert (found.group_add, found.pid, found.ipc) == (("mail", "44"), "host", "shareable")
    assert container("user: 1000\nstop_signal: 9").user == "1000"
    assert container("network_mode: host\nsysctls: {kernel.msgmax: 5}").sysctls == {"kernel.msgmax": "5"}


@pytest.mark.parametrize(
    "option",
    ["no-new-privileges", "no-new-privileges:true", "no-new-privileges=false", "apparmor=unconfined", "apparmor:docker-default",
     "label=disable", "label:type:svirt_apache_t", "seccomp=unconfined"],
)  # fmt: skip
def test_security_options(option):
    assert container(f"security_opt: ['{option}', '{option}']").security_opt == (option,)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("user: 'a b'", "USER or USER:GROUP"),
        ("working_dir: srv", "an absolute path"),
        ("stop_signal: TERM;reboot", "a signal's name"),
        ("stop_grace_period: 30", "with its unit: 30s"),
        ("stop_grace_period: 1e400", "must be a duration"),
        ("read_only: perhaps", "true or false"),
        ("shm_size: lots", "number of bytes"),
        ("oom_score_adj: 2000", "from -1000 to 1000"),
        ("pid: service:x", "containers cannot share it"),
        ("pid: mine", "must be one of host"),
        ("cap_add: [net admin]", "a capability's name"),
        ("cap_add: NET_ADMIN", "must be a list"),
        ("devices: [sda]", "/dev/ON-NODE"),
        ("devices: ['/dev/a:/dev/b:x']", "/dev/ON-NODE"),
        ("devices: ['vendor.com/class=gpu']", "(CDI)"),
        ("security_opt: [seccomp=./profile.json]", "a profile of one's own cannot be had"),
        ("security_opt: ['seccomp:{}']", "a profile of one's own cannot be had"),
        ("security_opt: [systempaths=unconfined]", "stay masked"),
        ("security_opt: [two]", "is no security option"),
        ("security_opt: [no-new-privileges=perhaps]", "is no security option"),
        ("security_opt: ['']", "is no security option"),
        ("security_opt: [5]", "must be text"),
        ("sysctls: {net.core.somaxconn: 5}\nnetwork_mode: host", "is the node's own with network_mode: host"),
        ("ulimits: {nofile: many}", "a whole number"),
        ("ulimits: {nofile: {soft: 2, hard: 1}}", "a soft limit above"),
        ("ulimits: {nofile: {soft: 2}}", "both soft and hard"),
        ("ulimits: {'NO FILE': 1}", "is no limit"),
        ("sysctls: [net.core.somaxconn]", "has no value"),
        ("sysctls: {'a; b': 1}", "a kernel parameter's name"),
        ("logging: {driver: 'a b'}", "letters, digits"),
        ("privileged: {}", "true or false"),
        ("image: 'Nginx'", "the name in small letters"),
        ("image: 'nginx; reboot'", "the name in small letters"),
        ("image: -nginx", "the name in small letters"),
        ("image: 5", 'in quotes: "5"'),
    ],
)
def test_mistakes(body, words):
    problems = refused(body)
    assert words in problems[0]
    assert problems[0].startswith(("compose.yaml:3: services.web.image", "compose.yaml:4: services.web."))


def test_rights():
    found = container("cap_add: [NET_ADMIN, cap_sys_time, NET_ADMIN]\ncap_drop: [ALL]")
    assert found.cap_add == ("NET_ADMIN", "SYS_TIME")
    assert found.cap_drop == ("ALL",)
    assert container("privileged: true").privileged
    assert "may do anything on its node" in warnings("privileged: true")[0]
    assert not warnings("privileged: false")


def test_limits_of_the_kernel():
    assert container("ulimits: {nproc: 65535, nofile: {soft: '20000', hard: 40000}, memlock: -1}").ulimits == {
        "nproc": Ulimit(soft=65535, hard=65535), "nofile": Ulimit(soft=20000, hard=40000), "memlock": Ulimit(soft=-1, hard=-1),
    }  # fmt: skip
    assert container("sysctls: [net.core.somaxconn=1024]").sysctls == {"net.core.somaxconn": "1024"}
    assert container("sysctls: {net.ipv4.tcp_syncookies: 0}").sysctls == {"net.ipv4.tcp_syncookies": "0"}


def test_devices():
    found = container("devices: [/dev/a, '/dev/b:/dev/c', '/dev/d:/dev/e:r', {source: /dev/f, permissions: rw}]").devices
    assert found == ("/dev/a:/dev/a:rwm", "/dev/b:/dev/c:rwm", "/dev/d:/dev/e:r", "/dev/f:/dev/f:rw")


def test_logging():
    assert container("logging: {driver: json-file, options: {max-size: 10m, max-file: 3, tag: }}").logging == Logging(
        driver="json-file", options={"max-size": "10m", "max-file": "3", "tag": ""}
    )


IMAGES = [
    "redis", "redis:5", "library/redis", "docker.io/library/redis", "my-private.registry:5000/redis", "ghcr.io/a/b_c/d.e--f:v1.2-x",
    "redis@sha256:" + "0" * 64, "redis:5@sha256:" + "a" * 64, "localhost:5000/x", "[::1]:5000/x", "sha256:" + "b" * 64,
]  # fmt: skip


@pytest.mark.parametrize("image", IMAGES)
def test_images(image):
    assert container(f"image: '{image}'").image == image


@pytest.mark.parametrize(
    "image", ["", "a b", "A", "a:", "a:b:c", "a@sha256:12", "/a", "a/", "a//b", "a:" + "x" * 129, "a" * 600, "-x", "a\nb"]
)
def test_what_is_no_image(image):
    assert refused("image: " + repr(image))
