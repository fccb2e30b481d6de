"""The `odin` command as a person or a script uses it."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from grownhomes import FIRST, HEAD, NEXT, copied, run
from odincommand import odin
from smalllives import clock

from odin_assets import drive
from odin_assets.resources import tell
from odin_core import cli
from odin_core.commands import life as life_commands
from odin_core.commands.common import plain
from odin_core.errors import OdinError
from odin_core.home import Home, open_home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.digest import life_digest
from odin_core.lifecycle.life import Life, StartsTooLate
from odin_core.lifecycle.run import NotClosedYet, run_sessions
from odin_core.market.data import MarketData

KEYS = {
    "sessions", "decisions", "phase", "retrains", "champion", "performance", "timings", "lake_digest",
}  # fmt: skip


@pytest.fixture
def home(grown: Path, tmp_path: Path) -> Home:
    """A home of the test's own, to write to."""
    return copied(grown, tmp_path / "home")


@pytest.fixture
def life(grown: Path) -> Life:
    return life_in(open_home(grown))


def life_in(home: Home) -> Life:
    found = lives.current(home, "demo")
    assert found is not None
    return found


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(leaves(cli.cli))
OF_THE_WHOLE_HOME = [("alerts", name) for name in ("rules", "deliver", "test")]
OF_NO_HOME = [("encoder", "settings"), ("rl", "settings")]  # what could be written into a file


def test_the_command_is_there_at_once_because_nothing_heavy_is_imported_for_help():
    heavy = ["polars", "numpy", "pandas", "dagster", "lightgbm", "torch", "numba", "duckdb", "odin_assets"]
    code = (
        "import sys\nfrom odin_core.cli import main\nsys.argv = ['odin', 'bootstrap', '--help']\nmain()\n"
        f"print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Run a range of sessions" in done.stdout
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_and_takes_market_and_home(path: tuple[str, ...]):
    said = odin(*path, "--help")
    assert said.status == 0
    assert " ".join((COMMANDS[path].help or "").split("\n\n")[0].split()) in " ".join(said.out.split())
    if path not in [*OF_THE_WHOLE_HOME, *OF_NO_HOME]:
        assert {"--market", "--home"} <= {o for p in COMMANDS[path].params for o in p.opts}


def test_a_script_gets_one_json_object_and_nothing_else_from_a_bootstrap_that_runs(home: Home):
    words = ["bootstrap", "--end", str(NEXT), "--json", "--home", str(home.root)]
    code = f"import sys\nfrom odin_core.cli import main\nsys.argv = ['odin', *{words!r}]\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result.keys() >= KEYS
    assert (result["sessions"], result["last_session"], result["did"]) == (15, str(NEXT), "1 run now")
    assert done.stderr == ""


def test_the_object_has_exactly_the_members_that_scripts_rely_on(grown: Path, life: Life):
    result = odin("bootstrap", "--end", HEAD, "--json", home=grown).json
    assert result.keys() >= KEYS
    assert result["decisions"].keys() == {"taken", "skipped", "rejected"}
    assert result["phase"].keys() >= {"final", "transitions"}
    assert all(t.keys() == {"session", "from", "to", "reason"} for t in result["phase"]["transitions"])
    assert len(result["phase"]["transitions"]) >= 1
    needed = {"session", "rows", "seconds", "outcome", "reason"}
    assert len(result["retrains"]) == 2
    assert all(needed <= r.keys() and r["seconds"] > 0 for r in result["retrains"])
    assert result["champion"] is None
    assert result["performance"].keys() >= {"sharpe", "max_drawdown", "turnover", "trades", "vs_random", "vs_hold"}
    assert all(seconds >= 0 for seconds in result["timings"].values())
    assert result["lake_digest"] == life_digest(life).digest


def test_a_finished_range_is_not_run_again_and_says_so(grown: Path):
    before = {path: path.stat().st_mtime_ns for path in grown.rglob("*.parquet")}
    said = odin("bootstrap", "--end", HEAD, home=grown)
    assert "14 sessions, 2023-01-02 to 2023-01-19 (all finished before: nothing to do)" in said.out
    assert {path: path.stat().st_mtime_ns for path in grown.rglob("*.parquet")} == before


def test_on_a_terminal_a_bar_per_asset_counts_the_sessions(capsys: pytest.CaptureFixture[str]):
    dagster, level = logging.getLogger("dagster"), logging.getLogger("dagster").level
    with drive._bars(True, 2):
        for asset, session in (("features", FIRST), ("features", NEXT), ("loop", FIRST)):
            tell(asset, str(session))
    dagster.setLevel(level)
    last = {line.split()[0]: line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.strip()}
    assert "2/2" in last["features"]
    assert str(NEXT) in last["features"]
    assert "1/2" in last["loop"]


def test_a_person_reads_where_the_system_got_to_and_what_would_help(grown: Path):
    lines = odin("bootstrap", "--end", HEAD, home=grown).out.splitlines()
    heads = [line.split("  ")[0] for line in lines]
    for head in ("decisions", "phase", "phase now", "retrains", "champion", "Sharpe", "report", "Dagit", "digest"):
        assert head in heads, head
    assert any(line.strip().startswith("what would help: ") for line in lines)


def test_a_range_that_starts_beyond_the_next_session_is_refused_with_the_range_to_run(grown: Path):
    said = odin("bootstrap", "--start", "2023-01-25", "--end", "2023-01-27", home=grown)
    assert "Ask for a range that starts at 2023-01-20" in said.mistake
    with pytest.raises(StartsTooLate):
        run(open_home(grown), start=date(2023, 1, 25), end=date(2023, 1, 27))


def test_a_first_session_on_a_holiday_is_refused_with_the_nearest_sessions(tmp_path: Path):
    said = odin("bootstrap", "--start", "2023-01-26", "--end", "2023-01-27", home=tmp_path / "home")
    assert "2023-01-26 is no session of market 'demo'; the nearest are 2023-01-25 and 2023-01-27" in said.mistake


def test_an_end_before_the_start_is_refused(grown: Path):
    assert "give an --end on or after 2023-01-02" in odin("bootstrap", "--end", "2022-12-30", home=grown).mistake


def test_a_session_is_refused_before_its_close(grown: Path):
    closes = datetime(2023, 1, 20, 10, tzinfo=UTC)
    with pytest.raises(NotClosedYet, match=r"closes at 2023-01-20 10:00 UTC.*end the range one session earlier"):
        run(open_home(grown), start=None, end=NEXT, at=closes - timedelta(seconds=1))


def test_what_belongs_to_another_life_begins_one_and_says_so(home: Home, life: Life):
    words = ("--start", "2022-12-30", "--set", "guardrails.max_trades=7")
    differs = "guardrails.max_trades 6 → 7, first session 2023-01-02 → 2022-12-30"
    result = odin("bootstrap", *words, "--end", "2023-01-02", "--json", home=home).json
    assert result["life"] != life.id
    assert result["notes"] == [f"this is another life than {life.id} ({differs}); back to it: odin life use {life.id}"]
    assert odin("life", "use", life.id[:6], home=home).out == f"demo: current life is {life.id}\n"
    assert {row["life"]: row["head"] for row in odin("life", "list", "--json", home=home).json["lives"]} == {
        life.id: str(HEAD), result["life"]: "2023-01-02",
    }  # fmt: skip


def test_a_new_life_is_made_with_defaults_and_not_run(home: Home, life: Life):
    made = odin("life", "new", "--start", FIRST, "--seed", 9, "--set", "live=true", "--json", home=home).json
    assert (made["seed"], made["live"], made["head"], made["current"]) == (9, True, None, True)
    assert "no finished session yet" in odin("report", home=home).mistake
    assert odin("lake", "digest", "--json", home=home).json["sessions"] == 0
    assert odin("lake", "digest", "--life", life.id, "--json", home=home).json["sessions"] == 14


def test_settings_are_shown_as_the_command_takes_them(home: Home, life: Life):
    mine = odin("life", "settings", "--life", life.id, home=home).out.split()
    assert {"live=true", "learner.trees=6", "learners=[joint]"} <= set(mine)
    shown = odin("life", "settings", home=home).out.split()
    again = odin("life", "new", "--start", FIRST, *(w for s in shown for w in ("--set", s)), "--json", home=home)
    assert again.json["life"] == odin("life", "new", "--start", FIRST, "--json", home=home).json["life"]


def test_a_rewind_is_only_told_until_it_is_confirmed_and_deletes_nothing(home: Home, life: Life):
    digest = odin("lake", "digest", "--through", "2023-01-13", "--json", home=home).json["digest"]
    told = odin("life", "rewind", "--to", "2023-01-13", home=home).out
    assert "generation 1 → 2" in told
    assert "dry run" in told
    assert odin("life", "list", "--json", home=home).json["lives"][0]["generation"] == 1
    odin("life", "rewind", "--to", "2023-01-13", "--yes", home=home)
    assert odin("lake", "digest", "--json", home=home).json["digest"] == digest
    assert (home.lives / life.id / "generations" / "1" / "phase_state" / f"session={HEAD}").is_dir()
    assert "not one of its finished sessions" in odin("life", "rewind", "--to", HEAD, home=home).mistake


def test_the_digest_is_one_hash_per_table_and_stops_where_it_is_told(grown: Path, life: Life):
    whole = odin("lake", "digest", "--json", home=grown).json
    assert whole["life"] == life.id
    assert {"replay_buffer", "phase_state", "registry_history", "training_dataset"} <= whole["tables"].keys()
    assert whole["tables"].keys().isdisjoint(whole["inputs"])
    assert whole["inputs"].keys() == {"price_history", "features"}
    part = odin("lake", "digest", "--through", "2023-01-11", "--json", home=grown).json
    assert (part["through"], part["sessions"]) == ("2023-01-11", 8)
    assert part["digest"] != whole["digest"]


def test_sql_answers_in_a_table_or_in_json_without_nan(grown: Path):
    assert "demo_replay_buffer" in odin("sql", "show tables", home=grown).out
    query = "select session, phase, 'nan'::double n, 'inf'::double i from demo_phase_state order by session limit 1"
    assert odin("sql", query, "--json", home=grown).json == [
        {"session": "2023-01-02", "phase": 0, "n": None, "i": None}
    ]


def test_a_weekly_table_keeps_the_sessions_that_its_rows_tell_of(grown: Path, life: Life):
    files = life.lake.sessions("training_dataset")
    stored = life.lake.read_many("training_dataset", files)["session"].unique().sort().to_list()
    asked = odin("sql", "select distinct session from demo_training_dataset order by 1", "--json", home=grown).json
    assert [row["session"] for row in asked] == [str(session) for session in stored]
    assert len(stored) > len(files)


@pytest.mark.parametrize("query", ["selec", "select * from nowhere", "select nope from demo_phase_state"])
def test_a_query_that_cannot_be_answered_says_why_and_where_to_look(grown: Path, query: str):
    assert 'odin sql "show tables"' in odin("sql", query, home=grown).mistake


def test_the_registry_lists_shows_promotes_and_rolls_back(home: Home, life: Life):
    listed = odin("registry", "list", "--json", home=home).json
    version = listed["history"][-1]["version"]
    assert listed["champion"] is None
    assert {"session", "event", "version", "reason"} <= listed["history"][0].keys()
    assert odin("registry", "show", version, "--json", home=home).json["trained_through"] == "2023-01-13"
    assert "never had a champion" in odin("registry", "rollback", home=home).mistake
    told = odin("registry", "promote", version, "--why", "a test", "--dry-run", home=home).out
    assert f"from session 2023-01-23: champion none → {version} (a test)" in told
    assert life_in(home).registry.log() == []
    assert "comes too late" in odin("registry", "promote", version, "--effective", NEXT, home=home).mistake
    odin("registry", "promote", version, "--why", "a test", home=home)
    list(run_sessions(life_in(home), MarketData.of(home, "demo", life.config), [NEXT], clock=clock))
    after = odin("registry", "list", "--json", home=home).json
    assert (after["champion"], after["since"]) == (version, "2023-01-23")
    assert f"champion {version} → none" in odin("registry", "rollback", "--dry-run", home=home).out


def test_the_report_is_a_page_and_its_path_is_printed(home: Home):
    path = Path(odin("report", home=home).out.strip())
    assert path.is_file()
    assert home.root in path.parents


def test_what_the_lake_holds_of_a_synthetic_market_is_shown_too(grown: Path):
    shown = odin("data", "show", "--json", home=grown).json
    assert (shown["market"], shown["first"]) == ("demo", "2022-12-01")
    assert [row["symbol"] for row in shown["bars"]["1m"]["symbols"]][:2] == ["SYN001", "SYN002"]


MISTAKES = {
    "an unknown command": (("bootsrap",), "did you mean"),
    "an unknown subcommand": (("life", "lst"), "see odin life --help"),
    "an unknown option": (("bootstrap", "--ende", "2023-01-02"), "see odin bootstrap --help"),
    "a missing argument": (("sql",), "see odin sql --help"),
    "no date": (("bootstrap", "--start", "2023-02-30"), "write it as YYYY-MM-DD"),
    "an unknown market": (("bootstrap", "--market", "nsee"), "did you mean nse?"),
    "an unknown setting": (("bootstrap", "--set", "learner.tree=5"), "did you mean learner.trees"),
    "a setting of the wrong kind": (("bootstrap", "--set", "learner.trees=many"), "expected a whole number"),
    "a setting that is no YAML": (("bootstrap", "--set", "learner.trees=["), "expected a whole number"),
    "a setting out of bounds": (("bootstrap", "--set", "promotion.min_sessions=3"), "it may be 10 to"),
    "an unknown learner": (("bootstrap", "--set", "learners=[oracle]"), "name at least one of joint"),
    "a negative seed": (("bootstrap", "--seed", "-1"), "seed=-1 is out of bounds"),
    "an edge above 1": (("bootstrap", "--edge", "1.5"), "it may be 0 to 1"),
    "an edge in a real market": (("bootstrap", "--market", "nse", "--edge", "0.5"), "leave --edge out"),
    "a market without data": (("bootstrap", "--market", "nse"), "odin data import FILE… --market nse"),
    "bars for a market that makes its own": (("data", "import", "x.parquet"), "--market nse"),
    "an unknown storage": (("bootstrap", "--end", "2023-01-20", "--storage", "mysql"), "known: postgres, sqlite"),
    "an unknown life": (("lake", "digest", "--life", "zzz"), "no life"),
    "an ambiguous life": (("life", "use", ""), "begin"),
    "a market without a life": (("report", "--market", "nse"), "odin bootstrap --market nse"),
    "an unknown model": (("registry", "show", "joint-x"), "known: joint-"),
    "a page of another kind": (("evaluate", "--out", "page.pdf"), "end it with .html or .md"),
    "a report where nothing can be written": (("report", "--out", "/proc/page.html"), "name another file with --out"),
    "a report below a file": (("report", "--out", "/dev/null/page.html"), "name another file with --out"),
    "a rewind to no session": (("life", "rewind", "--to", "2023-01-15"), "2023-01-02 to 2023-01-19"),
    "a day outside the calendar": (("life", "new", "--start", "1999-01-04"), "covers"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_in_one_line_with_the_way_out(home: Home, name: str):
    if name == "an ambiguous life":
        odin("life", "new", "--start", FIRST, "--seed", 3, home=home)
    words, way_out = MISTAKES[name]
    option = () if name in ("an unknown command", "an unknown subcommand") else ("--home", str(home.root))
    assert way_out.lower() in odin(*words, *option).mistake.lower()


def test_without_a_command_the_help_is_shown():
    said = odin()
    assert said.status == 2
    assert "Begin with `odin bootstrap`" in said.out + said.err


def test_a_home_may_be_named_by_the_environment(grown: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ODIN_HOME", str(grown))
    assert odin("life", "list", "--json").json["lives"]


@pytest.mark.parametrize(
    ("raised", "status", "text"),
    [
        (KeyboardInterrupt(), 130, "the same command goes on from here"),
        (OSError(28, "No space left on device", "/x/part.parquet"), 2, "/x/part.parquet: No space left on device"),
        (OdinError("two\nlines"), 2, "odin: two lines"),
    ],
)
def test_what_ends_a_command_from_outside_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException, status: int, text: str
):
    def interrupted(*args: object) -> None:
        raise raised

    monkeypatch.setattr(life_commands, "the_life", interrupted)
    said = odin("life", "use", "x", home=tmp_path)
    assert said.status == status
    assert text in said.err
    assert said.err.strip().count("\n") == 0


def test_a_bug_is_no_mistake_of_the_user_and_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(life_commands, "the_life", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        odin("life", "use", "x", home=tmp_path)


PLAIN: list[tuple[Any, Any]] = [
    (float("nan"), None),
    ({"a": [np.float64("inf"), np.int64(3), np.bool_(True)]}, {"a": [None, 3, True]}),
    ((date(2023, 1, 2), datetime(2023, 1, 2, 3, 45, tzinfo=UTC)), ["2023-01-02", "2023-01-02T03:45:00+00:00"]),
    ({date(2023, 1, 2): Path("a/b"), 1: None}, {"2023-01-02": "a/b", "1": None}),
    (timedelta(minutes=1), "0:01:00"),
]


@pytest.mark.parametrize(("value", "said"), PLAIN)
def test_values_are_said_as_json_can(value: Any, said: Any):
    assert plain(value) == said
    json.dumps(plain(value), allow_nan=False)
