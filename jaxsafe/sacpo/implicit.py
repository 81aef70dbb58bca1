# SPDX-License-Identifier: Apache-2.0
"""Which lambda would have met the bound, by the policies that are there (`lambda_solver`).

Answers of the supervised model are scored by the two stages themselves: r = beta log(pi_H / pi_SFT)
and g = beta' log(pi_HS / pi_H). Their labels are the task's own. What is told is how safe each
lambda would make the optimum, which a next run of the second stage at beta / lambda should reach.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsafe.core.checks import UserError
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.sacpo import batches, evaluate, lambda_solver, synthetic
from jaxsafe.sacpo.batches import Lengths
from jaxsafe.sacpo.evaluate import Answer
from jaxsafe.sacpo.experiment import Experiment
from jaxsafe.sacpo.sources import Source
from jaxsafe.sacpo.types import Params


def scores(
    given: Sequence[Answer],
    policies: Sequence[Params],
    temperatures: tuple[float, float],
    experiment: Experiment,
    source: Source,
    config: DecoderConfig,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Implicit rewards, implicit safety and labels `[X, K]` of answers to X prompts, K to each.

    Args:
      given: answers of the first policy, K to a prompt beside each other.
      policies: SFT, helpful, and helpful then safe.
      temperatures: beta and beta / lambda of the two stages.
      experiment: templates and lengths.
      source: tokenizer.
      config: of the decoder.
    """
    text = experiment.text
    lengths = Lengths(text.max_prompt, text.max_length, text.rule)
    # The decoded text of an answer begins with the space that the demonstrations begin with.
    rows = [(a.prompt, a.text or " ") for a in given]
    data = batches.encode(rows, source.tokenizer, text.template, lengths).data
    sums = [evaluate.pair_sums(params, data, config).log_probs[:, 0] for params in policies]
    r = lambda_solver.implicit_scores(sums[1], sums[0], temperatures[0])
    g = lambda_solver.implicit_scores(sums[2], sums[1], temperatures[1])
    labels = np.array([synthetic.safety(a.prompt, a.text) for a in given])
    shape = (-1, experiment.eval.samples)
    return r.reshape(shape), g.reshape(shape), labels.reshape(shape)


def advice(
    scored: tuple[np.ndarray, np.ndarray, np.ndarray], beta: float, bound: float
) -> dict[str, Any]:
    """A row on the lambda that meets the bound; `refused` tells why where there is none."""
    try:
        choice = lambda_solver.choose(scored[0], scored[1], beta, bound, scored[2])
    except UserError as error:
        return {"refused": str(error)}
    point = choice.point
    return {
        "lambda": choice.multiplier,
        "beta_over_lambda": choice.temperature,
        "expected_safety": point.safety,
        "standard_error": point.standard_error,
        "effective_samples": point.effective_samples,
    }
