"""Language models as policies: they answer prompts, and say how probable an answer was."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from nearfar.alignment.body import causal_model
from nearfar.alignment.policy import ResponseScores
from nearfar.alignment.scores import FlatScores, HiddenStates, SharedPrefix, response_scores, supports_shared_prefix
from nearfar.data.preferences.rows import PreferenceRow, Text
from nearfar.data.preferences.tokens import Budget, TokenisedRow, Tokens, tokenise, tokenise_prompts
from nearfar.encoders.encode import evaluating
from nearfar.errors import DataError, UsageError

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

__all__ = [
    "FlatScores",
    "HiddenStates",
    "LanguagePolicy",
    "SampledText",
    "SharedPrefix",
    "response_scores",
    "supports_shared_prefix",
]


class SampledText(str):
    """A sampled response as text, with the tokens that were sampled.

    ``tokens``: int32, the token that ended it included. ``ended``: whether one did, before the limit on tokens.
    """

    tokens: Tokens
    ended: bool

    @classmethod
    def of(cls, text: str, tokens: Tokens, ended: bool) -> SampledText:
        made = cls(text)
        made.tokens, made.ended = tokens, ended
        return made


class LanguagePolicy(nn.Module):
    """A causal language model as a :class:`~nearfar.alignment.policy.Policy`: prompts and responses are texts.

    Prompts may be conversations; a response is a text then too. Scores of responses that the policy sampled are of the
    tokens that it sampled, those of other texts of the tokens that :func:`nearfar.data.preferences.tokenise` makes.

    Arguments:
        model, tokenizer: as :func:`nearfar.encoders.language_model.language_model` gives them; peft's wrapper works.
        temperature: of the policy, > 0, default 1: logits are divided by it, in samples and in scores.
        max_new_tokens: the most tokens of a sampled response, its end included; default 128.
        top_p: in (0, 1], default 1: sample from the likeliest tokens that hold this share alone (scores do not).
        budget: of tokens, default :class:`~nearfar.data.preferences.tokens.Budget`'s.
        shared_prefix: see :func:`response_scores`.
        batch_size: responses that are sampled at once, default 64.

    Raises UsageError for numbers out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        shared_prefix: SharedPrefix = "auto",
        temperature: float = 1.0,
        max_new_tokens: int = 128,
        top_p: float = 1.0,
        budget: Budget | None = None,
        batch_size: int = 64,
    ) -> None:
        super().__init__()
        if temperature <= 0 or max_new_tokens < 1 or not 0 < top_p <= 1 or batch_size < 1:
            raise UsageError(
                "temperature is above 0, max_new_tokens and batch_size are at least 1, top_p is in (0, 1]; got "
                f"{temperature}, {max_new_tokens}, {batch_size} and {top_p}"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.shared_prefix = shared_prefix
        self.temperature, self.max_new_tokens, self.top_p = temperature, max_new_tokens, top_p
        self.budget = Budget() if budget is None else budget
        self.batch_size = batch_size
        self._adapted = True

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Text], count: int, *, generator: torch.Generator | None = None
    ) -> list[list[SampledText]]:
        """``count`` independent responses to each prompt, without dropout. ``generator``: None: torch's own."""
        begun = tokenise_prompts(prompts, self.tokenizer, budget=self.budget)
        order = [prompt for prompt in begun for _ in range(count)]
        made: list[SampledText] = []
        with self._as_meant(), evaluating(self.model), _drawing_from(generator, self._device):
            for start in range(0, len(order), self.batch_size):
                made += self._sampled(order[start : start + self.batch_size])
        return [made[start : start + count] for start in range(0, len(made), count)]

    def scores(
        self, prompts: Sequence[Text], responses: Sequence[Sequence[str]], *, tokens: bool = False
    ) -> ResponseScores:
        """See :class:`~nearfar.alignment.policy.Policy`. Raises :class:`~nearfar.errors.DataError` for a response
        without tokens, ValueError where prompts differ in how many responses they have."""
        rows = self.rows(prompts, responses)
        with self._as_meant():
            found = response_scores(
                self.model, rows, shared_prefix=self.shared_prefix, tokens=tokens, temperature=self.temperature
            )
        return found.grouped()

    def rows(self, prompts: Sequence[Text], responses: Sequence[Sequence[str]]) -> list[TokenisedRow]:
        """Prompts and responses as tokens."""
        begun = tokenise_prompts(prompts, self.tokenizer, budget=self.budget)
        found: list[TokenisedRow | None] = []
        other: list[PreferenceRow] = []
        for prompt, tokens, texts in zip(prompts, begun, responses, strict=True):
            sampled = [text.tokens for text in texts if isinstance(text, SampledText)]
            if len(sampled) == len(texts):
                found.append(TokenisedRow(tokens, tuple(sampled)))
            else:
                found.append(None)
                other.append(PreferenceRow(prompt, tuple(str(text) for text in texts)))
        read = tokenise(other, self.tokenizer, budget=self.budget) if other else []
        if len(read) < len(other):
            raise DataError("a response has no tokens", hint="leave out empty responses")
        rest = iter(read)
        return [next(rest) if row is None else row for row in found]

    def frozen(self) -> LanguagePolicy:
        """The policy as it is now, which is not trained: a reference.

        A copy; of a model with LoRA adapters that change nothing yet the same weights without the adapters.
        """
        made = copy.copy(self)
        made._modules = dict(self._modules)
        if _is_bare(self.model):
            made._adapted = False
        else:
            made.model = copy.deepcopy(self.model).requires_grad_(False)
        return made

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _as_meant(self) -> Any:
        model: Any = self.model
        return nullcontext() if self._adapted else model.disable_adapter()

    def _sampled(self, prompts: Sequence[Tokens]) -> list[SampledText]:
        from transformers import GenerationConfig

        inner: Any = causal_model(self.model)
        longest = max(map(len, prompts))
        ends = _ends(inner, self.tokenizer)
        padding = self.tokenizer.pad_token_id
        padding = min(ends, default=0) if padding is None else padding
        ids = torch.full((len(prompts), longest), padding)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.from_numpy(prompt)
            mask[row, longest - len(prompt) :] = 1
        build: Any = GenerationConfig
        settings = build(
            do_sample=True,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=0,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=sorted(ends) or None,
            pad_token_id=padding,
        )
        # what a model was saved with (a penalty of repetitions, say) would fill in what is not said here
        saved, inner.generation_config = inner.generation_config, settings
        try:
            drawn = inner.generate(ids.to(self._device), attention_mask=mask.to(self._device))
        finally:
            inner.generation_config = saved
        return [self._text(tokens, ends) for tokens in drawn[:, longest:].cpu().numpy().astype(np.int32)]

    def _text(self, tokens: Tokens, ends: frozenset[int]) -> SampledText:
        last = next((place for place, token in enumerate(tokens.tolist()) if token in ends), None)
        kept = tokens if last is None else tokens[: last + 1]
        text = str(self.tokenizer.decode(kept.tolist(), skip_special_tokens=True))
        return SampledText.of(text, kept, last is not None)


def _ends(inner: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end a response, by the tokenizer and by what the model was saved with."""
    named = getattr(inner.generation_config, "eos_token_id", None)
    found = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return frozenset(int(each) for each in found if each is not None)


def _is_bare(model: Any) -> bool:
    """Whether ``model`` has LoRA adapters, and they alone, which change nothing."""
    if not hasattr(model, "disable_adapter"):
        return False
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    return all("lora_" in name for name, _ in trained) and not any(
        bool(value.any()) for name, value in model.named_parameters() if "lora_B" in name or "lora_embedding_B" in name
    )


@contextmanager
def _drawing_from(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """Torch's own randomness inside the block comes from ``generator``, which moves on by one number."""
    if generator is None:
        yield
        return
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
