# SPDX-License-Identifier: Apache-2.0
"""Methods compared: rows of the summary, categories, and answers that people can read.

`results` of `summary.json` is one flat row per model and method, over S seeds and N prompts:

  model, method, family, at      what answered: the model corrected, the way, its place on a curve
  benign_X, harmful_X            mean over prompts of that label, samples and seeds of the scorers
                                 (`compliance` and others a source has), and of `refusal` (by
                                 phrases), `words`, `repetition`, and `nll` (nats per token under
                                 the reference model)
  help, safety                   the primary measures: benign_compliance, and harmful_safety, or
                                 harmful_refusal where nothing scores safety
  help_low, _high, safety_low, _high
                                 95 % bootstrap intervals over prompts, each a mean over seeds
  help_per_seed, safety_per_seed
  help_gain, _low, _high, _p     paired difference from the plain safe model over prompts:
  safety_gain, ...               bootstrap interval and two-sided p
  help_mcnemar_p, safety_mcnemar_p
                                 exact test of the first answers, all seeds' together
The one comparison stated beforehand is `help_gain` of "TSDI alpha A" with A the configured alpha,
to be read beside its `safety_gain`; p values are not adjusted for the other rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxsafe.core import stats, tables
from jaxsafe.tsdi import analysis, methods, scores
from jaxsafe.tsdi.experiment import Experiment
from jaxsafe.tsdi.scores import Answers
from jaxsafe.tsdi.sources import Source

Scores = dict[str, list[dict[str, np.ndarray]]]  # method -> seed -> measure -> [N, S]


class Told(NamedTuple):
    """What one model's seeds gave."""

    scores: Scores
    kinds: dict[str, tuple[str, float]]  # method -> family, place
    first: dict[str, Answers]  # method -> answers of the first seed


def primary(told: Told) -> dict[str, tuple[str, bool]]:
    """Measure and whose prompts, of help and of safety."""
    names = next(iter(told.scores.values()))[0]
    return {
        "help": ("compliance", False),
        "safety": ("safety" if "safety" in names else "refusal", True),
    }


def summary(name: str, told: Told, source: Source) -> list[dict[str, Any]]:
    """One row per method; the module has the schema."""
    harmful, rows = np.array([p.harmful for p in source.prompts]), []
    base = told.scores[methods.PLAIN]
    for method, seeds in told.scores.items():
        family, at = told.kinds[method]
        row: dict[str, Any] = {"model": name, "method": method, "family": family, "at": float(at)}
        every = {k: np.mean([x[k] for x in seeds], 0) for k in seeds[0]}
        row |= scores.by_group(every, harmful)
        for label, (measure, group) in primary(told).items():
            chosen = harmful == group
            if chosen.any():
                row |= _compared(label, measure, seeds, base, chosen)
        rows.append(row)
    return rows


def _compared(
    label: str,
    measure: str,
    seeds: Sequence[Mapping[str, np.ndarray]],
    base: Sequence[Mapping[str, np.ndarray]],
    chosen: np.ndarray,
) -> dict[str, Any]:
    """A primary measure of one method with intervals, and against the plain safe model."""
    values = np.stack([x[measure][chosen] for x in seeds])  # [seeds, N, S]
    plain = np.stack([x[measure][chosen] for x in base])
    by_prompt = values.mean((0, 2))
    low, high = stats.stratified_bootstrap_ci(by_prompt, np.mean)
    gain = analysis.paired_bootstrap(plain.mean((0, 2)), by_prompt)
    turned = analysis.mcnemar(plain[..., 0].ravel() > 0.5, values[..., 0].ravel() > 0.5)
    return {
        label: float(by_prompt.mean()),
        f"{label}_low": low,
        f"{label}_high": high,
        f"{label}_per_seed": values.mean((1, 2)).tolist(),
        f"{label}_gain": gain.mean,
        f"{label}_gain_low": gain.low,
        f"{label}_gain_high": gain.high,
        f"{label}_gain_p": gain.p,
        f"{label}_mcnemar_p": turned.p,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is printed of the summary's rows."""

    def cells(row: Mapping[str, Any], label: str) -> dict[str, Any]:
        if label not in row:
            return {}
        gain = f"{row[f'{label}_gain']:+.3f}"
        span = f"{row[f'{label}_gain_low']:+.3f} to {row[f'{label}_gain_high']:+.3f}"
        return {
            label: round(row[label], 3),
            f"{label} gain (95%)": f"{gain} ({span})",
            f"{label} McNemar p": row[f"{label}_mcnemar_p"],
        }

    return [
        {"method": row["method"]}
        | cells(row, "help")
        | cells(row, "safety")
        | {"nll": round(row.get("benign_nll", row.get("harmful_nll", np.nan)), 2)}
        for row in rows
    ]


def categories(told: Told, source: Source, experiment: Experiment) -> list[dict[str, Any]]:
    """Compliance by category, before and after, with p values adjusted for their number (Holm)."""
    kinds = list(dict.fromkeys(p.category for p in source.prompts))
    main = methods.main_name(experiment.decoding)
    rows, found = [], []
    for kind in kinds:
        chosen = np.array([p.category == kind for p in source.prompts])
        before, after = (
            np.stack([x["compliance"][chosen] for x in told.scores[method]])
            for method in (methods.PLAIN, main)
        )
        test = analysis.mcnemar(before[..., 0].ravel() > 0.5, after[..., 0].ravel() > 0.5)
        found.append(test.p)
        rows.append(
            {
                "category": kind,
                "prompts": int(chosen.sum()),
                "complied before": float(before.mean()),
                "after": float(after.mean()),
            }
        )
    adjusted = analysis.holm(found)
    return [row | {"McNemar p (Holm)": float(p)} for row, p in zip(rows, adjusted, strict=True)]


def before_and_after(told: Told, source: Source, experiment: Experiment, count: int = 4) -> str:
    """A table of answers that people can read, harmless and harmful prompts in turn."""
    main = methods.main_name(experiment.decoding)
    before, after = (told.first[method].texts for method in (methods.PLAIN, main))
    rows = []
    for group in (False, True):
        chosen = [n for n, p in enumerate(source.prompts) if p.harmful == group][:count]
        rows += [
            {
                "prompt": _short(source.prompts[n].text),
                "": "harmful" if group else "benign",
                "before": _short(before[n][0]),
                "after": _short(after[n][0]),
            }
            for n in chosen
        ]
    return tables.text_table(rows)


def _short(text: str, most: int = 48) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 3]}..."
