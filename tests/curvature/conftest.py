import pytest
import torch
from torch import nn

from lossviz.losses import squared_error
from lossviz.objective import Objective


@pytest.fixture(autouse=True)
def one_thread():
    """Nets this small lose more to threads that wait for each other than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def net():
    torch.manual_seed(0)
    layers = [nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)]
    return nn.Sequential(*layers).double()


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(24, 4, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(3, (24,), generator=generator)


@pytest.fixture
def objective(net, samples):
    return Objective(net, samples)


@pytest.fixture
def exact():
    """The whole Hessian of an objective, by another way than ours: torch.func.hessian."""

    def matrix(objective, weights=None):
        like = objective.weights
        sizes = [w.numel() for w in like.values()]
        weights = weights or like

        def mean(flat):
            moved = {
                name: part.reshape(w.shape)
                for part, (name, w) in zip(flat.split(sizes), like.items(), strict=True)
            }
            parts = [objective.loss_sum(moved, batch) for batch in objective.batches]
            return sum(loss for loss, _ in parts) / sum(count for _, count in parts)

        flat = torch.cat([weights[name].reshape(-1) for name in like])
        return torch.func.hessian(mean)(flat).numpy()

    return matrix


@pytest.fixture
def quadratic():
    """An objective whose Hessian is diagonal, with the eigenvalues that are given."""

    class Parabola(nn.Module):
        def __init__(self, eigenvalues):
            super().__init__()
            self.theta = nn.Parameter(torch.zeros(len(eigenvalues), dtype=torch.float64))
            self.register_buffer("eigenvalues", torch.as_tensor(eigenvalues).double())

        def forward(self, inputs):
            height = 0.5 * (self.eigenvalues * self.theta.square()).sum()
            return inputs * 0 + height

    def mean(model, batch):
        return model(batch[0]).mean()

    def make(eigenvalues):
        samples = torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, 1)
        return Objective(Parabola(eigenvalues), samples, loss=mean)

    return make


@pytest.fixture
def regression(samples):
    """A linear net with squared error: the loss is a quadratic form of its weights."""
    torch.manual_seed(0)
    inputs, _ = samples
    net = nn.Linear(4, 2).double()
    return Objective(net, (inputs, torch.zeros(len(inputs), 2)), loss=squared_error)
