# SPDX-License-Identifier: Apache-2.0
"""A small model from scratch, in a Hugging Face folder, where no pretrained one is at hand."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import jax

from jaxsafe.core import checks
from jaxsafe.lm import decoder, hf
from jaxsafe.lm.config import DecoderConfig

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2
_MIN_VOCAB = 259  # these and the 256 bytes

# 5.26 million parameters, the size that the benchmarks time (`language_models.md` section 3).
CONFIG = DecoderConfig(
    vocab_size=4096,
    hidden_size=256,
    num_layers=4,
    num_heads=4,
    num_kv_heads=4,
    head_dim=64,
    intermediate_size=688,
    rms_eps=1e-5,
    max_positions=1024,
)

_CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens, any text being expressible.

    BOS is put before texts; the chat template writes `role: content` lines.

    Raises:
      UserError: fewer tokens than bytes and special ones.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    checks.check_range("vocab_size", vocab_size, _MIN_VOCAB)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, BOS_ID)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="left",
    )
    tokenizer.chat_template = _CHAT
    return tokenizer


def make(
    folder: str | pathlib.Path,
    texts: Iterable[str],
    key: jax.Array,
    config: DecoderConfig = CONFIG,
) -> tuple[DecoderConfig, Any, Any]:
    """Writes a folder of a fresh model and of a tokenizer trained on `texts`.

    The vocabulary is what the tokenizer found, where that is less than the config has.

    Returns:
      `(config, params, tokenizer)`. `key` is consumed.
    """
    tokenizer = train_tokenizer(texts, config.vocab_size)
    config = dataclasses.replace(config, vocab_size=len(tokenizer))
    params = decoder.init(key, config)
    save(folder, config, params, tokenizer)
    return config, params, tokenizer


def save(folder: str | pathlib.Path, config: DecoderConfig, params: Any, tokenizer: Any) -> None:
    """Writes a model and its tokenizer as one Hugging Face folder."""
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos")}
    hf.save(folder, config, params, extra=ids | {"eos_token_id": tokenizer.eos_token_id})
    tokenizer.save_pretrained(str(folder))
