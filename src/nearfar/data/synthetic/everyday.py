"""Plain English sentences with known meaning: who did what to what, where and when, said in many ways.

::

    from nearfar.data.synthetic.everyday import EverydaySentences

    sentences = EverydaySentences(seed=0)
    first, second, agreement = sentences.pairs(400)
    first[3], second[3], agreement[3]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from nearfar.errors import UsageError

SUBJECTS: tuple[tuple[str, ...], ...] = (
    ("the doctor", "the physician"),
    ("the teacher", "the schoolteacher", "the instructor"),
    ("the child", "the kid", "the youngster"),
    ("the thief", "the burglar", "the robber"),
    ("the lawyer", "the attorney"),
    ("the police officer", "the policeman", "the cop"),
    ("the journalist", "the reporter"),
    ("the farmer", "the peasant"),
    ("the sailor", "the seaman", "the mariner"),
    ("the old woman", "the elderly lady"),
    ("the soldier", "the trooper"),
    ("the scientist", "the researcher"),
    ("the student", "the pupil"),
    ("the tourist", "the holidaymaker", "the sightseer"),
    ("the boss", "the manager", "the supervisor"),
    ("the king", "the monarch"),
)
"""Each group names one person."""

VERBS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "buy": (("buy", "bought", "bought"), ("purchase", "purchased", "purchased")),
    "sell": (("sell", "sold", "sold"), ("flog", "flogged", "flogged"), ("vend", "vended", "vended")),
    "repair": (("repair", "repaired", "repaired"), ("fix", "fixed", "fixed"), ("mend", "mended", "mended")),
    "steal": (("steal", "stole", "stolen"), ("swipe", "swiped", "swiped")),
    "clean": (("clean", "cleaned", "cleaned"), ("wash", "washed", "washed"), ("scrub", "scrubbed", "scrubbed")),
    "paint": (("paint", "painted", "painted"), ("apply paint to", "applied paint to", "coated with paint")),
    "destroy": (("destroy", "destroyed", "destroyed"), ("demolish", "demolished", "demolished")),
    "find": (("find", "found", "found"), ("discover", "discovered", "discovered"), ("spot", "spotted", "spotted")),
    "lose": (("lose", "lost", "lost"), ("mislay", "mislaid", "mislaid"), ("misplace", "misplaced", "misplaced")),
    "write": (("write", "wrote", "written"), ("compose", "composed", "composed"), ("pen", "penned", "penned")),
    "read": (("read", "read", "read"), ("go through", "went through", "gone through")),
    "cook": (("cook", "cooked", "cooked"), ("prepare", "prepared", "prepared")),
    "eat": (("eat", "ate", "eaten"), ("consume", "consumed", "consumed"), ("devour", "devoured", "devoured")),
    "frighten": (("frighten", "frightened", "frightened"), ("scare", "scared", "scared")),
    "feed": (("feed", "fed", "fed"), ("give food to", "gave food to", "given food")),
    "photograph": (
        ("photograph", "photographed", "photographed"),
        ("take a picture of", "took a picture of", "captured in a picture"),
    ),
}
"""Base, past and participle of the words for each action."""

OBJECTS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("a car", "an automobile"), ("buy", "sell", "repair", "steal", "clean", "paint", "find", "photograph")),
    (("a bicycle", "a bike"), ("buy", "sell", "repair", "steal", "clean", "paint", "lose", "find")),
    (("a house", "a home"), ("buy", "sell", "repair", "paint", "destroy", "clean", "photograph")),
    (("a boat", "a ship", "a vessel"), ("buy", "sell", "repair", "steal", "paint", "destroy", "find", "photograph")),
    (("a coat", "a jacket"), ("buy", "sell", "repair", "steal", "clean", "lose", "find")),
    (("a watch", "a wristwatch"), ("buy", "sell", "repair", "steal", "lose", "find")),
    (("a letter", "a note", "a written message"), ("write", "read", "lose", "find", "destroy", "steal")),
    (("a poem", "some poetry", "some verses"), ("write", "read", "lose", "find")),
    (("a novel", "a work of fiction"), ("write", "read", "buy", "sell", "lose", "find")),
    (("a meal", "some food", "a dish"), ("cook", "eat", "buy", "sell", "photograph")),
    (("a cake", "a gateau"), ("cook", "eat", "buy", "sell", "steal", "photograph")),
    (("a stone bridge", "a bridge of stone"), ("repair", "destroy", "paint", "photograph", "find")),
    (("a dog", "a hound"), ("buy", "sell", "steal", "feed", "frighten", "lose", "find", "photograph")),
    (("a horse", "a stallion"), ("buy", "sell", "steal", "feed", "frighten", "find", "clean", "photograph")),
    (("a baby", "an infant"), ("feed", "frighten", "find", "photograph", "clean")),
    (("some money", "some cash"), ("steal", "lose", "find", "destroy")),
)
"""Each group names one thing, beside it what can be done to it."""

PLACES: tuple[tuple[str, ...], ...] = (
    ("in the garden", "in the backyard"),
    ("at the office", "at work", "at the workplace"),
    ("on the beach", "at the seaside", "by the sea"),
    ("in the forest", "in the woods"),
    ("at the railway station", "at the train station"),
    ("in the hospital", "at the clinic"),
    ("at school", "in the classroom"),
    ("in the street", "on the road"),
    ("abroad", "in a foreign country"),
    ("in the mountains", "up in the hills"),
    ("in the city centre", "downtown"),
    ("in a shop", "in a store"),
)

TIMES: tuple[tuple[str, ...], ...] = (
    ("in the morning", "before noon"),
    ("at night", "after dark"),
    ("in winter", "during the cold season"),
    ("in summer", "during the hot months"),
    ("yesterday", "the day before today"),
    ("last week", "seven days ago"),
    ("many years ago", "a long time ago", "decades ago"),
    ("a few minutes ago", "a moment ago", "just now"),
    ("during the war", "while the war was on"),
    ("at the weekend", "on Saturday and Sunday"),
    ("at Christmas", "over the Christmas holidays"),
    ("in the afternoon", "after lunch"),
)

PARTS = ("subject", "action", "object", "place", "time")
FULL = 5.0
"""The agreement of two sentences that say the same."""

_Choice = TypeVar("_Choice")


@dataclass(frozen=True)
class Meaning:
    """What a sentence says: indices of who, what (object) and where and when, the action, and whether it is denied."""

    subject: int
    action: str
    object: int
    place: int
    time: int
    denied: bool = False

    def agreement(self, other: Meaning) -> float:
        """How many of the five :data:`PARTS` are the same, less one (but not below 0) where one denies and the other
        affirms; in [0, 5]."""
        same = sum(getattr(self, part) == getattr(other, part) for part in PARTS)
        return float(max(0, same - (self.denied != other.denied)))


class EverydaySentences:
    """Sentences of a small grammar: sixteen people, actions and things, twelve places and times, each with two or three
    names, in six frames (active, passive, cleft; place or time in front) and three forms of denial.

    The same ``seed`` gives the same sentences.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self._generator = np.random.default_rng(seed)

    def meaning(self) -> Meaning:
        """One at random, affirmed."""
        thing = self._below(len(OBJECTS))
        return Meaning(
            self._below(len(SUBJECTS)),
            self._one_of(OBJECTS[thing][1]),
            thing,
            self._below(len(PLACES)),
            self._below(len(TIMES)),
        )

    def changed(self, meaning: Meaning, count: int) -> Meaning:
        """``meaning`` with ``count`` of its five parts, drawn at random, replaced by others.

        What is done stays possible: a new object takes the action that is kept, a new action suits the object that is.
        """
        parts = set(self._generator.permutation(PARTS)[:count].tolist())
        other = replace(
            meaning,
            subject=self._other(len(SUBJECTS), meaning.subject) if "subject" in parts else meaning.subject,
            place=self._other(len(PLACES), meaning.place) if "place" in parts else meaning.place,
            time=self._other(len(TIMES), meaning.time) if "time" in parts else meaning.time,
        )
        keeps_action = "action" not in parts
        if "object" in parts:
            suited = [
                index
                for index, (_, actions) in enumerate(OBJECTS)
                if index != meaning.object and (meaning.action in actions if keeps_action else True)
            ]
            other = replace(other, object=self._one_of(suited))
        if not keeps_action:
            actions = [action for action in OBJECTS[other.object][1] if action != meaning.action]
            other = replace(other, action=self._one_of(actions))
        return other

    def sentence(self, meaning: Meaning, *, unlike: str = "") -> str:
        """One way to say it, words and frame drawn at random; none of the words that stand in the text ``unlike``."""
        subject, thing, place, time = (
            self._one_of([name for name in group if name.lower() not in unlike.lower()] or list(group))
            for group in (
                SUBJECTS[meaning.subject],
                OBJECTS[meaning.object][0],
                PLACES[meaning.place],
                TIMES[meaning.time],
            )
        )
        forms = VERBS[meaning.action]
        base, past, participle = self._one_of([form for form in forms if not any(map(unlike.count, form))] or forms)
        if meaning.denied:
            active = self._one_of((f"did not {base}", f"never {past}", f"failed to {base}"))
            passive = self._one_of((f"was not {participle}", f"was never {participle}"))
        else:
            active, passive = past, f"was {participle}"
        said = self._one_of(
            (
                f"{subject} {active} {thing} {place} {time}",
                f"{time}, {subject} {active} {thing} {place}",
                f"{place}, {subject} {active} {thing} {time}",
                f"{thing} {passive} by {subject} {place} {time}",
                f"{time}, {thing} {passive} {place} by {subject}",
                f"it was {subject} who {active} {thing} {place} {time}",
            )
        )
        return f"{said[0].upper()}{said[1:]}."

    def pairs(self, count: int) -> tuple[list[str], list[str], list[float]]:
        """``count`` pairs of sentences and their :meth:`Meaning.agreement`.

        None to all five parts differ, equally often each; in a tenth of the pairs both sentences are denied, in a fifth
        one of them. What both say they say in other words, so that words alone tell little. Raises
        :class:`~nearfar.errors.UsageError` for fewer than one pair.
        """
        if count < 1:
            raise UsageError(f"{count} pairs; at least 1 is needed")
        first, second, scores = [], [], []
        for number in self._generator.permutation(count).tolist():
            one = self.meaning()
            other = self.changed(one, number % (len(PARTS) + 1))
            draw = self._generator.random()
            one = replace(one, denied=bool(draw < 0.2))
            other = replace(other, denied=bool(draw < 0.1 or draw > 0.9))
            first.append(self.sentence(one))
            second.append(self.sentence(other, unlike=first[-1]))
            scores.append(one.agreement(other))
        return first, second, scores

    def _below(self, count: int) -> int:
        return int(self._generator.integers(count))

    def _other(self, count: int, than: int) -> int:
        return (than + 1 + self._below(count - 1)) % count

    def _one_of(self, choices: list[_Choice] | tuple[_Choice, ...]) -> _Choice:
        return choices[self._below(len(choices))]
