"""`odin structure`: what a person is told, what a script gets, the picture, and how mistakes end."""

import io
import subprocess
import sys
from datetime import date
from pathlib import Path
from struct import unpack
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from matplotlib.image import imread
from odincommand import odin
from quarterhours import CALENDAR, LAST, NSE_SYMBOLS, SESSIONS, market_of

from odin_core.commands.common import plain
from odin_core.home import Home, open_home
from odin_core.lifecycle.config import LifeConfig
from odin_core.market.bars import MINUTE_TABLE, table_of
from odin_core.market.data import MarketData
from odin_core.market.reference.actions import ACTIONS, TABLE
from odin_core.structure.drawing import COLOURS, structure_picture
from odin_core.structure.table import structure_at

NSE = ("--market", "nse")
EARLY = SESSIONS[40]  # too early for regimes


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = open_home(tmp_path_factory.mktemp("home"))
    for session, bars in market_of(CALENDAR, SESSIONS, NSE_SYMBOLS).items():
        home.lake("nse").write(MINUTE_TABLE, session, bars)
    return home


@pytest.fixture(scope="module")
def data(home: Home) -> MarketData:
    return MarketData.of(home, "nse", LifeConfig())


def test_each_symbol_is_a_line_with_its_regimes_and_nearest_levels(home: Home, data: MarketData):
    said = odin("structure", "show", *NSE, home=home)
    assert said.status == 0
    title, _, head, *lines = said.out.splitlines()
    assert title == f"nse at the close of {LAST}"
    assert head.split()[:4] == ["symbol", "close", "regime", "volatility"]
    for line, row in zip(lines, structure_at(data, LAST).rows.iter_rows(named=True), strict=True):
        assert line.split()[0] == row["symbol"]
        assert f"{row['regime']} {row['p_' + row['regime']]:.0%}" in line
        assert f"{row['volatility_regime']} {row['p_' + row['volatility_regime']]:.0%}" in line
        for kind in ("support", "resistance"):
            if row[f"{kind}_price"] is not None:
                assert f"{row[f'{kind}_price']:,.2f} ({row[f'{kind}_distance']:.1f} away" in line


def test_a_script_gets_the_rows_of_the_table(home: Home, data: MarketData):
    told = odin("structure", "show", *NSE, "--json", home=home).json
    assert told == plain(structure_at(data, LAST).rows.to_dicts())
    chosen = odin("structure", "show", *NSE, "--symbols", "TCS, ITC", "--session", EARLY, "--json", home=home).json
    assert [(row["symbol"], row["session"], row["regime"]) for row in chosen] == [
        ("ITC", str(EARLY), None),
        ("TCS", str(EARLY), None),
    ]


def test_what_is_not_known_yet_is_called_unknown(home: Home):
    *lines, why = odin("structure", "show", *NSE, "--session", EARLY, home=home).out.splitlines()[3:]
    assert len(lines) == 3
    assert why.startswith("unknown: regimes need 130 sessions")
    assert all(line.split()[2:6] == ["unknown", "unknown", "–", "/"] for line in lines)


def test_levels_come_from_the_highest_price_down(home: Home, data: MarketData):
    levels = structure_at(data, LAST).levels.filter(symbol="INFY").sort("price", descending=True)
    assert odin("structure", "levels", "INFY", *NSE, "--json", home=home).json == plain(levels.to_dicts())
    _, _, head, *lines = odin("structure", "levels", "INFY", *NSE, home=home).out.splitlines()
    assert head.split()[:2] == ["price", "kind"]
    assert [line.split()[:2] for line in lines] == [[f"{p:,.2f}", kind] for p, kind in levels["price", "kind"].rows()]
    touched = levels["last_touch"][0].astimezone(ZoneInfo("Asia/Kolkata"))
    assert lines[0].endswith(f"{touched:%Y-%m-%d %H:%M}")


@pytest.mark.parametrize("session", [LAST, EARLY, SESSIONS[0]], ids=["regimes", "levels only", "first session"])
def test_the_picture_is_drawn_and_the_same_each_time(home: Home, data: MarketData, session: date):
    said = odin("structure", "plot", "ITC", *NSE, "--session", session, home=home)
    path = home.reports / f"structure_nse_ITC_{session}.png"
    assert (said.status, said.out) == (0, f"{path}\n")
    picture = path.read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert unpack(">II", picture[16:24]) == (1210, 770)
    assert len(picture) > 15_000
    assert structure_picture(data, "ITC", session) == picture
    assert structure_picture(data, "INFY", session) != picture


def test_the_picture_lies_where_it_is_asked_for(home: Home, tmp_path: Path):
    out = tmp_path / "new" / "itc.png"
    told = odin("structure", "plot", "ITC", *NSE, "--out", out, "--json", home=home).json
    assert told == {"picture": str(out), "symbol": "ITC", "session": str(LAST)}
    assert out.is_file()


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        (("show", "--symbols", "ITCC"), "there is no symbol 'ITCC' in session 2021-11-16; did you mean ITC?"),
        (("levels", "TC"), "there is no symbol 'TC' in session 2021-11-16; did you mean TCS, ITC?"),
        (("plot", "ABB"), "there is no symbol 'ABB' in session 2021-11-16"),
        (("plot", "ITC", "--out", "picture.jpg"), "picture.jpg names no picture; end it with .png"),
        (("show", "--session", "2021-11-13"), "2021-11-13 is no session of market 'nse'; the nearest are 2021-11-12"),
        (("show", "--session", "2021-11-17"), "nse has no bars in session 2021-11-17; it has 152 sessions with bars"),
        (("show", "--session", "2051-11-17"), "lies outside the calendar"),
    ],
)
def test_mistakes_are_one_line(home: Home, words: tuple[str, ...], mistake: str):
    assert mistake in odin("structure", *words, *NSE, home=home).mistake


def test_a_market_without_bars_and_a_home_that_is_not_there_say_what_to_do(home: Home, tmp_path: Path):
    assert "Import them first" in odin("structure", "show", "--market", "us", home=home).mistake
    assert "nothing is there yet" in odin("structure", "show", *NSE, home=tmp_path / "none").mistake


@pytest.mark.parametrize("words", [("structure", "plot"), ("labels", "show")], ids=" ".join)
def test_help_brings_no_library_of_numbers(words: tuple[str, ...]):
    heavy = ["polars", "numpy", "numba", "matplotlib", "dagster"]
    code = (
        f"import sys\nfrom odin_core.cli import main\nsys.argv = ['odin', *{words!r}, '--help']\nmain()\n"
        f"print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--session" in done.stdout
    assert done.stderr.strip() == "[]"


def test_the_page_names_every_column_and_its_commands_run(home: Home, data: MarketData):
    page = (Path(__file__).parents[2] / "docs" / "structure.md").read_text("utf-8")
    for frame in structure_at(data, LAST):
        assert [name for name in frame.columns if f"`{name}`" not in page] == []
    commands = [line.split("#")[0].split()[1:] for line in page.splitlines() if line.startswith("odin ")]
    assert len(commands) == 3
    for command in commands:
        words = [word.replace("RELIANCE", "ITC").replace("2021-06-11", str(LAST)) for word in command]
        assert odin(*words, home=home).status == 0


def test_a_market_of_day_bars_has_regimes_and_a_picture_without_levels(home: Home, data: MarketData, tmp_path: Path):
    days = open_home(tmp_path / "home")
    for session in SESSIONS:
        days.lake("nse").write(table_of("day"), session, data.bars_of(session, "day"))
    [row] = odin("structure", "show", *NSE, "--symbols", "ITC", "--json", home=days).json
    [known] = odin("structure", "show", *NSE, "--symbols", "ITC", "--json", home=home).json
    told = {name: value for name, value in known.items() if name.startswith(("p_", "regime", "return", "volatility"))}
    assert {name: row[name] for name in told} == told
    assert (row["levels"], row["width"], row["heatmap"]) == (0, None, None)
    assert odin("structure", "levels", "ITC", *NSE, home=days).out.endswith("\n\nnone\n")
    path = Path(odin("structure", "plot", "ITC", *NSE, home=days).out.strip())
    assert path.read_bytes().startswith(b"\x89PNG")


def painted(picture: bytes, state: str) -> float:
    """Share of the pixels that have the colour of a state."""
    pixels = np.rint(imread(io.BytesIO(picture))[:, :, :3] * 255).astype(int)
    colour = [int(COLOURS[state][i : i + 2], 16) for i in (1, 3, 5)]
    return float((np.abs(pixels - colour).max(axis=2) <= 1).mean())


def test_the_picture_shows_the_symbols_own_regimes_under_its_former_name_too(data: MarketData, tmp_path: Path):
    own, other = (structure_picture(data, symbol, LAST) for symbol in ("ITC", "INFY"))
    assert painted(own, "volatile") > 0.05 > painted(other, "volatile")
    assert painted(other, "range") > 0.05 > painted(own, "range")
    renamed = open_home(tmp_path / "home").lake("nse")
    for session in SESSIONS:
        name = pl.col("symbol").replace("ITC", "ITC2") if session >= SESSIONS[-5] else pl.col("symbol")
        renamed.write(MINUTE_TABLE, session, data.bars(session).with_columns(name))
    row = {"symbol": "ITC", "ex_date": SESSIONS[-5], "kind": "rename", "other": "ITC2", "origin": "by hand"}
    row = dict.fromkeys(ACTIONS.names()) | row | {"known_at": CALENDAR.hours(SESSIONS[-6]).open}
    renamed.write(TABLE, SESSIONS[-6], pl.DataFrame([row], schema=ACTIONS))
    after = structure_picture(MarketData(renamed, data.profile), "ITC2", LAST)
    assert painted(after, "volatile") == pytest.approx(painted(own, "volatile"), rel=0.01)
