"""What `hmctl deploy` says after a Ctrl-C."""

from __future__ import annotations

from hmctl.cli.deploy import after_interruption


def test_the_command_that_goes_on_names_the_same_inventory() -> None:
    assert "`hmctl deploy`" in after_interruption(None, begun=True)
    assert "`hmctl -i 'my lab.yaml' deploy`" in after_interruption("my lab.yaml", begun=True)


def test_where_nothing_was_begun_nothing_is_to_be_finished() -> None:
    assert after_interruption("lab.yaml", begun=False) == "nothing was changed"
