"""On-policy alignment: sample responses, reward them, choose what is contrasted, train, and sample anew."""

from nearfar.alignment.online.costs import (
    Constrained,
    Cost,
    GroupCost,
    PairCost,
    PointCost,
    PolicyGradient,
    cost_of,
    graded,
    right_and_wrong,
    selected,
)
from nearfar.alignment.online.loop import OnlineSettings, Round, improve
from nearfar.alignment.online.rewards import ContrastiveReward, PoolWinRates, Reward, TableReward, reward_function
from nearfar.alignment.online.rollouts import Rollouts, observe, roll_out
from nearfar.alignment.online.selection import Pairs, all_pairs, best_and_worst, select_group, widest_pairs

__all__ = [
    "Constrained",
    "ContrastiveReward",
    "Cost",
    "GroupCost",
    "OnlineSettings",
    "PairCost",
    "Pairs",
    "PointCost",
    "PolicyGradient",
    "PoolWinRates",
    "Reward",
    "Rollouts",
    "Round",
    "TableReward",
    "all_pairs",
    "best_and_worst",
    "cost_of",
    "graded",
    "improve",
    "observe",
    "reward_function",
    "right_and_wrong",
    "roll_out",
    "select_group",
    "selected",
    "widest_pairs",
]
