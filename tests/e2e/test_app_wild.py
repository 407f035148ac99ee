"""What compose files from the wild say besides: in force on real nodes, and together."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable

from composing import IMAGE, Apps
from test_app_placement import host

# As most files are that have a database: who starts first is said, not who listens first.
IMPATIENT = f"""
version: "3.8"
services:
  db:
    image: {IMAGE}
    init: true
    command: ["sh", "-c", "sleep 3; exec httpd -f -p 8080 -h /www"]
  web:
    image: {IMAGE}
    init: true
    restart: always
    depends_on: [db]
    command: ["sh", "-c", "wget -q -O /said http://db:8080/alive || exit 1; exec sleep 3600"]
    deploy: {{restart_policy: {{delay: 1s}}}}
"""
PARTS = f"""
x-common: &common
  image: {IMAGE}
  init: true
services:
  base:
    <<: *common
    environment: {{FROM: base, KEPT: "yes"}}
    profiles: [never]
"""
INCLUDED = f"""
services:
  store:
    image: {IMAGE}
    init: true
    command: ["httpd", "-f", "-p", "8080", "-h", "/www"]
    container_name: the-store
    expose: ["8080"]
"""
WHOLE = """
include: [included.yaml]
services:
  web:
    extends: {file: parts.yaml, service: base}
    profiles: !reset []
    restart: unless-stopped
    command: ["sh", "-c", "echo $$FROM $$KEPT $$SECRET $$WORD; exec sleep 3600"]
    environment: {FROM: web}
    env_file: [some.env]
    deploy: {replicas: 2, update_config: {monitor: 0s}, placement: {constraints: ["node.platform.os == linux"]}}
  debug:
    extends: {file: parts.yaml, service: base}
    profiles: !override [debug]
    deploy: {update_config: {monitor: 0s}}
"""


def test_a_service_that_ends_until_its_database_listens_is_no_failed_deployment(apps: Apps) -> None:
    done = apps.deploy("impatient", IMPATIENT)
    assert (done["ending"], done["code"]) == ("healthy", 0)
    (web,) = apps.replicas("impatient/web")
    assert web["restarts"] >= 1, "it would show nothing else"


def test_a_file_of_parts_with_variables_and_profiles_runs_as_it_says(apps: Apps, eventually: Callable[..., None]) -> None:
    for name, text in {"parts.yaml": PARTS, "included.yaml": INCLUDED, "some.env": "SECRET=hush\nFROM=file\n"}.items():
        (apps.folder / name).write_text(text)
    (apps.folder / "words.env").write_text("COMPOSE_PROFILES=debug\n")
    apps.deploy("whole", WHOLE.replace("$$WORD", "${WORD:-none}"), "--env-file", str(apps.folder / "words.env"), env={"WORD": "heard"})
    assert {each["replica"] for each in apps.replicas("whole")} == {"web.1", "web.2", "debug.1", "store.1"}
    lines = [json.loads(line) for line in apps.run("logs", "whole/web", "-o", "json").stdout.splitlines()]
    assert {line["message"] for line in lines} == {"web yes hush heard"}
    assert apps.run("exec", "whole/debug", "--", "wget", "-q", "-O", "-", "http://the-store:8080/alive").stdout == "yes\n"

    # What was written before is left out, whichever node's clock it is by: they are one machine's here.
    apps.run("exec", "whole/web.1", "--", "sh", "-c", "echo earlier > /proc/1/fd/1")
    began = time.time()
    while time.time() < began + 2:
        assert "earlier" in apps.run("logs", "whole/web", "--since", "1h").stdout
    apps.run("exec", "whole/web.1", "--", "sh", "-c", "echo later > /proc/1/fd/1")
    eventually(lambda: "later" in apps.run("logs", "whole/web", "--since", "1h").stdout, within=10)
    passed = f"{max(1, int(time.time() - began))}s"
    assert "earlier" not in (said := apps.run("logs", "whole/web", "--since", passed).stdout), passed
    assert "later" in said

    apps.deploy("whole", WHOLE, "--env-file", "/dev/null")
    assert {each["replica"] for each in apps.replicas("whole")} == {"web.1", "web.2", "store.1"}


def test_replicas_are_spread_over_what_a_label_says(apps: Apps) -> None:
    text = f"""
    services:
      web:
        image: {IMAGE}
        init: true
        deploy:
          replicas: 4
          update_config: {{monitor: 0s}}
          placement: {{preferences: [{{spread: node.labels.zone}}]}}
    """
    with host(apps.cluster, "node3", "labels: {zone: far}"):
        apps.deploy("spread", text)
        where = Counter(each["node"] for each in apps.replicas("spread"))
        assert where == {"node1": 1, "node2": 1, "node3": 2}


def test_an_update_that_may_fail_goes_on_and_says_so(apps: Apps) -> None:
    def compose(code: int, share: float, action: str) -> str:
        return f"""
        services:
          web:
            image: {IMAGE}
            init: true
            command: ["sh", "-c", "[ {code} = 0 ] || exit {code}; exec sleep 3600"]
            deploy:
              replicas: 2
              restart_policy: {{condition: none}}
              update_config: {{failure_action: {action}, max_failure_ratio: {share}, monitor: 1s}}
        """

    assert apps.deploy("tolerant", compose(0, 0, "pause"))["ending"] == "healthy"
    done = apps.deploy("tolerant", compose(3, 0, "continue"), check=False)
    (web,) = done["services"]
    assert "2 of 2 new replicas failed; went on all the same, as failure_action says" in web["message"]
    assert {each["exit_code"] for each in apps.replicas("tolerant")} == {3}, "all were replaced"
    back = apps.change("rollback", "tolerant", "--yes")
    assert back["ending"] == "healthy"
    paused = apps.deploy("tolerant", compose(3, 0.5, "pause"), check=False)
    assert (paused["code"], paused["ending"]) == (1, "paused")
    assert sum(each["current"] for each in apps.replicas("tolerant")) == 2, "one of two may fail, and two did"
