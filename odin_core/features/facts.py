"""What tables say of a symbol as of each row: option series and fundamental figures. What formulas of facts get.

Which value was known when is the engine's to say. Features made of these are in `open_interest` and `fundamental`."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from odin_core.features.series import FloatArray


@dataclass(frozen=True)
class Facts:
    """The columns that a feature needs, and no others, as of each row: arrays (rows,) float64, by name.

    columns: the values, NaN where none was known or the latest said that there is none; age_days: days since that was
    known, NaN where nothing was. close: raw close at the row."""

    columns: Mapping[str, FloatArray]
    age_days: Mapping[str, FloatArray]
    close: FloatArray

    def first(self, *names: str) -> FloatArray:
        """The first of these columns that has a value, row by row; NaN where none has."""
        found = self.columns[names[0]]
        for name in names[1:]:
            found = np.where(np.isnan(found), self.columns[name], found)
        return found

    def youngest(self, *names: str) -> FloatArray:
        """Days since the newest value of these columns became known; NaN where none has a value."""
        found = np.full(len(self.close), np.nan)
        for name in names:
            found = np.fmin(found, np.where(np.isnan(self.columns[name]), np.nan, self.age_days[name]))
        return found
