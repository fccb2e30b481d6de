"""Bundles in the store: taken apart into parts by content, put together again bit by bit, refused when damaged."""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registrydamage import change_bytes, change_row, connected
from smalllives import NOW, begin, quick

from odin_core.home import Home
from odin_core.lifecycle.life import Life
from odin_core.policies.joint import JointPolicy, version_of
from odin_core.registry.bundle import KINDS, NEEDED, bundle_of, canonical, content_hash, facts_of_report, model_of
from odin_core.registry.entries import ModelCorrupt, NoSuchModel

MODEL = JointPolicy(
    ("rsi_14_15m", "gap"), date(2023, 1, 6), {"direction": "tree\nleaf_value=0.1", "enter": "tree"}, (0.1, 1 / 3)
)
VERSION = version_of(MODEL)
REFERENCE = '{"edges":[0.1,0.30000000000000004],"names":["é"]}'


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return begin(tmp_path / "home")[0]


@pytest.fixture
def stored(life: Life) -> Life:
    life.registry.save(bundle_of(life, VERSION, MODEL, REFERENCE, {"dataset": "dataset-1"}), NOW)
    return life


def rows(life: Life, table: str) -> list[tuple[object, ...]]:
    return connected(life.home.registry).execute(f"select * from {table} order by 1, 2, 3").fetchall()


def test_a_model_and_its_reference_come_back_as_they_were(stored: Life):
    assert stored.registry.model(VERSION) == MODEL
    bundle = stored.registry.bundle(VERSION)
    assert bundle.parts["reference"] == REFERENCE
    assert bundle == bundle_of(stored, VERSION, MODEL, REFERENCE)
    assert bundle.facts == {"dataset": "dataset-1", "seed": 7, "trained_through": "2023-01-06"}
    assert stored.registry.facts(VERSION) == bundle.facts
    assert stored.registry.versions() == [VERSION]


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    features=st.lists(st.text(), max_size=4).map(tuple),
    heads=st.dictionaries(st.text(), st.text(), max_size=4),
    platt=st.tuples(finite, finite),
    through=st.dates(),
)
def test_any_policy_keeps_its_version_through_its_parts(
    tmp_path_factory: pytest.TempPathFactory, features, heads, platt, through
):
    model = JointPolicy(features, through, heads, platt)
    life = Life(Home(tmp_path_factory.getbasetemp()), "demo", quick(), through)
    bundle = bundle_of(life, version_of(model), model)
    assert version_of(model_of(bundle)) == bundle.version
    assert set(bundle.parts) == set(NEEDED)


def test_equal_parts_are_stored_once_and_a_bundle_is_named_by_its_content(stored: Life):
    other = replace(MODEL, trained_through=date(2023, 1, 13))
    bundle = bundle_of(stored, version_of(other), other, REFERENCE)
    stored.registry.save(bundle, NOW)
    first = stored.registry.bundle(VERSION)
    changed = [kind for kind in KINDS if bundle.hashes[kind] != first.hashes[kind]]
    assert changed == ["model"]
    assert len(rows(stored, "artefacts")) == len(KINDS) + 1
    assert bundle.id != first.id == bundle_of(stored, VERSION, MODEL, REFERENCE, {"other": "facts"}).id
    assert first.id != bundle_of(stored, VERSION, MODEL).id


def test_saving_again_changes_nothing(stored: Life):
    before = [rows(stored, table) for table in ("artefacts", "bundles")]
    stored.registry.save(bundle_of(stored, VERSION, MODEL, REFERENCE, {"dataset": "another"}), datetime.now(UTC))
    assert [rows(stored, table) for table in ("artefacts", "bundles")] == before


def test_the_bundle_stored_last_counts_for_a_version(stored: Life):
    stored.registry.save(bundle_of(stored, VERSION, MODEL), NOW)
    assert "reference" not in stored.registry.bundle(VERSION).parts
    stored.registry.save(bundle_of(stored, VERSION, MODEL, "{}"), NOW)
    assert stored.registry.bundle(VERSION).parts["reference"] == "{}"
    assert [row[2] for row in rows(stored, "bundles")] == [1, 2, 3]
    assert stored.registry.versions() == [VERSION]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"", "no text": lambda _: b"\xff\xfe\x00",
    "cut off": lambda content: content[: len(content) // 2],
    "a list": lambda _: b"[1, 2]", "one digit changed": lambda content: content.replace(b"0.", b"1."),
    "one blank more": lambda content: content + b" ",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["model", "filter", "reference"])
@pytest.mark.parametrize("how", sorted(DAMAGE))
def test_a_damaged_part_is_refused_with_its_place_and_the_ways_out(stored: Life, how: str, kind: str):
    change_bytes(stored, VERSION, DAMAGE[how], kind)
    for load in (stored.registry.bundle, stored.registry.model):
        with pytest.raises(ModelCorrupt) as refusal:
            load(VERSION)
        for part in (str(stored.home.registry), VERSION, f"part {kind}", "odin registry restore", "odin life rewind"):
            assert part in str(refusal.value)
    (finding,) = stored.registry.verify()
    assert "is damaged" in finding


def test_a_damaged_part_is_sound_again_once_it_is_stored_again(stored: Life):
    for leaf in (b"0.2", b"0.3"):
        change_bytes(stored, VERSION, lambda content, leaf=leaf: content.replace(b"0.1", leaf))
        stored.registry.save(bundle_of(stored, VERSION, MODEL, REFERENCE), NOW)
        assert stored.registry.model(VERSION) == MODEL
        assert stored.registry.verify() == []
    assert len(rows(stored, "bundles")) == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda parts: json.dumps({k: v for k, v in parts.items() if k != "filter"}), "lacks filter"),
        (lambda parts: json.dumps(parts | {"filter": parts["regime"]}), "list of parts was changed"),
        (lambda _: "{", "its list of parts: "),
    ],
)
def test_a_changed_list_of_parts_is_refused(stored: Life, change: Callable[[dict[str, str]], str], why: str):
    text = change(stored.registry.parts(VERSION))
    change_row(stored, "bundles", f"parts = '{text}'")
    with pytest.raises(ModelCorrupt, match=why):
        stored.registry.bundle(VERSION)


def test_parts_of_another_model_are_refused_under_this_name(life: Life):
    life.registry.save(bundle_of(life, "joint-0000000000", MODEL), NOW)
    with pytest.raises(ModelCorrupt, match=f"its parts are those of {VERSION}, not of joint-0000000000"):
        life.registry.model("joint-0000000000")


def test_a_part_that_is_gone_is_named(stored: Life):
    change_row(stored, "artefacts", "", f"sha256 = '{stored.registry.parts(VERSION)['calibrator']}'")
    with pytest.raises(ModelCorrupt, match="part calibrator is missing"):
        stored.registry.model(VERSION)


def test_an_unknown_model_is_no_damage(stored: Life):
    with pytest.raises(NoSuchModel, match=f"has no model 'joint-1'; .*known: {VERSION}"):
        stored.registry.model("joint-1")


def test_lives_share_parts_but_not_models(stored: Life):
    other = Life(stored.home, stored.market, stored.config, date(2023, 1, 3))
    assert other.registry.versions() == []
    other.registry.save(bundle_of(other, VERSION, MODEL, REFERENCE), NOW)
    assert len(rows(stored, "artefacts")) == len(KINDS)
    assert other.registry.model(VERSION) == MODEL


@pytest.mark.parametrize("table", ["artefacts", "bundles", "deployments"])
@pytest.mark.parametrize("statement", ["update {} set {} = {}", "delete from {}"])
def test_the_database_itself_refuses_to_change_what_was_written(stored: Life, table: str, statement: str):
    from odin_core.registry.history import plan_promotion

    plan_promotion(stored, VERSION, date(2023, 1, 9), "to have a line").apply(NOW, "a test")
    column = {"artefacts": "kind", "bundles": "version", "deployments": "operator"}[table]
    with pytest.raises(sqlite3.IntegrityError, match=f"{table} is only ever added to"):
        connected(stored.home.registry).execute(statement.format(table, column, column))


def test_canonical_texts_say_the_same_for_the_same_content():
    assert canonical({"b": (1, 0.1 + 0.2), "a": date(2023, 1, 2)}) == '{"a":"2023-01-02","b":[1,0.30000000000000004]}'
    assert content_hash("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    with pytest.raises(ValueError, match="JSON"):
        canonical(float("nan"))
    with pytest.raises(TypeError, match="cannot be part of a bundle"):
        canonical({1, 2})


def test_facts_that_are_no_number_are_null(life: Life):
    told = {"metrics": {"ic": float("nan"), "sharpe": 1.5}, "seeds": (1, 2), "edge": [float("inf")]}
    facts = bundle_of(life, VERSION, MODEL, None, told).facts
    assert facts == {
        "metrics": {"ic": None, "sharpe": 1.5}, "seeds": [1, 2], "edge": [None], "seed": 7,
        "trained_through": "2023-01-06",
    }  # fmt: skip


def test_facts_of_a_report_leave_out_what_is_not_known():
    import polars as pl

    head = {"version": "joint-1", "outcome": "refused", "dataset": "dataset-1", "contexts": 5}
    frame = pl.DataFrame(
        [head | {"criterion": "ic", "value": 0.04}, head | {"criterion": "sharpe", "value": None},
         head | {"criterion": "odd", "value": float("inf")}]
    )  # fmt: skip
    assert facts_of_report(frame) == {
        "dataset": "dataset-1", "contexts": 5, "outcome": "refused", "metrics": {"ic": 0.04},
    }  # fmt: skip
    assert facts_of_report(frame.clear()) == {}
