"""What an encoder is told: its shape, what it learns, how it is trained. No torch at import.

`EncoderConfig.small()` is for a CPU, `EncoderConfig.full()` for a GPU. The networks are `networks`, the losses that the
weights below belong to are `heads`, training is `training`."""

from itertools import pairwise
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from odin_core.configuration import Settings

Architecture = Literal["tcn", "transformer", "lstm"]
Interval = Literal["1m", "5m", "15m", "60m", "day"]
Precision = Literal["float32", "bf16"]
Device = Literal["cpu", "cuda"]

REGIMES: Final = ("trend", "range", "volatile")
"""Classes of the regime head, as `structure.regimes.DIRECTIONS` numbers them."""
TURNS: Final = ("none", "breakout_up", "breakout_down", "reversal_up", "reversal_down")
"""Classes of the breakout and reversal head; what each means is `targets.turns`."""
HEATMAP_BINS: Final = 32
"""Bins of the support and resistance heatmap, those of `structure.heatmap`."""


def receptive_field(kernel: int, levels: int) -> int:
    """Bars that an output of a TCN depends on, its own included: 1 + 2 (kernel − 1) (2^levels − 1).

    Each of `levels` residual blocks has two causal convolutions of `kernel` taps, 2^level bars apart.
    Source: Bai, Kolter, Koltun 2018. Oracle: tests/oracles/test_receptive_field.py."""
    return 1 + 2 * (kernel - 1) * (2**levels - 1)


class EncoderConfig(Settings):
    """Everything that decides what a trained encoder is, given its rows."""

    architecture: Architecture = Field("tcn", description="the network: tcn, transformer or lstm")
    interval: Interval = Field("5m", description="bars that it reads: 1m, 5m, 15m, 60m or day")
    sessions: int = Field(
        250, description="newest sessions that it learns from, validation included; bounds memory", ge=3, le=10_000
    )
    length: int = Field(512, description="bars of a training window", ge=8, le=8192)
    embedding: int = Field(256, description="numbers in a bar's embedding", ge=4, le=4096)
    width: int = Field(48, description="channels inside the network", ge=4, le=8192)
    levels: int = Field(8, description="tcn: residual blocks, dilated by 1, 2, 4, … bars", ge=1, le=14)
    kernel: int = Field(3, description="tcn: taps of a convolution", ge=2, le=32)
    layers: int = Field(2, description="transformer and lstm: layers", ge=1, le=64)
    heads: int = Field(4, description="transformer: attention heads of a layer; divides width into even parts", ge=1)
    dropout: float = Field(0.05, description="share of activations dropped in training", ge=0, lt=1)

    horizons: tuple[int, ...] = Field((1, 6, 12, 36), description="bars ahead whose returns are forecast, ascending")
    quantiles: tuple[float, ...] = Field(
        (0.05, 0.25, 0.5, 0.75, 0.95), description="levels of the forecast returns' quantiles, ascending"
    )
    turn_bars: int = Field(12, description="bars ahead within which a breakout or reversal counts", ge=1, le=2048)
    range_bars: int = Field(36, description="bars whose range a breakout leaves", ge=2, le=2048)
    mask_share: float = Field(0.15, description="share of known rows hidden for the reconstruction", ge=0, le=0.9)
    mask_span: int = Field(4, description="rows hidden in a row", ge=1, le=256)

    weight_candles: float = Field(1.0, description="weight of the masked candles' loss", ge=0, le=1000)
    weight_regime: float = Field(1.0, description="weight of the regime's loss", ge=0, le=1000)
    weight_heatmap: float = Field(0.5, description="weight of the support and resistance heatmap's loss", ge=0, le=1000)
    weight_quantiles: float = Field(2.0, description="weight of the return quantiles' loss", ge=0, le=1000)
    weight_turns: float = Field(0.5, description="weight of the breakout and reversal loss", ge=0, le=1000)

    batch: int = Field(16, description="windows of one step", ge=1, le=65536)
    steps: int = Field(280, description="steps of the whole training, if it does not stop early", ge=1)
    learning_rate: float = Field(2e-3, description="AdamW's step at its highest", gt=0, le=1)
    warm_up: int = Field(20, description="steps in which the learning rate rises; it then falls as a cosine", ge=0)
    weight_decay: float = Field(0.01, description="AdamW's decay of weights", ge=0, le=1)
    max_gradient: float = Field(1.0, description="norm at which a gradient is cut", gt=0)
    window_step: int = Field(64, description="bars between the ends of two windows of a symbol", ge=1, le=8192)
    validation_share: float = Field(
        0.15, description="share of sessions, the last ones, kept for validation", gt=0, lt=1
    )
    embargo: int = Field(1, description="sessions left out before validation, beyond the purge of labels", ge=0, le=250)
    validate_every: int = Field(40, description="steps between two validations", ge=1)
    patience: int = Field(4, description="validations without a better one after which training stops", ge=1)
    checkpoint_every: int = Field(40, description="steps between two checkpoints, where a folder is given", ge=1)

    seed: int = Field(7, description="of first weights, masks, batches and dropout", ge=0, lt=2**32)
    threads: int = Field(2, description="of torch on a CPU; other numbers give other last bits", ge=1, le=256)
    device: Device = Field("cpu", description="where training runs")
    precision: Precision = Field("float32", description="bf16: matrix products of training in bfloat16")
    compile: bool = Field(False, description="compile the training step; pays in long trainings on a GPU")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for rule in (self._shape_rule, self._forecast_rule, self._training_rule):
            if broken := rule():
                raise ValueError(broken)
        return self

    @property
    def receptive_field(self) -> int:
        """Bars, its own included, that an embedding depends on.

        tcn: `receptive_field(kernel, levels)`. transformer: each layer looks back over `length` bars, so that
        1 + layers · (length − 1) are seen through all of them. lstm: its state has no bound, so its embeddings are
        those after `length` bars, and this is `length` by convention."""
        if self.architecture == "tcn":
            return receptive_field(self.kernel, self.levels)
        return 1 + self.layers * (self.length - 1) if self.architecture == "transformer" else self.length

    @classmethod
    def small(cls, **changes: Any) -> Self:
        """For a CPU: trained in less than a minute on two cores. The defaults, but for `changes`."""
        return cls.of(changes, "EncoderConfig.small")

    @classmethod
    def full(cls, **changes: Any) -> Self:
        """For a GPU: bfloat16, compiled, about 51 million weights as a tcn, but for `changes`."""
        preset: dict[str, Any] = {
            **{"width": 1024, "layers": 8, "heads": 8, "dropout": 0.1},
            **{"batch": 128, "steps": 20_000, "learning_rate": 3e-4, "warm_up": 500, "window_step": 16},
            **{"validate_every": 500, "patience": 6, "checkpoint_every": 500, "sessions": 1000},
            **{"threads": 8, "device": "cuda", "precision": "bf16", "compile": True},
        }
        return cls.of(preset | changes, "EncoderConfig.full")

    def _shape_rule(self) -> str | None:
        if self.architecture == "tcn" and self.receptive_field < self.length:
            enough = next((n for n in range(self.levels, 15) if receptive_field(self.kernel, n) >= self.length), None)
            more = f"levels={enough} sees {receptive_field(self.kernel, enough)}" if enough else "take a larger kernel"
            return (
                f"a tcn with kernel={self.kernel} and levels={self.levels} sees {self.receptive_field} bars, fewer "
                f"than length={self.length}; {more}, or shorten the length"
            )
        if self.architecture == "transformer" and self.width % (2 * self.heads):
            return (
                f"width={self.width} over heads={self.heads}: each head needs an even number of channels; "
                f"the nearest width is {max(round(self.width / (2 * self.heads)), 1) * 2 * self.heads}"
            )
        return None

    def _forecast_rule(self) -> str | None:
        if not self.horizons or self.horizons[0] < 1 or any(b <= a for a, b in pairwise(self.horizons)):
            return f"horizons={self.horizons}: bars ahead, at least one number, each at least 1, ascending"
        inside = all(0.0 < level < 1.0 for level in self.quantiles)
        if not self.quantiles or not inside or any(b <= a for a, b in pairwise(self.quantiles)):
            return f"quantiles={self.quantiles}: at least one level, each between 0 and 1, ascending"
        return None

    def _training_rule(self) -> str | None:
        if not any(self.weights.values()):
            return "every head's weight is 0, so there is nothing to learn; raise one of the weight_… above 0"
        if self.weight_candles and not self.mask_share:
            return (
                "weight_candles without mask_share: no row is ever hidden; raise mask_share or set weight_candles to 0"
            )
        if self.warm_up >= self.steps:
            return f"warm_up={self.warm_up} leaves none of steps={self.steps}; it must be smaller"
        return None

    @property
    def weights(self) -> dict[str, float]:
        """Of each head's loss in the total, by the names that `heads.losses` gives them."""
        return {
            "candles": self.weight_candles,
            "regime": self.weight_regime,
            "heatmap": self.weight_heatmap,
            "quantiles": self.weight_quantiles,
            "turns": self.weight_turns,
        }
