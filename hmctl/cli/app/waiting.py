"""After a change of an app: live progress until it has come out, in words and as a document. Ctrl-C ends the watching only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hmctl.cli.context import Context
from hmctl.client import Via

if TYPE_CHECKING:
    from hmcore.api import ChangeReply
    from hmcore.apps.records import App
    from hmcore.errors import HyperMeshError
    from hmctl.actions.apps.calls import AppChange
    from hmctl.actions.apps.progress import End, Goal, ServiceProgress
    from hmctl.actions.apps.view import Seen
    from hmctl.compose.difference import Change
    from hmctl.live import Progress

INTERRUPTED = 130


def settle(
    context: Context,
    goal: Goal,
    reply: ChangeReply,
    via: Via,
    *,
    wait: bool,
    timeout: float,
    plan: tuple[Change, ...] = (),
    goes_on: bool = False,
) -> int:
    """Wait for what `reply` says was begun, or for what `goes_on`; say how it came out, and give the exit code. Raises HyperMeshError when
    it did not come out well; the document is printed by then."""
    from hmctl.actions.apps.progress import End, Ending

    if not reply.changed and goal.generation and not goes_on:  # what is being removed already can be waited for
        return _tell(context, goal, reply, End(Ending.UNCHANGED), [], plan)
    if not wait:
        return _tell(context, goal, reply, End(Ending.STARTED), [], plan)
    try:
        with context.output.progress() as shown:
            end, services = context.run(_wait(context, goal, reply, via, timeout, Rows(shown)))
    except KeyboardInterrupt:
        what = "rollout" if goal.generation else "removal"
        context.output.note(f"the {what} of {goal.name} goes on; hmctl app ps {goal.name} shows how far it is")
        return INTERRUPTED
    return _tell(context, goal, reply, end, services, plan)


def still(context: Context, app: App, words: str) -> int:
    """Of an app that is wanted just so already: says why it is not so yet. The exit code: 1 if it will not be by itself."""
    from hmctl.actions.apps.plan import paused, unfinished

    if why := unfinished(app):
        context.output.warn(f"{words}, but {why}", fix=f"hmctl app explain {app.name}")
    return 1 if paused(app) else 0


async def _wait(
    context: Context, goal: Goal, reply: ChangeReply, via: Via, timeout: float, rows: Rows
) -> tuple[End, list[ServiceProgress]]:
    from hmctl.actions.agents import Agents
    from hmctl.actions.apps.calls import Looks, wait
    from hmctl.actions.apps.progress import progress
    from hmctl.client import Access

    found: list[ServiceProgress] = []

    def show(seen: Seen) -> None:
        nonlocal found
        if not goal.generation:
            rows.show(_removal(seen, goal))
        elif any((app.name, app.generation) == (goal.name, goal.generation) for app in seen.reply.apps):
            found = progress(seen, goal.name)  # of another generation it would be misleading
            rows.show(found)

    def tell(said: HyperMeshError | str) -> None:
        if isinstance(said, str):
            context.output.note(said)
        else:
            context.output.warn(str(said), fix=said.fix)

    inventory = context.inventory(warn=False)
    async with Agents(inventory.hosts, Access.of(context.store(inventory), via), via=via) as agents:
        looks = Looks(agents, goal.name, since=reply.index, tell=tell)
        end = await wait(looks, goal, timeout=timeout, show=show)
    return end, found


def _removal(seen: Seen, goal: Goal) -> dict[str, int]:
    """Replicas that are left, by service."""
    left = [each.service for each in seen.allocations(goal.name)]
    return {service: left.count(service) for service in sorted(set(left))}


class Rows:
    """A line of progress for each service, written again only when it says something else."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._said: dict[str, str] = {}

    def show(self, found: list[ServiceProgress] | dict[str, int]) -> None:
        if isinstance(found, dict):
            self._show_removal(found)
            return
        for each in found:
            text = each.text
            if self._said.get(each.service) == f"{each.stage} {text}":
                continue
            self._said[each.service] = f"{each.stage} {text}"
            if each.outcome is not None:
                self._progress.finish(each.service, text, outcome=each.outcome)
            else:
                watched = each.desired > 0 and each.healthy == each.desired
                self._progress.update(each.service, text, detail="watched for a while" if watched else "")

    def _show_removal(self, left: dict[str, int]) -> None:
        for service in sorted(left.keys() | self._said.keys()):
            text = f"{left[service]} left" if service in left else "gone"
            if self._said.get(service) != text:
                self._said[service] = text
                if service in left:
                    self._progress.update(service, text)
                else:
                    self._progress.finish(service, text)


def _tell(context: Context, goal: Goal, reply: ChangeReply, end: End, services: list[ServiceProgress], plan: tuple[Change, ...]) -> int:
    from hmctl.actions.apps.calls import AppChange
    from hmctl.compose.difference import documents

    document = AppChange(
        name=goal.name,
        changed=reply.changed,
        index=reply.index,
        generation=goal.generation,
        ending=str(end.ending),
        error=end.why or None,
        services=services,
        plan=documents(plan),
    )
    context.output.result(document, lambda: _say(context, document))
    if end.error is not None:
        raise end.error
    return 0


def _say(context: Context, document: AppChange) -> None:
    """What went wrong is said as an error, behind this."""
    if (words := words_of(document)) is not None:
        context.output.line(words)


def words_of(document: AppChange) -> str | None:
    """What the command came to, in one line; None: an error says it."""
    name, generation = document.name, document.generation
    match document.ending:
        case "unchanged":
            return f"{name} is so already, as generation {generation}; nothing was changed"
        case "started" if generation:
            return f"{name}: generation {generation} is being rolled out; hmctl app ps {name} shows how far it is"
        case "started":
            return f"{name} is being removed; hmctl app ps {name} shows what is left"
        case "healthy":
            return f"{name} is healthy, as generation {generation}"
        case "removed" if not document.error:
            return f"{name} is removed"
    return None
