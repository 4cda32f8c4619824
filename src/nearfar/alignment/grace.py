"""GRACE: a language model writes about a text before it embeds it, and learns to by contrast as its reward.

Sun et al., 2025, arXiv:2510.04506. The embedding of a text is the mean of the last layer's states over the text and a
rationale that the model wrote about it; how near query and positive lie is no loss but the reward of a group-relative
policy gradient, in the loop that all on-policy training here has::

    grace = Grace(LanguagePolicy(model, tokenizer))
    cost = PolicyGradient(GRPO(advantage="centered"))
    improve(grace, triples, grace.reward, cost, OnlineSettings(responses=8, refresh=4, batch_size=16))
    vectors = grace.encode(texts)
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nearfar.alignment.body import hidden_states
from nearfar.alignment.language import LanguagePolicy, SampledText
from nearfar.alignment.packing import repeated
from nearfar.alignment.policy import ResponseScores
from nearfar.contrast.score import normalize
from nearfar.data.preferences.rows import Text
from nearfar.data.preferences.tokens import tokenise_prompts
from nearfar.encoders.encode import evaluating
from nearfar.errors import UsageError
from nearfar.objectives.preference import one_of
from nearfar.objectives.preference_values import grace_reward

SYSTEM = (
    "Read the text that the user gives. Think step by step inside <think></think> about what it says and what it would "
    "be looked for with. Then state in full how you understand it."
)
"""What the model is told to do before it embeds a text, when nothing else is said."""


class Triple(NamedTuple):
    """What GRACE learns from. Without a ``negative`` (unsupervised) the query may be the positive's own text, of which
    a second rationale is written then."""

    query: str
    positive: str
    negative: str | None = None


class Grace(nn.Module):
    """A policy of rationales, their rewards, and the encoder that comes of it.

    A :class:`~nearfar.alignment.policy.Policy` whose prompts are :class:`Triple` or texts.

    Of each triple one text is written about ``K`` times, the ``main`` one, and only those rationales are trained; of
    the others one rationale is drawn, which the group shares. Rewards are
    :func:`~nearfar.objectives.preference_values.grace_reward` with the triple for the group, so that two triples with
    the same text stay apart.

    ``main="positive"`` (default, as released): with ``cross_from="query"`` the terms of the negative and of the other
    groups are the same for all K and cancel in the advantage: only nearness to the query and consistency teach
    anything. ``cross_from="positive"`` lets the other groups count. ``main="query"``: the query is written about K
    times, and the negative and the other groups' positives count by themselves; consistency does not.

    Arguments:
        policy: the language model. Its tokenizer needs a chat template that knows a system message, where ``system`` is
            not empty.
        system: told before every text, default :data:`SYSTEM`; not pooled. Empty: none.
        tau, consistency, cross_group, cross_from: of the reward; defaults 0.1, 0.2, 0.2, "query" (the paper's).
        penalty: whether rationales cut at the maximum length have the reward -1 (default, as released; on the scaled
            axis, where rewards reach +-10, it may be the better one).
        other_temperature: of the other texts' rationales, default 0.5.
        pooler: whose states are pooled; default the policy as it is at the time. A frozen copy keeps vectors from
            moving while the rationales learn.
        generator: of the other texts' rationales; default torch's own.
    """

    def __init__(
        self,
        policy: LanguagePolicy,
        *,
        system: str = SYSTEM,
        main: str = "positive",
        tau: float = 0.1,
        consistency: float = 0.2,
        cross_group: float = 0.2,
        cross_from: str = "query",
        penalty: bool = True,
        other_temperature: float = 0.5,
        pooler: LanguagePolicy | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not tau > 0 or not other_temperature > 0:
            raise UsageError(f"tau and other_temperature must be above 0, got {tau} and {other_temperature}")
        self.policy = policy
        self.system = system
        self.main = one_of("grace", "main", main, ("positive", "query"))
        self.tau, self.consistency, self.cross_group = tau, consistency, cross_group
        self.cross_from = one_of("grace", "cross_from", cross_from, ("query", "positive"))
        self.penalty = penalty
        self.other_temperature = other_temperature
        self.generator = generator
        # no submodule: its weights are not trained, or are the policy's own
        self._pooler = (pooler,)

    def asked(self, text: str) -> Text:
        """The conversation in which the model is asked about ``text``."""
        said = ({"role": "system", "content": self.system},) if self.system else ()
        return (*said, {"role": "user", "content": text})

    def sample(
        self, prompts: Sequence[Triple | str], count: int, *, generator: torch.Generator | None = None
    ) -> list[list[SampledText]]:
        """``count`` rationales about each text, of a triple about the main one."""
        return self.policy.sample(self._asked(prompts), count, generator=generator)

    def scores(
        self, prompts: Sequence[Triple | str], responses: Sequence[Sequence[str]], *, tokens: bool = False
    ) -> ResponseScores:
        """How probable rationales are; see :class:`~nearfar.alignment.policy.Policy`."""
        return self.policy.scores(self._asked(prompts), responses, tokens=tokens)

    def frozen(self) -> Grace:
        """The same with the policy as it is now, which is not trained."""
        made = copy.copy(self)
        made._modules = {"policy": self.policy.frozen()}
        return made

    @torch.no_grad()
    def pooled(self, prompts: Sequence[Triple | str], responses: Sequence[Sequence[str]]) -> Tensor:
        """The embeddings ``[n, K, d]`` of texts with each of ``K`` rationales: the mean of the last layer's states over
        all tokens from the text on, normalised. An :data:`~nearfar.alignment.online.rollouts.Embedder`."""
        policy = self._pooler[0] or self.policy
        rows = policy.rows(self._asked(prompts), responses)
        begun = self._begun(policy)
        model = policy.model
        packed = repeated(rows).to(next(model.parameters()).device)
        with evaluating(model):
            states = hidden_states(model, packed.ids, None, None)
        lengths = [(_alike(row.prompt, begun), len(row.prompt) + len(each)) for row in rows for each in row.responses]
        first, last = torch.tensor(lengths, device=states.device).T[:, :, None]
        places = torch.arange(states.shape[1], device=states.device)
        counted = ((places >= first) & (places < last)).to(states.dtype)
        means = (states * counted[:, :, None]).sum(1) / counted.sum(1, keepdim=True).clamp_min(1)
        return normalize(means).reshape(len(rows), -1, means.shape[1])

    @torch.no_grad()
    def reward(self, prompts: Sequence[Triple], responses: Sequence[Sequence[str]]) -> Tensor:
        """The reward of each of ``K`` rationales about the main text of each triple ``[n, K]``; a
        :data:`~nearfar.alignment.online.rollouts.Rewarder`. Raises :class:`~nearfar.errors.UsageError` where some
        triples have a negative and some do not, or where the query is main and has none."""
        rollouts = self.pooled(prompts, responses)
        n, count, width = rollouts.shape
        lacking = sum(triple.negative is None for triple in prompts)
        if lacking not in (0, n) or (lacking and self.main == "query"):
            raise UsageError(
                f"{lacking} of {n} triples have no negative",
                hint="give all of them one; or none, and write about the positive",
            )
        negatives = [triple.negative for triple in prompts if triple.negative is not None]
        query = self.main == "query"
        other = self._one([triple.positive if query else triple.query for triple in prompts])
        flat, shared = rollouts.reshape(-1, width), other.repeat_interleave(count, 0)
        cut = torch.tensor([[not getattr(each, "ended", True) for each in row] for row in responses])
        return grace_reward(
            flat if query else shared,
            shared if query else flat,
            self._one(negatives).repeat_interleave(count, 0) if negatives else None,
            group=torch.arange(n, device=flat.device).repeat_interleave(count),
            tau=self.tau,
            consistency=self.consistency,
            cross_group=self.cross_group,
            cross_from=self.cross_from,
            truncated=cut.flatten().to(flat.device) if self.penalty else None,
        ).reshape(n, count)

    def encode(self, texts: Sequence[str], *, generator: torch.Generator | None = None, batch_size: int = 32) -> Tensor:
        """Embeddings ``[n, d]`` of texts, each with one rationale at the policy's own temperature."""
        found = [
            self.pooled(block, self.sample(block, 1, generator=generator))[:, 0]
            for block in (texts[start : start + batch_size] for start in range(0, len(texts), batch_size))
        ]
        return torch.cat(found)

    def _asked(self, prompts: Sequence[Triple | str]) -> list[Text]:
        return [self.asked(each if isinstance(each, str) else getattr(each, self.main)) for each in prompts]

    def _one(self, texts: Sequence[str]) -> Tensor:
        """The embeddings of texts, each with one rationale at the other temperature."""
        cooler = copy.copy(self.policy)
        cooler.temperature = self.other_temperature
        drawn = cooler.sample(self._asked(texts), 1, generator=self.generator)
        return self.pooled(texts, drawn)[:, 0]

    def _begun(self, policy: LanguagePolicy) -> list[int]:
        """What the prompt of a text is like up to the text."""
        return [int(token) for token in tokenise_prompts([self.asked("")], policy.tokenizer)[0]]


def _alike(one: Sequence[int] | np.ndarray, other: Sequence[int] | np.ndarray) -> int:
    """How many tokens two sequences begin with alike."""
    size = min(len(one), len(other))
    same = np.asarray(one)[:size] == np.asarray(other)[:size]
    return size if same.all() else int(same.argmin())
