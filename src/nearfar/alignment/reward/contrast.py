"""The contrastive term of a reward model: two dropout views of a response alike, other responses of the batch not."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearfar.errors import UsageError
from nearfar.objectives import InfoNCE, SwaV
from nearfar.objectives.preference import one_of

FORMS = ("simcse", "simcse-diff", "swav", "swav-diff")


def contrasted(chosen: Tensor, rejected: Tensor, *, differences: bool) -> Tensor:
    """The items ``[2n, d]`` of ``n`` pairs that are contrasted, from features ``[n, d]`` of their responses.

    The responses themselves, chosen before rejected, or both ``differences``, ``f_c - f_r`` and ``f_r - f_c``: then
    each has its opposite, with a cosine of -1, among its negatives.
    """
    if chosen.dim() != 2 or chosen.shape != rejected.shape:
        raise ValueError(f"features must be [n, d] alike, got {list(chosen.shape)} and {list(rejected.shape)}")
    if differences:
        return torch.cat([chosen - rejected, rejected - chosen])
    return torch.cat([chosen, rejected])


class RewardContrast(nn.Module):
    """Contrast of the features of responses in two views (Wang et al., 2024, arXiv:2401.06080, section 3.1).

    Added to a reward model's loss with a weight: ``L = L_RM + beta L_CL``. The views are two passes of the same batch
    with different dropout, which has to be on; features are the last token's hidden state, which the reward is read
    from.

    ``form``: "simcse" (default; the paper's best): item i of one view has to be told by ``cos / temperature`` from all
    2n items of the other view, the other response to its prompt among them: ``info-nce``. "swav": its cluster has to be
    predicted from the other view: ``swav``, whose prototypes are trained with the model. With "-diff" the items are the
    differences of the two responses (:func:`contrasted`).

    Arguments: ``temperature``, default 0.05 for SimCSE and 0.1 for SwAV; ``dimension`` of the features and how many
    ``prototypes`` (default 64), for SwAV. The paper names none of these values. Raises
    :class:`~nearfar.errors.UsageError` for another form, and for SwAV without a dimension.
    """

    def __init__(
        self,
        form: str = "simcse",
        *,
        temperature: float | None = None,
        dimension: int | None = None,
        prototypes: int = 64,
    ) -> None:
        super().__init__()
        one_of("reward contrast", "form", form, FORMS)
        self.form = form
        self.differences = form.endswith("-diff")
        self.objective: InfoNCE | SwaV
        if form.startswith("simcse"):
            self.objective = InfoNCE(temperature=0.05 if temperature is None else temperature)
        elif dimension is None:
            raise UsageError("SwAV's prototypes need the dimension of the features", hint="give dimension")
        else:
            heat = 0.1 if temperature is None else temperature
            self.objective = SwaV(prototypes, dimension, temperature=heat)

    def forward(
        self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], *, group: dist.ProcessGroup | None = None
    ) -> Tensor:
        """The cost of ``(chosen [n, d], rejected [n, d])`` in a first and in a second view.

        ``group``: the cost is that of the pairs of all processes; each has the gradient of its own. SwAV has no such
        form.
        """
        one, other = (contrasted(*view, differences=self.differences) for view in (first, second))
        cost: Tensor
        if isinstance(self.objective, InfoNCE):
            cost = self.objective(one, other, group=group)
        else:
            cost = self.objective(one, other)
        return cost
