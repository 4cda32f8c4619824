"""A transformer of sentence-transformers that can be looked into: layers, attention maps, what its embeddings give."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nearfar.encoders.abilities import eager_attention, transformer_of
from nearfar.encoders.prefix import attending_to
from nearfar.encoders.states import KeysAndValues, SpecialTokens, TokenStates
from nearfar.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class Inside:
    """The :class:`~nearfar.encoders.states.TokenEncoder` that a user's transformer is.

    ``encoder`` stays what it is and is held, not copied: it is no part of this object, which has no parameters of its
    own. ``states`` runs its transformer, ``pool`` the modules that come after it; ``pool(states(ids, mask))`` is the
    embedding that the encoder gives.

    - ``layers`` come from every transformer of the transformers library.
    - ``attentions`` are the probabilities after dropout. They are computed step by step ("eager"), which costs time and
      memory and is switched on for the passes that ask for them alone.
    - :meth:`embed` and ``inputs`` take a transformer whose ``embeddings`` is one module: BERT and MiniLM, RoBERTa,
      DistilBERT, MPNet, ModernBERT and their kin.
    - ``prefix`` takes an attention that others can replace: BERT, RoBERTa, DistilBERT, ModernBERT; MPNet and DeBERTa
      have one of their own. An encoder that was saved with a prefix uses it where none is given.

    Raises :class:`~nearfar.errors.ModelError` for an encoder without a transformer, and where a model cannot do what is
    asked of it.
    """

    def __init__(self, encoder: SentenceTransformer) -> None:
        model = transformer_of(encoder)
        if model is None:
            raise ModelError(
                "this encoder has no transformer that can be looked into",
                hint="give a transformer, such as minilm or the folder of a BERT",
            )
        self.encoder, self.model = encoder, model
        self.dimension: int = int(model.config.hidden_size)
        self.vocabulary: int = int(model.config.vocab_size)
        self.depth: int = int(model.config.num_hidden_layers)
        self.special = _special_tokens(encoder)
        self._after = list(encoder.children())[1:]
        self._pools_layers = any(type(module).__name__ == "WeightedLayerPooling" for module in self._after)

    def states(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        *,
        layers: bool = False,
        attentions: bool = False,
        inputs: Tensor | None = None,
        prefix: KeysAndValues | None = None,
    ) -> TokenStates:
        """See :meth:`TokenEncoder.states <nearfar.encoders.states.TokenEncoder.states>`."""
        there = ids != self.special.padding if mask is None else mask.bool()
        own = getattr(self.encoder[0], "prefix", None)
        if prefix is None and own is not None:
            prefix = own(len(ids))
        with ExitStack() as ways:
            if prefix is not None:
                ways.enter_context(attending_to(self.model, prefix, maps=attentions))
            elif attentions:
                ways.enter_context(eager_attention(self.model))
            if inputs is not None:
                ways.enter_context(self._given(inputs, ids))
            found = self.model(
                input_ids=ids,
                attention_mask=there.long(),
                output_hidden_states=layers or self._pools_layers,
                output_attentions=attentions,
                return_dict=True,
            )
        return TokenStates(
            found.last_hidden_state,
            there,
            layers=self._layers(found) if layers or self._pools_layers else None,
            attentions=self._maps(found) if attentions else None,
        )

    def embed(self, ids: Tensor) -> Tensor:
        """See :meth:`TokenEncoder.embed <nearfar.encoders.states.TokenEncoder.embed>`."""
        found: Tensor = self.embeddings(input_ids=ids)
        if found.shape != (*ids.shape, self.dimension):
            raise ModelError(f"{self._name} embeds tokens in another space than that of its layers")
        return found

    def pool(self, states: TokenStates) -> Tensor:
        """See :meth:`TokenEncoder.pool <nearfar.encoders.states.TokenEncoder.pool>`."""
        features: dict[str, Any] = {"token_embeddings": states.hidden, "attention_mask": states.mask.long()}
        if states.layers is not None:
            features["all_layer_embeddings"] = tuple(states.layers)
        for module in self._after:
            features = module(features)
        if "sentence_embedding" not in features:
            raise ModelError("the encoder has no module that makes one vector of those of the tokens")
        pooled: Tensor = features["sentence_embedding"]
        return pooled

    @property
    def _name(self) -> str:
        return type(self.model).__name__

    @property
    def embeddings(self) -> Any:
        """The embedding layer (words, positions, normalisation, dropout), a module; ModelError where there is none."""
        module = getattr(self.model, "embeddings", None)
        if module is None:
            raise ModelError(
                f"{self._name} has no embedding layer that can be looked at",
                hint="BERT, MiniLM, RoBERTa, DistilBERT, MPNet and ModernBERT have one",
            )
        return module

    @contextmanager
    def _given(self, inputs: Tensor, ids: Tensor) -> Iterator[None]:
        """Inside the block the embedding layer gives ``inputs``, whatever the ids."""
        if inputs.shape != (*ids.shape, self.dimension):
            raise ValueError(f"inputs must be {(*ids.shape, self.dimension)}, got {tuple(inputs.shape)}")
        handle = self.embeddings.register_forward_hook(lambda *_: inputs)
        try:
            yield
        finally:
            handle.remove()

    def _layers(self, found: Any) -> tuple[Tensor, ...]:
        layers = getattr(found, "hidden_states", None)
        if layers is None or len(layers) != self.depth + 1 or any(layer is None for layer in layers):
            raise ModelError(f"{self._name} does not give what its layers say")
        return tuple(layers)

    def _maps(self, found: Any) -> tuple[Tensor, ...]:
        maps = getattr(found, "attentions", None) or ()
        if len(maps) != self.depth or any(each is None or each.dim() != 4 for each in maps):
            raise ModelError(
                f"{self._name} gives no maps of its attention",
                hint="BERT, MiniLM, RoBERTa, DistilBERT and MPNet do",
            )
        return tuple(maps)


def _special_tokens(encoder: SentenceTransformer) -> SpecialTokens:
    tokenizer: Any = encoder.tokenizer

    def first_of(*names: str) -> int | None:
        found = (getattr(tokenizer, f"{name}_token_id", None) for name in names)
        return next((int(number) for number in found if number is not None), None)

    padding = first_of("pad")
    return SpecialTokens(
        padding=0 if padding is None else padding,
        first=first_of("cls", "bos"),
        last=first_of("sep", "eos"),
        mask=first_of("mask"),
        all=frozenset(int(number) for number in getattr(tokenizer, "all_special_ids", ())),
    )
