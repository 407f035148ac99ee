"""hmctl ca: the cluster's certificate authority, which the operator keeps: show it, carry it to another machine, issue for viewers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hmctl.cli.context import current, group

if TYPE_CHECKING:
    from hmctl.output import Output
    from hmctl.state import OperatorStore

app = group("Show, export or import the cluster's certificate authority; issue a certificate for a viewer.")


@app.command()
def export(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; must not exist yet.")],
) -> None:
    """Write the CA with its key to FILE, for another machine or a safe place. Who has that file owns the cluster."""
    context = current(ctx)
    store = context.store(context.inventory())
    store.export(file)
    context.output.warn(f"{file} holds the CA's private key: whoever has it controls the cluster. Move it over a safe channel")
    _show(context.output, store, f"Wrote {file}. On the other machine: hmctl ca import {file.name}")


@app.command(name="import")
def import_(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `hmctl ca export` wrote.")],
) -> None:
    """Take over the CA of a cluster that was made on another machine. Never replaces a different one."""
    from hmctl.state import OperatorStore

    store = OperatorStore.import_(file)
    _show(current(ctx).output, store, f"Imported the CA of {store.cluster} into {store.folder}. {file} is no longer needed: delete it")


@app.command()
def viewer(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whom it names: lower-case letters, digits and inner hyphens.")],
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Where to write it.  [default: a new folder NAME]")] = None,
) -> None:
    """Issue a certificate that may look and change nothing: for Prometheus, or a colleague's eyes. Good for a year.

    Writes ca.pem, NAME.pem and NAME.key.
    """
    from hmctl.actions.viewer import issue_viewer

    context = current(ctx)
    store = context.store(context.inventory())
    issued = issue_viewer(store, name, Path(name) if to is None else to)
    words = (
        f"Wrote {', '.join(issued.files)} in {issued.folder}, valid until {issued.valid_until}. Whoever has the key may look at the cluster"
    )
    context.output.result(issued, lambda: context.output.line(words))


@app.command()
def show(ctx: typer.Context) -> None:
    """Show which CA this machine holds for the cluster."""
    context = current(ctx)
    _show(context.output, context.store(context.inventory()), None)


def _show(output: Output, store: OperatorStore, said: str | None) -> None:
    from hmcore import pki

    certificate, formed = store.ca_certificate(), store.formed_at
    facts: dict[str, Any] = {
        "cluster": store.cluster,
        "folder": str(store.folder),
        "fingerprint": pki.fingerprint(certificate),
        "valid_until": pki.valid_until(certificate).isoformat(),
        "can_issue": store.has_authority(),
        "formed_at": formed.isoformat() if formed else None,
    }

    def human() -> None:
        if said is not None:
            output.line(said)
            return
        words = {
            **facts,
            "can_issue": "yes" if facts["can_issue"] else "no: its key is not here",
            "formed_at": facts["formed_at"] or "not yet",
        }
        for name, value in words.items():
            output.line(f"{name.replace('_', ' ') + ':':<13} {value}")

    output.result(facts, human)
