"""Importing this module registers all commands."""

import nearfar.cli.align
import nearfar.cli.align_online
import nearfar.cli.calibrate
import nearfar.cli.classify
import nearfar.cli.compare
import nearfar.cli.data
import nearfar.cli.demo
import nearfar.cli.encode
import nearfar.cli.evaluate
import nearfar.cli.mine
import nearfar.cli.objectives
import nearfar.cli.recipes
import nearfar.cli.report
import nearfar.cli.reproduce
import nearfar.cli.reward
import nearfar.cli.search
import nearfar.cli.train
import nearfar.cli.views  # noqa: F401
