"""Generated data with known truth: what a method should find is known, so that finding it can be measured."""

from __future__ import annotations

from nearfar.data.synthetic.content_style import ContentStyle, random_rotation
from nearfar.data.synthetic.gaussian_views import GaussianViews
from nearfar.data.synthetic.sensors import Sensors

__all__ = ["ContentStyle", "GaussianViews", "Sensors", "random_rotation"]
