"""The lake keeps whole files only, and its hash sees what a table says and nothing else."""

import threading
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odin_core.lake import Lake, PartitionMissing, PartitionUnreadable, TableMissing, logical_hash, write_text

DAY = date(2021, 4, 1)
SMALL = pl.DataFrame({"key": [1, 2, 3], "text": ["a", None, ""], "value": [0.5, None, float("nan")]})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def test_what_is_written_is_read_back(lake: Lake):
    path = lake.write("prices", DAY, SMALL)
    assert path == lake.root / "prices" / "session=2021-04-01" / "part.parquet"
    assert lake.read("prices", DAY).equals(SMALL)
    assert lake.has("prices", DAY)
    assert (lake.tables(), lake.sessions("prices")) == (["prices"], [DAY])


def test_an_empty_lake_has_no_tables_and_no_sessions(lake: Lake):
    assert (lake.tables(), lake.sessions("prices"), lake.has("prices", DAY)) == ([], [], False)


def test_a_second_write_replaces_the_first_and_leaves_no_other_file(lake: Lake):
    lake.write("prices", DAY, SMALL)
    lake.write("prices", DAY, SMALL.head(1))
    assert lake.read("prices", DAY).height == 1
    assert [p.name for p in lake.path("prices", DAY).parent.iterdir()] == ["part.parquet"]


def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_other(lake: Lake, monkeypatch: pytest.MonkeyPatch):
    lake.write("prices", DAY, SMALL)

    def half(self: pl.DataFrame, path: Path, **_: object) -> None:
        path.write_bytes(b"PAR1 half")
        raise OSError("no space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", half)
    with pytest.raises(OSError, match="no space"):
        lake.write("prices", DAY, SMALL.head(1))
    assert lake.read("prices", DAY).equals(SMALL)
    assert [p.name for p in lake.path("prices", DAY).parent.iterdir()] == ["part.parquet"]


def test_what_a_killed_writer_left_is_not_seen(lake: Lake):
    path = lake.write("prices", DAY, SMALL)
    (path.parent / ".part.parquet.4711-1.tmp").write_bytes(b"PAR1 half")
    orphan = lake.path("prices", DAY + timedelta(days=1))
    orphan.parent.mkdir()
    (orphan.parent / ".part.parquet.4711-1.tmp").write_bytes(b"PAR1 half")
    assert lake.sessions("prices") == [DAY]
    assert lake.scan("prices").collect().height == 3


def test_threads_that_write_one_partition_leave_one_whole_file(lake: Lake):
    frames = [pl.DataFrame({"writer": [n] * 20_000}) for n in range(8)]
    threads = [threading.Thread(target=lake.write, args=("prices", DAY, frame)) for frame in frames]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any(lake.read("prices", DAY).equals(frame) for frame in frames)
    assert [p.name for p in lake.path("prices", DAY).parent.iterdir()] == ["part.parquet"]


def test_a_partition_that_does_not_exist_is_named(lake: Lake):
    with pytest.raises(PartitionMissing, match="prices has no session 2021-04-01"):
        lake.read("prices", DAY)


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"not parquet at all", None], ids=["empty", "head", "text", "cut"])
def test_a_damaged_partition_is_named_with_the_way_out(lake: Lake, damage: bytes | None):
    path = lake.write("prices", DAY, SMALL)
    path.write_bytes(path.read_bytes()[:-7] if damage is None else damage)
    with pytest.raises(PartitionUnreadable, match=r"session=2021-04-01.*not a readable Parquet file.*[Dd]elete"):
        lake.read("prices", DAY)


def test_a_scan_of_an_unknown_table_suggests_a_known_one(lake: Lake):
    lake.write("price_history", DAY, SMALL)
    with pytest.raises(TableMissing, match="did you mean price_history"):
        lake.scan("price_histroy")


def test_a_scan_adds_the_session_as_a_date(lake: Lake):
    for days in range(3):
        lake.write("prices", DAY + timedelta(days=days), SMALL)
    later = lake.scan("prices").filter(pl.col("session") > DAY).collect()
    assert later["session"].unique().sort().to_list() == [date(2021, 4, 2), date(2021, 4, 3)]


def test_a_scan_keeps_the_sessions_that_rows_have_themselves(lake: Lake):
    week = [DAY + timedelta(days=days) for days in range(3)]
    lake.write("scores", week[-1], pl.DataFrame({"session": week, "reward": [0.1, 0.2, 0.3]}))
    assert lake.scan("scores").collect()["session"].to_list() == week


def test_many_sessions_are_read_in_the_order_asked_for(lake: Lake):
    for days in range(3):
        lake.write("prices", DAY + timedelta(days=days), pl.DataFrame({"day": [days]}))
    asked = [DAY + timedelta(days=2), DAY]
    assert lake.read_many("prices", asked)["day"].to_list() == [2, 0]
    assert lake.read_many("prices", []).is_empty()


def test_a_removed_session_is_gone_and_removing_it_again_is_no_error(lake: Lake):
    lake.write("prices", DAY, SMALL)
    lake.remove("prices", DAY)
    lake.remove("prices", DAY)
    assert lake.sessions("prices") == []


def test_text_is_replaced_whole(tmp_path: Path):
    path = tmp_path / "deep" / "pointer.json"
    write_text("alt", path)
    write_text("neu: ü", path)
    assert path.read_text(encoding="utf-8") == "neu: ü"
    assert [p.name for p in path.parent.iterdir()] == ["pointer.json"]


RICH = pl.DataFrame(
    {
        "key": [3, 1, 2, 4],
        "price": [1.5, None, 0.0, -2.0],
        "count": pl.Series([1, 0, None, 7], dtype=pl.Int32),
        "flag": [True, None, False, True],
        "at": [datetime(2021, 4, 1, 4, n) for n in range(4)],
        "name": ["ab", "", None, "ü"],
        "side": pl.Series(["long", "short", None, "long"], dtype=pl.Enum(["long", "short"])),
        "raw": [b"\xff\x00", b"", None, b"x"],
        "money": [Decimal("1.10"), None, Decimal("0.00"), Decimal("2.00")],
        "path": [[1.0, 2.0], [], None, [None]],
        "names": [["a", "b"], ["ab"], [], None],
        "box": [{"x": 1, "y": "p"}, {"x": None, "y": "q"}, None, {"x": 2, "y": None}],
        "none": [None] * 4,
        "sides": pl.Series([["long", "short"], ["long"], None, []], dtype=pl.List(pl.Enum(["long", "short"]))),
        "kind": pl.Series(["x", "y", None, "x"], dtype=pl.Categorical),
        "huge": pl.Series([2**100, None, 0, -1], dtype=pl.Int128),
        "pair": pl.Series([[1, 2], [0, 0], None, [3, None]], dtype=pl.Array(pl.Int8, 2)),
    }
)


def test_the_hash_ignores_row_order_under_a_key_column_order_and_chunks():
    expected = logical_hash(RICH, ["key"])
    assert logical_hash(RICH.reverse(), ["key"]) == expected
    assert logical_hash(RICH.select(reversed(RICH.columns)), ["key"]) == expected
    chunked = pl.concat([RICH.slice(n, 1) for n in range(4)], rechunk=False)
    assert chunked.n_chunks() == 4
    assert logical_hash(chunked, ["key"]) == expected
    assert logical_hash(pl.concat([RICH, RICH]).slice(4), ["key"]) == expected


def test_the_hash_survives_a_round_trip_through_a_file(lake: Lake):
    frame = RICH.drop("none")
    lake.write("rich", DAY, frame)
    assert logical_hash(lake.read("rich", DAY)) == logical_hash(frame)


def test_without_a_key_the_order_of_rows_counts():
    assert logical_hash(RICH) != logical_hash(RICH.reverse())


CHANGES = {
    "a float's last bit": RICH.with_columns(price=pl.Series([1.5000000000000002, None, 0.0, -2.0])),
    "null for zero": RICH.with_columns(price=pl.Series([1.5, None, None, -2.0])),
    "zero for null": RICH.with_columns(price=pl.Series([1.5, 0.0, 0.0, -2.0])),
    "NaN for null": RICH.with_columns(price=pl.Series([1.5, float("nan"), 0.0, -2.0])),
    "zero for a null integer": RICH.with_columns(pl.col("count").fill_null(0)),
    "false for a null flag": RICH.with_columns(pl.col("flag").fill_null(False)),
    "a wider integer": RICH.with_columns(pl.col("count").cast(pl.Int64)),
    "an unsigned integer": RICH.with_columns(pl.col("count").cast(pl.UInt32)),
    "another time unit": RICH.with_columns(pl.col("at").cast(pl.Datetime("ms"))),
    "a time zone": RICH.with_columns(pl.col("at").dt.replace_time_zone("UTC")),
    "text for an enumeration": RICH.with_columns(pl.col("side").cast(pl.String)),
    "empty for null text": RICH.with_columns(pl.col("name").fill_null("")),
    "a letter that moved to the next row": RICH.with_columns(name=pl.Series(["a", "b", None, "ü"])),
    "a byte": RICH.with_columns(raw=pl.Series([b"\xfe\x00", b"", None, b"x"])),
    "a byte that moved": RICH.with_columns(raw=pl.Series([b"\xff", b"\x00", None, b"x"])),
    "a cent": RICH.with_columns(money=pl.Series([Decimal("1.11"), None, Decimal("0.00"), Decimal("2.00")])),
    "a list item": RICH.with_columns(path=pl.Series([[1.0, 3.0], [], None, [None]])),
    "an empty list for null": RICH.with_columns(path=pl.Series([[1.0, 2.0], [], [], [None]])),
    "an item that moved": RICH.with_columns(path=pl.Series([[1.0], [2.0], None, [None]])),
    "a split name": RICH.with_columns(names=pl.Series([["a", "b"], ["a", "b"], [], None])),
    "an item of an enumeration": RICH.with_columns(
        sides=pl.Series([["long", "long"], ["long"], None, []], dtype=RICH["sides"].dtype)
    ),
    "a category": RICH.with_columns(kind=pl.Series(["x", "z", None, "x"], dtype=pl.Categorical)),
    "a huge integer": RICH.with_columns(huge=pl.Series([2**100 + 1, None, 0, -1], dtype=pl.Int128)),
    "null for a huge zero": RICH.with_columns(huge=pl.Series([2**100, None, None, -1], dtype=pl.Int128)),
    "a null in a pair": RICH.with_columns(
        pair=pl.Series([[1, 2], [0, None], None, [3, None]], dtype=RICH["pair"].dtype)
    ),
    "a pair of zeros for null": RICH.with_columns(
        pair=pl.Series([[1, 2], [0, 0], [0, 0], [3, None]], dtype=RICH["pair"].dtype)
    ),
    "a field": RICH.with_columns(
        box=pl.Series([{"x": 1, "y": "p"}, {"x": 0, "y": "q"}, None, {"x": 2, "y": None}], dtype=RICH["box"].dtype)
    ),
    "a struct of nulls for null": RICH.with_columns(
        box=pl.Series(
            [{"x": 1, "y": "p"}, {"x": None, "y": "q"}, {"x": None, "y": None}, {"x": 2, "y": None}],
            dtype=RICH["box"].dtype,
        )
    ),
    "a renamed column": RICH.rename({"price": "prices"}),
    "swapped names": RICH.rename({"price": "key", "key": "price"}).with_columns(pl.col("key").fill_null(9.0)),
    "a column less": RICH.drop("none"),
    "a row less": RICH.head(3),
    "a row more": pl.concat([RICH, RICH.head(1)]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_hash_sees(change: str):
    assert logical_hash(CHANGES[change], ["key"]) != logical_hash(RICH, ["key"])


def test_no_two_changes_hash_alike():
    assert len({logical_hash(frame, ["key"]) for frame in CHANGES.values()}) == len(CHANGES)


CELLS = st.one_of(st.none(), st.floats(width=64), st.just(0.0), st.just(-0.0))


@given(st.lists(CELLS, max_size=8), st.lists(CELLS, max_size=8))
def test_the_hash_is_equal_exactly_where_the_bits_are(left: list[float | None], right: list[float | None]):
    def bits(values: list[float | None]) -> list[str | None]:
        return [None if v is None else pl.Series([v]).to_numpy().tobytes().hex() for v in values]

    one, two = (pl.DataFrame({"v": v}, schema={"v": pl.Float64}) for v in (left, right))
    assert (logical_hash(one) == logical_hash(two)) == (bits(left) == bits(right))


@given(st.permutations(range(6)))
def test_the_hash_is_the_same_for_every_order_of_the_rows(order: list[int]):
    frame = pl.DataFrame({"symbol": list("aabbcc"), "n": [1, 2] * 3, "text": ["x", "", None, "y", "zz", "x"]})
    assert logical_hash(frame[order], ["symbol", "n"]) == logical_hash(frame, ["symbol", "n"])


def test_an_empty_frame_hashes_by_its_columns():
    assert logical_hash(RICH.clear(), ["key"]) != logical_hash(RICH.clear().drop("none"), ["key"])
    assert logical_hash(RICH.clear(), ["key"]) == logical_hash(RICH.clear(), ["key"])
    wider = RICH.clear().cast({"count": pl.Int64})
    assert logical_hash(RICH.clear(), ["key"]) != logical_hash(wider, ["key"])
    assert logical_hash(RICH.clear().select(reversed(RICH.columns))) == logical_hash(RICH.clear())
