# SPDX-License-Identifier: Apache-2.0
"""What people read of the rows of `summary.json`."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsafe.advantage_nas.config import GATE_METHODS, LOSS_METHODS
from jaxsafe.core import stats

# Iterations at which the toy's curves are read too.
TOY_POINTS = (300, 600, 1000)
NAMES = {
    "advantage": "AdvantageNAS",
    "advantage_ema": "AdvantageNAS/w-b",
    "counterfactual": "counterfactual",
    "corrected": "curvature-corrected",
    "reinforce": "REINFORCE",
    "rloo": "RLOO",
    "gdas": "GDAS",
    "darts": "DARTS",
    "proxyless": "ProxylessNAS",
    "random": "random",
    "evolution": "evolution",
}


def toy(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of the toy: 100 times the most likely architecture's loss, over seeds."""
    told = []
    for r in rows:
        line = {"method": NAMES[r["method"]]}
        for point in TOY_POINTS:
            if f"loss_at_{point}_per_seed" in r:
                line[f"at {point}"] = f"{np.median(r[f'loss_at_{point}_per_seed']):.3f}"
        line["at the end"] = f"{r['median']:.3f}"
        line["mean at the end"] = f"{np.mean(r['loss_per_seed']):.3f}"
        low, high = stats.stratified_bootstrap_ci(r["loss_per_seed"], np.mean)
        line["95% interval"] = f"{low:.3f} - {high:.3f}"
        line["edges correct"] = f"{np.mean(r['correct_per_seed']):.0%}"
        told.append(line)
    return told


def toy_pairs(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of the toy: what methods of credit are ahead of those that see the loss alone.

    Seeds are pairs, as a seed's network and teacher are the same for every method.
    """
    by = {r["method"]: r for r in rows}
    told = []
    for blind, credit in itertools.product(LOSS_METHODS, GATE_METHODS):
        if blind not in by or credit not in by:
            continue
        line = {"less": f"{NAMES[blind]} - {NAMES[credit]}"}
        for name in (*(f"loss_at_{point}_per_seed" for point in TOY_POINTS), "loss_per_seed"):
            if name in by[blind]:
                ahead = np.subtract(by[blind][name], by[credit][name])
                low, high = stats.stratified_bootstrap_ci(ahead, np.mean)
                at = "at the end" if name == "loss_per_seed" else f"at {name.split('_')[2]}"
                line[at] = f"{ahead.mean():.3f} [{low:.3f}, {high:.3f}]"
        told.append(line)
    return told


def tabular(rows: Sequence[Mapping[str, Any]], score: str) -> list[dict[str, Any]]:
    """Of a table's searches: the column `score` of what was kept, in percent."""
    return [
        {
            "method": NAMES[r["method"]],
            f"{score} (mean)": f"{r['score']:.4f}",
            "95% interval": f"{r['low']:.4f} - {r['high']:.4f}",
            "sd of a search": f"{r['sd']:.4f}",
            "exact random search": f"{r['oracle']:.4f} (sd {r['oracle_sd']:.4f})",
            "curve within": "" if r.get("curve_agrees") is None else f"{r['curve_agrees']:.0%}",
            "searches": r["searches"],
        }
        for r in rows
    ]


def search(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What people read of the rows of a supernet search."""
    measures = [n for n in ("accuracy", "perplexity") if f"{n}_per_seed" in rows[0]]
    told = []
    for r in rows:
        line: dict[str, Any] = {"method": NAMES[r["method"]], "loss (mean)": r["loss_mean"]}
        for name in measures:
            line[f"{name} (mean)"] = r[f"{name}_mean"]
            line["sd"] = r[f"{name}_sd"]
            if len(r[f"{name}_per_seed"]) <= 3:
                line["of each seed"] = " ".join(f"{x:.3g}" for x in r[f"{name}_per_seed"])
            line["lucky"] = float(np.mean(r[f"lucky_{name}_per_seed"]))
        if "retrained_mean" in r:
            line["retrained, test"] = r["retrained_mean"]
            line["sd "] = r["retrained_sd"]
        if any("equal_time_step" in other for other in rows):
            line["ms a step"] = r["step_ms"]
            line["at equal time"] = r.get("equal_time_retrained_mean", "-")
            line["step"] = r.get("equal_time_step", "-")
        if "rank_correlation_mean" in r:
            line["rank correlation"] = r["rank_correlation_mean"]
            line["sd  "] = r["rank_correlation_sd"]
        line["parameters"] = float(np.mean(r["parameters_per_seed"]))
        line["multiply-adds"] = float(np.mean(r["multiply_adds_per_seed"]))
        line["confidence"] = float(np.mean(r["confidence_per_seed"]))
        for name in ("cifar10_test", "cifar100_test"):
            if f"{name}_per_seed" in r:
                line[f"{name} (transfer)"] = float(np.mean(r[f"{name}_per_seed"]))
        told.append(line)
    return told
