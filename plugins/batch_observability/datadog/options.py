"""
What rendering needs to know beside the catalog: which environments page, at which site, and who runs all this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from batch_observability.config import ConfigError

_ENV = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,49}")
_SITE = re.compile(r"[a-z0-9][a-z0-9.\-]*\.[a-z]{2,}")
_HANDLE = re.compile(r"@\S+")


@dataclass(frozen=True, kw_only=True)
class Options:
    """
    How resources are rendered.

    Attributes:
        envs: environments with monitors and SLOs; the dashboards show all others too.
        site: Datadog's, for links: `datadoghq.com`, `datadoghq.eu`, `us5.datadoghq.com`.
        platform: handle of those who run batch_observability, told of lost telemetry; "" for nobody.

    Raises:
        ConfigError: naming the value and the remedy.
    """

    envs: tuple[str, ...] = ("prod",)
    site: str = "datadoghq.com"
    platform: str = ""

    def __post_init__(self) -> None:
        for env in self.envs:
            if not _ENV.fullmatch(env):
                raise ConfigError(f"environment {env!r} is no value of Datadog's tag env: write for example prod")
        if len(set(self.envs)) < len(self.envs):
            raise ConfigError(f"environments {', '.join(self.envs)}: one is there twice; leave it out")
        if not _SITE.fullmatch(self.site):
            raise ConfigError(f"site {self.site!r} is none of Datadog's: write for example datadoghq.eu")
        if self.platform and not _HANDLE.fullmatch(self.platform):
            raise ConfigError(f"handle {self.platform!r} notifies nobody: write for example @slack-batch-platform")
