"""Dialling: what one is told when nobody can be reached."""

from __future__ import annotations

import pytest
from stoq_world import PATIENCE, Recorder, World, dialled, identity, listening, local, network

from hmcore.errors import NothingListens, PeerUnreachable
from hmcore.stoq.dialling import dial


async def test_dialling_where_nothing_listens_fails_at_once(world: World) -> None:
    async with listening(world.credentials("n1"), Recorder()) as listener:
        port = listener.port
    with pytest.raises(NothingListens, match=f"UDP 127.0.0.1:{port}: nothing listens there"):
        await dial("127.0.0.1", port, credentials=world.credentials("n2"), local=local("n2"), server=identity("n1"), timeout=PATIENCE)


async def test_dialling_into_silence_fails_at_the_deadline(world: World) -> None:
    async with listening(world.credentials("n1"), Recorder()) as listener, network(listener.port) as relay:
        relay.passes = lambda to_server: False
        with pytest.raises(PeerUnreachable, match=r"no answer within 0\.1 s"):
            async with dialled(relay.port, world.credentials("n2"), local("n2"), timeout=0.1):
                pass


async def test_dialling_a_name_that_does_not_resolve(world: World) -> None:
    with pytest.raises(PeerUnreachable):
        await dial(
            "no.such.host.invalid", 1, credentials=world.credentials("n2"), local=local("n2"), server=identity("n1"), timeout=PATIENCE
        )
