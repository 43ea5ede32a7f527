"""Plausible wrong answers to the exercises of 03_weight_decay."""

import lossviz as lv


def brought_to(model, norm):
    whole = sum(float(weight.square().sum()) for weight in model.state_dict().values()) ** 0.5
    return lv.rescale(model, norm / whole)  # of all weights, not of those that are rescaled


def decay_sum(weight_decay, lr, momentum, steps):
    return weight_decay * lr * steps


def angle(objective, weights, name, lr):
    return lr * float(objective.gradient(weights)[name].norm())
