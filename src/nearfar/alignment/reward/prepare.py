"""Before the first step of a reward model's training: data read, checked, tokenised and treated, the model made."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nearfar.alignment.adapters import with_adapter
from nearfar.alignment.inputs import RowBatches
from nearfar.alignment.prepare import folder_sha256
from nearfar.alignment.reward.instructions import english, words
from nearfar.alignment.reward.levels import Instructions, gap_pairs, prompt_pairs, with_instructions
from nearfar.alignment.reward.method import Extra
from nearfar.alignment.reward.model import HEAD, reward_model
from nearfar.alignment.reward.settings import ADAPTER_RATE, HEAD_RATE, RATE, RewardSettings
from nearfar.alignment.reward.strength import Treatment, treatment
from nearfar.data.preferences.rows import DEMONSTRATIONS, LISTS, MULTI_REWARD_LISTS, PAIRS, PreferenceRow, Text
from nearfar.data.preferences.tokens import Budget, TokenisedPreferences, TokenisedRow, tokenise
from nearfar.encoders.dropout_rates import without_dropout
from nearfar.encoders.language_model import model_folder
from nearfar.errors import DataError, UsageError
from nearfar.training import processes
from nearfar.training.checked import NOT_OF_THE_RUN
from nearfar.training.resolved import EVALUATIONS, LOG_LINES
from nearfar.training.seeding import seed_everything

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from nearfar.data import DataCheck
    from nearfar.data.preferences import PreferenceSet

VOCABULARY = 500
"""Words of the data that instructions are about."""


@dataclass
class Prepared:
    """All that the training of a reward model consists of."""

    settings: RewardSettings
    data: PreferenceSet
    evaluation: PreferenceSet | None
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    tokens: TokenisedPreferences
    evaluation_tokens: TokenisedPreferences | None
    treated: Treatment
    extra: Extra
    check: DataCheck
    batches: RowBatches
    resolved: dict[str, Any]
    fingerprints: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def run(self) -> str:
        """A digest of everything that decides the weights (hex)."""
        settings = {name: value for name, value in self.settings.to_dict().items() if name not in NOT_OF_THE_RUN}
        for name in ("data", "evaluate", "model", "meta"):
            settings.pop(name)  # where they lie does not matter; their fingerprints do
        prints = {name: entry["sha256"] for name, entry in self.fingerprints.items()}
        resolved = {name: value for name, value in self.resolved.items() if name != "model"}
        return hashlib.sha256(json.dumps([settings, prints, resolved], sort_keys=True).encode()).hexdigest()


def read(
    settings: RewardSettings, data: PreferenceSet | None, evaluation: PreferenceSet | None
) -> tuple[PreferenceSet, PreferenceSet | None]:
    """The pairs to train and to evaluate on, read where they were not given."""
    from nearfar.data.preferences import read_preferences

    def reading(path: Any) -> PreferenceSet:
        return read_preferences(path, columns=settings.columns, max_bad_rows=settings.max_bad_rows)

    if data is None:
        if settings.data is None:
            raise UsageError("there are no preferences to train on", hint="name a file, or give them")
        data = reading(settings.data)
    data = as_pairs(data, pairs_of=settings.pairs_of, reward=settings.reward)
    if evaluation is None and settings.evaluate is not None:
        evaluation = reading(settings.evaluate)
    if evaluation is not None:
        return data, as_pairs(evaluation, pairs_of=settings.pairs_of, reward=settings.reward)
    return data.split(settings.hold_out, settings.seed) if settings.hold_out else (data, None)


def as_pairs(data: PreferenceSet, *, pairs_of: str = "all", reward: str | None = None) -> PreferenceSet:
    """The pairs of ``data``; of lists those of different scores. Raises :class:`DataError` where there are none."""
    if data.kind not in (PAIRS, LISTS, MULTI_REWARD_LISTS):
        raise DataError(
            f"a reward model learns from pairs or lists of responses, and these are {data.kind}",
            where=", ".join(map(str, data.source)) or None,
        )
    pairs = data.pairs_of_lists(pairs_of, reward=reward)
    if not len(pairs):
        raise DataError("there are no two responses of different scores", where=", ".join(map(str, data.source)))
    return pairs


def prepare(
    settings: RewardSettings,
    data: PreferenceSet,
    evaluation: PreferenceSet | None,
    *,
    resolved: Mapping[str, Any] | None = None,
) -> Prepared:
    """Make everything a run needs; every row is read, checked and tokenised here. ``resolved``: of a run that is
    resumed."""
    from nearfar.data.preferences.checks import check_preferences

    if processes.world_size() > 1 and (settings.meta or settings.contrast.startswith("swav")):
        raise UsageError(
            "unlabelled responses and SwAV are for one process",
            where="--meta" if settings.meta else f"--contrast {settings.contrast}",
        )
    seed_everything(settings.seed)
    folder = model_folder(resolved["model"] if resolved is not None else settings.model)
    model, tokenizer = reward_model(folder, device=_device(settings), seed=settings.seed)
    if not settings.dropout:
        without_dropout(model)
    if settings.frozen:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(f"{HEAD}."))
    tokens = tokenised(data, tokenizer, settings)
    check = check_preferences(data, tokens)
    check.raise_on_errors()
    batches = RowBatches(
        len(tokens), settings.batch_size, seed=settings.seed, rank=processes.rank(), processes=processes.world_size()
    )
    extra = Extra(meta_rows=settings.meta_rows)
    prints = {
        "train": {"path": [str(path) for path in data.source], "rows": len(data), "sha256": data.sha256()},
        "tokens": {"path": str(folder), "sha256": tokens.sha256()},
        "model": {"path": str(folder), "sha256": folder_sha256(folder)},
    }
    if settings.mapl:
        extra.compared, extra.gaps = _levels(data, tokens, tokenizer, settings)
    if settings.meta is not None:
        extra.meta, prints["meta"] = _unlabelled(settings, tokenizer)
    if settings.lora:
        model = with_adapter(model, settings, base=str(folder), task="SEQ_CLS")
    return Prepared(
        settings=settings,
        data=data,
        evaluation=evaluation,
        model=model,
        tokenizer=tokenizer,
        tokens=tokens,
        evaluation_tokens=None if evaluation is None else tokenised(evaluation, tokenizer, settings),
        treated=treated(data, tokens, settings),
        extra=extra,
        check=check,
        batches=batches,
        resolved=_resolve(settings, len(batches), str(folder)),
        fingerprints=prints,
    )


def tokenised(
    data: Sequence[PreferenceRow], tokenizer: PreTrainedTokenizerBase, settings: RewardSettings
) -> TokenisedPreferences:
    """The tokens of ``data`` by the settings' budget and chat template."""
    template = None
    if settings.chat_template is not None:
        try:
            template = Path(settings.chat_template).read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"the chat template cannot be read: {error.strerror}", where=settings.chat_template
            ) from error
    budget = Budget(settings.max_prompt or None, settings.max_response or None, settings.side)
    return tokenise(data, tokenizer, budget=budget, chat_template=template)


def treated(data: PreferenceSet, tokens: TokenisedPreferences, settings: RewardSettings) -> Treatment:
    """What is done to the pairs that were tokenised: by their margin column where the settings go by strength."""
    if not settings.by_strength:
        nothing = torch.zeros(len(tokens))
        return treatment(nothing, smoothing=settings.label_smoothing, smoothed="all")
    margins = [data[place].margin for place in tokens.index.tolist()]
    known = [margin for margin in margins if margin is not None]
    if len(known) < len(margins):
        raise DataError(
            f"{len(margins) - len(known):,} of {len(margins):,} pairs have no margin, which says how strong they are",
            where=", ".join(map(str, data.source)) or None,
            hint="nearfar reward strength makes one, or give a column margin",
        )
    return treatment(
        torch.tensor(known),
        flip=settings.flip,
        margin=settings.margin,
        margin_scale=settings.margin_scale,
        smoothing=settings.smoothing,
        smoothed=settings.smoothed,
    )


Two = tuple[TokenisedRow, TokenisedRow]


def _levels(
    data: PreferenceSet, tokens: TokenisedPreferences, tokenizer: PreTrainedTokenizerBase, settings: RewardSettings
) -> tuple[dict[int, list[Two]], dict[int, list[Two]]]:
    """MAPL's prompts compared and gaps compared, by the place of their pair among the tokenised ones."""
    rows = [data[place] for place in tokens.index.tolist()]
    texts = [(last_turn(row.responses[0]), last_turn(row.responses[1])) for row in rows]
    kinds = english(frequent_words([text for pair in texts for text in pair]))
    each, seed = settings.mapl_each, settings.seed
    compared = prompt_pairs(texts, kinds, each=each, seed=seed)
    gaps = gap_pairs(texts, kinds, each=each, seed=seed)
    one = [(p.row, rows[p.row], (rows[p.row].responses[p.side],), (p.better, p.worse)) for p in compared]
    both = [(g.row, rows[g.row], rows[g.row].responses, (g.wide, g.narrow)) for g in gaps]
    return _asked(one, tokenizer, settings), _asked(both, tokenizer, settings)


def _asked(
    made: Sequence[tuple[int, PreferenceRow, tuple[Text, ...], tuple[Instructions, Instructions]]],
    tokenizer: PreTrainedTokenizerBase,
    settings: RewardSettings,
) -> dict[int, list[Two]]:
    found: dict[int, list[Two]] = {}
    if not made:
        return found
    told = [
        PreferenceRow(asking(row.prompt, instructions), responses, where=row.where)
        for _, row, responses, two in made
        for instructions in two
    ]
    tokens = tokenised(told, tokenizer, settings)
    place = {index: number for number, index in enumerate(tokens.index.tolist())}
    for number, (row, *_) in enumerate(made):
        if 2 * number in place and 2 * number + 1 in place:
            found.setdefault(row, []).append((tokens[place[2 * number]], tokens[place[2 * number + 1]]))
    return found


def asking(prompt: Text, instructions: Instructions) -> Text:
    """The prompt with instructions: at its end, or at the end of its last message."""
    if isinstance(prompt, str):
        return with_instructions(prompt, instructions)
    *before, last = prompt
    return (*before, {**last, "content": with_instructions(last["content"], instructions)})


def last_turn(text: Text) -> str:
    """A response as a text: what its last message says."""
    return text if isinstance(text, str) else text[-1]["content"]


def frequent_words(texts: Sequence[str], count: int = VOCABULARY, letters: int = 4) -> list[str]:
    """The words of ``letters`` letters at least that the most texts hold, the most frequent first."""
    seen = Counter(word for text in texts for word in set(words(text)) if len(word) >= letters)
    return [word for word, _ in sorted(seen.items(), key=lambda each: (-each[1], each[0]))[:count]]


def _unlabelled(
    settings: RewardSettings, tokenizer: PreTrainedTokenizerBase
) -> tuple[Sequence[TokenisedRow], dict[str, Any]]:
    from nearfar.data.preferences import read_preferences

    assert settings.meta is not None
    data = read_preferences(settings.meta, columns=settings.columns, max_bad_rows=settings.max_bad_rows)
    if data.kind == DEMONSTRATIONS or min(len(row.responses) for row in data) < 2:
        raise DataError(
            "responses are put further apart, so each prompt needs at least two", where=settings.meta, hint="give lists"
        )
    tokens = tokenised(data, tokenizer, settings)
    fewest = min(len(row.responses) for row in tokens)
    cut = [TokenisedRow(row.prompt, row.responses[:fewest], row.cut_prompt, row.cut[:fewest]) for row in tokens]
    return cut, {"path": settings.meta, "rows": len(data), "sha256": data.sha256()}


def _resolve(settings: RewardSettings, per_epoch: int, folder: str) -> dict[str, Any]:
    epochs = settings.epochs if settings.epochs is not None else 1.0
    steps = settings.steps if settings.steps is not None else max(1, round(epochs * per_epoch))
    rate = settings.learning_rate or (HEAD_RATE if settings.frozen else ADAPTER_RATE if settings.lora else RATE)
    every = settings.evaluate_every or max(1, min(per_epoch, math.ceil(steps / EVALUATIONS)))
    return {
        "steps": steps,
        "batches_per_epoch": per_epoch,
        "learning_rate": rate,
        "meta_rate": settings.meta_rate or rate,
        "warmup_steps": round(settings.warmup * steps),
        "evaluate_every": every,
        "log_every": settings.log_every or max(1, steps // LOG_LINES),
        "model": folder,
    }


def _device(settings: RewardSettings) -> torch.device:
    if settings.device is not None:
        return torch.device(settings.device)
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
