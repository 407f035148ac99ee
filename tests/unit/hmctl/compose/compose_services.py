"""Services of compose files, drawn by hypothesis: every part in any of its forms."""

from hypothesis import strategies as st

SCALAR = st.one_of(st.integers(-5, 5), st.sampled_from(["x", "y=z", "1.5"]), st.booleans())
KEY = st.sampled_from(["K", "L", "M.n"])
PAIRS = st.one_of(
    st.dictionaries(KEY, SCALAR, max_size=3),
    st.lists(st.tuples(KEY, st.sampled_from(["", "1", "a=b"])).map("=".join), max_size=3, unique=True),
)
PORT = st.one_of(
    st.sampled_from(["80", "80:80", "127.0.0.1:80:80", "80:80/udp", "8000-8002:8000-8002", "81:80", "80:80/tcp"]),
    st.just(80),
    st.fixed_dictionaries(
        {"target": st.sampled_from([80, 81])}, optional={"published": st.sampled_from(["80", "90"]), "protocol": st.just("udp")}
    ),
)
TARGET = st.sampled_from(["/one", "/two", "/three"])
VOLUME = st.one_of(
    st.tuples(st.sampled_from(["./here", "vol", "/abs", "../up", "~/x"]), TARGET, st.sampled_from(["", ":ro", ":z"])).map(
        lambda p: f"{p[0]}:{p[1]}{p[2]}"
    ),
    st.fixed_dictionaries({"type": st.just("bind"), "source": st.just("./long"), "target": TARGET}),
)
SECRET = st.one_of(
    st.sampled_from(["s", "t"]),
    st.fixed_dictionaries({"source": st.sampled_from(["s", "t"])}, optional={"target": st.sampled_from(["/run/secrets/s", "/x"])}),
)
CONDITION = st.sampled_from(["service_started", "service_healthy"])
OTHER, NETWORK = st.sampled_from(["db", "mq"]), st.sampled_from(["n", "m"])
ALIASES = st.fixed_dictionaries({"aliases": st.lists(st.sampled_from(["x", "y"]), unique=True)})
BUILD = st.fixed_dictionaries({}, optional={"args": PAIRS, "target": st.just("t"), "context": st.just("..")})
SERVICE = st.fixed_dictionaries(
    {},
    optional={
        "command": st.sampled_from(["a b", ["a", "b"], ["c"], ""]),
        "entrypoint": st.sampled_from(["a", ["a"]]),
        "environment": PAIRS,
        "labels": PAIRS,
        "annotations": PAIRS,
        "sysctls": st.dictionaries(KEY, st.integers(0, 9)),
        "ports": st.lists(PORT, max_size=4),
        "expose": st.lists(st.sampled_from(["80", "81", 82]), max_size=3, unique=True),
        "volumes": st.lists(VOLUME, max_size=3),
        "secrets": st.lists(SECRET, max_size=3),
        "dns": st.one_of(st.just("1.1.1.1"), st.lists(st.sampled_from(["1.1.1.1", "8.8.8.8"]), unique=True)),
        "cap_add": st.lists(st.sampled_from(["A", "B"]), unique=True),
        "security_opt": st.lists(st.sampled_from(["a", "b"]), unique=True, max_size=1),
        "depends_on": st.one_of(st.lists(OTHER, unique=True), st.dictionaries(OTHER, st.fixed_dictionaries({"condition": CONDITION}))),
        "networks": st.one_of(st.lists(NETWORK, unique=True), st.dictionaries(NETWORK, st.one_of(st.none(), ALIASES))),
        "logging": st.fixed_dictionaries(
            {}, optional={"driver": st.sampled_from(["local", "syslog"]), "options": st.dictionaries(KEY, st.sampled_from(["1", "2"]))}
        ),
        "healthcheck": st.fixed_dictionaries(
            {"test": st.sampled_from(["run", ["CMD", "run"]])},
            optional={"interval": st.sampled_from(["1m", "1m30s", "500ms"]), "retries": st.integers(1, 3)},
        ),
        "deploy": st.fixed_dictionaries({}, optional={"replicas": st.integers(0, 3), "labels": PAIRS}),
        "build": st.one_of(st.sampled_from([".", "./sub"]), BUILD),
        "extra_hosts": st.one_of(st.lists(st.sampled_from(["h:1.1.1.1", "i=2.2.2.2"]), unique=True), st.just({"h": "1.1.1.1"})),
        "tmpfs": st.one_of(st.just("/tmp"), st.lists(st.sampled_from(["/tmp", "/run"]), unique=True)),
        "ulimits": st.dictionaries(st.sampled_from(["nproc", "nofile"]), st.one_of(st.integers(1, 9), st.just({"soft": 1, "hard": 2}))),
        "restart": st.sampled_from(["always", "no"]),
        "init": st.sampled_from([True, "false"]),
        "stop_grace_period": st.sampled_from(["1s", "1m1s"]),
    },
)
