"""What /metrics costs: a scrape, beside one of prometheus_client's own server with as many series; and what scrapes add to an agent."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from bed import Bed
from figures import Figure
from idling import probe

SCRAPES = 300
SECONDS = 30

# On the node, with the agent's own libraries. The peer is a process of its own, as the agent is.
TIMES = """
import json, subprocess, sys, time, urllib.request
sys.path.insert(0, "/opt/hypermesh/current")
from prometheus_client.parser import text_string_to_metric_families

def fetch(port):
    return urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()

series = sum(len(family.samples) for family in text_string_to_metric_families(fetch(7444)))
peer = subprocess.Popen([sys.executable, "-c", '''
import sys, time
sys.path.insert(0, "/opt/hypermesh/current")
from prometheus_client import CollectorRegistry, Gauge, start_http_server
registry = CollectorRegistry()
gauge = Gauge("peer_value", "A value.", ["which"], registry=registry)
for number in range(int(sys.argv[1])): gauge.labels(str(number)).set(number)
start_http_server(9464, "127.0.0.1", registry)
print("ready", flush=True)
time.sleep(600)
''', str(series)], stdout=subprocess.PIPE, text=True)
peer.stdout.readline()
times = {7444: [], 9464: []}
try:
    for _ in range(COUNT):
        for port in times:
            began = time.perf_counter()
            fetch(port)
            times[port].append(time.perf_counter() - began)
finally:
    peer.kill()
print(json.dumps({"series": series, "ours": sorted(times[7444]), "peers": sorted(times[9464])}))
"""

REGULARLY = """
import time, urllib.request
for _ in range(COUNT):
    began = time.monotonic()
    urllib.request.urlopen("http://127.0.0.1:7444/metrics", timeout=5).read()
    time.sleep(max(0, 1 - (time.monotonic() - began)))
"""


def measure(bed: Bed) -> list[Figure]:
    status = bed.status()
    node = next(each["name"] for each in status["nodes"] if each["name"] != status["leader"])
    found = json.loads(bed.on(node, "python3", "-c", TIMES.replace("COUNT", str(SCRAPES))))
    ours, peers = found["ours"], found["peers"]
    peer = "prometheus_client's server, as many gauges"
    note = f"{SCRAPES} scrapes of {found['series']} series, one after the other, on the node itself"
    idle = _share(bed, node, lambda: time.sleep(SECONDS))
    scraped = _share(bed, node, lambda: bed.on(node, "python3", "-c", REGULARLY.replace("COUNT", str(SECONDS))))
    return [
        Figure("scrape, median", _at(ours, 0.5), "ms", 50, peer, _at(peers, 0.5), note=note),
        Figure("scrape, 99th percentile", _at(ours, 0.99), "ms", 50, peer, _at(peers, 0.99), note=note, tolerance=2.5),
        Figure("scraped each second", scraped, "% of a core", 2, "not scraped", idle, note=f"a follower, {SECONDS} s each", tolerance=2.0),
        Figure("what a scrape each second adds", max(0.0, scraped - idle), "% of a core", 1, note="the difference of these two"),
    ]


def _at(times: list[float], share: float) -> float:
    return times[min(len(times) - 1, int(share * len(times)))] * 1000


def _share(bed: Bed, node: str, meanwhile: Callable[[], object]) -> float:
    """Processor time of the agent's unit while something goes on, in per cent of a core."""
    before, began = probe(bed, node)[0], time.monotonic()
    meanwhile()
    return (probe(bed, node)[0] - before) / 1e6 / (time.monotonic() - began) * 100
