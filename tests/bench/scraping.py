"""What /metrics costs: a scrape, beside one of prometheus_client's own server with as many series; and what scrapes add to an agent."""

from __future__ import annotations

import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from bed import Bed
from figures import Figure, Kind
from idling import probe, ticking
from yardstick import TIMER

BLOCKS, SCRAPES = 10, 100
SECONDS = 20

PEER = "prometheus_client's server, as many gauges"
MEDIAN = Kind("scrape, median", "ms", 50, PEER)
P99 = Kind("scrape, 99th percentile", "ms", 50, PEER, tolerance=1.8)
EACH = Kind("scrape, processor time", "ms", 10, PEER)
SCRAPED = Kind("scraped each second", "% of a core", 2, TIMER, tolerance=1.8)
FIGURES = (MEDIAN, P99, EACH, SCRAPED)

# On the node, with the agent's own libraries. The peer is a process of its own, as the agent is.
TIMES = """
import json, os, subprocess, sys, time, urllib.request
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
agent = subprocess.run(["systemctl", "show", "-p", "MainPID", "--value", "hypermesh-agent"], capture_output=True, check=True).stdout

def used(pid):
    fields = open(f"/proc/{int(pid)}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

blocks = []
try:
    fetch(9464)
    before = used(agent), used(peer.pid)
    for _ in range(BLOCKS):
        times = {7444: [], 9464: []}
        for _ in range(SCRAPES):
            for port in times:
                began = time.perf_counter()
                fetch(port)
                times[port].append(time.perf_counter() - began)
        blocks.append([sorted(each)[int((SCRAPES - 1) * part)] * 1000 for part in (0.5, 0.99) for each in times.values()])
    spent = [(now - then) * 1000 / BLOCKS / SCRAPES for now, then in zip((used(agent), used(peer.pid)), before)]
finally:
    peer.kill()
print(json.dumps({"series": series, "blocks": blocks, "spent": spent}))
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
    found = json.loads(bed.on(node, "python3", "-c", TIMES.replace("BLOCKS", str(BLOCKS)).replace("SCRAPES", str(SCRAPES))))
    ours50, peers50, ours99, peers99 = zip(*found["blocks"], strict=True)
    each = f"{BLOCKS} blocks of {SCRAPES} scrapes of {found['series']} series, one after the other, on the node itself"
    ours, peers = found["spent"]
    scraped, timer = _scraped(bed, node)
    return [
        MEDIAN.of(statistics.median(ours50), statistics.median(peers50), f"median of {each}"),
        P99.of(min(ours99), min(peers99), "the same scrapes, the best of the blocks: what others do on the machine is in the worst"),
        EACH.of(ours, peers, "of the agent, all that it did meanwhile; 10 ms would be 1 % of a core at one scrape a second"),
        SCRAPED.of(scraped, timer, f"a follower for {SECONDS} s, all that it does"),
    ]


def _scraped(bed: Bed, node: str) -> tuple[float, float]:
    """Processor time of the agent's unit while it is scraped, and of the yardstick's timer meanwhile, in per cent of a core."""
    before, began = probe(bed, node)[0], time.monotonic()
    with ThreadPoolExecutor() as pool:
        timer = pool.submit(ticking, bed, node, SECONDS)
        bed.on(node, "python3", "-c", REGULARLY.replace("COUNT", str(SECONDS)))
        share = (probe(bed, node)[0] - before) / 1e6 / (time.monotonic() - began) * 100
        return share, timer.result()
