"""What the columns of preference data mean: TRL's names as they are, a few common ones, or told by ``--columns``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nearfar.data.columns import Columns, column_parts, listed, option
from nearfar.data.preferences.rows import DEMONSTRATIONS, LISTS, MULTI_REWARD_LISTS, PAIRS, UNPAIRED
from nearfar.errors import DataError, UsageError

KNOWN_LAYOUTS = """\
  pairs: chosen, rejected, with prompt or with a common start; optionally margin, or score_chosen and score_rejected
    (also response_1, response_2, preferred: 1 or 2, by --columns)
  unpaired: prompt, completion, label (true: a good answer); or messages, label
  lists: prompt, responses, scores (higher is better) or ranks (1 is best); or prompt, completion, score
  multi-reward lists: prompt, responses, rewards (for each response names and values, or a list of values), or a column
    reward_NAME for each; or prompt, completion, reward_NAME, ...
  demonstrations: prompt, completion; or messages
  texts are texts, or lists of messages with role and content"""

_PROMPTS = ("instruction", "question", "query", "input", "messages", "conversations")
_COMPLETIONS = ("completion", "response")
_CONVERSATIONS = ("messages", "conversations")
_REWARD = re.compile(r"rewards?[_.](.+)\Z")
_ROLES = (
    "prompt", "input", "system", "chosen", "rejected", "response_1", "response_2", "preferred", "margin",
    "score_chosen", "score_rejected", "completion", "label", "score", "messages", "responses", "scores", "ranks",
    "rewards",
)  # fmt: skip
_TELLING = frozenset(("chosen", "completion", "messages", "responses", "response_1"))
"""The roles without which nothing is a preference."""
# The roles each kind needs, the first that fits counts; and those it may have.
_NEEDED: tuple[tuple[str, frozenset[str]], ...] = (
    (PAIRS, frozenset(("chosen", "rejected"))),
    (PAIRS, frozenset(("prompt", "response_1", "response_2", "preferred"))),
    (MULTI_REWARD_LISTS, frozenset(("prompt", "responses", "rewards"))),
    (MULTI_REWARD_LISTS, frozenset(("prompt", "completion", "rewards"))),
    (LISTS, frozenset(("prompt", "responses", "scores"))),
    (LISTS, frozenset(("prompt", "responses", "ranks"))),
    (UNPAIRED, frozenset(("prompt", "completion", "label"))),
    (UNPAIRED, frozenset(("messages", "label"))),
    (LISTS, frozenset(("prompt", "completion", "score"))),
    (DEMONSTRATIONS, frozenset(("prompt", "completion"))),
    (DEMONSTRATIONS, frozenset(("messages",))),
)
_OPTIONAL = {
    PAIRS: frozenset(("prompt", "input", "system", "margin", "score_chosen", "score_rejected")),
    MULTI_REWARD_LISTS: frozenset(("input", "system", "scores", "ranks", "score")),
}
_ALWAYS_OPTIONAL = frozenset(("input", "system"))


@dataclass(frozen=True)
class PreferenceLayout:
    """What a file's columns mean.

    ``kind``: one of :data:`~nearfar.data.preferences.rows.KINDS`. ``columns``: role -> column of the file; a column may
    lead into the values, as in ``responses.text``. ``rewards``: name of a reward -> its column, where each has its own.
    ``ignored``: columns that are not used.
    """

    kind: str
    columns: dict[str, str]
    rewards: dict[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def parse_preference_columns(columns: Columns | None) -> dict[str, str] | None:
    """The user's ``--columns`` as role -> column, or None when there is none.

    ``"prompt=instruction,responses=outputs.text,scores=outputs.rating"``, a list of such parts, or a mapping; rewards
    as ``reward.helpful=helpfulness``. Raises :class:`~nearfar.errors.UsageError` for roles that do not exist or make
    no kind of preferences.
    """
    if columns is None:
        return None
    roles: dict[str, str] = {}
    for given, name in column_parts(columns):
        role = given.casefold()
        if (role not in _ROLES and not _REWARD.match(role)) or not name:
            near = difflib.get_close_matches(role, _ROLES, n=1)
            raise _columns_error(
                f"{given!r} is not something a column can be" + (f"; did you mean {near[0]}?" if near else "")
            )
        if role in roles:
            raise _columns_error(f"{role!r} is given twice")
        roles[role] = name
    _kind_of(roles)
    return roles


def names_preferences(columns: Columns | None) -> bool:
    """Whether a user's ``--columns`` speak of preferences, not of examples to embed."""
    return columns is not None and any(role.casefold() in _TELLING for role, _ in column_parts(columns))


def recognise_preferences(
    names: Sequence[str], where: str, mapping: Mapping[str, str] | None = None
) -> PreferenceLayout:
    """The layout of a file with the columns ``names``; ``mapping`` is what :func:`parse_preference_columns` returned.

    Raises :class:`~nearfar.errors.DataError` naming the columns found and the layouts known where none fits, and with a
    ``--columns`` to copy where several columns could hold the prompt.
    """
    if mapping is not None:
        for role, path in mapping.items():
            if path not in names and path.split(".")[0] not in names:
                near = difflib.get_close_matches(path, names, n=1)
                raise DataError(
                    f"there is no column {path!r} (wanted as {role}); the columns are {listed(names)}",
                    where=where,
                    hint=f"did you mean {role}={near[0]}?" if near else "name one of these columns in --columns",
                )
        return _layout(dict(mapping), names)
    found = {name.strip().casefold(): name for name in names}
    roles: dict[str, str] = {role: found[role] for role in _ROLES if role in found and role not in ("input", "system")}
    roles.update({key: name for key, name in found.items() if _REWARD.match(key)})
    for role, others in (("completion", _COMPLETIONS), ("messages", _CONVERSATIONS)):
        name = next((found[other] for other in others if other in found), None)
        if name is not None:
            roles.setdefault(role, name)
    if "score" not in roles and "reward" in found:
        roles["score"] = found["reward"]
    for unsaid in ("response_1", "response_2", "preferred"):
        roles.pop(unsaid, None)
    paired = {"chosen", "rejected"} <= roles.keys()
    if "prompt" not in roles and (paired or "responses" in roles or ("completion" in roles and "instruction" in found)):
        _find_prompt(roles, found, where)
    if paired or "prompt" in roles:
        roles.pop("messages", None)
    try:
        return _layout(roles, names)
    except UsageError as error:
        raise DataError(
            f"these columns are not known as preferences: {listed(names)}",
            where=where,
            hint=f"say which is which, as in --columns prompt=instruction,chosen=better,rejected=worse\n"
            f"known layouts:\n{KNOWN_LAYOUTS}",
        ) from error


def _find_prompt(roles: dict[str, str], found: Mapping[str, str], where: str) -> None:
    """Enter the column that holds the prompt, where there is one under another name."""
    there = [found[key] for key in _PROMPTS if key in found]
    if len(there) == 1:
        roles["prompt"] = there[0]
    elif there:
        told = {role: name for role, name in roles.items() if role != "messages"}
        hint = f"{option({'prompt': there[0], **told})}"
        if "input" in found and there[0] != found["input"]:
            hint += f"\nif {found['input']!r} goes on where {there[0]!r} ends: "
            hint += option({"prompt": there[0], "input": found["input"], **told})
        raise DataError(f"it is not clear which of {listed(there)} is the prompt", where=where, hint=hint)


def _layout(roles: dict[str, str], names: Sequence[str]) -> PreferenceLayout:
    kind, wanted = _kind_of(roles)
    rewards = {match.group(1): name for role, name in roles.items() if (match := _REWARD.match(role))}
    columns = {role: name for role, name in roles.items() if role in wanted}
    if kind != MULTI_REWARD_LISTS or "rewards" in columns:
        rewards = {}
    used = set(columns.values()) | set(rewards.values())
    used |= {path.split(".")[0] for path in used if path not in names}
    return PreferenceLayout(kind, columns, rewards, tuple(name for name in names if name not in used))


def _kind_of(roles: Mapping[str, str]) -> tuple[str, frozenset[str]]:
    """The kind that ``roles`` make, and those of them that it uses."""
    there = set(roles)
    if any(_REWARD.match(role) for role in roles):
        there.add("rewards")
    for kind, needed in _NEEDED:
        if needed <= there:
            return kind, needed | _OPTIONAL.get(kind, _ALWAYS_OPTIONAL)
    raise _columns_error(f"{', '.join(roles) or 'nothing'} makes no kind of preferences")


def _columns_error(message: str) -> UsageError:
    return UsageError(
        message,
        where="--columns",
        hint=f"write role=column, as in --columns prompt=instruction,chosen=better,rejected=worse\n"
        f"known layouts:\n{KNOWN_LAYOUTS}",
    )
