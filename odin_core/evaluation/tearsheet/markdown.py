"""The tear sheet as a screen of Markdown, for Dagit or a chat: the headline, the baselines, the phases."""

from typing import Final

from odin_core.evaluation.tearsheet.contents import AGAINST, DETAILS, PERFORMANCE, PHASES, TILES, Shown
from odin_core.evaluation.tearsheet.formats import told
from odin_core.evaluation.tearsheet.page import cell, lead, rows_of
from odin_core.evaluation.tearsheet.returns import MONTHS
from odin_core.evaluation.tearsheet.sheet import TearSheet

LEFT: Final = ("metric", "baseline", "reason", "session")
IN_SUMMARY: Final = ("sharpe_above_zero", "mean_exposure", "mean_turnover", "profit_factor", "median_minutes", "open")


def markdown(sheet: TearSheet) -> str:
    """The summary; of a range without sessions it says so."""
    parts = [f"**{sheet.title}**: {lead(sheet)}."]
    if sheet.missing:
        parts.append("\n".join(f"- {line}" for line in sheet.missing))
    if not sheet.is_empty:
        shown = (*TILES, *(detail for detail in DETAILS if detail[0] in IN_SUMMARY))
        numbers = (f"{title}: **{told(sheet.headline[name], unit)}**" for name, title, unit in shown)
        parts += [" · ".join(numbers), _table(sheet, PERFORMANCE), _table(sheet, AGAINST), _months(sheet)]
        parts += [_table(sheet, PHASES)] if sheet.tables["phases"].height else []
    return "\n\n".join(parts) + "\n"


def _table(sheet: TearSheet, shown: Shown) -> str:
    head = "| " + " | ".join(column.title for column in shown.columns) + " |"
    rule = "|" + "|".join("---" if column.name in LEFT else "---:" for column in shown.columns) + "|"
    rows = [
        "| " + " | ".join(cell(row, column).replace("|", "\\|") for column in shown.columns) + " |"
        for row in rows_of(sheet, shown)
        if row is not None
    ]
    return "\n".join([f"{shown.title}:", "", head, rule, *rows])


def _months(sheet: TearSheet) -> str:
    """Years by months, per cent of capital."""
    head = "| | " + " | ".join((*MONTHS, "year")) + " |"
    rows = [
        "| " + " | ".join([str(row["year"]), *(told(row[name], "percent") for name in (*MONTHS, "total"))]) + " |"
        for row in sheet.tables["months"].iter_rows(named=True)
    ]
    return "\n".join(["Return by month, of capital:", "", head, "|---|" + "---:|" * 13, *rows])
