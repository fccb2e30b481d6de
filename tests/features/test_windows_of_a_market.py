"""Windows over what the provider gives: from a market's bars to a batch that a sequence model takes."""

from datetime import date
from pathlib import Path

import numpy as np
from smalllives import quick, small_market

from odin_core.features.catalogue import features_of
from odin_core.features.windows import SequenceWindows
from odin_core.home import open_home

FIRST, LAST = date(2022, 10, 31), date(2022, 11, 2)


def test_the_rows_of_a_set_become_windows_keyed_by_the_decisions_they_belong_to(tmp_path: Path):
    data = small_market(open_home(tmp_path), quick())
    frame = data.features(None, "1m", FIRST, LAST, "price_action")
    names = [f.name for f in features_of("price_action") if f.interval in ("1m", "5m")]
    windows = SequenceWindows.of(frame, names, data.calendar, "1m", length=512, step=25, minimum=512)
    assert len(windows) > 100
    assert set(windows.keys["session"]) == {date(2022, 11, 1), LAST}  # 512 minutes reach into the session before
    batch = windows.batch(np.array([0, len(windows) - 1]))
    assert batch.values.shape == (2, 512, len(names))
    assert batch.values.dtype == np.float32
    assert batch.valid.all()
    assert batch.session_start.sum(axis=1).tolist() == [1, 1]
    symbol, known_at, _ = windows.keys.row(-1)
    rows = frame.filter(symbol=symbol).sort("known_at")
    rows = rows.filter(rows["known_at"] <= known_at).tail(512)
    np.testing.assert_array_equal(batch.values[1], rows.select(names).to_numpy())
