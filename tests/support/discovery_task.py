"""A fitness for tests of the search: one weight, trained for twenty steps, so that the loss decides where it ends."""

import torch

print("a task that prints while it is imported")


def make(scale: float = 1.0):
    print("and when it is made")
    gaps = torch.linspace(0, 10, 50)
    zeros = torch.zeros(50)

    def fitness(objective):
        weight = torch.zeros(1, requires_grad=True)
        for _ in range(20):
            cost = objective(weight * gaps, -weight * gaps, reference_chosen=zeros, reference_rejected=zeros)
            (slope,) = torch.autograd.grad(cost, weight)
            with torch.no_grad():
                weight -= slope
        return {"fitness": scale * float(weight.detach()), "drawn": float(torch.rand(()))}

    return fitness


def plain():
    return lambda objective: 1.0 + objective.beta


def not_finite():
    return lambda objective: float("nan")


def no_fitness():
    return lambda objective: {"accuracy": 1.0}


def broken():
    raise RuntimeError("no data here")


def no_number():
    return lambda objective: "good"
