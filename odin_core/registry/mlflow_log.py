"""A bundle in MLflow, for teams that compare models there: a run with parameters, metrics, tags and the parts as files.

Only a copy: nothing is ever read back, and nothing here can stop a promotion. The client comes with `pip install
'odin[mlflow]'`; the address is given by the border (MLFLOW_TRACKING_URI)."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from odin_core.registry.bundle import Bundle

TRACKING_URI: Final = "MLFLOW_TRACKING_URI"
EXPERIMENT: Final = "odin"
LONGEST: Final = 500  # characters of a parameter that MLflow takes
SECONDS, RETRIES = 10, 1  # a server that does not answer must not hold anybody up; MLflow's own patience is minutes
FORBIDDEN: Final = re.compile(r"[^\w\-. :/]")  # in the names of MLflow's parameters and metrics
BUNDLE: Final = "odin.bundle"  # the tag by which a bundle that was logged before is found


@dataclass(frozen=True)
class Logged:
    """`run_id` None: it was not logged, and `why` says why."""

    run_id: str | None
    why: str

    def to_text(self) -> str:
        return f"MLflow: run {self.run_id} {self.why}" if self.run_id else f"warning: not logged to MLflow: {self.why}"


def log_bundle(bundle: Bundle, life: str, tracking_uri: str, *, experiment: str = EXPERIMENT) -> Logged:
    """Log a bundle once; one that is there already stays as it is. `tracking_uri`: as MLflow takes it, not empty.
    Never raises for what MLflow or its server does."""
    try:
        from mlflow import environment_variables as patience  # pyright: ignore[reportMissingImports]
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]
    except ImportError:
        return Logged(None, "its client is not installed; pip install 'odin[mlflow]', or unset MLFLOW_TRACKING_URI")
    for setting, value in (
        (patience.MLFLOW_HTTP_REQUEST_TIMEOUT, SECONDS),
        (patience.MLFLOW_HTTP_REQUEST_MAX_RETRIES, RETRIES),
    ):
        if not setting.is_set():
            setting.set(value)
    try:
        return _log(MlflowClient(tracking_uri), bundle, life, experiment)
    except Exception as error:  # whatever a client of any version raises: this is a copy for people
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].replace(tracking_uri, "[address]")
        return Logged(None, f"{_without_password(tracking_uri)}: {said[:LONGEST]}")


def _log(client: Any, bundle: Bundle, life: str, name: str) -> Logged:
    found = client.get_experiment_by_name(name)
    experiment = found.experiment_id if found is not None else client.create_experiment(name)
    before = client.search_runs([experiment], f"tags.`{BUNDLE}` = '{bundle.id}' and tags.`odin.life` = '{life}'")
    finished = [run for run in before if run.info.status == "FINISHED"]
    if finished:
        return Logged(finished[0].info.run_id, "was there already")
    tags = {BUNDLE: bundle.id, "odin.life": life, "odin.market": bundle.market, "odin.horizon": bundle.horizon}
    run = client.create_run(experiment, tags=tags, run_name=bundle.version)
    run_id = run.info.run_id
    for key, value in parameters(bundle):
        client.log_param(run_id, FORBIDDEN.sub("_", key), value)
    for key, value in bundle.facts.get("metrics", {}).items():
        client.log_metric(run_id, FORBIDDEN.sub("_", key), value)
    with tempfile.TemporaryDirectory() as folder:
        for kind, text in bundle.parts.items():
            path = Path(folder) / f"{kind}.json"
            path.write_text(text, encoding="utf-8")
            client.log_artifact(run_id, str(path), "bundle")
    client.set_terminated(run_id)
    return Logged(run_id, "has its parts, parameters and metrics")


def parameters(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Name and text of what is a setting: the facts but the metrics, and the numbers of the short parts."""
    tables = {kind: bundle.part(kind) for kind in ("calibrator", "filter", "regime", "thresholds")}
    facts = {name: value for name, value in bundle.facts.items() if name != "metrics"}
    for name, value in [*_flat("facts", facts), *(pair for kind, t in tables.items() for pair in _flat(kind, t))]:
        yield name, str(value)[:LONGEST]


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for inner, v in sorted(value.items()):
            yield from _flat(f"{name}.{inner}", v)
    else:
        yield name, value


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
