"""A bundle in MLflow: what is logged, once, and that nothing which goes wrong there goes any further."""

import json
import sys
import types
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from smalllives import quick

from odin_core.home import Home
from odin_core.lifecycle.life import Life
from odin_core.policies.joint import JointPolicy, version_of
from odin_core.registry.bundle import KINDS, Bundle, bundle_of
from odin_core.registry.mlflow_log import BUNDLE, log_bundle

MODEL = JointPolicy(("gap",), date(2023, 1, 6), {"enter": "tree"}, (0.1, 1 / 3))


class Client:
    """The calls of MLflow's client, kept; `fails` is raised by the call of that name."""

    runs: list[dict[str, Any]]
    fails: dict[str, Exception]

    def __init__(self, address: str) -> None:
        self.address = address
        self.runs, self.fails = type(self).runs, type(self).fails

    def _called(self, name: str) -> None:
        if name in self.fails:
            raise self.fails[name]

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        self._called("get_experiment_by_name")
        return SimpleNamespace(experiment_id=name) if self.runs else None

    def create_experiment(self, name: str) -> str:
        return name

    def search_runs(self, experiments: list[str], wanted: str) -> list[SimpleNamespace]:
        found = [r for r in self.runs if r["tags"][BUNDLE] in wanted and r["tags"]["odin.life"] in wanted]
        return [SimpleNamespace(info=SimpleNamespace(run_id=r["id"], status=r["status"])) for r in found]

    def create_run(self, experiment: str, tags: dict[str, str], run_name: str) -> SimpleNamespace:
        run = {"id": f"run {len(self.runs)}", "tags": tags, "name": run_name, "status": "RUNNING"}
        self.runs.append(run | {"params": {}, "metrics": {}, "files": {}})
        return SimpleNamespace(info=SimpleNamespace(run_id=run["id"]))

    def log_param(self, run_id: str, key: str, value: str) -> None:
        self.runs[-1]["params"][key] = value

    def log_metric(self, run_id: str, key: str, value: float) -> None:
        self._called("log_metric")
        self.runs[-1]["metrics"][key] = value

    def log_artifact(self, run_id: str, path: str, folder: str) -> None:
        self.runs[-1]["files"][f"{folder}/{Path(path).name}"] = Path(path).read_text()

    def set_terminated(self, run_id: str) -> None:
        self.runs[-1]["status"] = "FINISHED"


class Setting:
    def __init__(self, value: int | None = None) -> None:
        self.value = value

    def is_set(self) -> bool:
        return self.value is not None

    def set(self, value: int) -> None:
        self.value = value


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module of that name, so that the test does not need the client."""
    package, tracking, settings = (types.ModuleType(name) for name in ("mlflow", "tracking", "environment_variables"))
    Client.runs, Client.fails = [], {}
    vars(tracking)["MlflowClient"] = Client
    vars(settings).update(MLFLOW_HTTP_REQUEST_TIMEOUT=Setting(), MLFLOW_HTTP_REQUEST_MAX_RETRIES=Setting(5))
    vars(package).update(tracking=tracking, environment_variables=settings)
    for name, module in {"mlflow": package, "mlflow.tracking": tracking}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "mlflow.environment_variables", settings)
    return package


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    life = Life(Home(tmp_path), "demo", quick(), date(2023, 1, 2))
    facts = {"dataset": "dataset-1", "metrics": {"ic": 0.04, "sharpe (annual)": 1.5}}
    return bundle_of(life, version_of(MODEL), MODEL, '{"edges":[]}', facts)


def test_a_bundle_is_logged_whole(mlflow: types.ModuleType, bundle: Bundle):
    logged = log_bundle(bundle, "a-life", "http://server")
    assert logged.run_id == "run 0"
    (run,) = Client.runs
    assert (run["name"], run["status"], run["tags"][BUNDLE]) == (bundle.version, "FINISHED", bundle.id)
    assert run["metrics"] == {"ic": 0.04, "sharpe _annual_": 1.5}
    assert run["params"]["facts.dataset"] == "dataset-1"
    assert run["params"]["calibrator.kind"] == "platt"
    assert run["params"]["filter.min_symbols"] == str(json.loads(bundle.parts["filter"])["min_symbols"])
    assert run["files"] == {f"bundle/{kind}.json": bundle.parts[kind] for kind in KINDS}


def test_the_same_bundle_is_logged_once_and_one_of_another_life_again(mlflow: types.ModuleType, bundle: Bundle):
    log_bundle(bundle, "a-life", "http://server")
    assert log_bundle(bundle, "a-life", "http://server").to_text() == "MLflow: run run 0 was there already"
    assert log_bundle(bundle, "b-life", "http://server").run_id == "run 1"


def test_a_run_that_broke_off_is_logged_anew(mlflow: types.ModuleType, bundle: Bundle):
    Client.fails = {"log_metric": RuntimeError("gone")}
    assert log_bundle(bundle, "a-life", "http://server").run_id is None
    Client.fails = {}
    assert log_bundle(bundle, "a-life", "http://server").run_id == "run 1"


@pytest.mark.parametrize("error", [OSError("no route to http://me:tiger7@server\nmore"), RuntimeError("")])
def test_what_goes_wrong_is_a_warning_without_the_password(mlflow: types.ModuleType, bundle: Bundle, error: Exception):
    Client.fails = {"get_experiment_by_name": error}
    told = log_bundle(bundle, "a-life", "http://me:tiger7@server").to_text()
    assert told.startswith("warning: not logged to MLflow: http://server: ")
    assert "tiger7" not in told
    assert "\n" not in told


def test_a_server_that_does_not_answer_is_given_seconds_unless_somebody_said_otherwise(
    mlflow: types.ModuleType, bundle: Bundle
):
    log_bundle(bundle, "a-life", "http://server")
    settings = vars(mlflow)["environment_variables"]
    assert settings.MLFLOW_HTTP_REQUEST_TIMEOUT.value == 10
    assert settings.MLFLOW_HTTP_REQUEST_MAX_RETRIES.value == 5


def test_without_the_client_the_text_says_how_to_get_it(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    told = log_bundle(bundle, "a-life", "http://server").to_text()
    assert told.startswith("warning: not logged to MLflow: its client is not installed; pip install 'odin[mlflow]'")
