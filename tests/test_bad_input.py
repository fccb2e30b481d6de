"""What a user can get wrong, through the command: a clear line or a quarantine row, nothing lost, never a traceback."""

import functools
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import nsefiles
import polars as pl
import pytest
from grownhomes import FIRST, HEAD, NEXT, copied, prefill, run
from odincommand import Said, odin
from smalllives import clock

from odin_core.home import Home, open_home
from odin_core.lake import logical_hash
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.digest import life_digest
from odin_core.lifecycle.run import run_sessions
from odin_core.lifecycle.state import WEEKS_END
from odin_core.market.data import MarketData

DAY = nsefiles.FIRST
SETTINGS = (
    "--set",
    "filter.min_symbols=2",
    "--set",
    "filter.min_traded_value=0",
    "--set",
    "exploration.take_probability=1",
)


@pytest.fixture
def home(grown: Path, tmp_path: Path) -> Home:
    return copied(grown, tmp_path / "home")


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the small NSE file in its lake; not to be written to."""
    folder = tmp_path_factory.mktemp("nse")
    path = nsefiles.written(nsefiles.bars(), folder / "nse.parquet")
    assert odin("data", "import", path, "--market", "nse", home=folder / "home").status == 0
    return folder / "home"


def day(**changes: Any) -> pl.DataFrame:
    """One session of one symbol, with row 5 changed."""
    rows = nsefiles.of([DAY], "TCS").to_dicts()
    rows[5] |= changes
    return pl.DataFrame(rows, schema=nsefiles.bars().schema)


# --- files ------------------------------------------------------------------------------------------------------------

FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "no such file"),
    "a folder": (lambda path: path.mkdir(), "not a file"),
    "empty": (lambda path: path.touch(), "the file is empty"),
    "without rows": (lambda path: nsefiles.written(day().clear(), path), "columns but no rows"),
    "no Parquet": (lambda path: path.write_text("ts,symbol\n"), "not a complete Parquet file"),
    "half written": (
        lambda path: path.write_bytes(nsefiles.written(day(), path).read_bytes()[:-200]), "not a complete Parquet file",
    ),
    "without a column": (lambda path: nsefiles.written(day().drop("close"), path), "lacks the columns close"),
    "with text for prices": (
        lambda path: nsefiles.written(day().with_columns(pl.col("ts").dt.date()), path), "a timestamp with a time zone",
    ),
    "without a time zone": (
        lambda path: nsefiles.written(day().with_columns(pl.col("ts").dt.replace_time_zone(None)), path),
        "no time zone",
    ),
    "with the ends of bars as stamps": (
        lambda path: nsefiles.written(day().with_columns(pl.col("ts") + timedelta(minutes=1)), path), "--stamps end",
    ),
    "of five-minute bars": (
        lambda path: nsefiles.written(nsefiles.bars().filter(pl.col("ts").dt.minute() % 5 == 0), path), "--interval 5m",
    ),
    "of another market's hours": (
        lambda path: nsefiles.written(day().with_columns(pl.col("ts") + timedelta(hours=9)), path), "outside the",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_wrong_as_a_whole_is_refused_and_changes_nothing(tmp_path: Path, name: str):
    make, says = FILES[name]
    path, home = tmp_path / "bars.parquet", open_home(tmp_path / "home")
    make(path)
    good = nsefiles.written(day(), tmp_path / "good.parquet")
    mistake = odin("data", "import", good, path, "--market", "nse", home=home).mistake
    assert says in mistake
    assert str(path) in mistake
    assert home.lake("nse").tables() in ([], ["arrivals", "data_quality", "price_history"])
    again = odin("data", "import", good, "--market", "nse", "--json", home=home).json
    assert again["files"][0]["kept"] == 375


def test_bars_stamped_with_their_ends_are_the_same_bars_when_the_command_is_told(tmp_path: Path):
    starts = nsefiles.written(day(), tmp_path / "starts.parquet")
    ends = nsefiles.written(day().with_columns(pl.col("ts") + timedelta(minutes=1)), tmp_path / "ends.parquet")
    one, other = tmp_path / "one", tmp_path / "other"
    assert odin("data", "import", starts, "--market", "nse", home=one).status == 0
    assert odin("data", "import", ends, "--stamps", "end", "--market", "nse", home=other).status == 0
    hashes = {logical_hash(open_home(h).lake("nse").read("price_history", DAY)) for h in (one, other)}
    assert len(hashes) == 1


ROWS: dict[str, tuple[pl.DataFrame, dict[str, int]]] = {
    "a negative price": (day(low=-1.0), {"price_not_positive": 1}),
    "a high below the low": (day(high=1.0, low=2.0), {"high_below_low": 1}),
    "no price": (day(close=None), {"price_missing": 1}),
    "a negative volume": (day(volume=-1.0), {"volume_negative": 1}),
    "a bar before the open": (day(ts=nsefiles.CALENDAR.hours(DAY).open - timedelta(minutes=3)), {"outside_hours": 1}),
    "a row twice": (pl.concat([day(), day()[7:8]]), {"duplicate_copy": 1}),
    "a row twice with other values": (pl.concat([day(), day(volume=1.0)[5:6]]), {"duplicate_conflict": 1}),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_breaks_a_rule_goes_to_quarantine_with_file_row_and_rule(tmp_path: Path, name: str):
    frame, expected = ROWS[name]
    home = open_home(tmp_path / "home")
    path = nsefiles.written(frame, tmp_path / "bars.parquet")
    report = odin("data", "import", path, "--market", "nse", "--json", home=home).json["files"][0]
    assert report["quarantined"] == expected
    assert report["kept"] + sum(expected.values()) == report["rows"] == frame.height
    held = home.lake("nse").read("quarantine", DAY).row(0, named=True)
    assert (held["origin"], held["rule"], held["symbol"]) == ("bars.parquet", next(iter(expected)), "TCS")
    assert frame.row(held["row"], named=True)["symbol"] == "TCS"
    shown = odin("data", "show", "--market", "nse", "--json", home=home).json
    assert shown["quarantined"] == expected


def test_rows_out_of_order_are_sorted_in_and_counted(tmp_path: Path):
    home = open_home(tmp_path / "home")
    path = nsefiles.written(day().sort("ts", descending=True), tmp_path / "bars.parquet")
    report = odin("data", "import", path, "--market", "nse", "--json", home=home).json["files"][0]
    assert (report["kept"], report["out_of_order"]) == (375, 374)
    assert home.lake("nse").read("price_history", DAY)["ts"].is_sorted()


# --- a life on real bars ----------------------------------------------------------------------------------------------


def nse(home: Home | Path, *words: object) -> Said:
    return odin("bootstrap", "--market", "nse", "--storage", "sqlite", *SETTINGS, *words, "--json", home=home)


def test_an_imported_file_carries_a_life_with_symbols_that_come_go_and_hardly_trade(tmp_path: Path):
    home = open_home(tmp_path / "home")
    middle = nsefiles.CALENDAR.next(DAY, 2)
    late, early = pl.col("symbol") == "INFY", pl.col("symbol") == "SBIN"
    few = (pl.col("symbol") == "TCS") & (pl.col("ts").dt.date() == middle) & (pl.col("ts").dt.minute() != 20)
    at = pl.col("ts").dt.date()
    frame = nsefiles.bars().filter(~(late & (at < middle)) & ~(early & (at > middle)) & ~few)
    path = nsefiles.written(frame, tmp_path / "nse.parquet")
    assert odin("data", "import", path, "--market", "nse", home=home).status == 0
    assert odin("data", "show", "--market", "nse", "--json", home=home).json["findings"]["few_bars"] == 1
    result = nse(home, "--start", DAY, "--end", nsefiles.LAST, "--seed", 7).json
    assert (result["sessions"], result["no_data"]) == (8, 0)
    assert result["decisions"]["taken"] > 0
    query = "select distinct symbol from nse_replay_buffer where status = 'taken' order by 1"
    taken = [row["symbol"] for row in odin("sql", query, "--json", home=home).json]
    assert "TCS" in taken
    assert "INFY" not in taken, "it was decided on before its own warm-up was over"


RANGES = {
    "before the data": (("--start", "2020-06-01", "--end", "2020-06-05"), "it has 2021-03-12 to 2021-04-13"),
    "after the data": (("--start", "2021-06-01", "--end", "2021-06-04"), "it has 2021-03-12 to 2021-04-13"),
    "empty": (("--start", "2021-04-13", "--end", "2021-04-01"), "give an --end on or after 2021-04-13"),
    "without a session": (("--start", "2021-04-10", "--end", "2021-04-11"), "2021-04-09 and 2021-04-12"),
    "outside the calendar": (("--start", "2031-01-01", "--end", "2031-02-01"), "2026-12-31"),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_range_that_cannot_be_run_is_refused_with_what_there_is(imported: Path, name: str):
    words, says = RANGES[name]
    assert says in nse(imported, *words).mistake
    assert not (imported / "lives").exists(), "a refused range began a life"


def test_a_range_that_goes_beyond_the_data_is_carried_through_and_says_how_to_go_back(imported: Path, tmp_path: Path):
    shutil.copytree(imported, tmp_path / "home")
    result = nse(tmp_path / "home", "--start", "2021-04-12", "--end", "2021-04-16").json
    assert (result["sessions"], result["no_data"]) == (4, 2)
    (note,) = result["notes"]
    assert "the last 2 sessions (2021-04-15 to 2021-04-16) have no bars" in note
    assert "odin life rewind --market nse --to 2021-04-13" in note


@pytest.mark.slow
def test_the_recorded_bars_of_2021_carry_a_life(market_file: Callable[[str], Path], tmp_path: Path):
    path = market_file("nse_equity_1m_2021.parquet")
    report = odin("data", "import", path, "--market", "nse", "--json", home=tmp_path).json["files"][0]
    assert report["kept"] + sum(report["quarantined"].values()) == report["rows"] == 474_966
    words = ("--start", "2021-04-01", "--end", "2021-06-11", "--seed", 7)
    result = odin("bootstrap", "--market", "nse", *words, "--json", home=tmp_path).json
    assert (result["sessions"], result["no_data"]) == (48, 0)
    assert min(result["decisions"].values()) > 0
    assert [r["why"] for r in result["retrains"]].count(WEEKS_END) == 11
    again = odin("bootstrap", "--market", "nse", *words, "--json", home=tmp_path).json
    assert (again["did"], again["lake_digest"]) == ("all finished before: nothing to do", result["lake_digest"])


# --- damage -----------------------------------------------------------------------------------------------------------


def partition(home: Home, table: str, session: date = HEAD) -> Path:
    life = lives.current(home, "demo")
    assert life is not None
    lake = home.lake("demo-edge0.5-seed7")
    folder = next(
        (root for root in (lake.root, life.lake.root) for _ in root.glob(f"{table}*/session={session}")), None
    )
    assert folder is not None
    return next(folder.glob(f"{table}*/session={session}/part.parquet"))


DAMAGE: dict[str, tuple[Callable[[Home], Path], str]] = {
    "price_history": (lambda h: partition(h, "price_history", NEXT), "Delete its folder"),
    "features": (lambda h: partition(h, "features_"), "Delete its folder"),
    "recommendations": (lambda h: partition(h, "recommendations"), "odin life rewind"),
    "action_outcomes": (lambda h: partition(h, "action_outcomes", date(2023, 1, 11)), "odin life rewind"),
    "the registry": (lambda h: h.registry, "move it away"),
    "a commit": (lambda h: next(h.lives.glob(f"*/generations/1/commits/{HEAD}.json")), "odin life rewind"),
    "the life": (lambda h: next(h.lives.glob("*/life.json")), "odin life new"),
    "the pointer to the life": (lambda h: h.current("demo"), "odin life use"),
    "the record of runs": (lambda h: h.dagster / "history" / "runs.db", "move that folder away"),
    "the marker": (lambda h: h.root / "odin.json", '{"format": 1}'),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_stops_the_run_with_its_name_and_the_way_out(home: Home, name: str):
    find, way_out = DAMAGE[name]
    path = find(home)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if len(content) > 100 else bytes(range(256)))
    mistake = odin("bootstrap", "--end", NEXT, home=home).mistake
    assert way_out in mistake
    assert str(path) in mistake or str(path.parent) in mistake or str(path.parents[1]) in mistake


@pytest.mark.parametrize("columns", [("volume",), ()], ids=["without a column", "with negative prices"])
def test_bars_that_were_changed_in_the_lake_are_not_decided_on(home: Home, columns: tuple[str, ...]):
    path = partition(home, "price_history", NEXT)
    pl.read_parquet(path).with_columns(-pl.col("low")).drop(columns).write_parquet(path)
    assert str(path) in odin("bootstrap", "--end", NEXT, home=home).mistake
    assert odin("life", "list", "--json", home=home).json["lives"][0]["head"] == str(HEAD)


def test_the_ways_out_of_damage_lead_to_the_life_that_was_not_damaged(home: Home, tmp_path: Path):
    whole = digest_without_damage(copied(home.root, tmp_path / "whole"))
    for path in (partition(home, "features_"), partition(home, "price_history", NEXT), partition(home, "executions")):
        path.write_bytes(path.read_bytes()[:100])
    while (said := odin("bootstrap", "--end", NEXT, "--json", home=home)).status != 0:
        if rewind := re.search(r"odin (life rewind .*?--to \S+\d)", said.mistake):
            assert odin(*shlex.split(rewind[1]), "--yes", home=home).status == 0
        else:
            shutil.rmtree(Path(said.mistake.split()[1]).parent)
            prefill(home)  # the small market's bars: the exchange of the profile has more symbols
    assert said.json["lake_digest"] == whole


def digest_without_damage(home: Home) -> str:
    life = lives.current(home, "demo")
    assert life is not None
    list(run_sessions(life, MarketData.of(home, "demo", life.config), [NEXT], clock=clock))
    return life_digest(life).digest


def test_damage_in_one_table_does_not_keep_sql_from_the_others(home: Home):
    partition(home, "executions").write_bytes(b"half")
    said = odin("sql", "select count(*) n from demo_phase_state", "--json", home=home)
    assert (said.status, said.json) == (0, [{"n": 14}])
    assert "demo_executions" in odin("sql", "select * from demo_executions", home=home).mistake


def test_leftovers_of_a_killed_write_are_no_part_of_a_table(home: Home):
    before = odin("lake", "digest", "--json", home=home).json
    for table in ("phase_state", "price_history"):
        part = partition(home, table)
        (part.parent / ".part.parquet.123-456.tmp").write_bytes(b"half")
    (next(home.lives.glob("*/ledger.jsonl"))).open("a").write('{"event": "session", "ses')
    assert odin("lake", "digest", "--json", home=home).json == before
    assert odin("bootstrap", "--end", HEAD, "--json", home=home).json["lake_digest"] == before["digest"]


# --- homes and writers ------------------------------------------------------------------------------------------------

HOMES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a file": (lambda path: path.write_text("x"), "it is a file"),
    "a folder of something else": (lambda path: (path / "holiday photos").mkdir(parents=True), "holiday photos"),
    "a home of a newer version": (
        lambda path: (path.mkdir(), (path / "odin.json").write_text('{"format": 9}')), "format 9",
    ),
}  # fmt: skip


@pytest.mark.parametrize("words", [("bootstrap",), ("life", "list"), ("life", "new", "--start", str(FIRST))])
@pytest.mark.parametrize("name", HOMES)
def test_a_wrong_home_is_refused_and_left_alone(tmp_path: Path, name: str, words: tuple[str, ...]):
    make, says = HOMES[name]
    make(tmp_path / "home")
    before = sorted(tmp_path.rglob("*"))
    assert says in odin(*words, home=tmp_path / "home").mistake
    assert sorted(tmp_path.rglob("*")) == before


def test_a_command_that_only_reads_does_not_make_a_home(tmp_path: Path):
    assert "Run `odin bootstrap`" in odin("life", "list", home=tmp_path / "home").mistake
    assert not (tmp_path / "home").exists()


@pytest.fixture
def writer(home: Home) -> Iterator[subprocess.Popen[str]]:
    """Another process that is writing to the home."""
    code = (
        "import sys\nfrom odin_core.home import open_home\n"
        f"with open_home({str(home.root)!r}).writer('a long import'):\n print('writing', flush=True)\n sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "writing\n"
        yield other
        other.kill()


def test_a_second_writer_is_told_who_writes_and_a_reader_is_not_disturbed(
    home: Home, writer: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(Home, "writer", functools.partialmethod(Home.writer, wait=0.05))
    path = nsefiles.written(day(), tmp_path / "bars.parquet")
    life = lives.current(home, "demo")
    assert life is not None
    version = life.registry.versions()[-1]
    before = content(home)
    for words in (
        ("bootstrap", "--end", NEXT),
        ("bootstrap", "--start", FIRST, "--end", HEAD, "--seed", 8),
        ("data", "import", path, "--market", "nse"),
        ("life", "new", "--start", FIRST, "--seed", 8),
        ("life", "use", home.current("demo").read_text()),
        ("life", "rewind", "--to", "2023-01-13", "--yes"),
        ("registry", "promote", version),
    ):
        mistake = odin(*words, home=home).mistake
        assert f"process {writer.pid} (a long import" in mistake
        assert "Run the same command again" in mistake
    for words in (("lake", "digest"), ("life", "list"), ("registry", "promote", version, "--dry-run"),
                  ("life", "rewind", "--to", "2023-01-13"), ("bootstrap", "--end", HEAD)):  # fmt: skip
        assert odin(*words, home=home).status == 0, words
    assert content(home) == before


def content(home: Home) -> dict[Path, bytes]:
    """All files but locks and what SQLite keeps beside a database that is open."""
    files = (file for file in home.root.rglob("*") if file.is_file())
    return {f: f.read_bytes() for f in files if f.name != "writer.lock" and not f.name.startswith("registry.db-")}


def test_a_killed_writer_leaves_the_home_free(home: Home, writer: subprocess.Popen[str]):
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert odin("life", "rewind", "--to", "2023-01-13", "--yes", home=home).status == 0


@pytest.mark.slow
def test_two_bootstraps_at_once_do_the_work_once(home: Home, tmp_path: Path):
    alone = run(copied(home.root, tmp_path / "alone"), start=None, end=NEXT)["lake_digest"]
    words = ["bootstrap", "--end", str(NEXT), "--json", "--home", str(home.root)]
    code = f"import sys\nfrom odin_core.cli import main\nsys.argv = ['odin', *{words!r}]\nmain()"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(f'"lake_digest": "{alone}"' in text for text in said)
    assert sorted('"did": "1 run now"' in text for text in said) == [False, True]
