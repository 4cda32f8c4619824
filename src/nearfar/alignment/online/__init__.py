"""On-policy alignment: sample responses, reward them, choose what is contrasted, train, and sample anew."""

from nearfar.alignment.online.costs import (
    Constrained,
    Cost,
    GroupCost,
    PairCost,
    PointCost,
    PolicyGradient,
    Selected,
    cost_of,
    graded,
    right_and_wrong,
)
from nearfar.alignment.online.loop import OnlineSettings, OnlineTrainer, Round, improve, train_on
from nearfar.alignment.online.nash import (
    ExpectedWinRates,
    PreferenceGame,
    bradley_terry,
    mixture,
    soft_policy_iteration,
)
from nearfar.alignment.online.practical import PracticalSettings, dno_prct, practical_pairs
from nearfar.alignment.online.rewards import (
    ContrastiveReward,
    FunctionReward,
    PoolWinRates,
    Reward,
    TableReward,
    reward_function,
)
from nearfar.alignment.online.rollouts import Rollouts, observe, roll_out
from nearfar.alignment.online.selection import Pairs, all_pairs, best_and_worst, select_group, widest_pairs

__all__ = [
    "Constrained",
    "ContrastiveReward",
    "Cost",
    "ExpectedWinRates",
    "FunctionReward",
    "GroupCost",
    "OnlineSettings",
    "OnlineTrainer",
    "PairCost",
    "Pairs",
    "PointCost",
    "PolicyGradient",
    "PoolWinRates",
    "PracticalSettings",
    "PreferenceGame",
    "Reward",
    "Rollouts",
    "Round",
    "Selected",
    "TableReward",
    "all_pairs",
    "best_and_worst",
    "bradley_terry",
    "cost_of",
    "dno_prct",
    "graded",
    "improve",
    "mixture",
    "observe",
    "practical_pairs",
    "reward_function",
    "right_and_wrong",
    "roll_out",
    "select_group",
    "soft_policy_iteration",
    "train_on",
    "widest_pairs",
]
