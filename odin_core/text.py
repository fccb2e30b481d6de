"""What commands print for people: tables, the outcome of a bootstrap, progress bars. No numbers are made here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

WIDEST = 60  # characters of a column, the last one apart
SYMBOLS_SHOWN = 50  # of a market's holdings


def frame(rows: "pl.DataFrame") -> str:
    import polars as pl

    with pl.Config(tbl_rows=200, tbl_cols=-1, tbl_width_chars=200, fmt_str_lengths=60, tbl_hide_dataframe_shape=True):
        return str(rows)


def table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "none"
    names = list(rows[0])
    cells = [names, *[[_cell(row[name]) for name in names] for row in rows]]
    cells = [[*(_cut(cell) for cell in row[:-1]), row[-1]] for row in cells]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def _cut(cell: str) -> str:
    return cell if len(cell) <= WIDEST else cell[: WIDEST - 1] + "…"


def registry(result: dict[str, Any]) -> str:
    """The champion, what is decided and still to come, and every event."""
    champion = f"{result['champion']} since {result['since']}" if result["champion"] else "none"
    lines, to_come = [f"champion: {champion}"], result["pending"]
    if to_come:
        lines.append(f"from {to_come['effective']} on: {to_come['version'] or 'none'} ({to_come['why']})")
    return "\n".join([*lines, table(result["history"])])


def deployments(result: dict[str, Any]) -> str:
    """The log of deployments, one a line."""
    columns = ("revision", "at", "operator", "event", "from_version", "to_version", "effective", "why")
    return table([{name: entry[name] for name in columns} for entry in result["deployments"]])


def settings(values: dict[str, Any]) -> str:
    """One `name=value` a line, as --set takes it."""
    return "\n".join(f"{name}={_as_yaml(value)}" for name, value in values.items())


def _as_yaml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_yaml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def table_of_values(values: dict[str, Any]) -> str:
    """One value a line; mappings and lists indented."""
    return "\n".join(_lines(values))


def holdings(values: dict[str, Any]) -> str:
    """What a market's lake holds, each interval's symbols in a table of their own (the first fifty)."""
    bars = values["bars"]
    whole = [{"interval": i, "symbols": len(held["symbols"]), **_but_symbols(held)} for i, held in bars.items()]
    parts = [table_of_values({name: value for name, value in values.items() if name != "bars"})]
    parts += [table(whole)] if whole else []
    for interval, held in bars.items():
        rows, shown = held["symbols"], held["symbols"][:SYMBOLS_SHOWN]
        more = [f"and {len(rows) - len(shown)} more; --json names all"] if len(rows) > len(shown) else []
        parts.append("\n".join([f"{interval} bars", table(shown), *more]))
    return "\n\n".join(parts)


def _but_symbols(held: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in held.items() if name != "symbols"}


def _lines(values: dict[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in values.items():
        if value in ({}, []):
            yield f"{indent}{name}: none"
        elif isinstance(value, dict):
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list):
            yield f"{indent}{name}:"
            yield from (f"{indent}  {item}" for item in value)
        else:
            yield f"{indent}{name}: {_cell(value)}"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def bootstrap(result: dict[str, Any]) -> str:
    """Where the system got to."""
    if not result["sessions"]:
        return f"life {result['life']} of {result['market']}: no session yet"
    decisions, phase, champion = result["decisions"], result["phase"], result["champion"]
    done = result.get("did", "")
    lines = [
        f"life {result['life']} of {result['market']}: {result['sessions']} sessions, "
        f"{result['first_session']} to {result['last_session']}{f' ({done})' if done else ''}",
        f"decisions   {decisions['taken']} taken, {decisions['skipped']} skipped, {decisions['rejected']} rejected",
        *(f"phase       {t['from']} → {t['to']} on {t['session']}: {t['reason']}" for t in phase["transitions"]),
        f"phase now   {phase['final']}; not further because: {phase['next']}",
        *(f"            what would help: {way}" for way in phase["suggestions"][:3]),
        f"retrains    {len(result['retrains'])}: " + _outcomes(result["retrains"]),
        f"champion    {_champion(champion)}",
        *_performance(result["performance"]),
        *(f"note        {note}" for note in result.get("notes", [])),
        f"report      {result['report']}" if "report" in result else "",
        f"Dagit       {result['dagit']}" if "dagit" in result else "",
        f"digest      {result['lake_digest']}" if "lake_digest" in result else "",
    ]
    return "\n".join(line for line in lines if line)


def _outcomes(retrains: list[dict[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for retrain in retrains:
        counts[retrain["outcome"]] = counts.get(retrain["outcome"], 0) + 1
    return ", ".join(f"{n} {outcome}" for outcome, n in counts.items())


def _champion(champion: dict[str, Any] | None) -> str:
    if champion is None:
        return "none: no candidate has passed the gate yet"
    beyond = champion["out_of_sample"]
    return (
        f"{champion['version']} since {champion['since']}; out of sample {beyond['sessions']} sessions: mean reward "
        f"{_cell(beyond['reward'])}, random {_cell(beyond['random'])}, rules {_cell(beyond['rules'])} "
        f"(excess over random at least {_cell(beyond['lower_bound_95'])} at 95 %)"
    )


def _performance(p: dict[str, Any]) -> list[str]:
    random, hold, nothing = p["vs_random"], p["vs_hold"], p["vs_nothing"]
    return [
        f"Sharpe      {_cell(p['sharpe'])}; random of the same turnover {_cell(random['sharpe'])}, "
        f"buy and hold {_cell(hold['sharpe'])}",
        f"against     doing nothing: {p['total_return']:+.3%} of capital, mean a session {nothing['mean_return']:+.2e} "
        f"(at least {nothing['lower_bound_95']:+.2e} at 95 %); "
        f"{p['trades']} trades, deepest drawdown {p['max_drawdown']:.3%}",
    ]


@contextmanager
def progress_bar(what: str, shown: bool) -> Iterator[Callable[..., None]]:
    """Gives a function to be called with (done, total[, at what]); it draws a bar on standard error where `shown`."""
    from tqdm import tqdm

    with tqdm(desc=what, disable=not shown, unit="", leave=False) as bar:

        def update(done: int, total: int, at: str = "") -> None:
            bar.total = total
            bar.set_postfix_str(at, refresh=False)
            bar.update(done - bar.n)

        yield update
