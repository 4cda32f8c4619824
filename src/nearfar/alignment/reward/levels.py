"""MAPL's data: one response, or a pair of them, under two prompts that differ in checkable instructions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from nearfar.alignment.reward.instructions import Instruction, InstructionKind
from nearfar.errors import UsageError

Instructions = tuple[Instruction, ...]

_TRIES = 20


@dataclass(frozen=True)
class PromptPair:
    """A response of row ``row`` of the data and two sets of instructions: it follows ``better`` more than ``worse``.

    ``side``: 0 where it is the row's chosen response, 1 where it is the rejected one.
    """

    row: int
    side: int
    better: Instructions
    worse: Instructions


@dataclass(frozen=True)
class GapPair:
    """Two sets of instructions for the responses of row ``row``: ``wide`` speaks more for the chosen one than
    ``narrow`` does."""

    row: int
    wide: Instructions
    narrow: Instructions


def prompt_pairs(
    responses: Sequence[tuple[str, str]],
    kinds: Sequence[InstructionKind],
    *,
    each: int = 1,
    sizes: tuple[int, int] = (1, 4),
    seed: int = 0,
) -> list[PromptPair]:
    """The intra-sample pairs of MAPL: the response is held fixed, and its prompts are compared (Sun et al., 2025).

    For a response of ``(chosen, rejected)`` as many kinds are drawn for both prompts, of ``sizes`` (default 1 to 4).
    Either it meets all instructions of the better prompt and not all of the worse, or it meets some of the better
    (one at least) and none of the worse. Both prompts have as many instructions, of the same kinds, and both responses
    of a row take part, so that neither the presence of an instruction nor the response's quality tells which prompt is
    better. One that stands in both says nothing, and is drawn anew where its kind has others.

    ``each``: pairs made for each row, default 1; where an instruction cannot be drawn a pair is left out. Raises
    :class:`~nearfar.errors.UsageError` for no kinds or sizes that do not fit.
    """
    least, most = _sizes(sizes, kinds)
    random = Random(seed)
    found: list[PromptPair] = []
    for row, pair in enumerate(responses):
        for _ in range(each):
            side = random.randrange(2)
            made = _two_prompts(pair[side], random.sample(list(kinds), random.randint(least, most)), random)
            if made is not None:
                found.append(PromptPair(row, side, *made))
    return found


def gap_pairs(
    responses: Sequence[tuple[str, str]],
    kinds: Sequence[InstructionKind],
    *,
    each: int = 1,
    sizes: tuple[int, int] = (1, 4),
    seed: int = 0,
) -> list[GapPair]:
    """The inter-sample pairs of MAPL: the preference of one pair of responses is wider under one prompt than another.

    As many instructions are drawn for both prompts, of the same kinds. With ``lead(x)`` the number of instructions of x
    that the chosen response meets less that of the rejected one, the pair is kept where ``lead(wide) > lead(narrow)``.
    The form is reconstructed from the paper's description. Arguments and errors as of :func:`prompt_pairs`.
    """
    least, most = _sizes(sizes, kinds)
    random = Random(seed)
    found: list[GapPair] = []
    for row, (chosen, rejected) in enumerate(responses):
        for _ in range(each):
            drawn_kinds = random.sample(list(kinds), random.randint(least, most))
            for _ in range(_TRIES):
                one, other = (_about_either(chosen, rejected, drawn_kinds, random) for _ in range(2))
                if one is None or other is None:
                    continue
                leads = [met(asked, chosen) - met(asked, rejected) for asked in (one, other)]
                if leads[0] != leads[1]:
                    found.append(GapPair(row, one, other) if leads[0] > leads[1] else GapPair(row, other, one))
                    break
    return found


def met(instructions: Iterable[Instruction], response: str) -> int:
    """How many of the instructions a response meets."""
    return sum(each.met(response) for each in instructions)


def with_instructions(prompt: str, instructions: Iterable[Instruction]) -> str:
    """The prompt with the instructions after it, one a line."""
    return "\n".join([prompt, *(each.text for each in instructions)])


def _two_prompts(
    response: str, kinds: Sequence[InstructionKind], random: Random
) -> tuple[Instructions, Instructions] | None:
    """Instructions that a response follows more, and such that it follows less."""
    count = len(kinds)
    all_met = random.random() < 0.5
    some = random.sample(range(count), random.randint(1, count))
    if all_met:
        flags = [True] * count, [place not in some for place in range(count)]
    else:
        flags = [place in some for place in range(count)], [False] * count
    made = None
    for _ in range(_TRIES):
        better, worse = (_drawn(response, kinds, each, random) for each in flags)
        if better is None or worse is None:
            return None
        made = better, worse
        if not set(better) & set(worse):
            break
    return made


def _about_either(chosen: str, rejected: str, kinds: Sequence[InstructionKind], random: Random) -> Instructions | None:
    """Instructions that one of two responses meets some of."""
    about = (chosen, rejected)[random.randrange(2)]
    return _drawn(about, kinds, [random.random() < 0.5 for _ in kinds], random)


def _drawn(
    response: str, kinds: Sequence[InstructionKind], flags: Sequence[bool], random: Random
) -> Instructions | None:
    """An instruction of each kind that the response meets or not, in random order; None where a kind has none."""
    drawn: list[Instruction] = []
    for kind, flag in zip(kinds, flags, strict=True):
        for _ in range(_TRIES):
            instruction = kind.draw(response, flag, random)
            if instruction is not None:
                drawn.append(instruction)
                break
        else:
            return None
    random.shuffle(drawn)
    return tuple(drawn)


def _sizes(sizes: tuple[int, int], kinds: Sequence[InstructionKind]) -> tuple[int, int]:
    least, most = sizes
    if not kinds or not 1 <= least <= most:
        raise UsageError(f"{len(kinds)} kinds of instructions and prompts of {least} to {most}; one at least is needed")
    return min(least, len(kinds)), min(most, len(kinds))
