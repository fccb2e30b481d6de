"""Each pinned integration writes and reads once, so that an upgrade that breaks one fails here with its name."""

from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(400, 3))
    return pl.DataFrame(x, schema=["a", "b", "c"]).with_columns(
        target=pl.Series(x[:, 0] - 0.5 * x[:, 1] + 0.1 * rng.normal(size=400))
    )


def test_dagster_duckdb_answers_a_query_over_parquet_inside_an_asset(tmp_path: Path, rows: pl.DataFrame):
    from dagster_duckdb import DuckDBResource

    rows.write_parquet(tmp_path / "rows.parquet")

    @dg.asset
    def counted(duckdb: DuckDBResource) -> int:
        with duckdb.get_connection() as connection:
            row = connection.execute(
                "select count(*) from read_parquet(?)", [str(tmp_path / "rows.parquet")]
            ).fetchone()
        return row[0] if row else -1

    result = dg.materialize([counted], resources={"duckdb": DuckDBResource(database=":memory:")})
    assert result.output_for_node("counted") == rows.height


def test_dagster_postgres_keeps_and_finds_an_event(tmp_path: Path):
    from dagster_postgres import DagsterPostgresStorage

    from odin_assets.instance import open_instance
    from odin_core.home import open_home

    with open_instance(open_home(tmp_path / "home"), "postgres") as instance:
        assert isinstance(instance.get_ref().storage, DagsterPostgresStorage)
        instance.report_runless_asset_event(
            dg.AssetMaterialization("kept", metadata={"number": 3}, partition="2023-01-02")
        )
        [record] = instance.fetch_materializations(dg.AssetKey("kept"), limit=10).records
    assert record.partition_key == "2023-01-02"
    assert record.asset_materialization
    assert record.asset_materialization.metadata["number"].value == 3


def test_polars_and_pyarrow_read_each_others_parquet(tmp_path: Path, rows: pl.DataFrame):
    import pyarrow.parquet as pq

    rows.write_parquet(tmp_path / "polars.parquet")
    table = pq.read_table(tmp_path / "polars.parquet")
    pq.write_table(table, tmp_path / "arrow.parquet")
    assert_frame_equal(pl.read_parquet(tmp_path / "arrow.parquet"), rows, check_exact=True)


def test_lightgbm_learns_and_learns_the_same_twice(rows: pl.DataFrame):
    import lightgbm

    def predictions() -> np.ndarray:
        data = lightgbm.Dataset(rows.select("a", "b", "c").to_numpy(), label=rows["target"].to_numpy())
        options = {"deterministic": True, "force_row_wise": True, "num_threads": 1, "seed": 7, "verbosity": -1}
        booster = lightgbm.train({"objective": "regression", **options}, data, num_boost_round=20)
        return np.asarray(booster.predict(rows.select("a", "b", "c").to_numpy()))

    first = predictions()
    assert np.corrcoef(first, rows["target"].to_numpy())[0, 1] > 0.8
    np.testing.assert_array_equal(first, predictions())


def test_torch_keeps_a_model(tmp_path: Path):
    import torch

    model = torch.nn.Linear(3, 1)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    again = torch.nn.Linear(3, 1)
    again.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    x = torch.ones(2, 3)
    torch.testing.assert_close(model(x), again(x))


def test_stable_baselines3_learns_in_a_gymnasium_environment(tmp_path: Path):
    from stable_baselines3 import PPO

    model = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, n_epochs=1, seed=7, device="cpu")
    model.learn(64)
    model.save(tmp_path / "ppo")
    state = np.zeros(4, dtype=np.float32)
    assert (
        PPO.load(tmp_path / "ppo", device="cpu").predict(state, deterministic=True)[0]
        == model.predict(state, deterministic=True)[0]
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_evidently_reports_a_shift(tmp_path: Path, rows: pl.DataFrame):
    from evidently import Report
    from evidently.metrics import ValueDrift

    reference = rows.select("a").to_pandas()
    result = Report([ValueDrift(column="a")]).run(reference_data=reference, current_data=reference + 3.0)
    result.save_html(str(tmp_path / "report.html"))
    assert (tmp_path / "report.html").stat().st_size > 1000
    [metric] = result.dict()["metrics"]
    assert metric["value"] < 0.01  # the p-value of "the same distribution"
