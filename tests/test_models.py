import copy
import math
import os
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from torch import fx, nn

from lossviz import data, models
from lossviz.models import load_weights, logistic, mlp, pretrained, resnet, vgg
from lossviz.shipped import shipped


def n_weights(net):
    return sum(weight.numel() for weight in net.parameters())


FACTORIES = {
    "logistic": logistic,
    "mlp": mlp,
    "mlp with norm and skip": lambda seed=None: mlp(
        (16, 16), batch_norm=True, skip=True, seed=seed
    ),
    "mlp with tanh": lambda seed=None: mlp((8,), activation="tanh", seed=seed),
    "vgg": lambda seed=None: vgg(9, width=2, seed=seed),
    "resnet": lambda seed=None: resnet(8, width=2, seed=seed),
    "resnet, option A": lambda seed=None: resnet(8, width=2, shortcut="A", seed=seed),
    "resnet without shortcuts": lambda seed=None: resnet(8, 2, False, seed=seed),
}


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
class TestEveryNetwork:
    def test_gives_a_score_to_each_class(self, factory):
        assert factory()(torch.randn(3, 1, 8, 8)).shape == (3, 10)

    def test_starts_where_its_seed_says(self, factory):
        first, again, other = (factory(seed=seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)

    def test_starts_where_the_global_state_says_without_a_seed(self, factory):
        torch.manual_seed(5)
        first = factory().state_dict()
        torch.manual_seed(5)
        again = factory().state_dict()
        assert all(torch.equal(first[name], again[name]) for name in first)

    def test_leaves_the_global_random_state_alone_with_a_seed(self, factory):
        before = torch.get_rng_state()
        factory(seed=3)
        assert torch.equal(before, torch.get_rng_state())

    def test_is_traced_without_a_change(self, factory):
        net = factory(seed=0).eval()
        inputs = torch.randn(2, 1, 8, 8)
        assert torch.equal(fx.symbolic_trace(net)(inputs), net(inputs))

    def test_leaves_its_inputs_alone(self, factory):
        inputs = torch.randn(4, 1, 8, 8)
        before = inputs.clone()
        factory(seed=0)(inputs)
        assert torch.equal(inputs, before)

    def test_travels_to_another_process(self, factory):
        net = factory(seed=0).eval()
        inputs = torch.randn(2, 1, 8, 8)
        arrived = pickle.loads(pickle.dumps(net))
        assert torch.equal(arrived(inputs), net(inputs))
        assert torch.equal(copy.deepcopy(net)(inputs), net(inputs))

    def test_has_a_gradient_for_every_weight(self, factory):
        net = factory(seed=0)
        F.cross_entropy(net(torch.randn(8, 1, 8, 8)), torch.arange(8)).backward()
        assert all(weight.grad is not None for weight in net.parameters())

    def test_refuses_a_seed_that_is_no_number(self, factory):
        with pytest.raises(TypeError, match="seed"):
            factory(seed="one")


class TestLogistic:
    def test_is_affine(self):
        net, x = logistic(seed=0).double(), torch.randn(2, 64, dtype=torch.float64)
        assert torch.allclose(net(x), x @ net.linear.weight.T + net.linear.bias, atol=1e-14)

    def test_predicts_as_scikit_learn_does_with_its_weights(self):
        digits = data.digits()
        inputs, targets = digits.train.inputs[:400].flatten(1), digits.train.targets[:400]
        oracle = LogisticRegression(max_iter=200).fit(inputs.numpy(), targets.numpy())
        net = logistic()
        with torch.no_grad():
            net.linear.weight.copy_(torch.from_numpy(oracle.coef_))
            net.linear.bias.copy_(torch.from_numpy(oracle.intercept_))
            found = net(digits.test.inputs[:200]).softmax(1)
        expected = oracle.predict_proba(digits.test.inputs[:200].flatten(1).numpy())
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


class TestMlp:
    def test_is_the_formula_of_its_layers(self):
        net, x = mlp((5, 4), seed=0), torch.randn(3, 64)
        first, second = (layer.linear for layer in net.layers)
        h = F.relu(x @ first.weight.T + first.bias)
        h = F.relu(h @ second.weight.T + second.bias)
        assert torch.allclose(net(x), h @ net.linear.weight.T + net.linear.bias, atol=1e-6)

    def test_skip_adds_where_the_width_stays(self):
        net, x = mlp((5, 5), activation="tanh", skip=True, seed=0), torch.randn(3, 64)
        first, second = (layer.linear for layer in net.layers)
        h = torch.tanh(first(x))
        assert torch.allclose(net(x), net.linear(h + torch.tanh(second(h))), atol=1e-6)

    def test_rescaled_layers_are_the_same_function(self):
        net, x = mlp((6,), seed=0).double(), torch.randn(4, 64, dtype=torch.float64)
        before = net(x)
        with torch.no_grad():
            net.layers[0].linear.weight.mul_(7)
            net.linear.weight.div_(7)
        assert torch.allclose(net(x), before, atol=1e-12)

    def test_signal_keeps_its_size_through_fifty_layers(self):
        net = mlp((256,) * 50, seed=0)
        signal = torch.randn(64, 64)
        for layer in net.layers:
            signal = layer(signal)
        assert 0.2 < signal.square().mean() / 2 < 5

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"hidden": (0,)}, r"hidden\[0\]"),
            ({"hidden": (3, 2.5)}, r"hidden\[1\]"),
            ({"inputs": 0}, "inputs"),
            ({"classes": -1}, "classes"),
            ({"activation": "gelu"}, "'relu', 'tanh'"),
        ],
    )
    def test_impossible_settings_are_errors(self, settings, message):
        with pytest.raises(ValueError, match=message):
            mlp(**settings)


class TestResnet:
    @pytest.mark.parametrize(
        ("settings", "count"),
        [
            ({"depth": 20, "shortcut": "A"}, 269_722),
            ({"depth": 32, "shortcut": "A"}, 464_154),
            ({"depth": 56, "shortcut": "A"}, 853_018),
            ({"depth": 56}, 855_770),
            ({"depth": 56, "skip": False}, 853_018),
            ({"depth": 110, "shortcut": "A"}, 1_727_962),
        ],
    )
    def test_has_the_published_number_of_weights(self, settings, count):
        assert n_weights(resnet(**settings, channels=3)) == count

    @pytest.mark.parametrize("depth", [8, 14, 56, 302])
    def test_has_as_many_layers_as_it_says(self, depth):
        net = resnet(depth, width=1)
        layers = [
            name
            for name, module in net.named_modules()
            if isinstance(module, (nn.Conv2d, nn.Linear)) and "shortcut" not in name
        ]
        assert len(layers) == depth

    def test_passes_a_gradient_through_hundreds_of_layers(self):
        net = resnet(302, width=2, seed=0)
        F.cross_entropy(net(torch.randn(4, 1, 8, 8)), torch.arange(4)).backward()
        assert 0 < float(net.conv1.weight.grad.norm()) < math.inf

    @pytest.mark.parametrize("size", [8, 9, 14, 28, 32])
    @pytest.mark.parametrize("shortcut", ["A", "B"])
    def test_takes_images_of_any_size(self, size, shortcut):
        net = resnet(8, width=2, channels=3, shortcut=shortcut)
        assert net(torch.randn(2, 3, size, size)).shape == (2, 10)

    def test_first_loss_is_that_of_guessing(self):
        net = resnet(20, width=8, seed=0)
        loss = F.cross_entropy(net(torch.randn(64, 1, 8, 8)), torch.arange(64) % 10)
        assert loss.item() == pytest.approx(math.log(10), abs=0.05)

    def test_convolutions_have_the_deviation_of_he(self):
        weight = resnet(8, width=64, seed=0).layer3[0].conv2.weight
        assert weight.std().item() == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.01)

    def test_a_block_with_a_dead_branch_is_its_shortcut(self):
        block = resnet(8, width=2).layer1[0].eval()
        nn.init.zeros_(block.bn2.weight)
        x = torch.rand(2, 2, 8, 8)
        assert torch.equal(block(x), x)

    def test_option_a_keeps_every_second_pixel_between_zero_channels(self):
        shortcut = resnet(8, width=2, shortcut="A").layer2[0].shortcut
        x = torch.rand(1, 2, 8, 8)
        y = shortcut(x)
        assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
        assert float(y[:, [0, 3]].abs().sum()) == 0

    @pytest.mark.parametrize(
        ("depth", "advice"),
        [
            (57, "got 57: take 56 or 62"),
            (55, "got 55: take 50 or 56"),
            (9, "take 8 or 14"),
            (2, "take 8"),
            (-4, "take 8"),
            (20.0, "as an int"),
            ("20", "as an int"),
            (True, "as an int"),
        ],
    )
    def test_a_depth_that_does_not_exist_names_the_nearest(self, depth, advice):
        with pytest.raises(ValueError, match=r"depth must be 6n \+ 2 \(8, 14, 20, …\).*" + advice):
            resnet(depth)

    @pytest.mark.parametrize(
        "settings", [{"width": 0}, {"channels": 0}, {"classes": 1.5}, {"shortcut": "C"}]
    )
    def test_impossible_settings_are_errors(self, settings):
        with pytest.raises(ValueError, match=next(iter(settings))):
            resnet(8, **settings)


class TestVgg:
    @pytest.mark.parametrize(
        ("depth", "convolutions"), [(9, 7), (11, 8), (13, 10), (16, 13), (19, 16)]
    )
    def test_has_the_published_convolutions(self, depth, convolutions):
        net = vgg(depth, width=2)
        assert sum(isinstance(module, nn.Conv2d) for module in net.modules()) == convolutions

    @pytest.mark.parametrize("depth", [11, 13, 16, 19])
    def test_convolutions_are_those_of_torchvision(self, depth):
        with torch.device("meta"):
            oracle = getattr(torchvision.models, f"vgg{depth}_bn")().features
            ours = vgg(depth, channels=3).features
        assert [(n, w.shape) for n, w in ours.named_parameters()] == [
            (n, w.shape) for n, w in oracle.named_parameters()
        ]

    def test_nine_has_the_layers_of_li_et_al(self):
        net = vgg(9, size=32, channels=3)
        filters = [m.out_channels for m in net.features if isinstance(m, nn.Conv2d)]
        assert filters == [64, 64, 128, 128, 256, 256, 256]
        assert net.fc[0].weight.shape == (256, 256 * 4 * 4)
        assert net.classifier.weight.shape == (10, 256)

    @pytest.mark.parametrize("depth", [9, 19])
    @pytest.mark.parametrize("size", [8, 11, 28, 32])
    def test_takes_images_of_the_size_it_is_made_for(self, depth, size):
        net = vgg(depth, width=2, size=size, channels=3)
        assert net(torch.randn(2, 3, size, size)).shape == (2, 10)

    def test_first_loss_is_that_of_guessing(self):
        net = vgg(9, width=8, seed=0)
        loss = F.cross_entropy(net(torch.randn(64, 1, 8, 8)), torch.arange(64) % 10)
        assert loss.item() == pytest.approx(math.log(10), abs=0.05)

    @pytest.mark.parametrize(
        ("depth", "advice"), [(10, "take 9"), (18, "take 19"), (500, "take 19"), ("9", "take one")]
    )
    def test_a_depth_that_does_not_exist_names_the_nearest(self, depth, advice):
        with pytest.raises(ValueError, match=f"9, 11, 13, 16, 19; got .*{advice}"):
            vgg(depth)

    @pytest.mark.parametrize("size", [7, 0, 8.0])
    def test_images_that_are_too_small_are_an_error(self, size):
        with pytest.raises(ValueError, match="size"):
            vgg(9, size=size)


NAMES = ("li2018_resnet56", "li2018_resnet56_noshort", "resnet20", "resnet56")


class TestPretrained:
    @pytest.mark.parametrize("name", NAMES)
    def test_holds_every_tensor_of_its_file(self, name):
        net, stored = pretrained(name), load_file(shipped(f"cifar10-resnets/{name}.safetensors"))
        state = net.state_dict()
        assert all(torch.equal(state[key], stored[key]) for key in stored)
        assert {key for key in state if "num_batches" not in key} == set(stored)

    @pytest.mark.parametrize("name", NAMES)
    def test_is_in_eval_mode_and_knows_its_inputs(self, name):
        net = pretrained(name)
        assert not any(module.training for module in net.modules())
        assert len(net.mean) == len(net.std) == 3
        assert min(net.std) > 0
        assert max(net.mean) < 1

    @pytest.mark.skipif("LOSSVIZ_CIFAR10" not in os.environ, reason="LOSSVIZ_CIFAR10 is not set")
    @pytest.mark.parametrize(
        ("name", "n_right", "loss"),
        [
            ("li2018_resnet56", 954, 0.261),
            ("li2018_resnet56_noshort", 887, 0.386),
            ("resnet20", 932, 0.378),
            ("resnet56", 943, 0.354),
        ],
    )
    def test_knows_the_first_1017_test_images(self, name, n_right, loss):
        net = pretrained(name)
        images = data.cifar10(os.environ["LOSSVIZ_CIFAR10"], mean=net.mean, std=net.std).test[:1017]
        with torch.no_grad():
            scores = torch.cat([net(batch) for batch in images.inputs.split(128)])
        assert int((scores.argmax(1) == images.targets).sum()) == n_right
        assert F.cross_entropy(scores, images.targets).item() == pytest.approx(loss, abs=5e-4)

    def test_of_another_name_lists_those_there_are(self):
        with pytest.raises(ValueError, match="li2018_resnet56, li2018_resnet56_noshort"):
            pretrained("resnet18")

    def test_without_the_data_folder_says_so(self, monkeypatch, tmp_path):
        monkeypatch.setenv("LOSSVIZ_DATA", str(tmp_path))
        with pytest.raises(FileNotFoundError, match="LOSSVIZ_DATA"):
            pretrained("resnet20")


class TestLoadWeights:
    def store(self, net, path, rename=lambda name: name):
        save_file({rename(name): t.contiguous() for name, t in net.state_dict().items()}, path)
        return path

    @pytest.mark.parametrize("rename", [str, "module.{}".format])
    def test_brings_back_what_was_stored(self, tmp_path, rename):
        net, other = resnet(8, 2, seed=0), resnet(8, 2, seed=1)
        path = self.store(net, tmp_path / "net.safetensors", rename)
        assert load_weights(other, path) is other
        assert all(torch.equal(a, other.state_dict()[n]) for n, a in net.state_dict().items())

    def test_leaves_the_mode_alone(self, tmp_path):
        path = self.store(resnet(8, 2), tmp_path / "net.safetensors")
        assert load_weights(resnet(8, 2), path).training
        assert not load_weights(resnet(8, 2).eval(), path).training

    @pytest.mark.parametrize(
        ("stored", "message"),
        [
            (lambda: resnet(14, 2), "unlike the network"),
            (lambda: resnet(8, 2, False), "lacks 'layer2.0.shortcut"),
            (lambda: resnet(8, 4), "another shape for"),
            (lambda: logistic(), "lacks"),
        ],
    )
    def test_of_another_network_name_what_differs_and_change_nothing(
        self, tmp_path, stored, message
    ):
        path = self.store(stored(), tmp_path / "net.safetensors")
        net = resnet(8, 2, seed=0)
        with pytest.raises(ValueError, match=message):
            load_weights(net, path)
        start = resnet(8, 2, seed=0).state_dict()
        assert all(torch.equal(start[name], tensor) for name, tensor in net.state_dict().items())

    @pytest.mark.parametrize("content", [b"", b"\x80\x04N.", b"\xff" * 64, b"PK\x03\x04"])
    def test_that_are_no_weights_are_an_error(self, tmp_path, content):
        path = tmp_path / "net.safetensors"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no safetensors file"):
            load_weights(logistic(), path)

    def test_cut_off_are_an_error(self, tmp_path):
        path = self.store(resnet(8, 2), tmp_path / "net.safetensors")
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ValueError, match="damaged"):
            load_weights(resnet(8, 2), path)

    def test_that_are_missing_are_an_error(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="none"):
            load_weights(logistic(), tmp_path / "none.safetensors")


def test_every_public_name_is_there():
    assert all(callable(getattr(models, name)) for name in models.__all__)


@pytest.mark.parametrize(
    ("net", "name"),
    [
        (models.resnet(14, width=2), "ResNet-14, width 2"),
        (models.resnet(8, width=2, skip=False), "ResNet-8 plain, width 2"),
        (models.vgg(11, width=2), "VGG-11, width 2"),
        (models.mlp((5, 4)), "MLP-5-4"),
        (models.logistic(), "logistic regression"),
    ],
)
def test_a_net_tells_captions_its_depth_and_whether_it_has_shortcuts(net, name):
    assert net.name == name
