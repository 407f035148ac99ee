"""When keys are told and turned. A simulation lets control nodes come, go, forget and restart: what can be opened is never given up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.apps.secrets import Box, Keeper, Vault
from node_agent.vault.keeping import Enrol, Open, Turn, View, decide, lacking, lost

A, B, C, D = (letter * 32 for letter in (b"a", b"b", b"c", b"d"))


def known(**keys: bytes) -> dict[str, Keeper]:
    return {name: Keeper(node=name, public=key) for name, key in keys.items()}


def vault(**keys: bytes) -> Vault:
    pairs = [(name, "") for name in keys] if len(keys) == 1 else [(a, b) for a in keys for b in keys if a != b]
    return Vault(epoch=1, keepers=keys, boxes=tuple(Box(node=a, helper=b, sealed=b"") for a, b in pairs))


VIEW = View(
    me="n1",
    public=A,
    leads=True,
    voters=("n1", "n2", "n3"),
    keepers=known(n1=A, n2=B, n3=C),
    vault=vault(n1=A, n2=B, n3=C),
    opened=True,
)


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ({}, None),
        ({"keepers": known(n2=B, n3=C)}, Enrol()),
        ({"public": D}, Enrol()),
        ({"public": D, "leads": False}, Enrol()),
        ({"public": D, "voters": ("n2", "n3"), "leads": False}, None),
        ({"vault": None, "opened": False}, None),
        ({"opened": False}, Open()),
        ({"opened": False, "leads": False}, Open()),
        ({"keepers": known(n1=A, n2=B, n3=D)}, Turn({"n1": A, "n2": B, "n3": D})),
        ({"keepers": known(n1=A, n2=B, n3=D), "leads": False}, None),
        ({"keepers": known(n1=A, n2=B, n3=D), "opened": False}, Open()),
        ({"voters": ("n1", "n2")}, Turn({"n1": A, "n2": B})),
        ({"voters": ("n1", "n2", "n3", "n4")}, None),
        ({"voters": ("n1", "n2", "n3", "n4"), "keepers": known(n1=A, n2=B, n3=C, n4=D)}, Turn({"n1": A, "n2": B, "n3": C, "n4": D})),
        ({"keepers": known(n1=A, n2=D, n3=D)}, Turn({"n1": A, "n2": D, "n3": D})),
        ({"keepers": known(n1=A, n2=D, n3=D), "opened": False}, Turn({"n1": A, "n2": D, "n3": D}, lost=True)),
    ],
)
def test_steps(change, step):
    assert decide(replace(VIEW, **change)) == step


def test_nothing_is_lost_while_two_keepers_have_their_keys():
    assert not lost(vault(n1=A, n2=B, n3=C), known(n1=A, n3=C))
    assert lost(vault(n1=A, n2=B, n3=C), known(n1=A, n2=D))
    assert not lost(vault(n1=A), known(n1=A))
    assert lost(vault(n1=A), known(n1=B))


@given(st.integers(1, 7), st.data())
def test_what_any_majority_can_open_is_enough_and_nothing_less(count, data):
    voters = [f"n{number}" for number in range(count)]
    keepers = {name: A for name in data.draw(st.lists(st.sampled_from(voters), unique=True))}
    majority = count // 2 + 1
    least = len(keepers) - (count - majority)  # of keepers, in the unluckiest majority
    assert (not lacking(voters, keepers)) == (least >= min(2, majority))
    assert set(lacking(voters, keepers)) <= set(voters) - set(keepers)


@dataclass
class Control:
    key: bytes
    epoch: int = 0  # of the vault's key that it has in memory


@dataclass
class World:
    """Control nodes whose leader may be any; whoever is up helps. Keys are numbers."""

    nodes: dict[str, Control]
    keepers: dict[str, Keeper] = field(default_factory=dict)
    vault: Vault | None = None
    lost: int = 0
    keys: int = 100

    def fresh(self) -> bytes:
        self.keys += 1
        return self.keys.to_bytes(32, "big")

    def openable(self, name: str) -> bool:
        """By what is on disks."""
        if self.vault is None:
            return False
        has = {each for each, node in self.nodes.items() if self.vault.keepers.get(each) == node.key}
        return any(box.node == name and {box.node, box.helper or box.node} <= has for box in self.vault.boxes)

    def held(self) -> bool:
        """Whether it is in somebody's memory."""
        return self.vault is not None and any(node.epoch == self.vault.epoch for node in self.nodes.values())

    def step(self, name: str, *, leads: bool) -> bool:
        node, epoch = self.nodes[name], self.vault.epoch if self.vault else 0
        view = View(name, node.key, leads, tuple(self.nodes), self.keepers, self.vault, opened=bool(epoch) and node.epoch == epoch)
        match decide(view):
            case None:
                return False
            case Enrol():
                self.keepers[name] = Keeper(node=name, public=node.key)
            case Open():
                if not self.openable(name) and not self.held():
                    return False
                node.epoch = epoch
            case Turn(lost=True) if self.held():
                node.epoch = epoch
            case Turn(keepers=keepers, lost=is_lost):
                assert not (is_lost and any(map(self.openable, self.nodes))), "given up although it could be opened"
                assert is_lost or node.epoch == epoch
                self.lost += is_lost
                self.vault = replace_vault(epoch + 1, keepers)
                node.epoch = epoch + 1
        return True

    def settle(self, leader: str) -> None:
        for _ in range(60):
            if not any([self.step(name, leads=name == leader) for name in list(self.nodes)]):
                return
        raise AssertionError("it does not come to rest")


def replace_vault(epoch: int, keepers: dict[str, bytes]) -> Vault:
    made = vault(**keepers)
    return Vault(epoch=epoch, keepers=made.keepers, boxes=made.boxes)


EVENTS = st.tuples(st.sampled_from(["restart", "reseed", "remove", "add", "lead"]), st.integers(0, 5), st.booleans())


@given(st.integers(1, 5), st.lists(EVENTS, max_size=25))
def test_the_key_follows_the_control_nodes_and_is_given_up_only_when_nobody_can_open_it(count, events):
    world = World({f"n{number}": Control(bytes([number]) * 32) for number in range(count)})
    world.settle("n0")
    world.vault = replace_vault(1, {name: node.key for name, node in world.nodes.items()})
    world.nodes["n0"].epoch = 1
    leader = "n0"
    world.settle(leader)
    for kind, number, settles in events:
        name = sorted(world.nodes)[number % len(world.nodes)]
        match kind:
            case "restart":
                world.nodes[name].epoch = 0
            case "reseed":
                world.nodes[name] = Control(world.fresh())
            case "remove" if len(world.nodes) > 1:
                del world.nodes[name]
                world.keepers.pop(name, None)
            case "add":
                world.nodes.setdefault(f"n{number}", Control(world.fresh()))
        leader = leader if leader in world.nodes and kind != "lead" else name if name in world.nodes else min(world.nodes)
        if settles:
            world.settle(leader)
    world.settle(leader)
    assert world.vault is not None
    assert world.vault.keepers == {name: node.key for name, node in world.nodes.items()}
    assert all(world.openable(name) for name in world.nodes)
