"""The alerting rules that we hand out: each has a case in which it fires and one in which it is silent.

What promtool says of these cases is in tests/e2e/test_metrics.py: it is on the hosts of the lab.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hmcore import api

OBSERVABILITY = Path(__file__).parents[4] / "docs" / "observability"
METRIC = re.compile(r"\bhypermesh_[a-z0-9_]+|\bup\b")


def rules() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load((OBSERVABILITY / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def judged() -> list[tuple[str, bool, set[str]]]:
    """Of every case: the alert, whether it is to fire, and the metrics that there are."""
    return [
        (case["alertname"], bool(case["exp_alerts"]), {series["series"].split("{")[0] for series in test["input_series"]})
        for test in yaml.safe_load((OBSERVABILITY / "alerts_test.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]


RULES = rules()
CASES = judged()


@pytest.mark.parametrize("alert", sorted(RULES))
@pytest.mark.parametrize("fires", [True, False], ids=["fires", "is silent"])
def test_every_alert_has_a_case_in_which_it(alert, fires):
    cases = [metrics for name, expected, metrics in CASES if (name, expected) == (alert, fires)]
    assert cases
    needed = set(METRIC.findall(RULES[alert]["expr"]))
    assert needed
    for metrics in cases:
        assert needed <= metrics, "without its metrics no alert can fire: the case says nothing"


def test_every_case_is_of_a_rule_that_exists():
    assert {name for name, _, _ in CASES} <= RULES.keys()


def waiting() -> set[str]:
    """Calls whose request says how long their answer may take."""
    methods = [each for each in vars(api).values() if isinstance(each, api.Method)]
    return {method.name for method in methods if {"wait", "timeout"} & set(method.request.__struct_fields__)}


def test_calls_that_wait_because_they_are_asked_to_are_not_slow():
    panels = json.loads((OBSERVABILITY / "dashboard.json").read_text())["panels"]
    expressions = [RULES["HyperMeshSlowCalls"]["expr"]]
    expressions += [
        target["expr"] for panel in panels for target in panel.get("targets", []) if "rpc_served_duration_seconds_bucket" in target["expr"]
    ]
    assert len(expressions) > 1
    for expression in expressions:
        left_out = re.search(r'method!~"([^"]*)"', expression)
        assert left_out is not None, expression
        assert set(left_out[1].split("|")) == waiting()
