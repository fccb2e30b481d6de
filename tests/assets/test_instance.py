import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
import requests
import yaml

from odin_assets import instance as module
from odin_assets.instance import (
    AlreadyServed,
    PortTaken,
    ServerUnavailable,
    UnknownStorage,
    dev,
    environment,
    open_instance,
)
from odin_assets.postgres import PostgresUnavailable, serve
from odin_core.home import Home, open_home

STORAGES = ["sqlite", "postgres"]

TINY = """
import os, signal
import dagster as dg

@dg.asset
def where_am_i():
    return dg.MaterializeResult(metadata={"home": os.environ["ODIN_HOME"]})

@dg.asset
def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

defs = dg.Definitions([where_am_i, killed], jobs=[dg.define_asset_job("look", "where_am_i")])

if __name__ == "__main__":
    import sys
    from odin_assets.instance import open_instance
    from odin_core.home import open_home
    with open_instance(open_home(sys.argv[1]), sys.argv[2]) as instance:
        dg.materialize([killed], instance=instance)
"""


@dg.asset
def something() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows": 3})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


@pytest.fixture
def no_postgres(monkeypatch):
    def refuse(folder: Path):
        raise PostgresUnavailable(folder, "this machine has none")

    monkeypatch.setattr(module, "serve", refuse)


def used_storage(home: Home) -> str:
    """What the home's own settings say, which is what every Dagster process on it will use."""
    settings = yaml.safe_load((home.dagster / "dagster.yaml").read_text())
    return "postgres" if "storage" in settings else "sqlite"


@pytest.mark.parametrize("storage", STORAGES)
def test_what_a_run_records_is_there_when_the_home_is_opened_again(home: Home, storage: str):
    with open_instance(home, storage) as instance:
        assert dg.materialize([something], instance=instance).success
    with open_instance(home) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("something"))
        assert event
        assert event.asset_materialization
        assert event.asset_materialization.metadata["rows"].value == 3
    assert used_storage(home) == storage


@pytest.mark.parametrize("storage", STORAGES)
def test_a_home_can_be_served_again(home: Home, storage: str):
    for _ in range(2):
        with open_instance(home, storage) as instance:
            module.make_pool_known(instance)
            known = {pool.name for pool in instance.event_log_storage.get_pool_limits()}
            assert known == {module.POOL, module.TRAINING}


def test_a_new_home_uses_the_embedded_server(home: Home):
    with environment(home) as variables:
        assert variables["ODIN_POSTGRES_URL"].startswith("postgresql://")
    assert used_storage(home) == "postgres"


def test_the_environment_points_into_the_home_while_it_is_open_and_is_put_back(home: Home, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", "before")
    monkeypatch.delenv("ODIN_HOME", raising=False)
    with open_instance(home, "sqlite") as instance:
        assert os.environ["ODIN_HOME"] == str(home.root)
        assert os.environ["DAGSTER_HOME"] == str(home.dagster) == instance.root_directory
        assert os.environ["DAGSTER_EVENT_BATCH_SIZE"] == "500"
    assert os.environ["DAGSTER_HOME"] == "before"
    assert "ODIN_HOME" not in os.environ


def test_the_settings_of_the_top_level_file_reach_the_instance(home: Home):
    with open_instance(home, "sqlite") as instance:
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 1
        assert instance.storage_directory().startswith(str(home.root))


def test_a_setting_changed_by_hand_in_the_copy_is_overwritten(home: Home):
    with environment(home, "sqlite"):
        pass
    written = (home.dagster / "dagster.yaml").read_text()
    (home.dagster / "dagster.yaml").write_text("telemetry: {enabled: true}\n")
    with environment(home):
        assert (home.dagster / "dagster.yaml").read_text() == written


def test_another_storage_is_used_when_asked_for_with_a_warning_about_the_history(home: Home, caplog):
    with environment(home, "sqlite"):
        pass
    with environment(home, "postgres"):
        assert used_storage(home) == "postgres"
    assert "runs recorded in sqlite stay there" in caplog.text
    caplog.clear()
    with environment(home, "postgres"):
        assert not caplog.records


def test_a_machine_without_postgres_falls_back_to_sqlite_and_says_so(home: Home, no_postgres, caplog):
    with caplog.at_level(logging.WARNING, logger="odin"), open_instance(home) as instance:
        assert dg.materialize([something], instance=instance).success
    assert "this machine has none" in caplog.text
    assert "SQLite from now on" in caplog.text
    with environment(home):
        assert used_storage(home) == "sqlite"


def test_postgres_is_not_replaced_silently_when_it_was_asked_for_or_holds_the_history(home: Home, monkeypatch):
    with environment(home, "postgres"):
        pass
    monkeypatch.setattr("odin_assets.postgres.find_spec", lambda _: None)
    with pytest.raises(PostgresUnavailable, match="--storage sqlite"), environment(home):
        pass
    with pytest.raises(PostgresUnavailable), environment(open_home(home.root.with_name("new")), "postgres"):
        pass


def test_a_server_of_ones_own_is_remembered_without_its_password(home: Home, tmp_path: Path, monkeypatch):
    with serve(tmp_path / "server") as url:
        secret = url.replace("odin@", "odin:hush@")
        with open_instance(home, secret) as instance:
            assert dg.materialize([something], instance=instance).success
        with open_instance(home) as instance:
            assert instance.get_runs_count() == 1
        monkeypatch.setenv("ODIN_POSTGRES_URL", secret)
        with environment(home) as variables:
            assert variables["ODIN_POSTGRES_URL"] == secret
        kept = [path.read_text() for path in home.dagster.iterdir() if path.is_file()]
        assert not any("hush" in text for text in kept)


def test_a_server_that_does_not_answer_is_named_without_its_password(home: Home):
    with pytest.raises(ServerUnavailable) as caught, environment(home, "postgresql://me:hush@127.0.0.1:1/none"):
        pass
    assert "postgresql://me@127.0.0.1:1/none does not answer" in str(caught.value)
    assert "hush" not in str(caught.value)
    assert not (home.dagster / "odin-storage").exists()


def test_an_unknown_storage_is_refused(home: Home):
    with pytest.raises(UnknownStorage, match="did you mean postgres"), environment(home, "postgress"):
        pass


def test_a_run_whose_process_was_killed_is_recorded_as_failed(home: Home, tmp_path: Path):
    (tmp_path / "tiny.py").write_text(TINY)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "tiny.py"), str(home.root), "postgres"], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    with open_instance(home) as instance:
        [run] = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.FAILURE
        assert "it was killed" in instance.all_logs(run.run_id)[-1].message


def test_a_run_of_a_living_process_is_left_alone(home: Home):
    @dg.op
    def look_from_outside(context: dg.OpExecutionContext) -> None:
        assert module.fail_dead_runs(context.instance) == []

    @dg.job
    def living():
        look_from_outside()

    with open_instance(home, "sqlite") as instance:
        assert living.execute_in_process(instance=instance).success


def test_dagit_refuses_a_port_in_use(home: Home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PortTaken, match=r"--port"):
            dev(home, port=taken.getsockname()[1])


def test_dagit_refuses_a_home_that_another_dagit_serves(home: Home):
    with module._served_once(home), pytest.raises(AlreadyServed, match="another Dagit"):
        dev(home, port=free_port())


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_handed_on_and_the_whole_group_ends(tmp_path: Path, stop: signal.Signals):
    (tmp_path / "child.py").write_text(
        "import signal, subprocess, time\n"
        "left = subprocess.Popen(['sleep', '60'])\n"
        "print(left.pid, flush=True)\n"
        "try:\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('asked to end', flush=True)\n"
    )
    parent = (
        "import os, sys; from pathlib import Path; from odin_assets.instance import _supervise\n"
        "sys.exit(_supervise([sys.executable, 'child.py'], variables=dict(os.environ), folder=Path.cwd(), keep_open=0))"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout
    grandchild = int(process.stdout.readline())
    process.send_signal(stop)
    assert process.communicate(timeout=20)[0] == "asked to end\n"
    assert process.returncode == 0
    assert not Path(f"/proc/{grandchild}/exe").exists()


@pytest.mark.slow
def test_dagit_comes_up_runs_a_job_and_ends_without_leaving_a_process(home: Home, tmp_path: Path):
    (tmp_path / "tiny.py").write_text(TINY)
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text("load_from: [{python_file: {relative_path: tiny.py, location_name: tiny}}]")
    port = free_port()
    call = (
        "import sys; from pathlib import Path\n"
        "from odin_assets.instance import dev; from odin_core.home import open_home\n"
        f"sys.exit(dev(open_home({str(home.root)!r}), port={port}, workspace=Path({str(workspace)!r})))"
    )
    process = subprocess.Popen([sys.executable, "-c", call])
    try:
        launch = (
            'mutation {launchRun(executionParams: {selector: {repositoryLocationName: "tiny", '
            'repositoryName: "__repository__", jobName: "look"}}) {__typename}}'
        )
        answers = until(lambda: "LaunchRunSuccess" in ask(port, launch))
        assert answers
        assert until(lambda: '"SUCCESS"' in ask(port, "{runsOrError {... on Runs {results {status}}}}"))
    finally:
        process.terminate()
        assert process.wait(60) == 0
    with open_instance(home) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("where_am_i"))
        assert event
        assert event.asset_materialization
        assert event.asset_materialization.metadata["home"].value == str(home.root)
    assert not (home.dagster / "postgres" / "postmaster.pid").exists()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port: int, query: str) -> str:
    try:
        return requests.post(f"http://127.0.0.1:{port}/graphql", json={"query": query}, timeout=10).text
    except requests.ConnectionError:
        return ""


def until(condition, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
