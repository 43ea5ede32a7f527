"""Seeded starts: the numbers of a reseeded global generator, without touching it."""

import threading

import pytest
import torch

from lossviz.models import mlp, resnet, ssdlite, tiny_ssd, vgg
from lossviz.models.looks_linear import looks_linear
from lossviz.split import Split
from lossviz.training import fit

MAKERS = {
    "resnet": lambda seed: resnet(8, width=2, seed=seed),
    "vgg": lambda seed: vgg(9, 2, seed=seed),
    "mlp": lambda seed: mlp((5, 5), seed=seed),
    "tiny_ssd": lambda seed: tiny_ssd(seed=seed),
    "ssdlite": lambda seed: ssdlite(seed=seed),
    "looks_linear": lambda seed: looks_linear(resnet(8, width=2, skip=False, seed=1), seed=seed),
}


def numbers(net):
    return torch.cat([tensor.double().flatten() for tensor in net.state_dict().values()])


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_seed_gives_the_numbers_that_the_global_generator_would_give(make):
    before = torch.random.get_rng_state()
    ours = numbers(make(7))
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        assert torch.equal(ours, numbers(make(None)))


def test_nets_made_at_once_in_many_threads_are_those_of_their_seeds():
    wanted = {seed: numbers(resnet(14, width=2, seed=seed)) for seed in range(4)}
    made = {}

    def make(seed):
        made[seed] = [numbers(resnet(14, width=2, seed=seed)) for _ in range(10)]

    threads = [threading.Thread(target=make, args=(seed,)) for seed in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, nets in made.items():
        assert all(torch.equal(net, wanted[seed]) for net in nets)


def test_who_draws_while_another_thread_makes_and_trains_nets_is_not_disturbed():
    torch.manual_seed(0)
    wanted = [float(torch.rand(())) for _ in range(4000)]
    inputs = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    train, done = Split(inputs, torch.arange(16) % 10, name="few"), threading.Event()

    def work():
        while not done.is_set():
            net = resnet(8, width=2, seed=3)
            fit(net, train, epochs=1, batch_size=8, lr=0.1, progress=False)

    thread = threading.Thread(target=work)
    torch.manual_seed(0)
    thread.start()
    drawn = [float(torch.rand(())) for _ in range(4000)]
    done.set()
    thread.join()
    assert drawn == wanted
