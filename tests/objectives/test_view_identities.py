"""View objectives: ranges, limits, invariances, what they remember, and input that teaches nothing or does not fit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nearfar.contrast import Views, engine
from nearfar.errors import UsageError
from nearfar.objectives import (
    BYOL,
    CARE,
    DCCA,
    DCCAE,
    DINO,
    UNSEE,
    Alignment,
    AlignUniform,
    CorInfoMax,
    CorrAE,
    DistAE,
    Equivariance,
    InfoNCE,
    KoLeo,
    MiCSE,
    NegativeCosine,
    SepCLR,
    SimSiam,
    SplitAE,
    SwaV,
    Uniformity,
    ViewObjective,
    catalogue,
)
from support.outcomes import tiles_of

Call = Callable[[ViewObjective, Tensor, Tensor], Tensor]


def _normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _with_views(objective: ViewObjective, z1: Tensor, z2: Tensor) -> Tensor:
    loss: Tensor = objective(z1, z2)
    return loss


def _restoring(objective: ViewObjective, z1: Tensor, z2: Tensor) -> Tensor:
    inputs = (_normal(1, len(z1), 4).to(z1), _normal(2, len(z1), 2).to(z1))
    loss: Tensor = objective(z1, z2, inputs=inputs, reconstructions=(z1[:, :1].expand(-1, 4), z2[:, :1].expand(-1, 2)))
    return loss


def _attention(n: int, like: Tensor, length: int = 4) -> tuple[Tensor, Tensor]:
    one, other = (torch.softmax(_normal(3 + v, n, 2, 2, length, length), -1).to(like) for v in range(2))
    return one, other


def _attending(objective: ViewObjective, z1: Tensor, z2: Tensor) -> Tensor:
    loss: Tensor = objective(z1, z2, attention=_attention(len(z1), z1))
    return loss


def _two_heads(objective: ViewObjective, z1: Tensor, z2: Tensor) -> Tensor:
    loss: Tensor = objective(z1, z2, 2 * z1, z2 - z1, torch.arange(len(z1)) % 2)
    return loss


VIEWS: dict[str, tuple[Callable[[], ViewObjective], Call]] = {
    "align-uniform": (AlignUniform, _with_views),
    "koleo": (KoLeo, _with_views),
    "equivariance": (Equivariance, _with_views),
    "care": (CARE, _with_views),
    "sepclr": (SepCLR, _two_heads),
    "negative-cosine": (NegativeCosine, _with_views),
    "simsiam": (SimSiam, _with_views),
    "byol": (BYOL, _with_views),
    "unsee": (UNSEE, _with_views),
    "unsee barlow-twins": (lambda: UNSEE("barlow-twins"), _with_views),
    "unsee corinfomax": (lambda: UNSEE("corinfomax"), _with_views),
    "unsee byol": (lambda: UNSEE("byol"), _with_views),
    "swav": (lambda: SwaV(5, 3), _with_views),
    "dino": (DINO, _with_views),
    "corinfomax": (CorInfoMax, _with_views),
    "dcca": (DCCA, _with_views),
    "dccae": (DCCAE, _restoring),
    "corrae": (CorrAE, _restoring),
    "splitae": (SplitAE, _restoring),
    "distae": (DistAE, _restoring),
    "distae 2": (lambda: DistAE(2), _restoring),
    "micse": (MiCSE, _attending),
}
ONE_ROW_IS_ENOUGH = (
    "equivariance", "negative-cosine", "simsiam", "byol", "unsee byol", "swav", "dino", "corinfomax", "splitae",
    "distae", "distae 2", "micse",
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:dcca.* rows say little")


def _made(name: str) -> ViewObjective:
    torch.manual_seed(0)
    return VIEWS[name][0]()


# -- all of them -------------------------------------------------------------------------------------------------------


def _difficult() -> dict[str, tuple[Tensor, Tensor]]:
    items = _normal(5, 6, 3, dtype=torch.float32)
    constant = items.clone()
    constant[:, 1] = 2.0
    twice = items[[0, 0, 1, 1, 2, 2]]
    return {
        "coinciding": (items, items),
        "opposite": (items, -items),
        "zero": (torch.zeros(6, 3), torch.zeros(6, 3)),
        "one of them zero": (torch.zeros(6, 3), items),
        "all equal": (torch.ones(6, 3), torch.ones(6, 3)),
        "a constant dimension": (constant, items),
        "duplicates": (twice, twice.flip(0)),
        "two rows": (items[:2], items[2:4]),
        "tiny and large": (1e-20 * items, 1e8 * items),
        "large": (1e8 * items, 1e8 * items.flip(0)),
        "far from the origin": (items + 1e4, items.flip(0) + 1e4),
    }


@pytest.mark.parametrize("case", _difficult())
@pytest.mark.parametrize("name", VIEWS)
def test_never_nan_for_finite_input(name: str, case: str) -> None:
    if (name, case) == ("distae 2", "tiny and large"):
        pytest.skip("its slope, 1e48, is more than float32 holds")
    objective, call = _made(name), VIEWS[name][1]
    for _ in range(2):  # the second call meets what the first left in memory
        one, other = (view.clone().requires_grad_() for view in _difficult()[case])
        loss = call(objective, one, other)
        assert loss.dim() == 0
        loss.backward()
        for value in (loss, one.grad, other.grad, *(p.grad for p in objective.parameters())):
            assert value is None or torch.isfinite(value).all()


@pytest.mark.parametrize("name", VIEWS)
def test_one_row(name: str) -> None:
    one, other = _normal(6, 1, 3), _normal(7, 1, 3)
    if name in ONE_ROW_IS_ENOUGH:
        assert VIEWS[name][1](_made(name), one, other).isfinite()
    else:
        with pytest.raises(ValueError, match=r"at least 2 rows, got \(1, 3\)"):
            VIEWS[name][1](_made(name), one, other)


@pytest.mark.parametrize("name", VIEWS)
def test_the_order_of_the_items_does_not_matter(name: str) -> None:
    one, other, order = _normal(8, 8, 3), _normal(9, 8, 3), torch.tensor([6, 3, 0, 1, 4, 7, 2, 5])  # parity is kept
    if name in ("dccae", "corrae", "splitae", "distae", "distae 2", "micse", "sepclr"):
        pytest.skip("called with more than the views")
    first, second = (_made(name)(one[rows], other[rows]) for rows in (torch.arange(8), order))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", VIEWS)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    one, other = _normal(10, 8, 3).to(dtype).requires_grad_(), _normal(11, 8, 3).to(dtype)
    if name in ("sepclr", "micse") or "ae" in name:
        pytest.skip("what the test adds would be rounded")
    loss = VIEWS[name][1](_made(name), one, other)
    assert loss.dtype == torch.float32
    exact = VIEWS[name][1](_made(name), one.detach().float(), other.float())
    torch.testing.assert_close(loss, exact)
    loss.backward()
    assert one.grad.dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(VIEWS[name][1](_made(name), one.float(), other.float()), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in VIEWS if VIEWS[name][1] is _with_views])
def test_views_that_do_not_fit(name: str) -> None:
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(5, 3\)"):
        _made(name)(_normal(0, 4, 3), _normal(1, 5, 3))
    with pytest.raises(ValueError, match=r"\(4,\)"):
        _made(name)(_normal(0, 4), _normal(1, 4))
    with pytest.raises(ValueError, match="int64"):
        _made(name)(torch.ones(4, 3).long(), torch.ones(4, 3).long())


def test_every_view_objective_of_this_family_is_covered() -> None:
    family = ("geometry", "correlation", "agreement", "attention")
    names = {cls.name for cls in catalogue() if cls.__module__.rpartition(".")[2] in family}
    assert names <= {name.partition(" ")[0] for name in VIEWS}


# -- spread and angles -------------------------------------------------------------------------------------------------


def test_koleo() -> None:
    poles = torch.tensor([[1.0, 0.0], [-3.0, 0.0]]).double()
    assert KoLeo()(poles).item() == pytest.approx(-math.log(2))
    assert KoLeo(1e-3)(torch.ones(3, 2).double()).item() == pytest.approx(-math.log(1e-3))
    z = _normal(20, 30, 3)
    assert KoLeo()(z) > KoLeo()(_even(30))  # even points lie farther from their neighbours than random ones
    torch.testing.assert_close(KoLeo(normalize=False)(3 * z), KoLeo(normalize=False)(z) - math.log(3))
    # the gradient reaches the neighbour too
    z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(KoLeo(normalize=False)(z), z)
    assert gradient[:, 0].tolist() == pytest.approx([2 / 3, -2 / 3 + 1 / 12, -1 / 12])


def _even(n: int) -> Tensor:
    """Points on the sphere, by the golden angle."""
    i = torch.arange(n).double() + 0.5
    height, turn = 1 - 2 * i / n, math.pi * (1 + 5**0.5) * i
    around = (1 - height**2).sqrt()
    return torch.stack([around * turn.cos(), around * turn.sin(), height], 1)


def test_equivariance_is_zero_for_a_rotation_alone() -> None:
    z = _normal(21, 12, 4)
    turned = torch.linalg.qr(_normal(22, 4, 4)).Q
    assert Equivariance()(z, z @ turned).item() == pytest.approx(0, abs=1e-12)
    assert Equivariance()(z, z).item() == pytest.approx(0, abs=1e-20)
    assert Equivariance()(z, z @ _normal(23, 4, 4)).item() > 0.1
    assert Equivariance()(z, z @ torch.diag(torch.tensor([1.0, 1, 1, 3])).double()).item() > 0.1
    # parts may turn differently: zero in chunks, not as a whole
    other = torch.linalg.qr(_normal(24, 4, 4)).Q
    parts = torch.cat([z[:6] @ turned, z[6:] @ other])
    assert Equivariance(2)(z, parts).item() == pytest.approx(0, abs=1e-12)
    assert Equivariance()(z, parts).item() > 0.1
    assert Equivariance(12)(z, parts).item() == 0  # parts of one item have no angles
    with pytest.raises(ValueError, match="13 chunks need as many rows"):
        Equivariance(13)(z, parts)


def test_care_is_infonce_without_its_weight() -> None:
    z1, z2, e1, e2 = (_normal(25 + i, 6, 3) for i in range(4))
    contrast = InfoNCE(temperature=0.5)(torch.cat([z1, z2]), relation=Views(2))
    torch.testing.assert_close(CARE(0.0)(z1, z2), contrast)
    torch.testing.assert_close(CARE(0.3)(z1, z2, e1, e2), contrast + 0.3 * Equivariance()(e1, e2))
    with pytest.raises(ValueError, match="both e1 and e2"):
        CARE()(z1, z2, e1)


def test_sepclr_without_targets_or_background() -> None:
    c1, c2, s1, s2 = (_normal(30 + i, 6, 3) for i in range(4))
    objective = SepCLR()
    nobody = objective.terms(c1, c2, s1, s2, torch.zeros(6))
    everybody = objective.terms(c1, c2, s1, s2, torch.ones(6))
    assert nobody["salient"].item() == pytest.approx(0)  # all at the null vector: uniformity of total collapse
    assert everybody["infoless"].item() == 0
    # salient codes of the background cannot be told from their absence but by the infoless term
    mixed = torch.tensor([1, 0, 1, 0, 1, 1])
    moved = torch.where(mixed[:, None] == 1, s1, s1 + 5)
    one, other = (objective.terms(c1, c2, s, s2, mixed) for s in (s1, moved))
    for name in ("common", "salient", "joint_entropy"):
        torch.testing.assert_close(one[name], other[name])
    assert other["infoless"] > one["infoless"]
    with pytest.raises(ValueError, match="same rows"):
        objective(c1, c2, s1[:4], s2[:4], mixed)


def test_align_uniform_weighs_its_parts() -> None:
    z1, z2 = _normal(35, 6, 3), _normal(36, 6, 3)
    expected = 3 * Alignment(1.5)(z1, z2) + 0.5 * Uniformity(3.0)(z1, z2)
    torch.testing.assert_close(AlignUniform(3.0, 0.5, alpha=1.5, t=3.0)(z1, z2), expected)


def test_uniformity_with_a_queue_is_one_mean_over_all_pairs() -> None:
    z, queue = _normal(37, 4, 3), _normal(38, 7, 3)
    unit, others = (torch.nn.functional.normalize(v) for v in (z, queue))
    across, within = torch.cdist(unit, others).flatten() ** 2, torch.pdist(unit) ** 2
    expected = (-2 * torch.cat([across, within])).exp().mean().log()
    for form in ("distance", "dot"):
        torch.testing.assert_close(Uniformity(form=form)(z, queue=queue), expected)
        alone = Uniformity(within=False, form=form)(z, queue=queue)
        torch.testing.assert_close(alone, (-2 * across).exp().mean().log())
        assert Uniformity(form=form)(z[:1], queue=queue).isfinite()
    with pytest.raises(ValueError, match=r"queue must be \[k, 3\], got \(7, 2\)"):
        Uniformity()(z, queue=queue[:, :2])


def test_uniformity_does_not_lose_digits_far_from_the_origin() -> None:
    z = _normal(39, 50, 4)
    exact = Uniformity(0.5, normalize=False)(z)
    found = Uniformity(0.5, normalize=False)((z + 1000).float())
    assert found.item() == pytest.approx(exact.item(), rel=1e-3)


class _Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation within it gives."""

    numel = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, Tensor):
                self.numel = max(self.numel, value.numel())
        return result


@pytest.mark.parametrize("name", ["align-uniform", "koleo", "equivariance", "care", "sepclr", "micse"])
def test_memory_is_linear_in_the_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "DENSE_LIMIT", 0)
    n = 400
    one, other = _normal(45, n, 3).requires_grad_(), _normal(46, n, 3)
    with tiles_of(8), _Largest() as largest:
        VIEWS[name][1](_made(name), one, other).backward()
    assert n <= largest.numel <= 8 * 2 * n * 4
    assert largest.numel < n * n / 4


# -- agreement ---------------------------------------------------------------------------------------------------------


def test_cosine_objectives_are_one_another() -> None:
    a, b = _normal(40, 6, 3), _normal(41, 6, 3)
    cosine = NegativeCosine()(a, b)
    torch.testing.assert_close(Alignment()(a, b), 2 + 2 * cosine)
    torch.testing.assert_close(SimSiam()(a, b), cosine)
    torch.testing.assert_close(BYOL()(a, b), 4 + 4 * cosine)
    torch.testing.assert_close(UNSEE("byol")(a, b), BYOL()(a, b))
    assert BYOL()(a, 2 * a).item() == pytest.approx(0, abs=1e-12)
    assert BYOL()(a, -a).item() == pytest.approx(8)
    assert (SimSiam()(a, a).item(), SimSiam()(a, -a).item()) == pytest.approx((-1, 1))


@pytest.mark.parametrize("cls", [SimSiam, BYOL])
def test_targets_get_no_gradient_and_the_predictor_sees_only_the_views(cls: type[SimSiam]) -> None:
    a, b, t1, t2 = (_normal(42 + i, 6, 3).requires_grad_() for i in range(4))
    predictor = nn.Linear(3, 3).double()
    objective = cls(predictor)
    loss = objective(a, b, targets=(t1, t2))
    found = torch.autograd.grad(loss, (a, b, t1, t2, predictor.weight), allow_unused=True, retain_graph=True)
    assert [gradient is not None for gradient in found] == [True, True, False, False, True]
    torch.testing.assert_close(loss, cls()(predictor(a), predictor(b), targets=(t1, t2)))
    assert list(objective.parameters()) == list(predictor.parameters())
    with pytest.raises(ValueError, match="targets of 2 views, got 1"):
        objective(a, b, targets=(t1,))


def test_stop_gradient_and_predictor_keep_simsiam_from_collapsing() -> None:
    """The deviation of normalised embeddings stays near 1/sqrt(d), or falls to 0 without them."""
    spread = {}
    for prevented in (True, False):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 8))
        predictor = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 8))
        objective = SimSiam(predictor) if prevented else None
        parameters = [*encoder.parameters(), *predictor.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
        generator = torch.Generator().manual_seed(1)
        for _ in range(150):
            x = torch.randn(64, 8, generator=generator)
            z1, z2 = (encoder(x + 0.3 * torch.randn(64, 8, generator=generator)) for _ in range(2))
            loss = objective(z1, z2) if objective is not None else NegativeCosine()(z1, z2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        unit = torch.nn.functional.normalize(encoder(torch.randn(256, 8, generator=generator)))
        spread[prevented] = unit.std(0).mean().item() * 8**0.5
    assert spread[True] > 0.5
    assert spread[False] < 0.5 * spread[True]


def test_swav_at_its_limits() -> None:
    objective = SwaV(4, 3).double()
    z = _normal(50, 8, 3)
    same = SwaV(1, 3).double()
    assert same(z, z).item() == pytest.approx(0)  # one cluster
    collapsed = objective(torch.ones(8, 3).double(), torch.ones(8, 3).double())
    # equal items cannot be told apart: codes are equal too, and predictions are sharper than codes
    assert collapsed.item() >= math.log(4)
    torch.testing.assert_close(objective(z, 3 * z), objective(z, z))  # scale does not matter
    assert "prototypes" in objective.state_dict()
    with pytest.raises(ValueError, match="make it with dimension=5"):
        objective(_normal(51, 4, 5), _normal(52, 4, 5))
    with pytest.raises(ValueError, match="2 views give codes and need as many queues, got 1"):
        objective(z, z, queues=[z])
    with pytest.raises(ValueError, match="at least 2 views"):
        objective(z)


def test_dino_of_equal_outputs_is_the_entropy_of_nothing() -> None:
    zeros = torch.zeros(4, 5)
    assert DINO()(zeros, zeros).item() == pytest.approx(math.log(5))
    with pytest.raises(ValueError, match="leave no pair"):
        DINO()(zeros)
    with pytest.raises(ValueError, match="leave no pair"):
        DINO()(zeros, zeros, targets=[zeros] * 3)


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [DINO, CorInfoMax, lambda: UNSEE("corinfomax")])
def test_what_is_remembered_is_saved_and_stands_still_in_evaluation(make: Callable[[], ViewObjective]) -> None:
    objective, views = make(), [_normal(60 + i, 6, 3) for i in range(6)]
    first = objective(*views[:2]).item()
    assert objective(*views[:2]).item() != first
    state = {name: value.clone() for name, value in objective.state_dict().items()}
    assert all(value.numel() for value in state.values())
    copy = make()
    copy.load_state_dict(state)
    assert copy(*views[2:4]).item() == objective(*views[2:4]).item()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    assert any((before[name] != state[name]).any() for name in state)
    objective.eval()
    assert objective(*views[4:]).item() == objective(*views[4:]).item()
    for name, value in objective.state_dict().items():
        assert (value == before[name]).all()
        assert not value.requires_grad
    with pytest.raises(ValueError, match="4"):
        objective(_normal(0, 6, 4), _normal(1, 6, 4))


def test_a_graph_is_not_kept_from_batch_to_batch() -> None:
    for objective in (DINO(), CorInfoMax()):
        for step in range(3):
            one, other = _normal(70 + step, 5, 3).requires_grad_(), _normal(80 + step, 5, 3).requires_grad_()
            objective(one, other).backward()  # a second pass through an earlier graph would raise


# -- correlations ------------------------------------------------------------------------------------------------------


def test_dcca_does_not_see_invertible_linear_maps() -> None:
    x, y = _normal(90, 60, 3), _normal(91, 60, 4)
    y = y + x @ _normal(92, 3, 4)
    found = DCCA(ridge=1e-12).correlations(x, y)
    mapped = DCCA(ridge=1e-12).correlations(x @ _normal(93, 3, 3) + 5, y @ _normal(94, 4, 4))
    torch.testing.assert_close(found, mapped, rtol=1e-6, atol=1e-6)
    assert ((found > 0) & (found < 1)).all()
    assert DCCA(ridge=1e-12)(x, x @ _normal(95, 3, 3)).item() == pytest.approx(-3, abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DCCA()(x, y)


def test_dcca_of_a_small_batch_says_nothing_and_warns() -> None:
    for n in (3, 4):
        x, y = _normal(96, n, 5), _normal(97, n, 5)
        with pytest.warns(UserWarning, match=f"{n} rows say little of correlations of 5 dimensions"):
            assert DCCA(ridge=1e-8)(x, y).item() == pytest.approx(-(n - 1), abs=1e-5)


def test_corrae_may_repeat_a_feature_where_dcca_may_not() -> None:
    x, y = _normal(98, 50, 1), _normal(99, 50, 1)
    y = x + 0.1 * y
    repeated, also = x.expand(50, 3), y.expand(50, 3)
    nothing: dict[str, Sequence[Tensor]] = {"inputs": [x], "reconstructions": [x]}
    assert CorrAE(0.0)(repeated, also, **nothing).item() < -2.9
    assert DCCA()(repeated, also).item() > -1.1


def test_distances_of_codes() -> None:
    z1, z2 = _normal(100, 5, 3), _normal(101, 5, 3)
    nothing: dict[str, Sequence[Tensor]] = {"inputs": [z1], "reconstructions": [z1]}
    shrunk = [DistAE(form)(0.1 * z1, 0.1 * z2, **nothing).item() for form in (1, 2)]
    whole = [DistAE(form)(z1, z2, **nothing).item() for form in (1, 2)]
    assert shrunk[0] == pytest.approx(0.01 * whole[0])
    assert shrunk[1] == pytest.approx(whole[1])
    assert DistAE()(z1, z1, **nothing).item() == 0


def test_reconstructions_that_do_not_fit() -> None:
    z = _normal(102, 5, 3)
    with pytest.raises(ValueError, match=r"must be alike, got \[\(5, 3\)\] and \[\(5, 2\)\]"):
        DCCAE()(z, z, inputs=[z], reconstructions=[z[:, :2]])
    with pytest.raises(ValueError, match="must be alike"):
        DistAE()(z, z, inputs=[z], reconstructions=[z, z])
    with pytest.raises(ValueError, match="of two views"):
        SplitAE()(z, inputs=[z], reconstructions=[z])


def test_corinfomax_falls_as_views_spread_and_agree() -> None:
    z = _normal(103, 40, 3)
    spread, flat = (CorInfoMax()(v, v).item() for v in (3 * z, z * torch.tensor([1.0, 1.0, 1e-3])))
    assert spread < flat
    assert CorInfoMax()(z, z.flip(0)) > CorInfoMax()(z, z)
    unit = CorInfoMax(normalize=True)
    assert unit(z, 5 * z).item() == pytest.approx(CorInfoMax(normalize=True)(z, z).item())


# -- attention ---------------------------------------------------------------------------------------------------------


def test_micse_without_its_weight_is_infonce() -> None:
    z1, z2 = _normal(110, 4, 3), _normal(111, 4, 3)
    attention = _attention(4, z1)
    torch.testing.assert_close(MiCSE(0.0)(z1, z2, attention=attention), InfoNCE()(z1, z2))
    assert MiCSE(1.0)(z1, z2, attention=attention) < InfoNCE()(z1, z2)  # what the maps share counts for it


def test_micse_of_equal_and_of_opposite_maps() -> None:
    one, other = _attention(2, _normal(0, 1))
    largest = -0.5 * math.log(1e-6)
    assert -MiCSE().attention_term(one, one).item() == pytest.approx(largest)
    assert -MiCSE().attention_term(one, 0.01 / one).item() == pytest.approx(largest)  # the sign does not show
    assert 0 < -MiCSE().attention_term(one, other).item() < 0.1 * largest


def test_micse_draws_as_many_entries_as_it_is_told_to() -> None:
    one, other = _attention(2, _normal(0, 1), length=8)
    every = MiCSE(samples=64).attention_term(one, other)
    torch.testing.assert_close(MiCSE(samples=150).attention_term(one, other), every)  # the poorest has 64

    def drawn(seed: int) -> Tensor:
        return MiCSE(samples=20, generator=torch.Generator().manual_seed(seed)).attention_term(one, other)

    torch.testing.assert_close(drawn(0), drawn(0), rtol=0, atol=0)
    assert drawn(0) != drawn(1)
    assert drawn(0) != every
    # padding: rows and columns of zeros change nothing but the share of entries above 0
    padded = [nn.functional.pad(maps, (0, 2, 0, 2)) for maps in (one, other)]
    torch.testing.assert_close(MiCSE(samples=64).attention_term(*padded), every * 0.64**2)
    nothing = torch.zeros_like(one).requires_grad_()
    assert MiCSE().attention_term(nothing, other).item() == 0


def test_attention_that_does_not_fit() -> None:
    z = _normal(112, 3, 4)
    one, other = _attention(3, z)
    with pytest.raises(ValueError, match=r"two \[3, layers, heads, length, length\] alike"):
        MiCSE()(z, z, attention=(one[:2], other[:2]))
    with pytest.raises(ValueError, match="alike"):
        MiCSE()(z, z, attention=(one, other[:, :1]))
    with pytest.raises(ValueError, match="even number of layers, got 1"):
        MiCSE()(z, z, attention=(one[:, :1], other[:, :1]))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: KoLeo(0.0), "eps"),
        (lambda: Equivariance(0), "chunks"),
        (lambda: CARE(-1.0), "weight"),
        (lambda: SepCLR(0.0), "tau"),
        (lambda: SepCLR(joint_weight=-1.0), "weights"),
        (lambda: AlignUniform(-1.0), "weights"),
        (lambda: Alignment(form="cosine"), "'distance' or 'dot'"),
        (lambda: CorInfoMax(memory=1.0), "memory"),
        (lambda: CorInfoMax(eps=0.0), "eps"),
        (lambda: CorInfoMax(-1.0), "weights"),
        (lambda: DCCA(0), "top"),
        (lambda: DCCA(ridge=0.0), "ridge"),
        (lambda: DCCAE(-1.0), "weight"),
        (lambda: DistAE(3), "form"),
        (lambda: UNSEE("simclr"), "no form 'simclr'"),
        (lambda: SwaV(0), "prototypes"),
        (lambda: SwaV(temperature=0.0), "temperature"),
        (lambda: DINO(momentum=1.0), "momentum"),
        (lambda: DINO(0.0), "temperature"),
        (lambda: MiCSE(-1.0), "weights"),
        (lambda: MiCSE(samples=1), "samples"),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()
