# SPDX-License-Identifier: Apache-2.0
"""What the binary runs: policies trained in stages, merged, made to answer, and scored.

A policy is named by its stages: `helpful_safe` is `sft`, aligned to help, then to safety. Policies
with a safety stage have one member for each of `ratios`, named `helpful_safe@0.05`.
"""

import dataclasses

from jaxsafe.core import checks
from jaxsafe.core.config import field, leaves
from jaxsafe.core.config import validate as validate_bounds
from jaxsafe.lm import hf_config, tiny, tokenizer
from jaxsafe.lm.config import DecoderConfig
from jaxsafe.lm.optimiser import Optimiser
from jaxsafe.sacpo import synthetic
from jaxsafe.sacpo.config import Stage, validate_stage
from jaxsafe.sacpo.synthetic import Task

STAGES = ("sft", "helpful", "safe", "merge", "generate", "evaluate", "all")
POLICIES = ("sft", "helpful", "safe", "mixed", "helpful_safe", "safe_helpful")
SOURCES = ("synthetic", "files", "tables")
UNROLLED = 8  # layers at most; a scan compiles sooner, and a CPU runs it a fifth slower


@dataclasses.dataclass(frozen=True)
class Model:
    """The decoder: a Hugging Face folder, or a Llama from scratch of these sizes."""

    folder: str = field("", "Hugging Face folder to start from; empty: from scratch.")
    vocab_size: int = field(512, "Tokens of the tokenizer trained for it, at most.", low=259)
    hidden_size: int = field(64, "Width.", low=2)
    layers: int = field(2, "Layers.", low=1)
    heads: int = field(4, "Query heads.", low=1)
    kv_heads: int = field(4, "Key and value heads.", low=1)
    intermediate_size: int = field(172, "Width of the perceptron.", low=1)
    dtype: str = field(
        "float32", "Of the computation; weights are float32.", choices=("float32", "bfloat16")
    )
    remat: str = field(
        "none", "What the backward pass computes anew.", choices=("none", "full", "dots")
    )
    spread: str = field(
        "seeds",
        "What devices share: seeds, a whole model each; or one model's parameters and rows (FSDP).",
        choices=("seeds", "parameters"),
    )
    tensor: int = field(1, "Devices that share each matrix product, if they share parameters.", 1)


@dataclasses.dataclass(frozen=True)
class Files:
    """Preference data from files (`data.preferences` tells their formats)."""

    helpful: str = field("", "Pairs by helpfulness.")
    safe: str = field("", "Pairs by safety; empty: those of `helpful`, if they tell both.")
    test: str = field("", "Further pairs, by safety if they tell both: scored, none is learnt.")
    sft: str = field("", "prompt, completion, label rows, desirable ones learnt; empty: chosen.")
    prompts: str = field("", "JSON of {prompt} objects to answer; empty: held-out prompts.")
    held_out: float = field(0.1, "Share of prompts held out.", low=0.0, high=0.9)
    max_rows: int = field(0, "Rows read of each file, from its start; 0: all.", low=0)


@dataclasses.dataclass(frozen=True)
class Text:
    """From text to tokens."""

    template: str = field(
        synthetic.TEMPLATE, "What a prompt becomes: chat, or a text with {input} in it."
    )
    max_prompt: int = field(128, "Tokens that a prompt keeps where a row is too long.", low=2)
    max_length: int = field(512, "Tokens of a row.", low=4)
    rule: str = field(
        "middle",
        "How long rows are cut: middle keeps both ends of the template and the end; trl does not.",
        choices=("middle", "trl"),
    )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How finished policies are scored. Free to change when a run is scored again."""

    samples: int = field(8, "Answers to each held-out prompt.", low=1)
    temperature: float = field(1.0, "Of answers; 0 takes the most probable token.", low=0.0)
    max_new: int = field(16, "Tokens of an answer at most.", low=1)
    bound: float = field(0.9, "b, the safety asked for; E[g] >= b.")
    judge: str = field("", "URL of an OpenAI-compatible endpoint to compare answers; empty: none.")
    judge_model: str = field("gpt-4", "Model to ask there.")
    judge_repeats: int = field(1, "How often each pair is judged in each order.", low=1)


@dataclasses.dataclass(frozen=True)
class Tables:
    """The study on tables, where everything is known."""

    prompts: int = field(5, "X, prompts.", low=1)
    responses: int = field(8, "Y, responses.", low=2)
    beta: float = field(0.5, "Weight of the KL divergence.", low=1e-6)
    pairs: tuple[int, ...] = field(
        (100, 300, 1000, 3000, 10_000, 30_000), "Sampled pairs of each kind.", low=1
    )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Stages to run on one source of data."""

    stage: str = field(
        "all",
        "Go as far as this: sft, helpful and safe train (safe: every policy), merge, generate, "
        "evaluate; all is evaluate. A run goes on with --resume --stage=NEXT.",
        choices=STAGES,
    )
    source: str = field(
        "synthetic", "Where preferences come from; tables: known answers only.", choices=SOURCES
    )
    policies: tuple[str, ...] = field(POLICIES, "What to train.", choices=POLICIES)
    ratios: tuple[float, ...] = field(
        (0.1,), "beta / lambda of the safety stages, each one swept.", low=1e-6
    )
    merges: tuple[float, ...] = field(
        (0.25, 0.5, 0.75), "q of merges of helpful and helpful_safe.", low=0.0, high=1.0
    )
    model: Model = Model()
    text: Text = Text()
    sft: Stage = Stage(loss="sft")
    helpful: Stage = Stage()
    safe: Stage = Stage()
    task: Task = Task()
    files: Files = Files()
    tables: Tables = Tables()
    eval: Evaluation = Evaluation()


def decoder_config(model: Model, vocab_size: int) -> DecoderConfig:
    """The decoder of the model's folder, or of a model from scratch; weights are float32 masters.

    Raises:
      UserError: the folder is no model's that the decoder knows.
    """
    if model.folder:
        found = hf_config.read(model.folder)
        return dataclasses.replace(
            found,
            dtype=model.dtype,
            param_dtype="float32",
            remat=model.remat,
            scan_layers=found.num_layers > UNROLLED,
        )
    return dataclasses.replace(
        tiny.CONFIG,
        vocab_size=vocab_size,
        hidden_size=model.hidden_size,
        num_layers=model.layers,
        num_heads=model.heads,
        num_kv_heads=model.kv_heads,
        head_dim=model.hidden_size // model.heads,
        intermediate_size=model.intermediate_size,
        dtype=model.dtype,
        remat=model.remat,
        scan_layers=model.layers > UNROLLED,
    )


_SFT = Stage(
    loss="sft", epochs=6, batch_size=64, optimiser=Optimiser(learning_rate=3e-3, warmup_ratio=0.05)
)
_ALIGN = Stage(epochs=4, batch_size=64, optimiser=Optimiser(learning_rate=3e-4, warmup_ratio=0.05))
# Scores reach 4, so a beta of 1 asks for log-ratios that a small policy can take on.
_DEMO = Experiment(
    sft=_SFT,
    helpful=dataclasses.replace(_ALIGN, temperature=1.0),
    safe=_ALIGN,
    ratios=(0.25,),
    text=Text(max_prompt=30, max_length=48),
)
_SEVEN_B = Optimiser(learning_rate=2e-5, warmup_ratio=0.03)

PRESETS = {
    "demo": _DEMO,
    # Tuned on seed 100: at twice the rate the helpful stage ends at 0.64 where it could be 0.82.
    "study": dataclasses.replace(
        _DEMO,
        sft=dataclasses.replace(
            _SFT, epochs=3, optimiser=Optimiser(learning_rate=1e-3, warmup_ratio=0.05)
        ),
        helpful=dataclasses.replace(_ALIGN, epochs=2, temperature=1.0),
        safe=dataclasses.replace(_ALIGN, epochs=2),
        model=Model(hidden_size=160, layers=3, heads=5, kv_heads=5, intermediate_size=448),
    ),
    "known_answers": Experiment(source="tables"),
    "real": Experiment(
        source="files",
        policies=("sft", "helpful", "safe", "helpful_safe", "safe_helpful"),
        merges=(),
        # What such a model writes is not scored.
        eval=Evaluation(samples=1, temperature=0.0),
        model=Model(vocab_size=4096, hidden_size=128, layers=4, intermediate_size=344),
        text=Text(template=tokenizer.ALPACA_BEAVER, max_prompt=64, max_length=160),
        # In parts whose activations stay in a core's cache.
        sft=dataclasses.replace(_SFT, epochs=1, batch_size=32, accumulation=4),
        helpful=dataclasses.replace(_ALIGN, epochs=1, batch_size=32, accumulation=8),
        safe=dataclasses.replace(_ALIGN, epochs=1, batch_size=32, accumulation=8),
    ),
    "paper": Experiment(
        source="files",
        policies=("helpful", "helpful_safe"),
        ratios=(0.1, 0.05, 0.025, 0.01),
        model=Model(
            vocab_size=32_001,
            hidden_size=4096,
            layers=32,
            heads=32,
            kv_heads=32,
            intermediate_size=11_008,
            dtype="bfloat16",
            remat="full",
            spread="parameters",
        ),
        text=Text(template=tokenizer.ALPACA_BEAVER, max_prompt=128, max_length=512),
        helpful=Stage(batch_size=256, accumulation=2, optimiser=_SEVEN_B),
        safe=Stage(batch_size=64, accumulation=2, optimiser=_SEVEN_B),
        eval=Evaluation(samples=1, temperature=0.0, max_new=512),
    ),
}

# What may change when a run goes on or is scored again: how far to go, which policies (whose names
# tell their ratios), and how to score.
_FREE = ("stage", "policies", "ratios", "merges")
RESUMABLE = (*_FREE, *(leaf.path for leaf in leaves(Evaluation(), "eval")))


def validate_experiment(experiment: Experiment) -> None:
    """Raises `UserError` naming field, value and fix."""
    validate_bounds(experiment)
    checks.check_once("policies", experiment.policies)
    checks.check_once("ratios", experiment.ratios)
    for name in ("sft", "helpful", "safe"):
        validate_stage(getattr(experiment, name), f"{name}.")
    files = experiment.files
    if files.helpful and not files.held_out and not files.prompts:
        raise checks.UserError(
            "files.held_out=0 leaves no prompt to answer: raise it, or name files.prompts."
        )
    if experiment.sft.loss != "sft":
        raise checks.UserError(f"sft.loss={experiment.sft.loss!r} is no likelihood: give sft.")
    tokenizer.check_template(experiment.text.template)
    checks.check_range(
        "text.max_prompt", experiment.text.max_prompt, 2, experiment.text.max_length - 2
    )
    model = experiment.model
    if model.hidden_size % (2 * model.heads):
        raise checks.UserError(
            f"model.hidden_size={model.hidden_size} does not give {model.heads} heads an even "
            f"width: give a multiple of {2 * model.heads}."
        )
    if model.spread == "parameters" and experiment.source == "tables":
        raise checks.UserError("model.spread='parameters' has no tables: set source=files.")
    if model.heads % model.kv_heads:
        raise checks.UserError(
            f"model.kv_heads={model.kv_heads} does not divide model.heads={model.heads}: give a "
            "divisor."
        )
