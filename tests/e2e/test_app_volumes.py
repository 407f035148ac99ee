"""What containers keep and what they may not write: named volumes, file systems in memory, roots that are read only."""

from __future__ import annotations

from collections.abc import Callable

from composing import IMAGE, Apps

# What the container writes at its start tells later that it did, and in which revision.
KEEPING = f"""
services:
  db:
    image: {IMAGE}
    init: true
    command: ["sh", "-c", "echo $$REVISION >> /data/starts; sleep 3600"]
    environment: {{REVISION: "%s"}}
    read_only: true
    tmpfs: ["/scratch:size=1m,mode=1777"]
    volumes:
      - data:/data
      - {{type: tmpfs, target: /cache, tmpfs: {{size: 2m}}}}
    deploy: {{update_config: {{monitor: 0s}}}}
  reader:
    image: {IMAGE}
    init: true
    volumes: ["data:/data:ro"]
    depends_on: [db]
    deploy: {{update_config: {{monitor: 0s}}}}
volumes:
  data:
"""


def shell(apps: Apps, service: str, script: str, *, code: int = 0) -> str:
    """What a script in a service's container says."""
    done = apps.run("exec", f"keeping/{service}", "--", "sh", "-c", script, check=False)
    assert done.returncode == code, done.stderr
    return str(done.stdout + done.stderr)


def test_a_volume_outlives_its_containers_stays_where_it_is_and_is_waited_for(apps: Apps, eventually: Callable[..., None]) -> None:
    apps.deploy("keeping", KEEPING % "first")
    assert len({each["node"] for each in apps.replicas("keeping")}) == 1, "who shares a volume is where it is"
    (before,) = apps.replicas("keeping/db")
    assert "Read-only file system" in shell(apps, "db", "echo x > /www/x", code=1)
    assert "Read-only file system" in shell(apps, "reader", "echo x > /data/x", code=1)
    mounted = shell(apps, "db", "echo x > /scratch/x; echo x > /cache/x; cat /scratch/x /cache/x /proc/mounts")
    assert mounted.startswith("x\nx\n")
    sizes = {line.split()[1]: line.split()[3] for line in mounted.splitlines() if line.startswith("tmpfs ")}
    assert "size=1024k" in sizes["/scratch"]
    assert "size=2048k" in sizes["/cache"]

    apps.deploy("keeping", KEEPING % "second")
    (after,) = apps.replicas("keeping/db")
    assert (after["node"], after["container"] == before["container"]) == (before["node"], False)
    assert shell(apps, "reader", "cat /data/starts") == "first\nsecond\n"

    reason = f"volume: 2 of 2 nodes do not have keeping_data, which lives on {after['node']}"

    def waits() -> bool:
        document = apps.explain("keeping/db")
        assert reason in document["services"][0]["waits"], document
        return True

    apps.cluster.lab.kill(after["node"])
    try:
        eventually(waits, within=30)
        assert reason in " ".join(apps.run("explain", "keeping/db").stdout.split())
    finally:
        apps.cluster.lab.start(after["node"])
    apps.cluster.until_healthy()

    def back() -> bool:
        there = {each["service"]: (each["node"], each["phase"], each["health"], each["error"]) for each in apps.replicas("keeping")}
        assert there == dict.fromkeys(("db", "reader"), (after["node"], "running", "healthy", ""))
        return True

    eventually(back, within=30)
    assert shell(apps, "db", "cat /data/starts").startswith("first\nsecond\nsecond\n")
