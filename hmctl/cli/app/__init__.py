"""hmctl app: compose files as apps of the cluster. The commands are in the modules beside this one."""

from __future__ import annotations

from hmctl.cli.app.change import remove, restart, rollback, scale
from hmctl.cli.app.deploy import config, deploy
from hmctl.cli.app.exec import CONTEXT_SETTINGS, exec_
from hmctl.cli.app.logs import logs
from hmctl.cli.app.rebalance import rebalance
from hmctl.cli.app.show import explain, history, ls, ps
from hmctl.cli.context import group

app = group("Apps from compose files: deploy, look into, read logs, run commands in, scale, restart, roll back, remove.")

app.command("deploy")(deploy)
app.command("config")(config)
app.command("ls")(ls)
app.command("ps")(ps)
app.command("logs")(logs)
app.command("exec", context_settings=CONTEXT_SETTINGS)(exec_)
app.command("explain")(explain)
app.command("scale")(scale)
app.command("restart")(restart)
app.command("rebalance")(rebalance)
app.command("history")(history)
app.command("rollback")(rollback)
app.command("rm")(remove)
