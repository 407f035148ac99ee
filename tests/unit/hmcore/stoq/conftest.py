import pytest
from hypothesis import settings
from stoq_world import World

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")


@pytest.fixture(scope="session")
def world() -> World:
    return World()
