"""Apps whose rollouts are simulated: what services there may be, how they are updated, and how their images behave."""

from __future__ import annotations

from hypothesis import strategies as st
from rollout_world import GOOD, LIMITS, service

from hmcore.apps.spec import AppSpec, Update

updates = st.builds(
    Update,
    parallelism=st.integers(0, 3),
    delay=st.sampled_from([0.0, 1.0]),
    order=st.sampled_from(["stop-first", "start-first"]),
    failure_action=st.sampled_from(["pause", "continue", "rollback"]),
    monitor=st.sampled_from([0.0, 1.0, 3.0]),
    max_failure_ratio=st.sampled_from([0.0, 0.5]),
)
settled_updates = st.builds(
    Update,
    parallelism=st.integers(0, 3),
    order=st.sampled_from(["stop-first", "start-first"]),
    failure_action=st.sampled_from(["pause", "continue"]),
    monitor=st.sampled_from([0.0, 1.0]),
)
limits = st.sampled_from(["", "", "", *LIMITS])
images = st.sampled_from([*GOOD, *GOOD, "crash", "sick", "fail", "lost", "job"])


@st.composite
def specs(draw: st.DrawFn) -> AppSpec:
    """A service that depends on an exclusive one, and a global one; now and then without the last."""
    services = {
        "db": service(draw(images), draw(st.integers(0, 1)), update=draw(updates), rollback=draw(settled_updates), exclusive=True),
        "web": service(
            draw(images),
            draw(st.integers(0, 5)),
            update=draw(updates),
            rollback=draw(settled_updates),
            needs=draw(st.sampled_from([[], ["db"]])),
            required=draw(st.booleans()),
            limits=draw(limits),
        ),
    }
    if draw(st.integers(0, 4)):
        few = draw(st.sampled_from(["", "port"]))
        services["watch"] = service(draw(images), update=draw(updates), rollback=draw(settled_updates), mode="global", limits=few)
    return AppSpec(services=services)
