"""The demo exchange's 50 symbols over three months, their features stored: what the benches of the encoder read."""

import atexit
import shutil
import tempfile
from datetime import date
from functools import cache
from pathlib import Path

from odin_core.home import open_home
from odin_core.lifecycle.config import LifeConfig
from odin_core.market.data import MarketData

FIRST, LAST = date(2022, 10, 3), date(2022, 12, 30)  # 62 sessions


@cache
def market() -> MarketData:
    """In a folder of this process."""
    folder = Path(tempfile.mkdtemp(prefix="odin-bench-encoder-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    data = MarketData.of(open_home(folder), "demo", LifeConfig())
    data.features(None, "5m", FIRST, LAST, "sequence")
    return data
