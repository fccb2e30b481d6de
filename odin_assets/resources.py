"""Resources: the home that a run works on, DuckDB in memory over its lake, and how a run tells what it did."""

import base64
import os
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
from dagster_duckdb import DuckDBResource

from odin_core.errors import OdinError
from odin_core.home import REGISTRY_URL, Home, open_home
from odin_core.lake import write_text
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.config import LifeConfig
from odin_core.lifecycle.life import Life
from odin_core.market.data import MarketData
from odin_core.market.profile import profile_names
from odin_core.market.sources.source import Around, secrets_of, source_kinds
from odin_core.secrets import read_secrets, redacted


class OdinHome(dg.ConfigurableResource):
    """The folder that holds everything a run writes; `odin --home DIR` and `make dev` set ODIN_HOME to it."""

    path: str

    def open(self) -> Home:
        return open_home(self.path, registry_url=read_secrets(os.environ).get(REGISTRY_URL) or None)

    def life(self, market: str) -> Life | None:
        """The life that Dagit, the schedules and the command line drive."""
        return lives.current(self.open(), market)

    def life_or_new(self, market: str, first: date) -> Life:
        """The current life, or one with the default configuration that begins at `first`."""
        return self.life(market) or lives.create(self.open(), market, LifeConfig(), first)

    def data(self, market: str) -> MarketData:
        """What the market's current life sees; without a life, what one with the default configuration would."""
        life = self.life(market)
        return MarketData.of(self.open(), market, life.config if life else LifeConfig())


def now() -> datetime:
    return datetime.now(UTC)


def around() -> Around:
    return Around.of(os.environ, now)


def market_of(run: dg.DagsterRun) -> str | None:
    """The market that a run is about, by its job or by its assets; None for one about none, such as a delivery."""
    named = [name for name in profile_names() if run.job_name.startswith(f"{name}_")]
    if named:
        return max(named, key=len)  # nse_options_session is not one of nse
    return next((key.path[0] for key in run.asset_selection or () if key.path[0] in profile_names()), None)


Progress = Callable[[str, str], None]
"""Told (asset, session) as each session of a range is done; the command line draws a bar with it."""

_listeners: list[Progress] = []


@contextmanager
def listening(progress: Progress):
    """Let `progress` hear of every session that assets finish in this process."""
    _listeners.append(progress)
    try:
        yield
    finally:
        _listeners.remove(progress)


def tell(asset: str, session: str) -> None:
    for listener in _listeners:
        listener(asset, session)


def reported(
    page: Path, *, markdown: str, picture: tuple[str, bytes], html: str | None = None, **numbers: int
) -> dg.MaterializeResult:
    """Write a report's page, unless it lies there already (no `html`). Its metadata are the summary, the picture (its
    name, a PNG of at most 50 kB), the page's path and the numbers."""
    if html is not None:
        write_text(html, page)
    name, image = picture
    return dg.MaterializeResult(
        metadata={
            "summary": dg.MetadataValue.md(markdown),
            name: in_line(name, image),
            "page": dg.MetadataValue.path(str(page)),
            **numbers,
        }
    )


def in_line(name: str, image: bytes) -> dg.MarkdownMetadataValue:
    """A PNG as Dagit shows it."""
    return dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(image).decode()})")


@contextmanager
def users_mistakes():
    """Turn an OdinError into a failure that Dagit shows with its text, and that no retry would mend."""
    try:
        yield
    except OdinError as error:
        said = cleared(str(error))
        raise dg.Failure(said, allow_retries=False) from (error if said == str(error) else OdinError(said))


def cleared(text: str) -> str:
    """`text` without the value of any secret that ODIN knows."""
    from odin_core.monitoring.channels import SECRETS
    from odin_core.monitoring.service import SERVICE
    from odin_core.registry.mlflow_log import TRACKING_URI

    wanted = [name for kind in source_kinds() for name in secrets_of(kind)]
    return redacted(text, read_secrets(os.environ), [*wanted, *SECRETS, SERVICE, TRACKING_URI, REGISTRY_URL])


def duckdb_in_memory() -> DuckDBResource:
    """In memory, so that no process ever holds a write lock that another one needs."""
    return DuckDBResource(database=":memory:", connection_config={"threads": 2, "memory_limit": "1GB"})
