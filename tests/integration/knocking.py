"""Runs in a network namespace without any of our code. `serve NAME ADDRESS PORT`: answers each TCP connection, and each UDP datagram, with
`NAME PEER`. `knock tcp|udp ADDRESS PORT COUNT [STOP-FILE]`: asks COUNT times, or until the file exists, and prints what came of it."""

import asyncio
import collections
import errno
import json
import os
import socket
import sys


class Echo(asyncio.DatagramProtocol):
    def __init__(self, name):
        self.name = name

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(f"{self.name} {addr[0]}".encode(), addr)


async def serve(name, address, port):
    async def answer(reader, writer):
        if await reader.read(1) == b"L":  # a long answer was asked for
            writer.write(b"x" * 300_000)
        writer.write(f"{name} {writer.get_extra_info('peername')[0]}".encode())
        writer.close()

    await asyncio.get_running_loop().create_datagram_endpoint(lambda: Echo(name), local_addr=(address, port))
    server = await asyncio.start_server(answer, address, port, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


def once(protocol, address, port, word):
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as client:
        client.settimeout(3)
        client.connect((address, port))
        client.sendall(word)
        if protocol == "udp":
            return client.recv(1000).decode()
        found = b""
        while piece := client.recv(65536):
            found += piece
        return found.decode()


def knock(protocol, address, port, count, stop=None):
    answers, failures = collections.Counter(), collections.Counter()
    while sum(answers.values()) + sum(failures.values()) < count and not (stop and os.path.exists(stop)):
        try:
            answers[once(protocol, address, port, b"?").strip()] += 1
        except OSError as error:
            failures["timeout" if isinstance(error, TimeoutError) else errno.errorcode.get(error.errno, str(error))] += 1
    print(json.dumps({"answers": answers, "failures": failures}))


def long(address, port):
    print(json.dumps(len(once("tcp", address, port, b"L"))))


def look(name):
    try:
        print(json.dumps(sorted({found[4][0] for found in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)})))
    except socket.gaierror as error:
        print(json.dumps(error.errno))


match sys.argv[1:]:
    case ["serve", name, address, port]:
        asyncio.run(serve(name, address, int(port)))
    case ["knock", protocol, address, port, count, *stop]:
        knock(protocol, address, int(port), int(count), *stop)
    case ["long", address, port]:
        long(address, int(port))
    case ["look", name]:
        look(name)
