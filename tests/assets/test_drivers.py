"""One life, driven in every way there is, always says the same. Killed ones are in `recovery/test_kills.py`, a backfill
by Dagster's daemon is in `test_daemon.py`."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import NamedTuple

import drivers
import pytest
from drivers import FIRST, LAST

from odin_assets.instance import environment, open_instance
from odin_core.home import Home, open_home
from odin_core.lifecycle.digest import Digest
from odin_core.lifecycle.state import WEEKS_END
from odin_core.lifecycle.summary import summarise

IN_THE_MIDDLE = [date(2023, 1, 11), date(2023, 1, 18)]  # Wednesdays


class Reference(NamedTuple):
    home: Home
    whole: Digest


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Reference:
    """The life in plain Python, on bars of its own making."""
    home = open_home(tmp_path_factory.mktemp("reference"))
    drivers.in_python(home)
    return Reference(home, drivers.digest(home))


@pytest.fixture
def home(tmp_path: Path, reference: Reference) -> Home:
    """A new home with the reference's bars and features."""
    home = open_home(tmp_path / "home")
    drivers.share_market(reference.home, home)
    return home


@pytest.fixture(scope="module")
def finished(tmp_path_factory, reference: Reference) -> Home:
    """A home in which `odin bootstrap` ran the whole life."""
    home = open_home(tmp_path_factory.mktemp("finished"))
    drivers.share_market(reference.home, home)
    drivers.bootstrap(home)
    return home


def in_one_go_on_sqlite(home: Home) -> None:
    drivers.bootstrap(home, storage="sqlite")


def in_one_go_on_postgres(home: Home) -> None:
    drivers.bootstrap(home, storage="postgres")


def one_session_at_a_time_for_fifteen_then_the_rest(home: Home) -> None:
    """As the schedule's job or a click in Dagit, then by command."""
    drivers.made(home)
    with open_instance(home) as instance:
        for session in drivers.sessions()[:12]:
            drivers.session_job(home, instance, session)
    for session in drivers.sessions()[12:15]:
        drivers.bootstrap(home, last=session)
    drivers.bootstrap(home)


def in_pieces_cut_in_the_middle_of_a_week(home: Home) -> None:
    starts = [FIRST, *map(drivers.CALENDAR.next, IN_THE_MIDDLE)]
    for first, last in zip(starts, [*IN_THE_MIDDLE, LAST], strict=True):
        drivers.bootstrap(home, first, last)


DRIVERS: list[Callable[[Home], None]] = [
    in_one_go_on_sqlite,
    in_one_go_on_postgres,
    one_session_at_a_time_for_fifteen_then_the_rest,
    in_pieces_cut_in_the_middle_of_a_week,
]


@pytest.mark.parametrize("driver", DRIVERS, ids=lambda driver: driver.__name__)
def test_a_life_says_the_same_however_it_is_driven(driver: Callable[[Home], None], home: Home, reference: Reference):
    with nullcontext() if driver is in_one_go_on_sqlite else environment(home):  # one server for all of a driver's runs
        driver(home)
        assert drivers.digest(home) == reference.whole
        assert drivers.recorded(home) == drivers.to_be_recorded()


def test_the_life_that_is_compared_has_everything_that_could_differ(reference: Reference):
    summary = summarise(drivers.made(reference.home))
    assert [(t["from"], t["to"]) for t in summary["phase"]["transitions"]] == [(0, 1), (1, 2)]
    assert [r["outcome"] for r in summary["retrains"]].count("promoted") == 1
    assert [r["why"] for r in summary["retrains"] if r["why"] != WEEKS_END] == ["phase 0 → 1", "phase 1 → 2"]
    assert len(summary["retrains"]) == 6
    assert not drivers.CALENDAR.is_last_session_of_week(LAST)
    assert set(reference.whole.tables) > {"executions", "replay_buffer", "registry_history", "training_dataset"}


def test_pieces_in_plain_python_resume_from_the_tables_alone(home: Home, reference: Reference):
    for last in [*IN_THE_MIDDLE, date(2023, 1, 20), date(2023, 1, 30), LAST]:
        drivers.in_python(home, last=last)
    assert drivers.digest(home) == reference.whole


@pytest.mark.parametrize("through", [FIRST, IN_THE_MIDDLE[0], date(2023, 1, 27)])
def test_a_shorter_life_is_the_beginning_of_the_longer_one(through: date, home: Home, reference: Reference):
    drivers.in_python(home, last=through)
    assert drivers.digest(home) == drivers.digest(reference.home, through)


@pytest.mark.parametrize(
    ("first", "last"),
    [(FIRST, LAST), (date(2023, 1, 10), date(2023, 1, 18)), (FIRST, FIRST), (date(2023, 1, 30), LAST)],
    ids=["the whole", "its middle", "its first session", "its end"],
)
def test_a_finished_range_run_again_does_nothing_and_says_so(
    first: date, last: date, finished: Home, reference: Reference
):
    before = drivers.written(finished.root / "lives"), drivers.written(finished.root / "lake")
    with open_instance(finished) as instance:
        runs = instance.get_runs_count()
    result = drivers.bootstrap(finished, first, last)
    assert "nothing to do" in result["did"]
    assert result["lake_digest"] == drivers.digest(reference.home, last).digest
    assert (drivers.written(finished.root / "lives"), drivers.written(finished.root / "lake")) == before
    with open_instance(finished) as instance:
        assert instance.get_runs_count() == runs


def test_a_finished_session_run_again_in_dagster_is_verified_and_writes_nothing(finished: Home):
    before = drivers.written(finished.root / "lives")
    with open_instance(finished) as instance:
        first_time = drivers.shown(instance, "phase_state", "2023-01-11")
        drivers.session_job(finished, instance, date(2023, 1, 11))
        assert drivers.shown(instance, "phase_state", "2023-01-11") == first_time | {"did": "skipped"}
    assert first_time["did"] == "ran"
    assert drivers.written(finished.root / "lives") == before


def test_a_week_materialised_again_is_found_and_one_that_is_not_over_stays_incomplete(finished: Home):
    before = drivers.written(finished.root / "lives")
    over, unfinished = "2023-01-16", str(drivers.CALENDAR.week_of(LAST))
    with open_instance(finished) as instance:
        first_time = {name: drivers.shown(instance, name, over) for name in drivers.WEEKLY_ASSETS}
        for week in (over, unfinished):
            drivers.weekly_assets(finished, instance, week)
        assert {name: drivers.shown(instance, name, over) for name in drivers.WEEKLY_ASSETS} == first_time
        for name in drivers.WEEKLY_ASSETS:
            assert drivers.shown(instance, name, unfinished) == {"status": "incomplete"}
    assert first_time["evaluation_report"]["outcome"] == "promoted"
    assert drivers.written(finished.root / "lives") == before


def test_a_range_that_overlaps_what_is_finished_does_only_the_rest(home: Home, reference: Reference):
    drivers.in_python(home, last=IN_THE_MIDDLE[0])
    results = drivers.in_python(home, date(2023, 1, 9), IN_THE_MIDDLE[1])
    assert [r.did for r in results] == ["skipped"] * 3 + ["ran"] * 5
    assert drivers.digest(home) == drivers.digest(reference.home, IN_THE_MIDDLE[1])


def test_the_number_of_threads_changes_nothing(tmp_path: Path, reference: Reference):
    """Both make their own bars: the exchange and the features are compared too."""
    last = date(2023, 1, 13)  # after two trainings
    homes = {n: open_home(tmp_path / f"{n} threads") for n in (1, 4)}
    variables = ("POLARS_MAX_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS")
    running = {
        n: drivers.started(drivers.python_command(home, last), dict.fromkeys(variables, str(n)))
        for n, home in homes.items()
    }
    for n, process in running.items():
        drivers.ended(process)
        assert drivers.digest(homes[n]) == drivers.digest(reference.home, last), f"{n} threads"


def test_the_command_prints_the_digest_that_lake_digest_prints(finished: Home, reference: Reference):
    printed = json.loads(drivers.ended(drivers.started([*drivers.odin("lake digest", finished), "--json"])))
    assert printed == reference.whole.to_dict()
