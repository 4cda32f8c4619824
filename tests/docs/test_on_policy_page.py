"""The page on on-policy alignment: its code runs, its reward function is called as it says, its objectives exist."""

import re
from pathlib import Path

import torch

from nearfar.alignment.online import FunctionReward, cost_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "on-policy.md").read_text(encoding="utf-8")


def test_its_code_runs(capsys):
    torch.manual_seed(0)
    reward, loop = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(reward, names)
    assert FunctionReward([names["brief"]])(["a"], [["x y", "x"]]).tolist() == [[-2.0, -1.0]]
    exec(loop, {})
    first, last, exact = (float(re.search(r"-?\d+\.\d+", word)[0]) for word in capsys.readouterr().out.split()[:3])
    assert first < last
    assert exact > first


def test_its_objectives_are_as_it_says():
    table = PAGE[PAGE.index("| objectives |") :].split("\n\n")[0]
    named = [name for line in table.splitlines()[2:] for name in re.findall(r"`([\w-]+)`", line.split("|")[1])]
    assert {"dpo", "grpo", "disco", "ampo", "best-of-n", "dro-p"} <= set(named)
    for name in named:
        cost_of(name)
