# SPDX-License-Identifier: Apache-2.0
"""The fields of published preference data, and what a record of each says.

  pku       prompt, response_0, response_1, better_response_id, safer_response_id,
            is_response_0_safe, is_response_1_safe (PKU-SafeRLHF)
  pairs     prompt, chosen, rejected
  ranked    prompt, response: [better, worse]
  judged    instruction, output_1, output_2, preference: 1 or 2 (AlpacaEval); 1.5 is undecided
  hh        chosen, rejected: whole dialogues that differ in the last answer (HH-RLHF)
  labelled  prompt, completion, label: true or false

Each function takes `(place, record)` and yields rows, or None for a pair without a preference; it
raises `UserError` naming the place and the field that is missing or malformed.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from jaxsafe.core.checks import UserError

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


class Pair(NamedTuple):
    """One prompt and two answers to it."""

    prompt: str
    chosen: str
    rejected: str


class Labelled(NamedTuple):
    """One prompt, one answer, and whether that is a desirable one."""

    prompt: str
    completion: str
    desirable: bool


Record = Mapping[str, Any]
Maker = Callable[[str, Record], Iterator[Any]]


def _get(place: str, record: Record, name: str) -> Any:
    if name not in record:
        raise UserError(f"{place}, field {name!r} is missing: add it or remove the record.")
    return record[name]


def _bad(place: str, name: str, value: Any, fix: str) -> UserError:
    text = repr(value)
    text = text if len(text) <= 40 else f"{text[:40]}..."
    return UserError(f"{place}, field {name!r} is {text}: {fix}.")


def _text(place: str, record: Record, name: str) -> str:
    value = _get(place, record, name)
    if not isinstance(value, str):
        raise _bad(place, name, value, "give a text")
    _check_whole(place, name, value)
    return value


def _check_whole(place: str, name: str, value: str) -> None:
    """Refuses half of a surrogate pair, which JSON can write and neither UTF-8 nor a tokenizer."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _bad(place, name, value, "mend its half a character, \\ud800 to \\udfff") from None


def _answer(place: str, record: Record, name: str) -> str:
    value = _text(place, record, name)
    if not value.strip():
        raise _bad(place, name, value, "give an answer that is not empty")
    return value


def _flag(place: str, record: Record, name: str) -> bool:
    value = _get(place, record, name)
    if not (isinstance(value, bool) or (isinstance(value, int) and value in (0, 1))):
        raise _bad(place, name, value, "give true or false")
    return bool(value)


def _pku(place: str, record: Record, winner: str) -> Pair:
    answers = [_answer(place, record, f"response_{i}") for i in (0, 1)]
    chosen = int(_flag(place, record, winner))
    return Pair(_text(place, record, "prompt"), answers[chosen], answers[1 - chosen])


def pku_helpful(place: str, record: Record) -> Iterator[Pair]:
    """The more helpful answer is chosen."""
    yield _pku(place, record, "better_response_id")


def pku_safe(place: str, record: Record) -> Iterator[Pair]:
    """The safer answer is chosen, also of two safe or two unsafe ones (line/sacpo src/util.py)."""
    yield _pku(place, record, "safer_response_id")


def pku_helpful_labels(place: str, record: Record) -> Iterator[Labelled | None]:
    """Both answers, the more helpful one desirable."""
    yield from _both(_pku(place, record, "better_response_id"))


def pku_safe_labels(place: str, record: Record) -> Iterator[Labelled]:
    """Both answers, desirable where they are safe."""
    prompt = _text(place, record, "prompt")
    for i in (0, 1):
        safe = _flag(place, record, f"is_response_{i}_safe")
        yield Labelled(prompt, _answer(place, record, f"response_{i}"), safe)


def pairs(place: str, record: Record) -> Iterator[Pair]:
    """prompt, chosen, rejected."""
    answers = (_answer(place, record, name) for name in ("chosen", "rejected"))
    yield Pair(_text(place, record, "prompt"), *answers)


def ranked(place: str, record: Record) -> Iterator[Pair]:
    """prompt, response: [better, worse].

    Raises:
      UserError: naming place and field, where one is missing or of another kind.
    """
    answers = _get(place, record, "response")
    good = isinstance(answers, list) and len(answers) == 2
    if not good or not all(isinstance(x, str) and x.strip() for x in answers):
        raise _bad(place, "response", answers, "give [better, worse], two texts")
    for answer in answers:
        _check_whole(place, "response", answer)
    yield Pair(_text(place, record, "prompt"), *answers)


def judged(place: str, record: Record) -> Iterator[Pair | None]:
    """instruction, output_1, output_2, preference; answers without text are undecided.

    Raises:
      UserError: as `ranked`.
    """
    answers = [_text(place, record, f"output_{i}") for i in (1, 2)]
    value = _get(place, record, "preference")
    if isinstance(value, bool) or value not in (0, 1, 1.5, 2):
        raise _bad(place, "preference", value, "give 1 or 2, or 1.5 for neither")
    prompt = _text(place, record, "instruction")
    if value not in (1, 2) or not all(answer.strip() for answer in answers):
        yield None
        return
    first = 0 if value == 1 else 1
    yield Pair(prompt, answers[first], answers[1 - first])


def dialogue(place: str, name: str, text: str) -> tuple[str, str]:
    """Splits HH-RLHF's text into the dialogue up to the last answer, and that answer.

    Args:
      place: file and line, for the message.
      name: the field's.
      text: of the field.

    Raises:
      UserError: the text has no turn of each.
    """
    head, mark, answer = text.rpartition(ASSISTANT)
    if not mark or HUMAN not in head:
        raise _bad(place, name, text, "give a dialogue of Human and Assistant turns")
    return head, answer.strip()


def hh(place: str, record: Record) -> Iterator[Pair | None]:
    """chosen, rejected: the prompt is the dialogue before the last answer.

    A few published dialogues part before that; they and empty answers say nothing about one prompt
    and are undecided. A prompt keeps its turns' names, but for the first `Human:` and the last
    `Assistant:`, which a template brings.
    """
    sides = {name: _text(place, record, name) for name in ("chosen", "rejected")}
    (head, chosen), (other, rejected) = (dialogue(place, n, text) for n, text in sides.items())
    if head != other or not (chosen and rejected):
        yield None
        return
    yield Pair(head.removeprefix(HUMAN).strip(), chosen, rejected)


def labelled(place: str, record: Record) -> Iterator[Labelled]:
    """prompt, completion, label."""
    yield Labelled(
        _text(place, record, "prompt"),
        _answer(place, record, "completion"),
        _flag(place, record, "label"),
    )


def _both(pair: Pair | None) -> Iterator[Labelled | None]:
    if pair is None:
        yield None
        return
    yield Labelled(pair.prompt, pair.chosen, True)
    yield Labelled(pair.prompt, pair.rejected, False)


def _as_labels(maker: Callable[[str, Record], Iterator[Pair | None]]) -> Maker:
    def make(place: str, record: Record) -> Iterator[Labelled | None]:
        for pair in maker(place, record):
            yield from _both(pair)

    return make


# What a record must have to be taken for one of a format, the most telling first.
FIELDS = {
    "pku": ("prompt", "response_0", "response_1"),
    "pairs": ("prompt", "chosen", "rejected"),
    "ranked": ("prompt", "response"),
    "judged": ("instruction", "output_1", "output_2", "preference"),
    "labelled": ("prompt", "completion", "label"),
    "hh": ("chosen", "rejected"),
}
PAIRS: dict[str, Maker] = {
    "pku": pku_helpful,
    "pairs": pairs,
    "ranked": ranked,
    "judged": judged,
    "hh": hh,
}
LABELLED: dict[str, Maker] = {
    "pku": pku_safe_labels,
    "labelled": labelled,
    **{name: _as_labels(PAIRS[name]) for name in ("pairs", "ranked", "judged", "hh")},
}
