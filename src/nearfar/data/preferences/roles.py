"""Whose turn it is: what is wrong with the roles of a prompt and the responses to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nearfar.data.preferences.rows import Message, PreferenceRow

SYSTEM = ("system", "developer")
ANSWERED = ("user", "tool", "function", "ipython")
"""Roles that an answer may follow."""
KNOWN = (*SYSTEM, *ANSWERED, "assistant")


def wrong_roles(row: PreferenceRow) -> Iterator[str]:
    """What is wrong with the roles of ``row``, in words; nothing for plain texts."""
    if not isinstance(row.prompt, str):
        if not row.prompt:
            yield "conversations begin without a prompt"
        elif row.prompt[-1]["role"] == "assistant":
            yield "the prompt ends with the assistant: responses go on with its message"
        elif row.prompt[-1]["role"] in SYSTEM:
            yield "the prompt ends with the system's message: nobody asked anything"
        yield from _turns(row.prompt)
    for response in row.responses:
        if isinstance(response, str):
            continue
        if response and response[-1]["role"] != "assistant":
            yield f"a response ends with the role {response[-1]['role']!r}, not with the assistant"
        elif response and response[0]["role"] != "assistant":
            yield f"a response begins with the role {response[0]['role']!r}, which belongs to the prompt"
        yield from _turns(response)


def _turns(turns: Sequence[Message]) -> Iterator[str]:
    for place, turn in enumerate(turns):
        role = turn["role"]
        if role not in KNOWN:
            yield f"the role {role!r} is not known (there are {', '.join(KNOWN[:3])}, tool, assistant)"
        elif role in SYSTEM and place:
            yield "the system's message is not the first"
        elif place and role == turns[place - 1]["role"] and role in ("user", "assistant"):
            yield f"two messages of the {role} follow each other"
