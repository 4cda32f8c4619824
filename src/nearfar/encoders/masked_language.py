"""Predicting masked tokens: what is masked, heads that predict, and the loss.

A head gives ``[..., d] -> [..., vocabulary]`` logits of the vectors of an encoder of tokens
(:class:`~nearfar.encoders.states.TokenEncoder`). :class:`MaskedLanguageHead` is a new one, :func:`pretrained_head` that
of a user's checkpoint, tied to the encoder that is trained.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.encoders.states import SpecialTokens, TokenEncoder
from nearfar.errors import ModelError, UsageError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SHARE = 0.15
"""Of the words that are masked (BERT; Devlin et al., 2019)."""

WITHOUT_HEAD = "simcse, dclr, clusterns, compcse, supcl-seq and unsee need no masked-LM head"
"""What would do for an encoder without one, for messages."""


def mask_tokens(
    ids: Tensor,
    special: SpecialTokens,
    *,
    vocabulary: int,
    share: float = SHARE,
    masked: float = 0.8,
    random: float = 0.1,
    mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Token ids ``[n, L]`` with words masked, and which places were chosen ``[n, L]`` (bool).

    Every word is chosen by itself with probability ``share``; a chosen one becomes [MASK] with probability ``masked``,
    a random word with probability ``random``, and stays otherwise. Special tokens are never chosen, and a random word
    is any id of the vocabulary that is none of them (BERT's code and transformers' collator draw from those as well).

    Arguments:
        share, masked, random: defaults 0.15, 0.8 and 0.1 (BERT; Devlin et al., 2019).
        mask: ``[n, L]``, which tokens there are; those that are not are never chosen.
        generator: None: torch's own.

    Raises UsageError for probabilities outside [0, 1], ModelError for a vocabulary without [MASK].
    """
    if not 0 <= share <= 1 or min(masked, random) < 0 or masked + random > 1:
        raise UsageError(f"share, masked and random are probabilities, got {share}, {masked} and {random}")
    if special.mask is None:
        raise ModelError("the vocabulary has no token for what is masked", hint=WITHOUT_HEAD)
    device = "cpu" if generator is None else generator.device
    drawn, turn = torch.rand((2, *ids.shape), generator=generator, device=device).to(ids.device)
    chosen = is_word(ids, special, mask) & (drawn < share)
    edited = torch.where(chosen & (turn < masked), special.mask, ids)
    others = _random_words(ids.shape, special, vocabulary, generator).to(ids)
    return torch.where(chosen & (turn >= masked) & (turn < masked + random), others, edited), chosen


def is_word(ids: Tensor, special: SpecialTokens, mask: Tensor | None = None) -> Tensor:
    """Which of the tokens ``ids`` are no special ones (bool), and there by ``mask``."""
    none = torch.tensor(sorted(special.all | {special.padding}), device=ids.device)
    words = ~torch.isin(ids, none)
    return words if mask is None else words & mask.bool()


def _random_words(
    shape: torch.Size, special: SpecialTokens, vocabulary: int, generator: torch.Generator | None
) -> Tensor:
    none = sorted(each for each in special.all | {special.padding} if each < vocabulary)
    if len(none) >= vocabulary:
        raise ModelError("the vocabulary has no words beside its special tokens")
    device = "cpu" if generator is None else generator.device
    drawn = torch.randint(vocabulary - len(none), shape, generator=generator, device=device)
    for each in none:  # numbered among the words alone
        drawn += drawn >= each
    return drawn


class MaskedLanguageHead(nn.Module):
    """A new head of BERT's form, ``norm(gelu(W x + b)) E^T + c``, ``[..., d] -> [..., vocabulary]``.

    E is the encoder's ``table [vocabulary, width]`` of token embeddings, shared with it (tied): both are trained as
    one.

    Arguments:
        table: a parameter of the encoder, not copied.
        dimension: of the vectors; default the table's width.
    """

    def __init__(self, table: nn.Parameter, dimension: int | None = None) -> None:
        super().__init__()
        vocabulary, width = table.shape
        self.dense = nn.Linear(width if dimension is None else dimension, width)
        self.norm = nn.LayerNorm(width)
        self.table = table
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, vectors: Tensor) -> Tensor:
        return F.linear(self.norm(F.gelu(self.dense(vectors))), self.table, self.bias)


class PretrainedHead(nn.Module):
    """The head of a masked LM of transformers, without its layers: ``[..., d] -> [..., vocabulary]``.

    Where the model ties its output to its embeddings, it is tied to ``table``, the embeddings of the encoder that is
    trained in the place of its layers.

    Arguments:
        model: a ``transformers`` model for masked LM; it is taken apart and of no other use afterwards.
        table: a parameter, not copied.

    Raises ModelError where the table has another shape than the model's embeddings.
    """

    def __init__(self, model: Any, table: nn.Parameter) -> None:
        super().__init__()
        output = model.get_output_embeddings()
        if model.config.tie_word_embeddings:
            if output.weight.shape != table.shape:
                raise ModelError(
                    f"the head predicts {tuple(output.weight.shape)} tokens by dimensions, the encoder embeds "
                    f"{tuple(table.shape)}"
                )
            output.weight = table
        # every architecture has its head under names of its own, but all apply it to what their layers give
        setattr(model, model.base_model_prefix, _Given())
        self.model = model

    def forward(self, vectors: Tensor) -> Tensor:
        logits: Tensor = self.model(inputs_embeds=vectors).logits
        return logits


class _Given(nn.Module):
    """In the place of a model's layers: their output is what is given."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=inputs_embeds)


class MaskedLanguageModel(nn.Module):
    """A masked LM of transformers as a function: ids ``[n, L]``, mask -> logits ``[n, L, vocabulary]``.

    For frozen generators: parameters take no gradient, and it stays in evaluation mode whatever holds it.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> MaskedLanguageModel:
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask.long()).logits
        return logits


def masked_language_loss(
    encoder: TokenEncoder,
    head: nn.Module,
    ids: Tensor,
    mask: Tensor | None = None,
    *,
    share: float = SHARE,
    asked: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The mean, over the tokens that :func:`mask_tokens` chose of ``ids [n, L]``, of ``-log p(token)``; a scalar.

    ``p`` is the softmax of ``head`` over the vectors of the masked texts. ``asked [n, L]`` (bool): places that are
    [MASK], and count, in any case. 0, without a gradient to speak of, where none was chosen.
    """
    there = ids != encoder.special.padding if mask is None else mask.bool()
    masked, chosen = mask_tokens(
        ids, encoder.special, vocabulary=encoder.vocabulary, share=share, mask=there, generator=generator
    )
    if asked is not None:
        assert encoder.special.mask is not None
        masked, chosen = masked.masked_fill(asked, encoder.special.mask), chosen | asked
    logits = head(encoder.states(masked, there).hidden[chosen])
    cost = F.cross_entropy(logits, ids[chosen], reduction="sum")
    return cost / chosen.sum().clamp_min(1)


def load_masked_language_model(folder: str | os.PathLike[str]) -> Any:
    """The masked LM in ``folder`` (transformers', sentence-transformers' or a run's), a ``transformers`` model.

    Nothing but safetensors is read and no code of the folder is run. Raises
    :class:`~nearfar.errors.ModelError` where the folder is no model, its architecture has no masked-LM head, or its
    weights hold none.
    """
    from transformers import AutoModelForMaskedLM

    from nearfar.encoders.abilities import transformer_folder
    from nearfar.encoders.pretrained import quiet
    from nearfar.encoders.safety import check_model_folder

    place = transformer_folder(Path(folder))
    check_model_folder(place)
    auto: Any = AutoModelForMaskedLM
    with quiet(), torch.random.fork_rng(devices=[]):  # what is missing would be drawn
        try:
            model, report = auto.from_pretrained(
                place, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
        except Exception as error:  # whatever a damaged file or a foreign architecture makes the library raise
            reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
            raise ModelError(f"this is no masked language model: {reason}", where=str(place), hint=_HINT) from error
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(f"{model.base_model_prefix}."))
    if missing:
        raise ModelError(
            f"the model has no head that predicts masked tokens: its weights lack {', '.join(missing[:2])}",
            where=str(place),
            hint=_HINT,
        )
    return model


_HINT = f"name the folder of a masked LM, such as the checkpoint the encoder was made from; {WITHOUT_HEAD}"


def pretrained_head(folder: str | os.PathLike[str], encoder: SentenceTransformer) -> PretrainedHead:
    """The masked-LM head of the checkpoint in ``folder``, from which the transformer of ``encoder`` was loaded, tied to
    its embeddings.

    Raises ModelError as :func:`load_masked_language_model`, and where ``encoder`` is no transformer.
    """
    table = embedding_table(encoder)
    return PretrainedHead(load_masked_language_model(folder), table).to(table.device)


def embedding_table(encoder: SentenceTransformer) -> nn.Parameter:
    """The token embeddings ``[vocabulary, width]`` of the transformer that ``encoder`` begins with.

    Raises ModelError where it begins with none.
    """
    from nearfar.encoders.abilities import transformer_of

    model = transformer_of(encoder)
    if model is None:
        raise ModelError("the encoder begins with no transformer, and only such predict tokens")
    table: nn.Parameter = model.get_input_embeddings().weight
    return table


def same_tokens(encoder: SentenceTransformer, folder: str | os.PathLike[str]) -> bool:
    """Whether the model in ``folder`` has the tokens of ``encoder`` under the same ids.

    Raises ModelError where the folder has no tokenizer that can be read.
    """
    from transformers import AutoTokenizer

    from nearfar.encoders.abilities import transformer_folder

    place = transformer_folder(Path(folder))
    auto: Any = AutoTokenizer
    try:
        other = auto.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a damaged file makes the library raise
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ModelError(f"the tokenizer cannot be read: {reason}", where=str(place)) from error
    mine: dict[str, int] = encoder.tokenizer.get_vocab()
    theirs: dict[str, int] = other.get_vocab()
    return mine == theirs
