"""Runs on the hosts, sent over SSH before there is an agent: answers on the agent's port, and tries everybody else's. Stdlib only.

Input: one JSON line {"address", "port", "listen", "peers": [[name, address, port], ...]}; it then prints "ready" (or why it cannot
listen), waits for a line, tries all peers and prints one JSON line {name: {"tcp": problem or null, "udp": ...}}; it goes on answering
the others until its input ends.

The datagram is shaped as a QUIC packet of a version that nobody speaks (RFC 9000, section 6): a running agent answers that too, with
its versions, so that one probe serves both.
"""

import json
import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

TRIES, PATIENCE, SIZE = 4, 0.4, 1200  # SIZE: QUIC's smallest first packet, so that a path with a smaller MTU fails here


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def packet() -> bytes:
    head = b"\xc0\x1a\x2a\x3a\x4a" + b"\x08" + os.urandom(8) + b"\x08" + os.urandom(8)
    return head + b"\0" * (SIZE - len(head))


def listen(address: str, port: int) -> None:
    family = socket.getaddrinfo(address, port)[0][0]
    udp, tcp = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for link in (udp, tcp):
        link.bind(("", port))
    tcp.listen(128)

    def answer_udp() -> None:
        while True:
            data, sender = udp.recvfrom(2048)
            udp.sendto(data[:64], sender)

    def answer_tcp() -> None:
        while True:
            tcp.accept()[0].close()

    for answer in (answer_udp, answer_tcp):
        threading.Thread(target=answer, daemon=True).start()


def try_tcp(address: str, port: int) -> str | None:
    try:
        socket.create_connection((address, port), timeout=TRIES * PATIENCE).close()
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return error.strerror or str(error)
    return None


def try_udp(address: str, port: int) -> str | None:
    family = socket.getaddrinfo(address, port)[0][0]
    with socket.socket(family, socket.SOCK_DGRAM) as link:
        link.settimeout(PATIENCE)
        problem = "no answer"
        for _ in range(TRIES):
            try:
                link.connect((address, port))
                link.send(packet())
                link.recv(2048)
            except TimeoutError:
                continue
            except OSError as error:
                problem = "refused" if isinstance(error, ConnectionRefusedError) else error.strerror or str(error)
                continue
            return None
        return problem


def main() -> None:
    task = json.loads(sys.stdin.readline())
    if task["listen"]:
        try:
            listen(task["address"], task["port"])
        except OSError as error:
            say(error.strerror or str(error))
            return
    say("ready")
    sys.stdin.readline()

    def attempt(peer: list) -> tuple:  # type: ignore[type-arg]
        name, address, port = peer
        return name, {"tcp": try_tcp(address, port), "udp": try_udp(address, port)}

    with ThreadPoolExecutor(max_workers=32) as pool:
        say(json.dumps(dict(pool.map(attempt, task["peers"]))))
    sys.stdin.read()


if __name__ == "__main__":
    main()
