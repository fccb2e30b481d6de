"""REINFORCE on logged decisions: a softmax policy is moved along ∇J of the risk-adjusted value that the log gives it.

Off-policy policy gradient: each logged choice counts with π(a|x)/μ(a|x), μ its logged propensity, and the credit that
`reward_engine` gives it. Weights above `clip` are cut as factors of the score function (truncated importance sampling,
Ionides 2008), which trades variance for a pull towards choices that were logged. The sessions are parted by time: the
earlier ones give gradients, later ones decide when to stop, the last ones are left for the report. Sources: Williams
1992; off-policy with propensities: Swaminathan & Joachims 2015.

Same data and configuration give the same policy, byte for byte, also through a stop and a resume; it runs on one
thread."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from odin_core.evaluation.calibrators import logistic_line
from odin_core.policies.actions import ACTIONS, FloatArray, IntArray
from odin_core.rl.checkpoint import (
    Checkpoint,
    newest_checkpoint,
    optimizer_arrays,
    prefixed,
    set_optimizer,
    under,
    write_checkpoint,
)
from odin_core.rl.offline_config import ReinforceConfig
from odin_core.rl.offline_data import OfflineData, Parts, column
from odin_core.rl.offline_evidence import (
    NothingToLearnFrom,
    baseline,
    evidence,
    learned_from,
    mirrored_action,
    mirrored_features,
)
from odin_core.rl.reinforce_policy import ReinforcePolicy, Scaling, by_context, design, log_odds, log_prior, with_flat
from odin_core.rl.reward_engine import Objective, objective
from odin_core.threads import one_thread

Progress = Callable[[int, int, str], None]
FEWEST_OUTCOMES = 30  # of proposed trades on later sessions, below which the confidence is one half

CURVE = pl.Schema(
    {
        "step": pl.Int64(),
        "objective": pl.Float64(),  # of the sessions learned from
        "mean": pl.Float64(),  # value there, units of risk per decision
        "validation": pl.Float64(),  # objective of the later sessions
        "validation_mean": pl.Float64(),
        "lower": pl.Float64(),  # what it is above the prior's there, less `caution` standard errors of the difference
        "divergence": pl.Float64(),  # from the prior, nats, mean over the decisions learned from
        "trades": pl.Float64(),  # mean probability of trading there
        "effective": pl.Float64(),  # share of the rows learned from that the weights leave: (Σw)²/(n·Σw²)
        "gradient": pl.Float64(),  # norm
    }
)


class Softmax(nn.Module):
    """Standardised features (n, features) → log probabilities (n, ACTIONS + 1), float64."""

    def __init__(self, features: int, config: ReinforceConfig, generator: torch.Generator) -> None:
        super().__init__()
        outputs = design(config.heads)
        width = config.hidden or features
        self.hidden = _linear(features, config.hidden) if config.hidden else None
        self.out = _linear(width, len(outputs))
        with torch.no_grad():
            if self.hidden is not None:
                self.hidden.weight.normal_(0, features**-0.5, generator=generator)
                self.hidden.bias.zero_()
            self.out.weight.zero_()  # so that it starts as the prior
            self.out.bias.zero_()
        self.design: Tensor
        self.log_prior: Tensor
        self.by_context: Tensor
        self.register_buffer("design", torch.from_numpy(outputs), persistent=False)
        self.register_buffer("by_context", torch.from_numpy(by_context(config.heads)), persistent=False)
        self.register_buffer("log_prior", torch.from_numpy(log_prior(config.trade_probability)), persistent=False)

    def forward(self, z: Tensor, allowed: Tensor) -> Tensor:
        """`allowed` (n, ACTIONS + 1) bool; what is not allowed gets −inf."""
        inner = z if self.hidden is None else torch.tanh(self.hidden(z))
        outputs = nn.functional.linear(inner, self.out.weight) * self.by_context + self.out.bias
        logits = outputs @ self.design + self.log_prior
        return torch.log_softmax(logits.masked_fill(~allowed, -torch.inf), dim=1)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Without weights: those that torch would draw come from the process's own generator, which is left alone."""
    made = nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=torch.float64)
    assert isinstance(made, nn.Linear)
    return made


class Batch(NamedTuple):
    """m pieces of evidence about decisions of T sessions, as the learner sees them."""

    inputs: Tensor  # (m, features) float64
    allowed: Tensor  # (m, ACTIONS + 1) bool
    choice: Tensor  # (m,) column of the choice whose outcome is known
    propensity: FloatArray  # (m,) of its being known
    reward: FloatArray  # (m,) shaped
    session: IntArray  # (m,) 0 … T − 1
    baseline: FloatArray  # (m,)
    decisions: IntArray  # (T,) how many decisions each session has
    expected: FloatArray  # (T,) sum of their baselines

    @classmethod
    def of(cls, found: OfflineData, scaling: Scaling, config: ReinforceConfig, *, learning: bool) -> "Batch":
        """While `learning` with the baseline, and mirrored where the configuration says so; else as it was."""
        base = baseline(found, config) if learning else np.zeros(len(found))
        known = learned_from(found, config)
        upside_down = learning and config.mirrored
        looks = [found.features[known.row]]
        chosen = [known.choice]
        if upside_down:
            looks.append(mirrored_features(looks[0], found.names))
            chosen.append(mirrored_action(known.choice))
        times = len(looks)
        each = lambda values: np.tile(values, times)  # noqa: E731
        count = len(found.sessions)
        return cls(
            torch.from_numpy(scaling.apply(np.concatenate(looks))),
            torch.from_numpy(np.tile(with_flat(found.allowed[known.row]), (times, 1))),
            torch.from_numpy(column(np.concatenate(chosen))),
            each(known.propensity),
            each(known.reward),
            each(found.group[known.row]),
            each(base[known.row]),
            np.bincount(found.group, minlength=count) * times,
            np.bincount(found.group, weights=base, minlength=count).astype(np.float64) * times,
        )

    def of_sessions(self, drawn: IntArray) -> "Batch":
        """The rows of some sessions, which keep their order."""
        kept = np.sort(drawn)
        place = np.full(self.decisions.size, -1)
        place[kept] = np.arange(kept.size)
        rows = np.flatnonzero(place[self.session] >= 0)
        at = torch.from_numpy(rows)
        return Batch(
            self.inputs[at], self.allowed[at], self.choice[at], self.propensity[rows], self.reward[rows],
            place[self.session[rows]], self.baseline[rows], self.decisions[kept], self.expected[kept],
        )  # fmt: skip


class Step(NamedTuple):
    """What a policy is worth on a batch, and what moves it."""

    loss: Tensor  # scalar; its gradient is that of −(J + entropy bonus)
    objective: Objective
    weights: FloatArray  # (n,) cut
    divergence: float
    trades: float


def reinforce_step(log_probability: Tensor, batch: Batch, log_prior: Tensor, config: ReinforceConfig) -> Step:
    """The surrogate −Σ credit·w·log π(a|x) − entropy·bonus, w and credit held fixed: its gradient is −∇J where no
    weight is cut. `log_probability` (n, ACTIONS + 1), −inf where not allowed. The bonus is minus the mean
    Kullback-Leibler divergence from the prior, so a policy is not talked into trading because trades are many choices
    and FLAT one."""
    chosen = log_probability.gather(1, batch.choice[:, None])[:, 0]
    found = chosen.detach().numpy()
    weights = np.minimum(np.exp(found) / batch.propensity, config.clip)
    scored = objective(
        batch.reward, weights, batch.session, config.risk, self_normalised=config.self_normalised,
        baseline=batch.baseline, decisions=batch.decisions, expected=batch.expected,
    )  # fmt: skip
    possible = torch.isfinite(chosen)
    pull = torch.from_numpy(np.where(weights > 0, scored.credit * weights, 0.0))
    score = torch.where(possible, chosen, torch.zeros_like(chosen))
    safe = log_probability.masked_fill(~batch.allowed, 0.0)
    chance = log_probability.exp()
    divergence = (chance * (safe - log_prior) * batch.allowed).sum(dim=1).mean()
    loss = -(pull * score).sum() + config.entropy * divergence
    trades = float(chance.detach()[:, :ACTIONS].sum(dim=1).mean())
    return Step(loss, scored, weights, float(divergence.detach()), trades)


@dataclass(frozen=True, eq=False)
class Learned:
    """The policy of the best look at the later sessions, and how it went."""

    policy: ReinforcePolicy
    curve: pl.DataFrame  # CURVE, one row per look
    best_step: int  # 0: nothing was better on later sessions than the prior
    stopped: str  # why it ended


def learn(
    found: OfflineData,
    parts: Parts,
    config: ReinforceConfig,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    until: int | None = None,
) -> Learned:
    """Learn from `parts.train`, stop by `parts.validation`; `parts.test` is not looked at.

    With a `folder` every look leaves a checkpoint there, from which the same call goes on with the same result, bit for
    bit; `until` ends after so many updates without finishing, as a kill would. Raises NothingToLearnFrom,
    NothingTurns (`offline_evidence`), CheckpointOfAnother, CheckpointUnreadable (`checkpoint`)."""
    train, later = found.take(parts.train), found.take(parts.validation)
    for named, part in (("earlier", train), ("later", later)):
        if not evidence(part, config.evidence).row.size:
            raise NothingToLearnFrom(named, config.evidence)
    with one_thread():
        run = _Run(train, later, config, folder)
        while not run.ended and (until is None or run.step < until):
            run.advance()
            if progress:
                progress(run.step, config.steps, f"later sessions {run.rows[-1]['validation_mean']:+.3f}")
        policy = run.policy(config, later)
    return Learned(policy, pl.DataFrame(run.rows, schema=CURVE), run.best_step, run.ended or "not finished")


class _Run:
    """Everything that changes while learning, so that a checkpoint can hold it."""

    def __init__(self, train: OfflineData, later: OfflineData, config: ReinforceConfig, folder: Path | None) -> None:
        self._config, self._folder = config, folder
        self._scaling = Scaling.of(train.features)
        self._train = Batch.of(train, self._scaling, config, learning=True)
        self._later = Batch.of(later, self._scaling, config, learning=False)
        self._names, self._through = train.names, max(train.last_session, later.last_session)
        self._about = {"config": config.model_dump(mode="json"), "decisions": _fingerprint(train, later)}
        self._network = Softmax(len(train.names), config, torch.Generator().manual_seed(config.seed))
        self._optimiser = torch.optim.AdamW(
            self._network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, foreach=False
        )
        self.step, self.best_step, self.rows = 0, 0, list[dict[str, float]]()
        self._best = self._weights()
        with torch.no_grad():
            self._prior = self._evaluate(self._later).objective
        stopped = newest_checkpoint(folder, self._about) if folder else None
        if stopped is None:
            self._look(gradient=0.0)
        else:
            self._resume(stopped)

    @property
    def ended(self) -> str:
        """Why there is nothing more to do; empty while there is."""
        looks_since = sum(row["step"] > self.best_step for row in self.rows)
        if looks_since >= self._config.patience:
            return f"{looks_since} looks at the later sessions found nothing better than step {self.best_step}"
        return f"all {self._config.steps} updates done" if self.step >= self._config.steps else ""

    def advance(self) -> None:
        """Updates up to the next look."""
        norm = 0.0
        for _ in range(min(self._config.evaluate_every, self._config.steps - self.step)):
            batch = self._drawn()
            self._optimiser.zero_grad()
            self._evaluate(batch).loss.backward()
            norm = float(torch.nn.utils.clip_grad_norm_(self._network.parameters(), 10.0))
            self._optimiser.step()
            self.step += 1
        self._look(gradient=norm)

    def _drawn(self) -> Batch:
        count, wanted = self._train.decisions.size, self._config.batch_sessions
        if not 0 < wanted < count:
            return self._train
        rng = np.random.default_rng([self._config.seed, self.step])  # by address: a resume draws the same
        return self._train.of_sessions(rng.choice(count, wanted, replace=False))

    def _evaluate(self, batch: Batch) -> Step:
        return reinforce_step(self._network(batch.inputs, batch.allowed), batch, self._network.log_prior, self._config)

    def _look(self, gradient: float) -> None:
        with torch.no_grad():
            here, later = self._evaluate(self._train), self._evaluate(self._later)
        squares = float(here.weights @ here.weights) * len(here.weights)
        self.rows.append({
            "step": self.step, "objective": here.objective.value, "mean": here.objective.terms.mean,
            "validation": later.objective.value, "validation_mean": later.objective.terms.mean,
            "lower": later.objective.value
            - self._prior.value
            - self._config.caution * standard_error(later.objective.sessions - self._prior.sessions),
            "divergence": here.divergence, "trades": here.trades,
            "effective": float(here.weights.sum()) ** 2 / squares if squares > 0 else 0.0, "gradient": gradient,
        })  # fmt: skip
        best = max(row["lower"] for row in self.rows[:-1]) if len(self.rows) > 1 else -np.inf
        if self.rows[-1]["lower"] > best:
            self.best_step, self._best = self.step, self._weights()
        if self._folder is not None:
            self._save(self._folder)

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self._network.state_dict().items()}

    def _save(self, folder: Path) -> None:
        arrays = (
            prefixed("now", {name: value.numpy() for name, value in self._weights().items()})
            | prefixed("best", {name: value.numpy() for name, value in self._best.items()})
            | prefixed("optimizer", optimizer_arrays(self._optimiser))
        )
        told = {"best_step": self.best_step, "rows": self.rows}
        write_checkpoint(folder, Checkpoint(self.step, arrays, told), self._about)

    def _resume(self, stopped: Checkpoint) -> None:
        now, self._best = (
            {name: torch.tensor(array) for name, array in under(kind, stopped.arrays).items()}
            for kind in ("now", "best")
        )
        self._network.load_state_dict(now)
        set_optimizer(self._optimiser, under("optimizer", stopped.arrays))
        self.step = stopped.updates
        self.best_step, self.rows = stopped.told["best_step"], stopped.told["rows"]

    def policy(self, config: ReinforceConfig, later: OfflineData) -> ReinforcePolicy:
        """The best one, its confidence fitted on what its leans earned on the later sessions."""
        facts = {"seed": config.seed, "best_step": self.best_step, "config": config.model_dump(mode="json")}
        made = ReinforcePolicy(
            self._names, self._through, config.heads, config.trade_probability, self._scaling,
            {name: value.numpy() for name, value in self._best.items()}, (0.0, 0.0), facts,
        )  # fmt: skip
        return replace(made, platt=confidence(made, later))


def standard_error(sessions: FloatArray) -> float:
    """Of the mean of sessions' rewards (T,), ddof 1; 0 for fewer than two."""
    return float(sessions.std(ddof=1) / np.sqrt(sessions.size)) if sessions.size > 1 else 0.0


def confidence(policy: ReinforcePolicy, later: OfflineData) -> tuple[float, float]:
    """Intercept and slope of Platt's scaling of the log odds of trading: how often the leans of decisions (n,) that
    the gradients never saw ended above their costs. One half for all (0, 0) below FEWEST_OUTCOMES known outcomes, or
    where all or none won; a slope below 0 says nothing and becomes 0. Source: Platt 1999."""
    chance = policy.probabilities(later.features, later.allowed)
    lean = chance[:, :ACTIONS].argmax(axis=1)
    outcome = later.grid[np.arange(len(later)), lean].astype(np.float64)
    known = np.isfinite(outcome)
    won = (outcome[known] > 0).astype(np.float64)
    if known.sum() < FEWEST_OUTCOMES or not 0 < won.mean() < 1:
        return 0.0, 0.0
    a, b = logistic_line(log_odds(chance[known, :ACTIONS].sum(axis=1)), won)
    share = float(won.mean())
    return (a, b) if b > 0 else (float(np.log(share) - np.log1p(-share)), 0.0)


def _fingerprint(*parts: OfflineData) -> str:
    """SHA-256 over the arrays that are learned from."""
    digest = hashlib.sha256()
    for part in parts:
        for named in fields(part):
            value = getattr(part, named.name)
            digest.update(value.tobytes() if isinstance(value, np.ndarray) else "/".join(value).encode())
    return digest.hexdigest()
