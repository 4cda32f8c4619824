"""Preferences: pairs, thumbs up and down, scored lists and demonstrations, as files hold them and as tokens.

::

    from nearfar.data.preferences import read_preferences, tokenise

    preferences = read_preferences("prefs.jsonl")
    print(preferences.describe())
    tokenised = tokenise(preferences, tokenizer)
    print(check_preferences(preferences, tokenised).text())
"""

from nearfar.data.preferences.checks import check_preferences
from nearfar.data.preferences.reading import is_preferences, read_preferences
from nearfar.data.preferences.rows import KINDS, Message, PreferenceRow, PreferenceSet, Text
from nearfar.data.preferences.tokens import Budget, TokenisedPreferences, TokenisedRow, tokenise, tokenise_prompts
from nearfar.data.preferences.writing import write_preferences

__all__ = [
    "KINDS",
    "Budget",
    "Message",
    "PreferenceRow",
    "PreferenceSet",
    "Text",
    "TokenisedPreferences",
    "TokenisedRow",
    "check_preferences",
    "is_preferences",
    "read_preferences",
    "tokenise",
    "tokenise_prompts",
    "write_preferences",
]
