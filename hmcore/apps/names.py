"""What apps and services may be called: both become part of names in Docker and in DNS. One grammar for the converter, which says where the
mistake is, and for the agent, which asks again whoever the caller is. Pure."""

from __future__ import annotations

import re

APP = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?", re.ASCII)
APP_SAYS = "1 to 63 small letters, digits, and inner - and _"
SERVICE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?", re.ASCII)
SERVICE_SAYS = "1 to 63 letters, digits, and inner - and _"
