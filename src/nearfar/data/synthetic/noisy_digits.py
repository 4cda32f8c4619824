"""Two views of scikit-learn's digits that share the digit alone: one rotated, one by another hand under noise."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import MissingExtraError, UsageError
from nearfar.views.image import Rotate

TRAIN = 1297
"""Of the 1,797 images; the other 500 are the test part."""

_SPLIT_SEED = 1602


class NoisyDigits:
    """The noisy digits of Wang et al. (2015, arXiv:1602.01024), from the 8 x 8 images that scikit-learn brings along.

    View 1 is an image turned by a uniform angle; view 2 is another image of the same digit plus uniform noise in
    [0, ``noise``], cut to [0, 1]. Both are drawn afresh for each batch. What they share is the digit: neither slant nor
    hand. The split into 1,297 training and 500 test images is the same for every seed, and the second image comes from
    the same part as the first.

    Arguments: ``degrees``: view 1 is turned by up to so many either way, default 45; ``noise``: default 1.

    ``train_images [1297, 1, 8, 8]`` in [0, 1], ``train_labels``, ``test_images`` and ``test_labels`` are the digits as
    they are.
    """

    def __init__(self, *, degrees: float = 45.0, noise: float = 1.0) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise MissingExtraError("scikit-learn", "text") from error
        if not noise >= 0:
            raise UsageError(f"noise is {noise}; it must be >= 0")
        digits = load_digits()
        images = torch.as_tensor(digits.images, dtype=torch.float32)[:, None] / 16
        labels = torch.as_tensor(digits.target, dtype=torch.long)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(_SPLIT_SEED))
        self.train_images, self.test_images = images[order[:TRAIN]], images[order[TRAIN:]]
        self.train_labels, self.test_labels = labels[order[:TRAIN]], labels[order[TRAIN:]]
        self.noise = noise
        self._rotate = Rotate(degrees)
        self._by_digit = self.train_labels.argsort(stable=True)
        self._counts = torch.bincount(self.train_labels, minlength=10)

    def rotated(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """View 1 of images ``[n, 1, 8, 8]``: each turned by an angle of its own."""
        return self._rotate(images, generator=generator)

    def partners(self, index: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """For each training image ``index [n]`` another one of the same digit ``[n]``."""
        digit = self.train_labels[index]
        first = (self._counts.cumsum(0) - self._counts)[digit]
        place = torch.empty(len(self._by_digit), dtype=torch.long)
        place[self._by_digit] = torch.arange(len(self._by_digit))
        ahead = 1 + (torch.rand(len(index), generator=generator) * (self._counts[digit] - 1)).long()
        return self._by_digit[first + (place[index] - first + ahead) % self._counts[digit]]

    def noisy(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Images plus uniform noise, cut to [0, 1]."""
        return (images + self.noise * torch.rand(images.shape, generator=generator)).clamp(0, 1)

    def views(self, index: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """View 1 and view 2 ``[n, 1, 8, 8]`` of the training images ``index``."""
        one = self.rotated(self.train_images[index], generator=generator)
        other = self.train_images[self.partners(index, generator=generator)]
        return one, self.noisy(other, generator=generator)
