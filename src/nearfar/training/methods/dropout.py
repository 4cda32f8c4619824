"""Methods whose views are a text and itself with other dropout: SimCSE, and what was built upon it."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nearfar.contrast import Paired
from nearfar.contrast.distributed import sum_over_processes
from nearfar.encoders.encode import encode
from nearfar.encoders.heads import Pooler
from nearfar.encoders.inside import Inside
from nearfar.encoders.load import load
from nearfar.encoders.masked_language import WITHOUT_HEAD, masked_language_loss, pretrained_head
from nearfar.errors import ModelError, UsageError
from nearfar.negatives import ClusterMemory, by_complement, gaussian, harder, own_negatives
from nearfar.objectives import DCLR, ClusterNS, CompCSE, InfoNCE
from nearfar.training.method import Batch, Logs, paired, scale_gradient
from nearfar.training.processes import process_group, world_size
from nearfar.training.text_training import Option, TextMethod, TextSetting
from nearfar.views.text.halves import halves


class DropoutMethod(TextMethod):
    """Base: texts are embedded twice, and seen through BERT's pooler (``tanh(W x + b)``), which is dropped after
    training; pairs are seen as they are."""

    def __init__(self, setting: TextSetting, objective: nn.Module) -> None:
        super().__init__(setting, objective)
        self.head: nn.Module = Pooler(setting.dimension) if self.shape == "texts" else nn.Identity()

    def sides(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Queries ``[n, d]`` and keys ``[m, d]``: both views of texts, or anchors and all that they are paired with."""
        projected, n = self.head(embeddings), len(batch["rows"])
        return projected[:n], projected[n:]

    def relation(self, batch: Batch, keys: int) -> Paired:
        """Query i and key i are the same text or a pair; see :func:`~nearfar.training.method.paired`."""
        return paired(batch, keys, columns=1 if self.shape == "texts" else 0)


SIMCSE: Mapping[str, Option] = {"temperature": 0.05, "hard_negative_weight": 1.0, "mlm_weight": 0.0}
"""Options of :class:`SimCSE`."""


class SimCSE(DropoutMethod):
    """``-log( exp(s_ii / T) / sum_j w_ij exp(s_ij / T) )``, one-directional (SimCSE; Gao et al., 2021).

    Texts: s_ij between the first view of text i and the second of text j, behind the pooler. Pairs: between anchor i
    and the positives, then the hard negatives, of all pairs, as they are exported (the paper keeps its head there, both
    in training and afterwards). ``w = hard_negative_weight`` for anchor i's own hard negatives, else 1.

    With ``mlm_weight`` > 0 the masked language loss of all texts that are embedded is added (the paper: 0.1); then the
    encoder's folder must hold such a head, and the graph of a whole batch is in memory, even where the contrast caches
    its gradients.
    """

    distributed = True

    def __init__(self, setting: TextSetting) -> None:
        options = setting.options
        super().__init__(setting, InfoNCE(temperature=float(options["temperature"])))
        self.hard_negative_weight = float(options["hard_negative_weight"])
        self.mlm_weight = float(options["mlm_weight"])
        if self.hard_negative_weight < 0 or self.mlm_weight < 0:
            raise UsageError("hard_negative_weight and mlm_weight of simcse are weights, at least 0")
        self.language: nn.Module | None = None
        if self.mlm_weight:
            if setting.source is None:
                raise ModelError("this encoder has no head that predicts masked tokens", hint=WITHOUT_HEAD)
            self.language = pretrained_head(setting.source, setting.encoder)

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        query, key = self.sides(embeddings, batch)
        relation, group = self.relation(batch, len(key)), process_group()
        if len(key) > len(query) and self.hard_negative_weight != 1:
            own = own_negatives(
                len(query), len(key), weight=self.hard_negative_weight, group=group, device=embeddings.device
            )
            loss = self.objective(query, key, relation=relation.reweight(own), memory=self.memory, group=group)
        else:
            loss = self.objective(query, key, relation=relation, memory=self.memory, group=group)
        if self.language is None:
            return loss, {}
        language = self._masked_language(batch, self.language)
        return loss + self.mlm_weight * language, {"masked language": language.detach()}

    def _masked_language(self, batch: Batch, head: nn.Module) -> Tensor:
        inside = Inside(self.encoder)
        costs = [
            len(chunk["input_ids"]) * masked_language_loss(inside, head, chunk["input_ids"], chunk["attention_mask"])
            for chunk in batch["chunks"]
        ]
        texts = sum(len(chunk["input_ids"]) for chunk in batch["chunks"])
        return sum_over_processes(torch.stack(costs).sum() / texts / world_size(), process_group())


DCLR_OPTIONS: Mapping[str, Option] = {
    "temperature": 0.05,
    "threshold": 0.9,
    "complement": "",
    "noise": 1.0,
    "noise_steps": 4,
    "noise_step_size": 1e-3,
}
"""Options of :class:`DebiasedContrast`."""


class DebiasedContrast(DropoutMethod):
    """SimCSE without the negatives that a fixed second model finds too similar, and with negatives made of noise (DCLR;
    Zhou et al., 2022).

    ``complement``: the folder of that second model, "" for the encoder as it began. The paper's is trained by
    unsupervised SimCSE; one that finds everything similar leaves no negatives but noise. It is asked without dropout
    (the official code leaves it on). ``threshold``: cosines from which a pair is no negative; ``noise``: rows of noise
    for each text; ``noise_steps`` of the length ``noise_step_size`` uphill.

    Logs the share of negatives that were left out.
    """

    def __init__(self, setting: TextSetting) -> None:
        options = setting.options
        super().__init__(setting, DCLR(temperature=float(options["temperature"])))
        self.threshold, self.noise = float(options["threshold"]), float(options["noise"])
        self.noise_steps, self.noise_step_size = int(options["noise_steps"]), float(options["noise_step_size"])
        if min(self.noise, self.noise_steps, self.noise_step_size) < 0:
            raise UsageError("noise, noise_steps and noise_step_size of dclr are at least 0")
        folder = str(options["complement"])
        complement = load(folder, device=str(setting.encoder.device)) if folder else copy.deepcopy(setting.encoder)
        self.complement = complement.requires_grad_(False)
        self.texts = setting.examples

    def train(self, mode: bool = True) -> DebiasedContrast:
        super().train(mode)
        self.complement.eval()
        return self

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        query, key = self.sides(embeddings, batch)
        texts = self.texts.take(batch["rows"].cpu().numpy())["text"]
        seen = torch.from_numpy(encode(self.complement, texts)).to(embeddings.device)
        made = gaussian(key.detach(), self.noise)
        relation = self.relation(batch, len(key) + len(made))
        made = harder(
            made,
            query,
            key,
            steps=self.noise_steps,
            step_size=self.noise_step_size,
            temperature=self.objective.temperature,
            relation=relation,
        )
        keys = torch.cat([key, made])
        far = by_complement(seen, seen, threshold=self.threshold, keys=len(keys))
        loss: Tensor = self.objective(query, keys, relation=relation.reweight(far), memory=self.memory)
        n = len(seen)
        alike = ((seen @ seen.T >= self.threshold).sum() - n) / max(n * (n - 1), 1)
        return loss, {"negatives left out": alike}


CLUSTERNS_OPTIONS: Mapping[str, Option] = {
    "temperature": 0.05,
    "clusters": 128,
    "rate": 1e-3,
    "start_at": 0.4,
    "weight": 1e-3,
    "alpha": 0.0,
    "beta": 0.3,
}
"""Options of :class:`ClusteredContrast`."""


class ClusteredContrast(DropoutMethod):
    """SimCSE with centroids of online clusters as hard negatives, and texts of one cluster kept at a bounded distance
    (ClusterNS; Deng et al., 2023).

    ``clusters``, ``rate`` and ``start_at`` are those of :class:`~nearfar.negatives.ClusterMemory`, whose centroids are
    of embeddings behind the pooler; ``weight``, ``alpha`` and ``beta`` those of
    :class:`~nearfar.objectives.ClusterNS`. Until the memory starts, and in the step in which it does, it is SimCSE.

    Logs the share of a batch's pairs that are of one cluster. Raises UsageError for batches smaller than the number of
    clusters, from which it could not start.
    """

    distributed = True

    def __init__(self, setting: TextSetting) -> None:
        options = setting.options
        objective = ClusterNS(
            float(options["weight"]),
            float(options["alpha"]),
            float(options["beta"]),
            temperature=float(options["temperature"]),
        )
        super().__init__(setting, objective)
        clusters, texts = int(options["clusters"]), min(setting.batch_size, len(setting.examples))
        if clusters > texts:
            raise UsageError(
                f"{clusters} clusters start from texts of one batch, which has {texts}",
                where=f"--set clusters={clusters}",
                hint=f"use --set clusters={max(2, texts // 2)} or a --batch-size of at least {clusters}",
            )
        self.clusters = ClusterMemory(
            clusters,
            setting.dimension,
            rate=float(options["rate"]),
            start_at=float(options["start_at"]),
            seed=setting.seed,
        )

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        query, key = self.sides(embeddings, batch)
        group, started = process_group(), self.clusters.started
        # the last batch of an epoch may be too small to start from
        if self.training and (started or len(query) * world_size() >= len(self.clusters.centroids)):
            self.clusters.update(query, key, group=group)
        if not started:
            relation = self.relation(batch, len(key))
            return self.objective(query, key, relation=relation, memory=self.memory, group=group), {}
        clusters, hard = self.clusters.assign(query), self.clusters.hard_negatives(query)
        loss: Tensor = self.objective(
            query,
            key,
            clusters=clusters,
            hard_negatives=hard,
            relation=self.relation(batch, len(key) + len(hard)),
            memory=self.memory,
            group=group,
        )
        n = len(clusters)
        together = ((clusters[:, None] == clusters).sum() - n) / max(n * (n - 1), 1)
        return loss, {"pairs of one cluster": together}


COMPCSE_OPTIONS: Mapping[str, Option] = {"temperature": 0.05, "compose": "avg", "width": 0}
"""Options of :class:`ComposedHalves`."""


class ComposedHalves(TextMethod):
    """A text against the composition of its two halves, each embedded alone (CompCSE; Chanchani & Huang, 2023).

    ``compose``: "avg", "max" or "cat-first-last", see :class:`~nearfar.objectives.CompCSE`; ``width``: coordinates that
    are contrasted, 0: a third of them (256 of 768 in the official command). Words are tokens here, and the cut is drawn
    anew each time a text is seen (:func:`~nearfar.views.text.halves.halves`).
    """

    distributed = True

    def __init__(self, setting: TextSetting) -> None:
        options = setting.options
        width = int(options["width"]) or max(1, setting.dimension // 3)
        if width > setting.dimension:
            raise UsageError(
                f"a width of {width} is beyond the {setting.dimension} dimensions of the encoder",
                where=f"--set width={width}",
            )
        super().__init__(
            setting,
            CompCSE(
                str(options["compose"]),
                width=width,
                head=Pooler(setting.dimension),
                temperature=float(options["temperature"]),
            ),
        )

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        features, n = batch["chunks"][0], len(batch["rows"])
        ids, there = features["input_ids"][:n], features["attention_mask"][:n].bool()
        inside = Inside(self.encoder)
        parts, in_parts = halves(ids, inside.special, mask=there)
        every, in_every = (
            torch.cat([ids[None], parts.transpose(0, 1)]),
            torch.cat([there[None], in_parts.transpose(0, 1)]),
        )
        embeddings = inside.pool(inside.states(every.flatten(0, 1), in_every.flatten(0, 1)))
        self._remember(embeddings)
        whole, first, second = embeddings.chunk(3)
        loss = self.objective(
            whole,
            torch.stack([first, second], 1),
            relation=paired(batch, n, columns=1),
            memory=self.memory,
            group=process_group(),
        )
        return scale_gradient(loss, world_size()), {}
