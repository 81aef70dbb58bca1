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
                                 95 % bootstrap intervals over prompts and seeds
  help_per_seed, safety_per_seed
  help_gain, _low, _high, _p     paired difference from the plain safe model over prompts and
  safety_gain, ...               seeds: bootstrap interval and two-sided p
  help_mcnemar_p, safety_mcnemar_p
                                 exact test of the first answers, all seeds' together
  stated                         whether the row is of a comparison stated beforehand
  X@CATEGORY                     of the plain model, the reference and the two of `stated` alone:
                                 means of compliance, refusal and safety over a category's prompts
Rows of a plain safe model have the columns of `diagnosis.columns` too. The comparisons stated
beforehand are those of `stated`: `help_gain` of TSDI, and of its tokens raised most, at the
configured numbers, each read beside its `safety_gain`. Compliance of benign prompts is restored
where the one is above 0 and the other within chance of 0. p values are not adjusted for other rows.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxsafe.core import tables
from jaxsafe.tsdi import analysis, methods, scores
from jaxsafe.tsdi.experiment import Decoding, Experiment
from jaxsafe.tsdi.scores import Answers
from jaxsafe.tsdi.sources import Prompt, Source

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


def stated(how: Decoding) -> tuple[str, ...]:
    """Names of the methods that the statements made beforehand are about."""
    return (methods.main_name(how), *([methods.raised_name(how)] if how.raised else ()))


def by_category(values: Mapping[str, np.ndarray], prompts: Sequence[Prompt]) -> dict[str, float]:
    """Means `X@CATEGORY` of compliance, refusal and safety over each category's prompts."""
    found = {}
    for kind in sorted({p.category for p in prompts}):
        chosen = np.array([p.category == kind for p in prompts])
        for name in ("compliance", "refusal", "safety"):
            if name in values:
                found[f"{name}@{kind}"] = float(values[name][chosen].mean())
    return found


def summary(
    name: str, told: Told, source: Source, beforehand: Collection[str] = ()
) -> list[dict[str, Any]]:
    """One row per method, some named beforehand; the module has the schema."""
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
        row["stated"] = method in beforehand
        if method in (methods.PLAIN, methods.REFERENCE, *beforehand):
            row |= by_category(every, source.prompts)
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
    by_prompt = values.mean(2)  # [seeds, N]
    own = analysis.paired_bootstrap(0 * by_prompt, by_prompt)
    gain = analysis.paired_bootstrap(plain.mean(2), by_prompt)
    turned = analysis.mcnemar(plain[..., 0].ravel() > 0.5, values[..., 0].ravel() > 0.5)
    return {
        label: own.mean,
        f"{label}_low": own.low,
        f"{label}_high": own.high,
        f"{label}_per_seed": values.mean((1, 2)).tolist(),
        f"{label}_gain": gain.mean,
        f"{label}_gain_low": gain.low,
        f"{label}_gain_high": gain.high,
        f"{label}_gain_p": gain.p,
        f"{label}_mcnemar_p": turned.p,
    }


def restored(row: Mapping[str, Any]) -> bool | None:
    """Whether benign prompts are complied with more, at a safety within chance of the plain one's.

    None where either was not measured.
    """
    if "help_gain_low" not in row or "safety_gain_high" not in row:
        return None
    return row["help_gain_low"] > 0 and row["safety_gain_high"] >= 0


def verdicts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each model and statement made beforehand, whether it holds; p adjusted by Holm."""
    own = [row for row in rows if row["stated"] and restored(row) is not None]
    adjusted = analysis.holm([row["help_gain_p"] for row in own])

    def gain(row: Mapping[str, Any], name: str) -> str:
        low, high = row[f"{name}_gain_low"], row[f"{name}_gain_high"]
        return f"{row[f'{name}_gain']:+.3f} ({low:+.3f} to {high:+.3f})"

    return [
        {"model": row["model"], "method": row["method"]}
        | {f"{name} gain (95%)": gain(row, name) for name in ("help", "safety")}
        # No resample on the other side of 0 says no more than this.
        | {"help p (Holm)": float(p) if p else f"<{len(own) * 2 / analysis.RESAMPLES:g}"}
        | {"restored": "yes" if restored(row) else "no"}
        for row, p in zip(own, adjusted, strict=True)
    ]


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
    kinds = sorted({p.category for p in source.prompts})
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
        row = {"category": kind, "prompts": int(chosen.sum())}
        row |= {"complied before": float(before.mean()), "after": float(after.mean())}
        if "safety" in source.scorers:
            each = (told.scores[method] for method in (methods.PLAIN, main))
            safe = [float(np.mean([x["safety"][chosen] for x in seeds])) for seeds in each]
            row |= dict(zip(("safe before", "safe after"), safe, strict=True))
        rows.append(row)
    adjusted = analysis.holm(found)
    return [row | {"complied, p (Holm)": float(p)} for row, p in zip(rows, adjusted, strict=True)]


def before_and_after(told: Told, source: Source, experiment: Experiment, count: int = 6) -> str:
    """A table of answers that people can read, of harmless prompts and of harmful ones."""
    heads = ("before", "after", "raised tokens only")
    shown = dict(zip(heads, (methods.PLAIN, *stated(experiment.decoding)), strict=False))
    rows = []
    for group in (False, True):
        chosen = [n for n, p in enumerate(source.prompts) if p.harmful == group]
        for n in _spread(chosen, [source.prompts[n].category for n in chosen], count):
            said = {k: _short(told.first[m].texts[n][0]) for k, m in shown.items()}
            kind = {"": "harmful" if group else "benign"}
            rows.append({"prompt": _short(source.prompts[n].text)} | kind | said)
    return tables.text_table(rows)


def _spread(numbers: Sequence[int], kinds: Sequence[str], count: int) -> list[int]:
    """The first `count` of `numbers` when categories take turns, in their own order."""
    turns: dict[str, int] = {}
    order = []
    for n, kind in zip(numbers, kinds, strict=True):
        turns[kind] = turns.get(kind, 0) + 1
        order.append((turns[kind], n))
    return sorted(n for _, n in sorted(order)[:count])


def _short(text: str, most: int = 40) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 3]}..."
