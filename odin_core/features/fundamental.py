"""The fundamental set: what a company earns, owns, owes and grows, and how old that knowledge is.

Figures are those of the market's `fundamentals` as they were known at the row, under the names that files give them;
where two files name the same figure differently, the first that is known counts. Per cent become fractions. A figure
never expires, so its age stands beside it. Formulas of prices as of then (P/E) keep the price of their publication."""

from typing import Final

import numpy as np

from odin_core.features.catalogue import known
from odin_core.features.facts import Facts
from odin_core.features.series import FloatArray

PER_CENT: Final = 100.0
REPORTED: Final = (
    "pe", "pb_ratio", "price_book", "roe_pct", "roce_pct", "net_profit_margin_pct", "debt_equity",
    "revenue_cagr_pct", "sales_growth_3y_pct", "eps_cagr_pct", "eps_growth_3y_pct",
)  # fmt: skip
"""Figures of a company's reports, whose newest one's age is told."""


@known(needs={"pe"}, unit="fraction per year", source="Basu 1977")
def earnings_yield(facts: Facts) -> FloatArray:
    """1 / P/E: earnings of a year over the price, negative in a loss. NaN where P/E is unknown or zero."""
    return _inverse(facts.first("pe"))


@known(needs={"pe", "sector_pe"}, unit="fraction per year", source="Asness, Porter & Stevens 2000")
def earnings_yield_to_sector(facts: Facts) -> FloatArray:
    """1 / P/E − 1 / P/E of its sector. NaN where either is unknown or zero."""
    return _inverse(facts.first("pe")) - _inverse(facts.first("sector_pe"))


@known(needs={"pb_ratio", "price_book"}, unit="ratio", source="Fama & French 1992")
def book_yield(facts: Facts) -> FloatArray:
    """Book value over market value, 1 / P/B (`pb_ratio`, else `price_book`). NaN where P/B is unknown or zero."""
    return _inverse(facts.first("pb_ratio", "price_book"))


@known(needs={"dividend_yield_pct", "dividend_yield"}, unit="fraction per year", source="Litzenberger & Ramaswamy 1979")
def dividend_yield(facts: Facts) -> FloatArray:
    """Dividends of a year over the price (`dividend_yield_pct` in per cent, else `dividend_yield`, a fraction). NaN
    where unknown."""
    paid = facts.first("dividend_yield_pct") / PER_CENT
    return np.where(np.isnan(paid), facts.first("dividend_yield"), paid)


@known(needs={"roe_pct"}, unit="fraction per year", source="Haugen & Baker 1996")
def return_on_equity(facts: Facts) -> FloatArray:
    """Net profit over equity. NaN where unknown."""
    return facts.first("roe_pct") / PER_CENT


@known(needs={"roce_pct"}, unit="fraction per year", source="Greenblatt 2006")
def return_on_capital(facts: Facts) -> FloatArray:
    """Operating profit over the capital employed. NaN where unknown."""
    return facts.first("roce_pct") / PER_CENT


@known(needs={"net_profit_margin_pct"}, unit="fraction", source="Soliman 2008")
def profit_margin(facts: Facts) -> FloatArray:
    """Net profit over sales. NaN where unknown."""
    return facts.first("net_profit_margin_pct") / PER_CENT


@known(needs={"debt_equity"}, unit="ratio", source="Bhandari 1988")
def debt_to_equity(facts: Facts) -> FloatArray:
    """Debt over equity. NaN where unknown."""
    return facts.first("debt_equity")


@known(needs={"revenue_cagr_pct", "sales_growth_3y_pct"}, unit="fraction per year", source="Lakonishok et al. 1994")
def sales_growth(facts: Facts) -> FloatArray:
    """Yearly growth of sales over years (`revenue_cagr_pct`, else `sales_growth_3y_pct`). NaN where unknown."""
    return facts.first("revenue_cagr_pct", "sales_growth_3y_pct") / PER_CENT


@known(needs={"eps_cagr_pct", "eps_growth_3y_pct"}, unit="fraction per year", source="Lakonishok et al. 1994")
def earnings_growth(facts: Facts) -> FloatArray:
    """Yearly growth of earnings per share over years (`eps_cagr_pct`, else `eps_growth_3y_pct`). NaN where unknown."""
    return facts.first("eps_cagr_pct", "eps_growth_3y_pct") / PER_CENT


@known(needs={"market_cap"}, unit="log of currency", source="Banz 1981")
def log_market_value(facts: Facts) -> FloatArray:
    """ln(market value in the market's currency). NaN where it is unknown or not above zero."""
    value = facts.first("market_cap")
    return np.log(np.where(value > 0.0, value, np.nan))


@known(needs={"promoter_holding_pct"}, unit="share", bounds=(0.0, 1.0), source="Morck, Shleifer & Vishny 1988")
def promoter_share(facts: Facts) -> FloatArray:
    """Share of the company that its promoters hold. NaN where unknown."""
    return facts.first("promoter_holding_pct") / PER_CENT


@known(needs={"pledge_pct"}, unit="share", bounds=(0.0, 1.0), source="Dou, Masulis & Zein 2019")
def pledged_share(facts: Facts) -> FloatArray:
    """Share of the promoters' holding that is pledged to lenders. NaN where unknown."""
    return facts.first("pledge_pct") / PER_CENT


@known(needs={"fii_change_pct", "dii_change_pct"}, unit="share", source="Gompers & Metrick 2001, as a change")
def institutions_change(facts: Facts) -> FloatArray:
    """Change of the share that foreign and domestic institutions hold together. NaN where either is unknown."""
    return (facts.first("fii_change_pct") + facts.first("dii_change_pct")) / PER_CENT


@known(needs=REPORTED, unit="days", bounds=(0.0, np.inf), source="by definition")
def figures_age(facts: Facts) -> FloatArray:
    """Days since the newest figure of the company's reports became known. NaN where none is known."""
    return facts.youngest(*REPORTED)


def _inverse(x: FloatArray) -> FloatArray:
    return 1.0 / np.where(x == 0.0, np.nan, x)
