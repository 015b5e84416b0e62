"""Alerts: rules on what is seen in zones, events to logs, files and webhooks."""

from __future__ import annotations

from edgeseg.ops.zone import Zone, load_zone
from edgeseg.options.clips import ClipOptions
from edgeseg.stream.alerts.clips import Clips
from edgeseg.stream.alerts.rule import AlertRule, parse_rule
from edgeseg.stream.alerts.sink import AlertOutputs, Alerts, RuleStatus
from edgeseg.stream.alerts.webhook import SECRET_VARIABLE, RetryLimits, Webhook

__all__ = [
    "SECRET_VARIABLE",
    "AlertOutputs",
    "AlertRule",
    "Alerts",
    "ClipOptions",
    "Clips",
    "RetryLimits",
    "RuleStatus",
    "Webhook",
    "Zone",
    "load_zone",
    "parse_rule",
]
