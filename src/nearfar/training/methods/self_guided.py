"""Self-guidance: a text's embedding learns from the layers of a frozen copy of its own encoder."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nearfar.encoders.heads import WideHead
from nearfar.encoders.inside import Inside
from nearfar.encoders.states import TokenEncoder
from nearfar.errors import ModelError
from nearfar.objectives import SGBert
from nearfar.training.method import Batch, Logs
from nearfar.training.text_training import Option, TextMethod, TextSetting

SG_BERT_OPTIONS: Mapping[str, Option] = {
    "variant": "sg-opt",
    "temperature": 0.01,
    "distance": 0.1,
    "width": 4096,
    "freeze_embeddings": True,
}
"""Options of :class:`SelfGuided`."""


class SelfGuided(TextMethod):
    """The embedding of a text against the pooled layers of a frozen copy of the encoder (SG-OPT; Kim et al., 2021).

    ``variant``: see :class:`~nearfar.objectives.SGBert`; all but "sg-opt" take one layer a text, drawn at random. Both
    sides pass a head of ``width`` units (:class:`~nearfar.encoders.heads.WideHead`), which is dropped after training.
    Added is ``distance`` times the squared distance of the encoder's weights from those of the copy. With
    ``freeze_embeddings`` the embedding layer stays as it is.

    The embedding is the one that the encoder is used with; the paper's is the first token's, with a BERT that pools so.
    Layers are pooled by the mean of the tokens. The copy has no dropout (the official code switches its dropout on
    with that of the encoder, by an oversight).

    Logs the contrast and the squared distance.
    Raises :class:`~nearfar.errors.ModelError` for an encoder whose embedding has another width than its layers.
    """

    def __init__(self, setting: TextSetting) -> None:
        options = setting.options
        objective = SGBert(str(options["variant"]), temperature=float(options["temperature"]))
        super().__init__(setting, objective)
        inside = Inside(setting.encoder)
        if inside.dimension != setting.dimension:
            raise ModelError(
                f"the embedding has {setting.dimension} dimensions, the layers have {inside.dimension}, and both pass "
                "one head",
                hint="use an encoder without a dense layer behind its pooling",
            )
        self.distance = float(options["distance"])
        self.head = WideHead(setting.dimension, int(options["width"]))
        self.guide = copy.deepcopy(setting.encoder).requires_grad_(False)
        if options["freeze_embeddings"]:
            inside.embeddings.requires_grad_(False)

    def train(self, mode: bool = True) -> SelfGuided:
        super().train(mode)
        self.guide.eval()
        return self

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        (chunk,) = batch["chunks"]
        n = len(batch["rows"])  # texts come twice, and once is enough
        ids, mask = chunk["input_ids"][:n], chunk["attention_mask"][:n].bool()
        inside = Inside(self.encoder)
        embeddings = inside.pool(inside.states(ids, mask))
        self._remember(embeddings)
        layers = pooled_layers(Inside(self.guide), ids, mask)
        if self.objective.variant != "sg-opt":
            layers = one_layer_each(layers)
        contrast = self.objective(self.head(embeddings), self.head(layers))
        apart = squared_distance(self.encoder, self.guide)
        logs = {"contrast": contrast.detach(), "squared distance": apart.detach()}
        return contrast + self.distance * apart, logs


@torch.no_grad()
def pooled_layers(encoder: TokenEncoder, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean over tokens of what each layer gives, the embedding layer first, ``[n, layers + 1, d]``; no gradient."""
    states = encoder.states(ids, mask, layers=True)
    assert states.layers is not None
    return torch.stack([states.mean(layer) for layer in states.layers], 1)


def one_layer_each(layers: Tensor) -> Tensor:
    """A layer of each text, drawn at random by torch's own generator: ``[n, layers, d] -> [n, 1, d]``."""
    n, count, _ = layers.shape
    drawn = torch.randint(count, (n,), device=layers.device)
    return layers[torch.arange(n, device=layers.device), drawn][:, None]


def squared_distance(module: nn.Module, other: nn.Module) -> Tensor:
    """``sum (p - q)^2`` over the parameters of two modules of one making."""
    pairs = zip(module.parameters(), other.parameters(), strict=True)
    return torch.stack([(one - another).square().sum() for one, another in pairs if one.requires_grad]).sum()
