# SPDX-License-Identifier: Apache-2.0
"""Text to tokens, with the boundary between prompt and completion where it was meant to be.

Prompt and completion are tokenised apart and their ids joined: merges across the boundary would
make a prompt's last token depend on the answer (`language_models.md` trap 10). A prompt has one
BOS where the tokenizer has one to put, and a completion ends with EOS.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxsafe.core import checks
from jaxsafe.core.checks import UserError

CHAT = "chat"  # the tokenizer's own template
ALPACA_BEAVER = "BEGINNING OF CONVERSATION: USER: {input} ASSISTANT:"
Messages = Sequence[Mapping[str, str]]


class Encoded(NamedTuple):
    """A prompt and its completion."""

    prompt: list[int]
    completion: list[int]
    truncated: bool  # whether tokens of either were left out


def load(folder: str | pathlib.Path) -> Any:
    """The tokenizer of a Hugging Face folder, without a look at the network.

    Raises:
      UserError: there is none, or transformers refuses it.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder} has no tokenizer that transformers reads: {reason}.") from error


def check_template(template: str) -> None:
    """Raises `UserError` unless it is `chat` or a text with `{input}` in it, once."""
    if template != CHAT and template.count("{input}") != 1:
        raise UserError(f"template={template!r} must be 'chat', or hold {{input}} once.")


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts BOS before what it is given."""
    bos = tokenizer.bos_token_id
    return bos is not None and list(tokenizer("a")["input_ids"])[:1] == [bos]


def encode_prompt(tokenizer: Any, prompt: str | Messages, template: str = CHAT) -> list[int]:
    """Ids of a prompt, up to where the answer begins.

    Args:
      tokenizer: from `load`.
      prompt: the user's text; or messages `{"role", "content"}`, for the chat template.
      template: `chat`, or a text whose `{input}` the user's text takes.

    Raises:
      UserError: a bad template, messages for a text template, or no chat template.
    """
    check_template(template)
    if template != CHAT:
        if not isinstance(prompt, str):
            raise UserError(f"template={template!r} takes one text: messages need template='chat'.")
        text = template.replace("{input}", prompt)
    else:
        if not getattr(tokenizer, "chat_template", None):
            raise UserError("the tokenizer has no chat template: give template='... {input} ...'.")
        said = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    ids = _plain(tokenizer, text)
    # The chat template may have written BOS itself.
    if adds_bos(tokenizer) and ids[:1] != [tokenizer.bos_token_id]:
        ids = [tokenizer.bos_token_id, *ids]
    return ids


def encode_completion(tokenizer: Any, completion: str, end: bool = True) -> list[int]:
    """Ids of an answer, EOS at its end; raises `UserError` where the tokenizer has no EOS."""
    ids = _plain(tokenizer, completion)
    if not end:
        return ids
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no EOS token: set one, or give end=False.")
    return ids if ids[-1:] == [tokenizer.eos_token_id] else [*ids, tokenizer.eos_token_id]


def truncate(
    prompt: Sequence[int],
    completion: Sequence[int],
    max_prompt: int,
    max_length: int,
    rule: str = "middle",
) -> Encoded:
    """Cuts a row to `max_length` tokens, `max_prompt` of them the prompt's.

    Args:
      prompt: ids, BOS and the template's words included.
      completion: ids, EOS included.
      max_prompt: of a row that is too long, tokens that the prompt may keep.
      max_length: tokens of a row.
      rule: `middle` leaves out the middle of the prompt, so BOS and both ends of the template
        stay, and the end of the completion but for its last token, EOS; `trl` keeps the last
        `max_prompt` tokens of the prompt and the first ones of the completion, as the trainer that
        line/sacpo pins does (`sacpo.md` trap 5).

    Raises:
      UserError: an unknown rule, or no room for a completion.
    """
    checks.check_choice("rule", rule, ("middle", "trl"))
    checks.check_range("max_prompt", max_prompt, 2, max_length - 2)
    prompt, completion = list(prompt), list(completion)
    if len(prompt) + len(completion) <= max_length:
        return Encoded(prompt, completion, False)
    if len(prompt) > max_prompt:
        head = (max_prompt + 1) // 2 if rule == "middle" else 0
        prompt = prompt[:head] + prompt[len(prompt) - (max_prompt - head) :]
    room = max_length - (max_prompt if rule == "trl" else len(prompt))
    if len(prompt) + len(completion) > max_length:
        tail = completion[-1:] if rule == "middle" else []
        completion = completion[: room - len(tail)] + tail
    return Encoded(prompt, completion, True)


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Text of an answer's ids, special tokens left out."""
    return str(tokenizer.decode(list(map(int, ids)), skip_special_tokens=True))
