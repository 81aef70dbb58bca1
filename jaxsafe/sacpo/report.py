# SPDX-License-Identifier: Apache-2.0
"""Merges, answers and scores of finished policies; rows, and a table."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsafe.core import metrics, tables
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.run import Folder
from jaxsafe.lm import hf, hf_config, sharding
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.sacpo import comparisons, evaluate, implicit, merge, pictures, stages
from jaxsafe.sacpo.experiment import STAGES, Experiment
from jaxsafe.sacpo.sources import Source
from jaxsafe.sacpo.types import Params


class Policy(NamedTuple):
    """Something that answers: one model's folder, or two and the powers of their laws."""

    paths: tuple[pathlib.Path, ...]
    mix: tuple[float, ...] = (1.0,)


def finish(
    folder: Folder,
    options: RunOptions,
    experiment: Experiment,
    names: Sequence[str],
    source: Source,
    config: DecoderConfig,
) -> list[dict[str, Any]]:
    """Goes on from trained policies, by name, as far as `experiment.stage` says."""
    for line in source.told:
        folder.say(line)
    reached = STAGES.index(experiment.stage)
    if reached >= STAGES.index("merge"):
        _merge(folder, options, experiment, names)
    if reached < STAGES.index("generate"):
        folder.say(f"models: {folder.models}")
        return []
    rows: dict[str, list[dict[str, Any]]] = {}
    said: dict[str, list[evaluate.Answer]] = {}
    for seed in stages.seeds_of(options):
        held = _policies(folder, experiment, names, seed)
        reference: dict[str, evaluate.Sums] = {}
        for name, policy in held.items():
            # One policy at a time is in memory.
            models = [_read(path, experiment) for path in policy.paths]
            given = _answer(folder, name, models, policy.mix, experiment, source, config, seed)
            said.setdefault(name, []).extend(given)
            row = {"policy": name, "seed": seed} | _scores(given, experiment)
            sums = _sums(models[0], source, config) if len(models) == 1 else None
            reference = sums if name == "sft" and sums else reference
            row |= _pairs(name, sums, source, reference)
            rows.setdefault(name, []).append(row)
        if experiment.source == "synthetic":
            _advise(folder, seed, experiment, held, said, source, config)
    if reached < STAGES.index("evaluate"):
        folder.say(f"answers: {folder.models}/POLICY/seedN/answers.jsonl")
        return []
    for name in rows:
        metrics.append(folder.evals, rows[name])
    known = experiment.source == "synthetic"
    bound = experiment.eval.bound if known else None
    judged = comparisons.against(said, "sft", comparisons.judges(experiment), experiment.eval)
    found = [
        evaluate.summary(name, rows[name], bound)
        | {k: v for by in judged for k, v in by[name].items()}
        for name in rows
    ]
    folder.say("\n" + tables.text_table(table(found)))
    for by in judged:
        folder.say("\n" + tables.text_table(comparisons.table(by)))
    if known:
        folder.say(f"picture: {pictures.pareto(folder.plots / 'pareto.png', found, bound)}")
    return found


def _advise(
    folder: Folder,
    seed: int,
    experiment: Experiment,
    held: Mapping[str, Policy],
    said: Mapping[str, Sequence[evaluate.Answer]],
    source: Source,
    config: DecoderConfig,
) -> None:
    """Tells which lambda the policies of one seed advise for the bound."""
    safest = f"helpful_safe@{min(experiment.ratios):g}"
    if not {"sft", "helpful", safest} <= set(held):
        return
    given = said["sft"][-len(source.prompts) * experiment.eval.samples :]
    beta, bound = experiment.helpful.temperature, experiment.eval.bound
    scored = implicit.scores(
        given,
        [_read(held[name].paths[0], experiment) for name in ("sft", "helpful", safest)],
        (beta, min(experiment.ratios)),
        experiment,
        source,
        config,
    )
    told = implicit.advice(scored, beta, bound)
    text = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else v for k, v in told.items())
    folder.say(f"seed {seed}, for safety {bound:g} from answers of sft: {text}")


def _merges(experiment: Experiment, names: Sequence[str]) -> list[tuple[str, str, str, float]]:
    """(name, helpful, other, q) of weight merges: P-SACPO's, and the naive ones."""
    found = []
    for q in experiment.merges:
        for kind, second in (("p_sacpo", "helpful_safe"), ("naive", "safe")):
            for other in names:
                if "helpful" in names and other.startswith(f"{second}@"):
                    ratio = other.partition("@")[2]
                    found.append((f"{kind}@{ratio}:{q:g}", "helpful", other, q))
    return found


def _merge(
    folder: Folder, options: RunOptions, experiment: Experiment, names: Sequence[str]
) -> None:
    """Writes the merged models' folders, tensor by tensor."""
    for name, one, other, q in _merges(experiment, names):
        for seed in stages.seeds_of(options):
            a, b = (stages.place(folder.models, x, seed) for x in (one, other))
            merge.folders(a, b, q, stages.place(folder.models, name, seed))


def _policies(
    folder: Folder, experiment: Experiment, names: Sequence[str], seed: int
) -> dict[str, Policy]:
    """Every policy of one seed: trained, merged by weights, merged by laws."""
    paths = {name: stages.place(folder.models, name, seed) for name in names}
    if experiment.model.folder and "sft" not in paths:
        paths = {"sft": pathlib.Path(experiment.model.folder)} | paths
    found = {name: Policy((path,)) for name, path in paths.items()}
    for name, first, other, q in _merges(experiment, names):
        found[name] = Policy((stages.place(folder.models, name, seed),))
        if name.startswith("p_sacpo"):
            law = name.replace("p_sacpo", "geometric")
            found[law] = Policy((paths[first], paths[other]), (1 - q, q))
    return found


def _read(path: pathlib.Path, experiment: Experiment) -> Params:
    """A policy's parameters; over all devices, in the dtype of the computation, if it is large."""
    if experiment.model.spread == "seeds":
        return hf.load(path, dtype="float32")[1]
    mesh = sharding.make_mesh(tensor=experiment.model.tensor)
    where = sharding.param_shardings(hf_config.read(path), mesh)
    return hf.load(path, where, experiment.model.dtype)[1]


def _answer(
    folder: Folder,
    name: str,
    models: Sequence[Params],
    mix: tuple[float, ...],
    experiment: Experiment,
    source: Source,
    config: DecoderConfig,
    seed: int,
) -> list[evaluate.Answer]:
    """Answers the prompts, and keeps the answers beside the model."""
    given = evaluate.answers(
        models,
        config,
        source.tokenizer,
        source.prompts,
        source.prompt_ids,
        experiment.eval,
        # The same draws for every policy.
        jax.random.fold_in(jax.random.key(seed), 1),
        mix,
    )
    path = stages.place(folder.models, name, seed) / "answers.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(a._asdict()) + "\n" for a in given), encoding="utf-8")
    return given


def _scores(given: Sequence[evaluate.Answer], experiment: Experiment) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if experiment.source == "synthetic":
        found |= evaluate.programmatic(given)
    return found | {"words": float(np.mean([len(a.text.split()) for a in given]))}


def _sums(params: Params, source: Source, config: DecoderConfig) -> dict[str, evaluate.Sums]:
    return {
        kind: evaluate.pair_sums(params, pairs, config) for kind, pairs in source.held_out.items()
    }


def _pairs(
    name: str,
    sums: Mapping[str, evaluate.Sums] | None,
    source: Source,
    reference: Mapping[str, evaluate.Sums],
) -> dict[str, Any]:
    """Implicit accuracies against SFT and likelihoods; of laws mixed at decoding there are none."""
    found: dict[str, Any] = {}
    for which in source.held_out:
        own, base = (x.get(which) if x else None for x in (sums, reference))
        accuracy = None
        if own is not None and base is not None and name != "sft":
            accuracy = evaluate.implicit_accuracy(own, base)
        likelihood = None if own is None else evaluate.nll(own)
        found |= {f"{which}_accuracy": accuracy, f"{which}_nll": likelihood}
        lengths = np.asarray(source.held_out[which].completion).sum(-1)
        found[f"{which}_longer"] = evaluate.longer(lengths)
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is printed of the summary's rows."""

    def cell(row: Mapping[str, Any], name: str) -> Any:
        value = row.get(name)
        if value is None:
            return "-"
        if f"{name}_low" in row:
            return f"{value:.3f} ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})"
        return f"{value:.3f}"

    names = [n for n in rows[0] if n != "policy" and f"{n}_per_seed" in rows[0]]
    met = "meets_bound" in rows[0]
    return [
        {"policy": row["policy"]}
        | {name.replace("_", " "): cell(row, name) for name in names}
        | ({"seeds that keep the bound": row["meets_bound"]} if met else {})
        for row in rows
    ]
