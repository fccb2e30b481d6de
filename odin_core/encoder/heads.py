"""What an embedding is asked during training, and how wrong the answers are.

Five heads, each one linear layer on the embedding, so that what they learn has to lie in it: hidden candles, the
regime, where support and resistance lie, quantiles of the returns to come, and whether a breakout or reversal follows.
Where the answers come from is `targets`; the heads' weights in the total are `config`'s."""

from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from odin_core.encoder.config import HEATMAP_BINS, REGIMES, TURNS, EncoderConfig
from odin_core.encoder.networks import seeded


class Predictions(NamedTuple):
    """Answers at each row of each window, float32: (windows, rows, …), made of what is known at the end of its bar."""

    candles: Tensor
    """(…, features): the row's own features, told without having seen them where the row was hidden."""
    regime: Tensor
    """(…, 3) logits of `REGIMES`."""
    heatmap: Tensor
    """(…, 33) logits: the weight of pivots in each of the heatmap's 32 bins, and last, that of those beyond its reach
    or of none at all."""
    quantiles: Tensor
    """(…, horizons, levels): of returns in units of volatility; ascending in the level, they never cross."""
    turns: Tensor
    """(…, 5) logits of `TURNS`."""

    @property
    def heatmap_shares(self) -> Tensor:
        """(…, 32): the expected heatmap, as `structure.rolling_heatmap` has it; adds up to at most 1."""
        return self.heatmap.softmax(dim=-1)[..., :-1]


class Targets(NamedTuple):
    """True answers, shapes as in Predictions; what is unknown counts nowhere. In the padding
    everything is to be unknown: there the embedding is zeros."""

    candles: Tensor
    """(windows, rows, features) float, NaN unknown: the rows as they were before some were hidden."""
    masked: Tensor
    """(windows, rows) bool: hidden from the encoder by giving it `valid & ~masked`; only these rows' candles count."""
    regime: Tensor
    """(windows, rows) int64 of `REGIMES`, −1 unknown."""
    heatmap: Tensor
    """(windows, rows, 32) float, shares whose sum is at most 1, both up to rounding; a row with a NaN is unknown."""
    returns: Tensor
    """(windows, rows, horizons) float in units of volatility, NaN unknown."""
    turns: Tensor
    """(windows, rows) int64 of `TURNS`, −1 unknown."""


class Heads(nn.Module):
    """All heads; their first weights follow from `config.seed`."""

    def __init__(self, config: EncoderConfig, features: int) -> None:
        super().__init__()
        with seeded(config.seed, "heads"):
            self.candles = nn.Linear(config.embedding, features)
            self.regime = nn.Linear(config.embedding, len(REGIMES))
            self.heatmap = nn.Linear(config.embedding, HEATMAP_BINS + 1)
            self.quantiles = NonCrossing(config)
            self.turns = nn.Linear(config.embedding, len(TURNS))

    def forward(self, embedding: Tensor) -> Predictions:
        """embedding: (windows, rows, embedding), or any shape that ends so."""
        return Predictions(
            candles=self.candles(embedding).float(),
            regime=self.regime(embedding).float(),
            heatmap=self.heatmap(embedding).float(),
            quantiles=self.quantiles(embedding),
            turns=self.turns(embedding).float(),
        )


class NonCrossing(nn.Module):
    """Quantiles that cannot cross: the lowest, and above it the running sum of positive steps (softplus).

    Before it has learned anything it says the quantiles of a normal distribution of standard deviation 1, which is what
    a return in units of volatility is about."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.levels = len(config.quantiles)
        self.linear = nn.Linear(config.embedding, len(config.horizons) * self.levels)
        normal = torch.tensor([NormalDist().inv_cdf(level) for level in config.quantiles])
        first = torch.cat((normal[:1], normal.diff().expm1().log()))  # softplus takes the steps back
        with torch.no_grad():
            self.linear.weight.mul_(0.1)
            self.linear.bias.copy_(first.repeat(len(config.horizons)))

    def forward(self, embedding: Tensor) -> Tensor:
        """(…, embedding) to (…, horizons, levels) float32, not descending along the last dimension."""
        raw = self.linear(embedding).float().unflatten(-1, (-1, self.levels))
        return torch.cat((raw[..., :1], functional.softplus(raw[..., 1:])), dim=-1).cumsum(dim=-1)


def losses(predictions: Predictions, targets: Targets, config: EncoderConfig) -> dict[str, Tensor]:
    """Scalars float32 by head, and "total", their sum by `config.weights`.

    Each is the mean over what is known, rows and, where there are several numbers a row, numbers: "candles" Huber's
    loss (δ = 1) of hidden rows' features; "regime" and "turns" cross entropy in nats; "heatmap" the divergence
    (Kullback-Leibler, nats) of the predicted distribution of weight from the true one; "quantiles" `pinball`, mean over
    levels. Where nothing is known a head's loss is 0, and so are its gradients."""
    found = {
        "candles": _candles(predictions.candles, targets),
        "regime": _classes(predictions.regime, targets.regime),
        "heatmap": _heatmap(predictions.heatmap, targets.heatmap),
        "quantiles": _quantiles(predictions.quantiles, targets.returns, config.quantiles),
        "turns": _classes(predictions.turns, targets.turns),
    }
    weights = config.weights
    return found | {"total": torch.stack([weights[name] * loss for name, loss in found.items()]).sum()}


def pinball(quantiles: Tensor, outcome: Tensor, levels: Tensor) -> Tensor:
    """max(τ (y − q), (τ − 1) (y − q)) of quantile q at level τ and outcome y: never negative, and least in expectation
    where q is the true quantile. quantiles (…, levels), outcome (…), levels (levels,); the shape is quantiles'.
    Source: Koenker, Bassett 1978."""
    above = outcome[..., None] - quantiles
    return torch.maximum(levels * above, (levels - 1.0) * above)


def _candles(said: Tensor, targets: Targets) -> Tensor:
    known = targets.masked[..., None] & targets.candles.isfinite()
    true = torch.where(known, targets.candles.float(), torch.zeros_like(said))
    return _mean(functional.huber_loss(said, true, reduction="none"), known)


def _classes(logits: Tensor, true: Tensor) -> Tensor:
    known = true >= 0
    loss = functional.cross_entropy(logits.flatten(0, -2), true.clamp(min=0).flatten(), reduction="none")
    return _mean(loss, known.flatten())


def _heatmap(logits: Tensor, true: Tensor) -> Tensor:
    known = true.isfinite().all(dim=-1)
    shares = torch.where(known[..., None], true.float().clamp(min=0.0), torch.zeros_like(logits[..., :-1]))
    shares = torch.cat((shares, (1.0 - shares.sum(dim=-1, keepdim=True)).clamp(min=0.0)), dim=-1)
    divergence = torch.special.xlogy(shares, shares) - shares * logits.log_softmax(dim=-1)
    return _mean(divergence.sum(dim=-1), known)


def _quantiles(said: Tensor, returns: Tensor, levels: tuple[float, ...]) -> Tensor:
    known = returns.isfinite()
    true = torch.where(known, returns.float(), torch.zeros_like(said[..., 0]))
    return _mean(pinball(said, true, said.new_tensor(levels)).mean(dim=-1), known)


def _mean(loss: Tensor, known: Tensor) -> Tensor:
    """The mean of what is known, 0 of nothing."""
    return (loss * known).sum() / known.sum().clamp(min=1)
