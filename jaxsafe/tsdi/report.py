# SPDX-License-Identifier: Apache-2.0
"""Answers of finished estimates by every method: scores, tables and pictures (`compare`)."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsafe import lm
from jaxsafe.core import metrics, tables
from jaxsafe.core.flags import RunOptions
from jaxsafe.core.run import Folder
from jaxsafe.tsdi import (
    analysis,
    bias,
    compare,
    diagnosis,
    methods,
    models,
    pictures,
    scores,
    stages,
    table_file,
)
from jaxsafe.tsdi.compare import Told
from jaxsafe.tsdi.experiment import Experiment
from jaxsafe.tsdi.sources import Source
from jaxsafe.tsdi.types import Pair, State, Table


def finish(
    folder: Folder,
    options: RunOptions,
    experiment: Experiment,
    source: Source,
    results: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Answers with every method, scores, compares, prints and draws; returns the rows."""
    names = [name for name in results if name.startswith(stages.stage_name(""))]
    rows: list[dict[str, Any]] = []
    every: dict[str, Told] = {}
    for stage in names:
        name = stage.removeprefix(stages.stage_name(""))
        states = results[stage]
        seeds = range(options.seed, options.seed + options.num_seeds)
        each = [jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), states) for i in range(len(seeds))]
        _tell_bias(folder, experiment, source, name, each)
        told = _answers(folder, experiment, source, name, dict(zip(seeds, each, strict=True)))
        every[name] = told
        own = compare.summary(name, told, source, compare.stated(experiment.decoding))
        rows += own
        folder.say(f"\n{name}: {len(source.prompts)} prompts, {len(seeds)} seeds")
        folder.say(tables.text_table(compare.table(own)))
        folder.say("\n" + tables.text_table(compare.categories(told, source, experiment)))
        folder.say("\n" + compare.before_and_after(told, source, experiment))
        pictures.sweeps(folder.plots, name, told.scores, told.kinds, source.prompts)
    if rows:
        _tell_all(folder, source, every, rows)
        folder.say(f"pictures: {pictures.pareto(folder.plots / 'pareto.png', rows).parent}")
    return rows


def _tell_all(
    folder: Folder,
    source: Source,
    every: Mapping[str, Told],
    rows: list[dict[str, Any]],
) -> None:
    """Compares the models, adds what is found to their rows, and tells what was restored."""
    found = diagnosis.columns(every, source)
    for row in rows:
        if row["method"] == methods.PLAIN:
            row |= found[row["model"]]
    if len(every) > 1:
        lines, kinds = diagnosis.tables(rows)
        folder.say("\nways of safety training, growth over the first of them")
        folder.say(tables.text_table(lines))
        folder.say("\n" + tables.text_table(kinds))
        pictures.diagnosis(folder.plots / "diagnosis.png", rows)
    verdicts = compare.verdicts(rows)
    if verdicts:
        folder.say("\nis compliance restored at a safety loss within chance?")
        folder.say(tables.text_table(verdicts))


def _tell_bias(
    folder: Folder, experiment: Experiment, source: Source, name: str, states: Sequence[State]
) -> None:
    """Prints and draws what the bias looks like."""
    config = experiment.bias
    if not config.positions:
        return
    each = [analysis.by_position(state, config) for state in states]
    folder.say(f"\n{name}: bias by position, first seed")
    folder.say(tables.text_table(each[0]))
    token = source.tokenizer.convert_ids_to_tokens
    top = analysis.top_tokens(states[0], config, 0, lambda i: repr(token([i])[0]), 5)
    folder.say("\nmost shifted tokens of the first position")
    folder.say(tables.text_table(top))
    pictures.positions(folder.plots / f"bias_{name}.png", name, each)


def _variants(experiment: Experiment, source: Source, pair: Pair, seed: int) -> dict[str, Table]:
    """Tables estimated in other ways."""
    base, other, found = experiment.bias, experiment.sensitivity, {}
    changes: dict[str, tuple[dict[str, Any], str]] = {}
    changes |= {f"K {k}": ({"draws": k}, experiment.pool) for k in other.draws}
    changes |= {f"prefix {p}": ({"prefix": p}, experiment.pool) for p in other.prefixes}
    changes |= {f"pool {p}": ({}, p) for p in other.pools}
    changes |= {f"space {s}": ({"space": s}, experiment.pool) for s in other.spaces}
    changes |= {f"shrunk {c:g}": ({"shrinkage": c}, experiment.pool) for c in other.shrinkages}
    decoder = stages.decoder_of(source)
    for name, (change, pool) in changes.items():
        config = dataclasses.replace(base, **change)
        ids = stages.draws_of(source, experiment, config, pair, pool, seed)
        state = models.estimate(
            ids, config, models.of_decoder(decoder), pair, decoder.vocab_size, jax.random.key(seed)
        )
        found[name] = bias.table(state, config)
    return found


def _answers(
    folder: Folder,
    experiment: Experiment,
    source: Source,
    name: str,
    states: Mapping[int, State],
) -> Told:
    """Answers of every method and seed; tables and answers are kept beside the models."""
    told = Told({}, {}, {})
    decoder, how = stages.decoder_of(source), experiment.decoding
    ids = source.prompt_ids()
    harmful = np.array([p.harmful for p in source.prompts])
    for seed, state in states.items():
        both = (stages.read(source, folder, x, seed) for x in (name, experiment.reference))
        pair = Pair(*both)
        own = bias.table(state, experiment.bias)
        made = stages.made_of(source, experiment, pair, seed)
        table_file.save(place(folder, name, seed) / "bias.safetensors", own, made)
        found = stages.chosen_table(source, experiment, pair, seed) or own
        singles = {methods.PLAIN: pair.safe, methods.REFERENCE: pair.reference}
        singles |= {label: make(*pair[::-1]) for label, make in source.extra.items()}
        chosen = methods.methods(
            how,
            experiment.baselines,
            found,
            _variants(experiment, source, pair, seed),
            {label: lm.prepare(params, decoder) for label, params in singles.items()},
            np.array([p.score for p in source.prompts]),
            refusal_ids(source),
        )
        for method in chosen:
            given = scores.answer(method, source, how, jax.random.key(seed))
            values = scores.score(given, source)
            values["nll"] = scores.nll(given, ids, pair.reference, decoder)
            told.scores.setdefault(method.name, []).append(values)
            told.kinds[method.name] = (method.family, method.at)
            told.first.setdefault(method.name, given)
            means = scores.by_group(values, harmful)
            row = {"model": name, "method": method.name, "seed": seed}
            metrics.append(folder.evals, [row | means])
        _save_answers(folder, name, seed, source, told, methods.main_name(how))
    return told


def refusal_ids(source: Source) -> list[int]:
    """First tokens of refusals."""
    encoded = (source.tokenizer(x, add_special_tokens=False)["input_ids"] for x in source.refusals)
    return sorted({int(ids[0]) for ids in encoded})


def place(folder: Folder, name: str, seed: int) -> pathlib.Path:
    """Where a model's table and answers are kept."""
    path = folder.models / name / f"seed{seed}"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _save_answers(
    folder: Folder, name: str, seed: int, source: Source, told: Told, main: str
) -> None:
    given = {label: told.first[label].texts for label in (methods.PLAIN, main)}
    if len(told.scores[main]) > 1:
        return  # of the first seed only
    lines = [
        json.dumps({"prompt": p.text} | {label: texts[n] for label, texts in given.items()})
        for n, p in enumerate(source.prompts)
    ]
    path = place(folder, name, seed) / "answers.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
