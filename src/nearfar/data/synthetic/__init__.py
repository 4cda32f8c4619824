"""Generated data with known truth: what a method should find is known, so that finding it can be measured."""

from __future__ import annotations

from nearfar.data.synthetic.attribute_codes import AttributeCodes
from nearfar.data.synthetic.background_target import BackgroundTarget
from nearfar.data.synthetic.content_curve import ContentCurve
from nearfar.data.synthetic.content_style import ContentStyle
from nearfar.data.synthetic.drifting_paragraphs import DriftingParagraphs
from nearfar.data.synthetic.gaussian_views import GaussianViews
from nearfar.data.synthetic.long_tail import long_tail
from nearfar.data.synthetic.rotated_domains import RotatedDomains
from nearfar.data.synthetic.rotation import random_rotation
from nearfar.data.synthetic.sensors import Sensors
from nearfar.data.synthetic.slot_grammar import SlotGrammar
from nearfar.data.synthetic.slot_images import SlotImages
from nearfar.data.synthetic.styled import StyledClasses, StyledItems
from nearfar.data.synthetic.topic_chain import TopicChain
from nearfar.data.synthetic.topic_grammar import TopicGrammar

__all__ = [
    "AttributeCodes",
    "BackgroundTarget",
    "ContentCurve",
    "ContentStyle",
    "DriftingParagraphs",
    "GaussianViews",
    "RotatedDomains",
    "Sensors",
    "SlotGrammar",
    "SlotImages",
    "StyledClasses",
    "StyledItems",
    "TopicChain",
    "TopicGrammar",
    "long_tail",
    "random_rotation",
]
