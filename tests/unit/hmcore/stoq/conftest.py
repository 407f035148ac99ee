import pytest
from stoq_world import World


@pytest.fixture(scope="session")
def world() -> World:
    return World()
