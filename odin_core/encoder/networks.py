"""Networks that turn bars into embeddings: causal TCN, causal Transformer and LSTM behind one interface, `Encoder`.

An embedding follows from its own bar and those before it, never from a later one. Rows before a window's first valid
row do not exist for it: they are padding, and as many of them as you like change no embedding. A row that is not valid
after that is a gap, and is told to the network as such by a learned token. What embeddings are trained for is `heads`,
how is `training`; sizes come from `config`."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from odin_core.encoder.config import EncoderConfig
from odin_core.errors import OdinError


class UnfitInput(OdinError):
    """Values that an encoder was not built for."""

    def __init__(self, values: Tensor, valid: Tensor, features: int) -> None:
        super().__init__(
            f"an encoder of {features} features was given values {tuple(values.shape)} and valid {tuple(valid.shape)}; "
            f"they must be (windows, rows, {features}) and (windows, rows), with at least one row"
        )


class Encoder(nn.Module):
    """Bars to embeddings. Build one by `build`.

    receptive_field: bars, its own included, that an embedding depends on; at least `config.length`.
    bounded: whether that holds for inputs longer than it. True of a TCN and a Transformer: in a longer input an
    embedding is the same up to rounding, if the first of those bars is valid; else whether anything came before them
    shows, since it decides between padding and a gap. An LSTM's state has no bound: give it exactly the rows that it
    shall depend on."""

    bounded: bool = True

    def __init__(self, config: EncoderConfig, features: int) -> None:
        super().__init__()
        self.features, self.receptive_field = features, config.receptive_field
        if self.receptive_field < config.length:
            raise ValueError(f"sees {self.receptive_field} bars, fewer than length={config.length}")
        self.entry = nn.Linear(features, config.width)
        self.gap = nn.Parameter(torch.randn(config.width))
        self.last_norm = nn.LayerNorm(config.width)
        self.exit = nn.Linear(config.width, config.embedding)
        self.scale = nn.LayerNorm(config.embedding)

    def forward(self, values: Tensor, valid: Tensor, last: int | None = None) -> Tensor:
        """The embedding known at the end of each row's bar: (windows, rows, embedding), of order 1.

        values: (windows, rows, features) float, standardised, oldest row first, finite where valid; elsewhere anything,
        NaN too, it is not looked at. valid: (windows, rows) bool. Zeros before a window's first valid row, where
        nothing is known. last: only the last so many rows, (windows, last, embedding); the same embeddings up to
        rounding, for less work. Raises UnfitInput."""
        if (
            values.ndim != 3
            or valid.shape != values.shape[:2]
            or values.shape[2] != self.features
            or not valid.shape[1]
        ):
            raise UnfitInput(values, valid, self.features)
        exists = has_begun(valid)
        last = values.shape[1] if last is None else min(last, values.shape[1])
        state = self.body(self.rows(values, valid), exists, last)
        embedding = self.scale(self.exit(self.last_norm(state)))
        return torch.where(exists[:, -last:, None], embedding, torch.zeros_like(embedding))

    def rows(self, values: Tensor, valid: Tensor) -> Tensor:
        """(windows, rows, width): each row alone, the learned token where it is not valid."""
        seen = valid[..., None]
        entered = self.entry(torch.where(seen, values, torch.zeros_like(values)))
        return torch.where(seen, entered, self.gap.to(entered.dtype))

    def body(self, state: Tensor, exists: Tensor, last: int) -> Tensor:
        """(windows, rows, width) to (windows, last, width): where rows learn of rows before them. `exists`: (windows,
        rows) bool, False in the padding; what is returned there does not matter, but must not reach other rows."""
        raise NotImplementedError


def build(config: EncoderConfig, features: int) -> Encoder:
    """A new encoder of rows of `features` numbers; its first weights follow from `config.seed`. On the CPU, float32."""
    kinds = {"tcn": TemporalConvolutions, "transformer": CausalTransformer, "lstm": Recurrent}
    with seeded(config.seed, "encoder"):
        return kinds[config.architecture](config, features)


@contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """torch's randomness on the CPU from (seed, name) inside the block; as it was before, after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        yield


def has_begun(valid: Tensor) -> Tensor:
    """(windows, rows) bool: a row up to this one, itself included, is valid."""
    return valid.cumsum(dim=1) > 0


class TemporalConvolutions(Encoder):
    """Residual blocks of two dilated causal convolutions (Bai, Kolter, Koltun 2018), each after a layer norm over the
    channels of one row, so that nothing but the convolutions mixes time."""

    def __init__(self, config: EncoderConfig, features: int) -> None:
        super().__init__(config, features)
        dilations = [2**level for level in range(config.levels)]
        self.reaches = [2 * (config.kernel - 1) * dilation for dilation in dilations]
        self.blocks = nn.ModuleList(_Block(config, dilation) for dilation in dilations)

    def body(self, state: Tensor, exists: Tensor, last: int) -> Tensor:
        mask = exists[..., None].to(state.dtype)
        needed = self.receptive_field - 1 + last  # rows that what follows looks at
        for block, reach in zip(self.blocks, self.reaches, strict=True):
            state = block(state[:, -needed:], mask[:, -needed:])
            needed -= reach
        return state[:, -last:]


class _Block(nn.Module):
    def __init__(self, config: EncoderConfig, dilation: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(_Convolution(config, dilation) for _ in range(2)))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, state: Tensor, mask: Tensor) -> Tensor:
        change = state
        for layer in self.layers:
            change = self.dropout(layer(change, mask))
        return state + change


class _Convolution(nn.Module):
    """Norm, activation and a causal convolution: row t of the result sees rows t, t − d, … t − (kernel − 1) d.

    One matrix product over the taps side by side: several times faster than a dilated Conv1d on some CPUs, and it
    keeps channels last, as the norms want them."""

    def __init__(self, config: EncoderConfig, dilation: int) -> None:
        super().__init__()
        self.kernel, self.dilation = config.kernel, dilation
        self.norm = nn.LayerNorm(config.width)
        self.taps = nn.Linear(config.kernel * config.width, config.width)  # oldest tap first

    def forward(self, state: Tensor, mask: Tensor) -> Tensor:
        rows = state.shape[1]
        active = (
            functional.gelu(self.norm(state)) * mask
        )  # what does not exist is 0, as is what lies before the first row
        padded = functional.pad(active, (0, 0, (self.kernel - 1) * self.dilation, 0))
        steps = [padded[:, tap * self.dilation : tap * self.dilation + rows] for tap in range(self.kernel)]
        return self.taps(torch.cat(steps, dim=-1))


class CausalTransformer(Encoder):
    """Pre-norm Transformer layers. A row attends to itself and the `length` − 1 rows before it; positions are rotary
    (Su et al. 2021), so that only distances between rows count."""

    def __init__(self, config: EncoderConfig, features: int) -> None:
        super().__init__(config, features)
        self.length, self.channels = config.length, config.width // config.heads
        self.layers = nn.ModuleList(_AttentionLayer(config) for _ in range(config.layers))

    def body(self, state: Tensor, exists: Tensor, last: int) -> Tensor:
        aligned, place = without_padding(state, exists)
        rotation, mask = self._positions(aligned), self._window(aligned)
        for layer in self.layers:
            aligned = layer(aligned, rotation, mask)
        return _taken(aligned, place[:, -last:])

    def attention(self, values: Tensor, valid: Tensor) -> list[Tensor]:
        """How much each row of each layer attends to which: of each layer, (windows, heads, rows, rows), from row
        (third) to row (fourth dimension). A row's shares add up to 1, are 0 after it and before the window's first
        valid row; a row before that attends to nothing, all 0. What `forward` used, so after `eval()`. It takes
        heads · rows² numbers a layer and window; `forward` itself keeps none of them."""
        exists = has_begun(valid)
        aligned, place = without_padding(self.rows(values, valid), exists)
        rotation, shares = self._positions(aligned), []
        shown = (exists[:, :, None] & exists[:, None, :])[:, None]
        for layer in self.layers:
            assert isinstance(layer, _AttentionLayer)
            share = layer.shares(aligned, rotation, _band(aligned, self.length))
            down = place[:, None, :, None].expand(share.shape)
            across = place[:, None, None, :].expand(share.shape)
            shares.append(share.gather(2, down).gather(3, across) * shown)
            aligned = layer(aligned, rotation, self._window(aligned))
        return shares

    def _positions(self, state: Tensor) -> Tensor:
        """Cosines and sines of the rotary angles, (2, rows, channels of a head / 2)."""
        half = self.channels // 2
        speed = 10_000.0 ** (-torch.arange(half, device=state.device, dtype=torch.float32) / half)
        angle = torch.arange(state.shape[1], device=state.device, dtype=torch.float32)[:, None] * speed
        return torch.stack((angle.cos(), angle.sin()))

    def _window(self, state: Tensor) -> Tensor | None:
        """(rows, rows) bool, what a row may attend to; None where that is every row up to it."""
        return _band(state, self.length) if state.shape[1] > self.length else None


class _AttentionLayer(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.channels = config.heads, width // config.heads
        self.norm, self.asked, self.mixed = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner = nn.Sequential(
            *(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)),
            nn.Dropout(config.dropout),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, state: Tensor, rotation: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = self._split(state, rotation)
        mixed = functional.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None)
        state = state + self.dropout(self.mixed(mixed.transpose(1, 2).flatten(2)))
        return state + self.inner(state)

    def shares(self, state: Tensor, rotation: Tensor, mask: Tensor) -> Tensor:
        """(windows, heads, rows, rows): the weights that `forward` gives to values."""
        query, key, _ = self._split(state, rotation)
        score = query @ key.transpose(2, 3) / self.channels**0.5
        return score.masked_fill(~mask, -torch.inf).softmax(dim=-1)

    def _split(self, state: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (windows, heads, rows, channels)."""
        parts = self.asked(self.norm(state)).unflatten(2, (3, self.heads, self.channels)).permute(2, 0, 3, 1, 4)
        return _rotated(parts[0], rotation), _rotated(parts[1], rotation), parts[2]


class Recurrent(Encoder):
    """LSTM layers; the state begins at zero with the window's first valid row."""

    bounded = False

    def __init__(self, config: EncoderConfig, features: int) -> None:
        super().__init__(config, features)
        dropout = config.dropout if config.layers > 1 else 0.0  # it acts between layers
        self.cells = nn.LSTM(config.width, config.width, config.layers, batch_first=True, dropout=dropout)

    def body(self, state: Tensor, exists: Tensor, last: int) -> Tensor:
        aligned, place = without_padding(state, exists)
        return _taken(self.cells(aligned)[0], place[:, -last:])


def without_padding(state: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
    """Windows moved so that each begins with its first existing row, what follows its last being of no meaning; and
    (windows, rows) int64, where each row is now, 0 for one that does not exist. A causal network cannot see what
    follows, so it needs no mask."""
    rows = torch.arange(exists.shape[1], device=exists.device)
    padding = (~exists).sum(dim=1, keepdim=True)
    return _taken(state, (rows + padding).clamp(max=exists.shape[1] - 1)), (rows - padding).clamp(min=0)


def _taken(state: Tensor, place: Tensor) -> Tensor:
    return state.gather(1, place[..., None].expand(-1, -1, state.shape[2]))


def _rotated(part: Tensor, rotation: Tensor) -> Tensor:
    """Pairs of channels (i, i + half) turned by their row's angle."""
    cosine, sine = rotation
    first, second = part.float().chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1).to(part.dtype)


def _band(state: Tensor, length: int) -> Tensor:
    """(rows, rows) bool: the second row is the first or one of the `length` − 1 before it."""
    rows = torch.arange(state.shape[1], device=state.device)
    distance = rows[:, None] - rows[None, :]
    return (distance >= 0) & (distance < length)
