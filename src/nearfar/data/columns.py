"""What the columns of a file mean: recognised by the names the field uses, or told by ``--columns``, never guessed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nearfar.data.values import shorten
from nearfar.errors import DataError, UsageError

PAIRS, SCORED_PAIRS, LABELLED_TEXTS, TEXTS = "pairs", "scored pairs", "labelled texts", "texts"
DOCUMENTS, CAPTIONS, DOMAINS = "documents", "captions", "domains"
PLAIN_SHAPES = (PAIRS, SCORED_PAIRS, LABELLED_TEXTS, TEXTS)
"""What data are read as where more columns beside the texts are of no use: to evaluate, to search, to classify."""

Columns = str | Sequence[str] | Mapping[str, str]

BLANK_LINE, FILE = "blank-line", "file"
"""What may divide plain text into documents: ``--columns text,document=blank-line``, or ``document=file``."""

KNOWN_SHAPES = """\
  pairs: anchor, positive and optionally negative or negative_1, negative_2, ...
    (also query/positive, query/document, query/passage, query/answer, question/answer; sentence1/sentence2 alone)
  scored pairs: sentence1, sentence2, score (or label; also the query/... names above with score or label)
  labelled texts: text, label
  texts: text
  documents: text, document (which one; its rows together and in order); or document or sentences alone, with a list of
    texts in each row; of a plain text file document=blank-line or document=file, on request
  captions: text, image (numbers, or the path of a .npy file; may be empty)
  domains, on request: text, label (may be empty), domain (two of them)"""

_CERTAIN_PAIRS = (("anchor", "positive"), ("query", "positive"))
_OPEN_PAIRS = (
    ("query", "document"),
    ("query", "passage"),
    ("query", "answer"),
    ("question", "answer"),
    ("sentence1", "sentence2"),
)
_RATINGS = ("score", "scores", "label", "labels", "similarity", "similarity_score")
_NEGATIVE = re.compile(r"negative(?:[_-]?(\d+))?\Z")
# Columns that tell where a row comes from, not how near its two texts are.
_BYSTANDER = re.compile(
    r"(.*[_-])?(id|ids|idx|index|guid|uid|uuid|row|line|url|uri|source|split|lang|language|dataset|domain|date|time|timestamp"
    r"|meta|metadata|title|file|path|docid|qid|pid)\Z|\Z|\(unnamed \d+\)\Z"
)
_LABEL_LIKE = re.compile(r"label|class|categor|topic|intent|sentiment|target|score|rating|stars\b|tag\b|tags\b")
# Names that are not read by themselves, because they need not mean this, but that make a good suggestion.
_SUGGESTED = {
    **dict.fromkeys(("premise", "prompt", "instruction", "summary"), "anchor"),
    **dict.fromkeys(("entailment", "chosen", "response", "pos", "code"), "positive"),
    **dict.fromkeys(("contradiction", "rejected", "neg"), "negative"),
}
_ROLES = {
    **dict.fromkeys(("anchor", "query", "question"), "anchor"),
    **dict.fromkeys(("positive", "document", "passage", "answer"), "positive"),
    **{name: name for name in ("sentence1", "sentence2", "score", "label", "text")},
}
# The columns of each shape, but for those that are hard negatives.
_WANTED = {
    PAIRS: ("anchor", "positive"),
    SCORED_PAIRS: ("sentence1", "sentence2", "score"),
    LABELLED_TEXTS: ("text", "label"),
    TEXTS: ("text",),
    DOCUMENTS: ("text", "document"),
    CAPTIONS: ("text", "image"),
    DOMAINS: ("text", "label", "domain"),
}


@dataclass(frozen=True)
class Layout:
    """What a file's columns mean.

    ``shape``: "pairs", "scored pairs", "labelled texts", "texts", "documents", "captions" or "domains". ``columns``:
    canonical name -> column of the file, in canonical order. ``ignored``: columns of the file that are not used.
    """

    shape: str
    columns: dict[str, str]
    ignored: tuple[str, ...] = ()

    @property
    def lists(self) -> bool:
        """Whether a row is a whole document, a list of its sentences: then one column is both text and document."""
        return self.shape == DOCUMENTS and self.columns["text"] == self.columns["document"]


def text_columns(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the canonical columns ``names`` that hold texts to be embedded."""
    return tuple(name for name in names if name not in ("score", "label", "document", "image", "domain"))


def parse_columns(columns: Columns | None) -> dict[str, str] | None:
    """The user's ``--columns`` as canonical name -> column of the file, or None when there is none.

    Accepts ``"anchor=summary,positive=code"``, a list of such parts, or a mapping. A bare name stands for itself.
    Raises :class:`UsageError` for a role that does not exist or roles that make no shape.
    """
    if columns is None:
        return None
    pairs = column_parts(columns)
    roles: dict[str, str] = {}
    given = {role.strip().casefold() for role, _ in pairs}
    for role, name in pairs:
        canonical = _canonical(role, given)
        if not canonical or not name:
            raise _columns_error(f"{role!r} is not something a column can be", columns)
        if canonical in roles:
            raise _columns_error(f"{canonical!r} is given twice", columns)
        roles[canonical] = name
    if "sentence1" in roles and "label" in roles and "score" not in roles:
        roles["score"] = roles.pop("label")
    if "document" in roles and "text" not in roles:
        roles["text"] = "text" if roles["document"] in (BLANK_LINE, FILE) else roles["document"]
    _shape_of(roles, columns)
    return roles


def column_parts(columns: Columns) -> list[tuple[str, str]]:
    """What a user's ``--columns`` say, as (role, column); a bare name stands for itself."""
    if isinstance(columns, Mapping):
        return [(str(role), str(name)) for role, name in columns.items()]
    parts = [columns] if isinstance(columns, str) else list(columns)
    pairs = []
    for part in (piece for whole in parts for piece in whole.split(",")):
        role, sign, name = part.partition("=")
        pairs.append((role.strip(), name.strip() if sign else role.strip()))
    return pairs


def recognise(
    names: Sequence[str],
    where: str,
    mapping: Mapping[str, str] | None = None,
    *,
    shapes: Iterable[str] | None = None,
    lists: bool = False,
) -> Layout:
    """The :class:`Layout` of a file with the columns ``names``; ``mapping`` is what :func:`parse_columns` returned.

    ``shapes``: those that are wanted. Documents, captions and domains are texts with more columns; they are recognised
    where they are wanted, or, documents and captions, where nothing is said and all other columns tell where a row
    comes from. ``lists``: whether a column may hold lists, so that a row can be a document.

    Raises :class:`DataError` naming the columns found, the shapes known and a ``--columns`` to copy when no shape, or
    more than one, fits.
    """
    wanted = None if shapes is None else frozenset(shapes)
    if mapping is not None:
        return _mapped(names, where, mapping)
    found = {name.strip().casefold(): name for name in names}
    alike = [name for name in names if found[name.strip().casefold()] != name and _is_known(name.strip().casefold())]
    if alike:
        raise DataError(
            f"the columns {listed([alike[0], found[alike[0].strip().casefold()]])} differ in nothing but case",
            where=where,
            hint="rename one of them, or say which is meant with --columns",
        )
    negatives = sorted((key for key in found if _NEGATIVE.match(key)), key=_negative_number)
    pairs = [pair for pair in (*_CERTAIN_PAIRS, *_OPEN_PAIRS) if pair[0] in found and pair[1] in found]
    if len(pairs) + ("text" in found) > 1:
        readings = [_pair_roles(*pair, negatives, found) for pair in pairs]
        readings += [{"text": found["text"]}] if "text" in found else []
        raise DataError(
            f"the columns {listed(names)} can be read in more than one way",
            where=where,
            hint="say which is meant: " + " or ".join(map(option, readings)),
        )
    if pairs:
        return _pair_layout(*pairs[0], negatives, found, names, where)
    if "text" in found:
        return _more_than_texts(found, names, wanted) or _text_layout(found, names, where)
    as_lists = _listed_documents(found, names, wanted) if lists else None
    if as_lists is not None:
        return as_lists
    if not names:
        raise DataError("the rows have no columns", where=where, hint=f"known shapes:\n{KNOWN_SHAPES}")
    raise DataError(
        f"the columns {listed(names)} are not known",
        where=where,
        hint=f"{_advice(names)}\nknown shapes:\n{KNOWN_SHAPES}",
    )


def _pair_roles(first: str, second: str, negatives: Sequence[str], found: Mapping[str, str]) -> dict[str, str]:
    numbered = {f"negative_{number}": found[key] for number, key in enumerate(negatives, 1)}
    return {"anchor": found[first], "positive": found[second], **numbered}


def _pair_layout(
    first: str, second: str, negatives: Sequence[str], found: Mapping[str, str], names: Sequence[str], where: str
) -> Layout:
    """The reading of ``first`` and ``second`` as pairs or, with a rating beside them, as scored pairs."""
    certain = (first, second) in _CERTAIN_PAIRS
    ratings = [] if certain else [key for key in _RATINGS if key in found]
    if len(ratings) == 1 and not negatives:
        return _layout(
            SCORED_PAIRS, {"sentence1": found[first], "sentence2": found[second], "score": found[ratings[0]]}, names
        )
    roles = _pair_roles(first, second, negatives, found)
    layout = _layout(PAIRS, roles, names)
    # A third column may say that some of the pairs are not near at all: taking all as positive would be a guess.
    unclear = [] if certain else [name for name in layout.ignored if not _BYSTANDER.match(name.strip().casefold())]
    if (unclear and not negatives) or len(ratings) > 1:
        scored = {
            "sentence1": found[first],
            "sentence2": found[second],
            "score": found[ratings[0]] if ratings else unclear[0],
        }
        raise DataError(
            f"it is not clear what {listed(unclear)} beside {found[first]!r} and {found[second]!r} means",
            where=where,
            hint=f"if it says how near the two are: {option(scored)}\n"
            f"if every row is a pair of near texts: {option(roles)}",
        )
    return layout


def _text_layout(found: Mapping[str, str], names: Sequence[str], where: str) -> Layout:
    labels = [found[key] for key in ("label", "labels") if key in found]
    if len(labels) == 1:
        return _layout(LABELLED_TEXTS, {"text": found["text"], "label": labels[0]}, names)
    layout = _layout(TEXTS, {"text": found["text"]}, names)
    unclear = [name for name in layout.ignored if _LABEL_LIKE.search(name.casefold())]
    if unclear:
        labelled = {"text": found["text"], "label": unclear[0]}
        raise DataError(
            f"it is not clear whether {listed(unclear)} labels the texts",
            where=where,
            hint=f"if it does: {option(labelled)}; if the texts stand alone: {option({'text': found['text']})}",
        )
    return layout


def _more_than_texts(found: Mapping[str, str], names: Sequence[str], wanted: frozenset[str] | None) -> Layout | None:
    """Texts with the columns of documents, captions or domains, where they are to be read as such."""
    for shape in (DOMAINS, CAPTIONS, DOCUMENTS):
        if not all(key in found for key in _WANTED[shape]):
            continue
        layout = _layout(shape, {key: found[key] for key in _WANTED[shape]}, names)
        if (shape != DOMAINS and _bystanders(layout.ignored)) if wanted is None else shape in wanted:
            return layout
    return None


def _listed_documents(found: Mapping[str, str], names: Sequence[str], wanted: frozenset[str] | None) -> Layout | None:
    """Documents of which each row is one, a list of sentences, where a column says so by its name."""
    name = found.get("sentences", found.get("document"))
    if name is None or (wanted is not None and DOCUMENTS not in wanted):
        return None
    layout = _layout(DOCUMENTS, {"text": name, "document": name}, names)
    others = [other for other in layout.ignored if other != found.get("document")]
    return layout if wanted is not None or _bystanders(others) else None


def _bystanders(names: Iterable[str]) -> bool:
    return all(_BYSTANDER.match(name.strip().casefold()) for name in names)


def _mapped(names: Sequence[str], where: str, mapping: Mapping[str, str]) -> Layout:
    for role, name in mapping.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {role}={near[0]}?" if near else "name one of these columns in --columns"
            if "document" in mapping and list(names) == ["text"]:
                hint = "for plain text: --columns text,document=blank-line, or text,document=file"
            elif role == "document" and name in (BLANK_LINE, FILE):
                hint = f"{name} divides plain text into documents; name the column that says which document a row is of"
            raise DataError(
                f"there is no column {name!r} (wanted as {role}); the columns are {listed(names)}",
                where=where,
                hint=hint,
            )
    negatives = sorted((role for role in mapping if _NEGATIVE.match(role)), key=_negative_number)
    shape = _shape_of(mapping, mapping)
    roles = {role: mapping[role] for role in _WANTED[shape]}
    roles.update({f"negative_{number}": mapping[role] for number, role in enumerate(negatives, 1)})
    return _layout(shape, roles, names)


def _shape_of(roles: Mapping[str, str], columns: Columns) -> str:
    plain = frozenset(role for role in roles if not _NEGATIVE.match(role))
    shape = next((shape for shape, wanted in _WANTED.items() if plain == frozenset(wanted)), None)
    if shape is None or (shape != PAIRS and len(plain) != len(roles)):
        raise _columns_error(f"{', '.join(roles) or 'nothing'} is none of the known shapes", columns)
    return shape


def _canonical(role: str, given: Iterable[str]) -> str | None:
    key = role.strip().casefold()
    if key in ("image", "domain") or _NEGATIVE.match(key):
        return key
    # beside a query a document is what is near it; alone or beside a text it is what sentences stand in
    if key == "sentences" or (key == "document" and not {"anchor", "query", "question"} & set(given)):
        return "document"
    return _ROLES.get(key)


def _is_known(key: str) -> bool:
    return key in _ROLES or key in _RATINGS or _NEGATIVE.match(key) is not None


def _negative_number(name: str) -> int:
    match = _NEGATIVE.match(name)
    return int(match.group(1)) if match and match.group(1) else -1


def _layout(shape: str, roles: dict[str, str], names: Sequence[str]) -> Layout:
    used = set(roles.values())
    return Layout(shape, roles, tuple(name for name in names if name not in used))


def listed(names: Sequence[str]) -> str:
    """The names of columns in one line, the first twelve of them."""
    shown = ", ".join(repr(shorten(name, 60)) for name in names[:12])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 12 else shown


def option(roles: Mapping[str, str]) -> str:
    """A ``--columns`` that can be pasted into a shell."""
    value = ",".join(role if role == name else f"{role}={name}" for role, name in roles.items())
    return f"--columns {value}" if re.fullmatch(r"[\w=,.-]+", value) else f"--columns '{value}'"


def _advice(names: Sequence[str]) -> str:
    """The most helpful thing to say about columns that are not known."""
    keys = {name.strip().casefold(): name for name in names}
    if len(names) == 1 and any(sign in names[0] for sign in ";|\t"):
        sign = next(sign for sign in ";|\t" if sign in names[0])
        return f"the columns seem to be separated by {sign!r}: a .csv file uses commas, a .tsv file tabs"
    if "premise" in keys and "hypothesis" in keys:
        return (
            "premise/hypothesis data has three classes; write each entailed hypothesis as the positive of its premise "
            "(the anchor) and a contradicting one as its negative"
        )
    if "messages" in keys:
        return "this is chat data, to align a language model on; it holds no texts to embed"
    if {"query_id", "query-id", "qid"} & keys.keys() and len(names) < 5:
        return "these look like the judgements of a retrieval set: name the folder that holds it, as a retrieval set"
    if any(len(name) > 60 or len(name.split()) > 5 for name in names):
        return "the first line looks like data, not like the names of columns: put a header line above it"
    example: dict[str, str] = {}
    for key, name in keys.items():
        match = difflib.get_close_matches(key, (*_ROLES, "negative"), n=1, cutoff=0.8)
        role = _SUGGESTED.get(key) or (match[0] if match else None)
        if role:
            example.setdefault(role, name)
    if not any({"anchor", "positive"} <= {_ROLES.get(role) for role in example} or role == "text" for role in example):
        named = [name for key, name in keys.items() if not _BYSTANDER.match(key) and key not in _RATINGS] or list(names)
        rating = next((keys[key] for key in _RATINGS if key in keys), None)
        if len(named) > 1 and rating:
            example = {"sentence1": named[0], "sentence2": named[1], "score": rating}
        elif len(named) > 1:
            example = {"anchor": named[0], "positive": named[1]}
        else:
            example = {"text": named[0], **({"label": rating} if rating and rating != named[0] else {})}
    return f"say which is which, for example {option(example)}"


def _columns_error(message: str, columns: Columns) -> UsageError:
    given = (
        columns
        if isinstance(columns, str)
        else ",".join(columns)
        if not isinstance(columns, Mapping)
        else option(columns)
    )
    return UsageError(
        message,
        where=f"--columns {given}".replace("--columns --columns", "--columns"),
        hint=f"write role=column, as in --columns anchor=summary,positive=code\nknown shapes:\n{KNOWN_SHAPES}",
    )
