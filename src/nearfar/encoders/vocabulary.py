"""The tokenizer of a static encoder, trained on the user's own texts: natural language in any script, and source code.

What a token is:

1. Unicode NFKC, then a space between the parts of a camelCase name (``getHTTPCode`` -> ``get HTTP Code``), then lower
   case.
2. Words: runs of letters with their combining marks (so Devanagari vowel signs stay with their letter), runs of digits
   (``float32`` -> ``float``, ``32``), and each remaining symbol by itself (emoji, currency and mathematical signs
   outside ASCII, ``?`` and ``!``). White space, all other punctuation and the signs of ASCII separate words and are
   dropped: in the mean of a text's vectors they are noise, and leaving them out halves the tokens of source code
   (measured on 36,000 pairs of docstring and function: 87 tokens a function instead of 168, the same retrieval quality
   before and after training).
3. Where words are written without spaces, a word is one character (Chinese, Hiragana; as in multilingual BERT) or one
   written syllable (Thai, Lao, Khmer, Myanmar). Longer pieces would depend on where a passage begins.
4. Byte-pair encoding (Sennrich, Haddow & Birch 2016) inside the words, with the bytes of UTF-8 for characters that the
   training texts do not hold: there is no unknown token that makes unlike texts alike.
"""

from __future__ import annotations

import collections
import json
import unicodedata
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from nearfar.errors import DataError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
UNKNOWN = "[UNK]"
SMALLEST_VOCABULARY = len(BYTES) + 1 + 64
"""The bytes, the unknown token and some letters."""

_LONGEST_WORD = 64
_CAMEL = r"(?<=[\p{Ll}\p{Nd}])(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}(?!s\b)\p{Ll})"
_UNSPACED = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_SPACED = rf"[\p{{L}}&&[^\p{{Han}}\p{{Hiragana}}{_UNSPACED}]]"
_STACKED = r"(?:(?<=[\x{17D2}\x{1039}])\p{L}\p{M}*)*"
_WORD = "|".join(
    (
        rf"{_SPACED}[{_SPACED}\p{{M}}\x{{200C}}\x{{200D}}]{{0,{_LONGEST_WORD - 1}}}",
        r"\p{N}{1,32}",
        r"[\p{Han}\p{Hiragana}]\p{M}*",
        rf"[\x{{E40}}-\x{{E44}}\x{{EC0}}-\x{{EC4}}]?[{_UNSPACED}]\p{{M}}*{_STACKED}",
        r"[?!\x{BF}\x{61F}]",
        r"[^\x00-\x7F\p{L}\p{M}\p{N}\p{P}\p{Z}\p{Cc}\p{Cf}]",
    )
)


def train_tokenizer(texts: Iterable[str], *, vocabulary_size: int = 30_000, least_count: int = 2) -> Tokenizer:
    """Train the tokenizer described above on ``texts`` (a generator is kept in memory; of a list only word counts are).

    ``vocabulary_size`` is an upper bound: pairs of symbols seen fewer than ``least_count`` times are not merged, so
    few texts give a small vocabulary. The result depends on the texts alone (not on their order, threads or a seed).

    Raises :class:`DataError` when there is no text or an item is not text, :class:`UsageError` when the vocabulary is
    smaller than :data:`SMALLEST_VOCABULARY`.
    """
    try:
        import tokenizers  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError("tokenizers", "text") from None
    if vocabulary_size < SMALLEST_VOCABULARY:
        raise UsageError(
            f"a vocabulary of {vocabulary_size:,} is too small", hint=f"use at least {SMALLEST_VOCABULARY}, e.g. 30,000"
        )
    texts = texts if iter(texts) is not texts else list(texts)
    if next(iter(texts), None) is None:
        raise DataError("there is no text to train a tokenizer on", hint="give the encoder at least one text")
    room = vocabulary_size - len(BYTES)
    letters, merges = _trained(texts, room, least_count)
    if len(letters) > room // 2:
        letters, merges = _trained(texts, room + len(letters), least_count)
        letters = _most_frequent(letters, texts, room // 2)
    return _assembled(letters, merges, vocabulary_size)


def checked_texts(texts: Iterable[str], first: int = 0) -> Iterator[str]:
    """Pass on ``texts``; :class:`DataError` names the first item that is not text or cannot be written as UTF-8."""
    for number, text in enumerate(texts, first):
        if not isinstance(text, str):
            raise DataError(f"expected a text, found {type(text).__name__}: {text!r:.80}", where=f"text {number}")
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise DataError(
                    f"the text holds half of a surrogate pair at character {error.start}, which is not Unicode text",
                    where=f"text {number}",
                    hint='clean it with text.encode("utf-8", "replace").decode("utf-8")',
                ) from None
        yield text


def _prepare(tokenizer: Tokenizer) -> None:
    from tokenizers import Regex, normalizers, pre_tokenizers

    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(_CAMEL), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)


def _trained(texts: Iterable[str], size: int, least_count: int) -> tuple[list[str], list[tuple[str, str]]]:
    """The characters of ``texts`` and the merges, in order, that make a vocabulary of ``size``."""
    from tokenizers import Tokenizer, models, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    _prepare(tokenizer)
    # The trainer's own limit on characters breaks ties by the order of a randomly seeded hash table: not used.
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=least_count, special_tokens=[UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(checked_texts(texts), trainer=trainer)
    state = json.loads(tokenizer.to_str())["model"]
    numbers = state["vocab"]
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in state["merges"])
    merges = [(str(left), str(right)) for left, right in pairs]
    letters = [name for name in sorted(numbers, key=numbers.__getitem__) if len(name) == 1]
    return letters, merges


def _most_frequent(letters: list[str], texts: Iterable[str], count: int) -> list[str]:
    """The ``count`` most frequent of ``letters``; the smaller code point wins a tie."""
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update(unicodedata.normalize("NFKC", text).lower())
    return sorted(sorted(letters, key=lambda letter: (-counts[letter], letter))[:count])


def _assembled(letters: list[str], merges: list[tuple[str, str]], size: int) -> Tokenizer:
    """A tokenizer with the unknown token, the 256 bytes, ``letters``, and their merges until ``size`` is reached."""
    from tokenizers import Tokenizer, models

    names = [UNKNOWN, *BYTES, *letters]
    vocabulary = {name: number for number, name in enumerate(names)}
    kept: list[tuple[str, str]] = []
    for left, right in merges:
        if left not in vocabulary or right not in vocabulary:
            continue
        if left + right not in vocabulary:
            if len(vocabulary) >= size:
                break
            vocabulary[left + right] = len(vocabulary)
        kept.append((left, right))
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=kept, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True)
    )
    _prepare(tokenizer)
    return tokenizer
