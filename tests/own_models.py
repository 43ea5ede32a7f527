"""Nets that are not of the kit, as a user may bring them: no test, but what tests move."""

import torch
import torch.nn.functional as F
from torch import nn


class Rows(nn.Module):
    """A transformer that reads a digit row by row, as eight words of eight numbers."""

    def __init__(self, size=16, heads=2, layers=1):
        super().__init__()
        self.read = nn.Linear(8, size)
        self.place = nn.Parameter(0.1 * torch.randn(8, size))
        layer = nn.TransformerEncoderLayer(size, heads, 2 * size, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.answer = nn.Linear(size, 10)

    def forward(self, digits):
        return self.answer(self.encoder(self.read(digits.squeeze(1)) + self.place).mean(1))


class Letters(nn.Module):
    """A character model whose output layer is its embedding: one tensor under two names."""

    def __init__(self, n_letters=7, size=6):
        super().__init__()
        self.embed = nn.Embedding(n_letters, size)
        self.norm = nn.LayerNorm(size)
        self.mix = nn.Linear(size, size)
        self.answer = nn.Linear(size, n_letters, bias=False)
        self.answer.weight = self.embed.weight

    def forward(self, letters):
        words = self.embed(letters)
        seen = words.cumsum(1) / torch.arange(1, letters.shape[1] + 1)[:, None]
        return self.answer(self.norm(words + torch.tanh(self.mix(seen))))


def next_letter(model, batch):
    """The mean over letters, not over texts: a pair (sum, count)."""
    (letters,) = batch
    scores = model(letters[:, :-1]).flatten(0, 1)
    loss = F.cross_entropy(scores, letters[:, 1:].flatten(), reduction="sum")
    return loss, letters[:, 1:].numel()


class LowRank(nn.Module):
    """A frozen linear layer plus B·A of low rank (Hu et al. 2022): B is zero at the start."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, inputs):
        return self.base(inputs) + inputs @ self.lora_a.T @ self.lora_b.T


class Smooth:
    """A loss with a setting: cross entropy of smoothed labels."""

    def __init__(self, amount):
        self.amount = amount

    def __call__(self, model, batch):
        inputs, targets = batch
        return F.cross_entropy(model(inputs), targets, label_smoothing=self.amount)


class ScaledLowRank(nn.Module):
    """A layer with a part of low rank, whose factor is no parameter and in no description."""

    def __init__(self, factor):
        super().__init__()
        self.base, self.factor = nn.Linear(4, 3), factor
        self.down = nn.Parameter(torch.randn(2, 4))
        self.up = nn.Parameter(torch.zeros(3, 2))

    def forward(self, x):
        return self.base(x) + self.factor * (x @ self.down.T @ self.up.T)
