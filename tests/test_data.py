import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from lossviz import data
from lossviz.data import Dataset, Split
from lossviz.shipped import data_folder, shipped


def split(n=6, classes=3):
    return Split(torch.arange(2.0 * n).view(n, 2), torch.arange(n) % classes, name="toy")


def images(n=4, channels=None):
    shape = (n, 32, 32) if channels is None else (n, 32, 32, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def digits():
    return data.digits()


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "cifar10.npz"
    labels = np.arange(2, dtype=np.uint8)
    pictures = images(2, 3)[:, :4, :4]
    np.savez_compressed(
        path, train_images=pictures, train_labels=labels, test_images=pictures, test_labels=labels
    )
    return path, path.read_bytes(), data.cifar10(path).train.inputs


class TestDigits:
    def test_test_part_is_the_one_of_scikit_learn(self, digits):
        oracle = load_digits()
        pixels = (digits.test.inputs * digits.std[0] + digits.mean[0]) * 16
        np.testing.assert_allclose(pixels[:, 0].numpy(), oracle.images, atol=1e-4)
        np.testing.assert_array_equal(digits.test.targets.numpy(), oracle.target)

    def test_train_part_has_the_published_class_counts(self, digits):
        counts = [376, 389, 380, 389, 387, 376, 377, 387, 380, 382]
        assert torch.bincount(digits.train.targets).tolist() == counts

    def test_train_part_has_mean_zero_and_deviation_one(self, digits):
        values = digits.train.inputs.double()
        assert abs(values.mean()) < 1e-6
        assert abs(values.std(correction=0) - 1) < 1e-6

    def test_test_part_is_normalized_by_the_train_part(self, digits):
        stored = np.load(shipped("digits.npz"))["test_images"][:, None] / 16
        expected = (stored - digits.mean[0]) / digits.std[0]
        np.testing.assert_allclose(digits.test.inputs.numpy(), expected, atol=1e-6)

    def test_kinds_and_names(self, digits):
        assert (digits.name, digits.train.name) == ("digits", "digits train")
        assert digits.train.inputs.dtype == torch.float32
        assert digits.train.targets.dtype == torch.int64
        assert digits.train.inputs.shape == (3823, 1, 8, 8)
        assert digits.classes == tuple("0123456789")

    def test_are_found_through_the_environment(self, monkeypatch, tmp_path):
        (tmp_path / "digits.npz").write_bytes(shipped("digits.npz").read_bytes())
        monkeypatch.setenv("LOSSVIZ_DATA", str(tmp_path))
        assert data_folder() == tmp_path
        assert len(data.digits().train) == 3823

    def test_missing_ones_are_an_error_that_names_both_places(self, monkeypatch, tmp_path):
        monkeypatch.setenv("LOSSVIZ_DATA", str(tmp_path))
        with pytest.raises(FileNotFoundError, match=r"LOSSVIZ_DATA.*data.*" + tmp_path.name):
            data.digits()

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x80\x04N."])
    def test_damaged_ones_are_an_error(self, monkeypatch, tmp_path, content):
        (tmp_path / "digits.npz").write_bytes(content)
        monkeypatch.setenv("LOSSVIZ_DATA", str(tmp_path))
        with pytest.raises(ValueError, match="damaged"):
            data.digits()

    def test_an_array_by_itself_is_an_error(self, monkeypatch, tmp_path):
        with (tmp_path / "digits.npz").open("wb") as stream:
            np.save(stream, images())
        monkeypatch.setenv("LOSSVIZ_DATA", str(tmp_path))
        with pytest.raises(ValueError, match="damaged"):
            data.digits()

    @given(where=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255), cut=st.booleans())
    def test_read_with_a_byte_changed_or_the_end_lost_are_right_or_an_error(
        self, small_file, where, change, cut
    ):
        path, content, expected = small_file
        place = int(where * len(content))
        damaged = content[:place]
        if not cut:
            damaged += bytes([content[place] ^ change]) + content[place + 1 :]
        path.write_bytes(damaged)
        try:
            found = data.cifar10(path)
        except ValueError as problem:
            assert str(problem).endswith(".")
        else:
            assert torch.equal(found.train.inputs, expected)

    def test_a_pickle_inside_is_not_opened(self, monkeypatch, tmp_path):
        np.savez(tmp_path / "digits.npz", train_images=np.array([print], dtype=object))
        monkeypatch.setenv("LOSSVIZ_DATA", str(tmp_path))
        with pytest.raises(ValueError, match="no pickle"):
            data.digits()


class TestSplit:
    def test_a_slice_is_a_split(self):
        part = split()[1:4]
        assert isinstance(part, Split)
        assert part.name == "toy"
        assert part.targets.tolist() == [1, 2, 0]

    @pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
    def test_integers_choose_and_order(self, kind):
        assert split()[kind([4, 0, 4])].inputs[:, 0].tolist() == [8, 0, 8]

    @pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
    def test_a_mask_chooses(self, kind):
        mask = kind([True, False, False, False, False, True])
        assert split()[mask].targets.tolist() == [0, 2]

    @pytest.mark.parametrize(
        ("index", "kind"),
        [
            (3, TypeError),
            ([0.5], TypeError),
            ([[0, 1]], TypeError),
            ([True, False], IndexError),
            ([6], IndexError),
            ([-7], IndexError),
            ([], ValueError),
            (slice(6, 9), ValueError),
        ],
    )
    def test_other_indices_are_errors(self, index, kind):
        with pytest.raises(kind):
            split()[index]

    @pytest.mark.parametrize(
        ("inputs", "targets", "kind", "message"),
        [
            (np.zeros((2, 2)), torch.zeros(2).long(), TypeError, "from_numpy"),
            (torch.zeros(2, 2).long(), torch.zeros(2).long(), TypeError, "float"),
            (torch.zeros(2), torch.zeros(2).long(), TypeError, "shape"),
            (torch.zeros(2, 2), torch.zeros(2), TypeError, "long"),
            (torch.zeros(0, 2), torch.zeros(0).long(), ValueError, "no sample"),
            (torch.zeros(2, 2), torch.zeros(3).long(), ValueError, "as many"),
            (torch.zeros(2, 2), torch.zeros(2, 1).long(), ValueError, "one class number"),
            (torch.full((2, 2), torch.nan), torch.zeros(2).long(), ValueError, "finite"),
            (torch.zeros(2, 2), torch.tensor([0, -1]), ValueError, "-1"),
        ],
    )
    def test_what_is_no_labelled_set_is_an_error(self, inputs, targets, kind, message):
        with pytest.raises(kind, match=message):
            Split(inputs, targets)

    def test_says_what_it_holds(self):
        assert repr(split()) == "Split('toy', 6 samples of [2])"


class TestSubset:
    @given(
        labels=st.lists(st.integers(0, 4), min_size=1, max_size=40),
        share=st.floats(0.01, 1),
        seed=st.integers(0, 5),
    )
    def test_gives_each_class_its_share(self, labels, share, seed):
        whole = Split(torch.arange(len(labels)).float()[:, None], torch.tensor(labels))
        n = max(1, round(share * len(labels)))
        part = whole.subset(n, seed=seed)
        assert len(part) == n
        exact = torch.bincount(whole.targets, minlength=5).double() * n / len(labels)
        counts = torch.bincount(part.targets, minlength=5)
        assert bool(((counts - exact).abs() < 1).all())

    def test_holds_each_sample_once_in_the_old_order(self):
        order = split(30).subset(17).inputs[:, 0]
        assert bool((order.diff() > 0).all())

    def test_is_the_same_for_the_same_seed_only(self, digits):
        first, again, other = (digits.train.subset(64, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(first.inputs, again.inputs)
        assert not torch.equal(first.inputs, other.inputs)

    def test_leaves_the_global_random_state_alone(self):
        before = torch.get_rng_state()
        split().subset(3, seed=7)
        assert torch.equal(before, torch.get_rng_state())

    @pytest.mark.parametrize("n", [0, 7, 2.0, True, None])
    def test_of_an_impossible_size_is_an_error(self, n):
        with pytest.raises(ValueError, match="from 1 to 6"):
            split().subset(n)


class TestDataset:
    def test_a_target_without_a_class_is_an_error(self):
        with pytest.raises(ValueError, match=r"0 … 1.*got 2"):
            Dataset(split(), split(), (0.0,), (1.0,), ("a", "b"), "toy")

    def test_says_what_it_holds(self):
        whole = Dataset(split(), split(3), (0.0,), (1.0,), ("a", "b", "c"), "toy")
        assert repr(whole) == "Dataset('toy', 6 + 3 samples of [2])"


@pytest.fixture
def part(tmp_path):
    def store(**changes):
        arrays = {
            "train_images": images(6, 3), "train_labels": np.arange(6, dtype=np.uint8),
            "test_images": images(2, 3), "test_labels": np.array([3, 9], dtype=np.uint8),
        }  # fmt: skip
        path = tmp_path / "cifar10_lossless_part.npz"
        np.savez(path, **{**arrays, **changes})
        return path

    return store


class TestCifar10:
    def test_reads_a_part_from_its_file_or_its_folder(self, part):
        path = part()
        for root in (path, path.parent, str(path)):
            found = data.cifar10(root)
            assert found.name == "CIFAR-10 (part)"
            assert found.train.inputs.shape == (6, 3, 32, 32)
            assert found.classes[9] == "truck"

    def test_is_normalized_per_channel(self, part):
        pixels = images(6, 3).transpose(0, 3, 1, 2) / 255
        found = data.cifar10(part())
        np.testing.assert_allclose(found.mean, pixels.mean((0, 2, 3)), atol=1e-7)
        np.testing.assert_allclose(found.std, pixels.std((0, 2, 3)), atol=1e-7)
        shift, scale = (np.reshape(values, (1, 3, 1, 1)) for values in (found.mean, found.std))
        np.testing.assert_allclose(found.train.inputs, (pixels - shift) / scale, atol=1e-5)

    def test_takes_the_normalization_of_a_pretrained_network(self, part):
        found = data.cifar10(part(), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        pixels = images(6, 3).transpose(0, 3, 1, 2) / 255
        np.testing.assert_allclose(found.train.inputs, (pixels - 0.5) / 0.25, atol=1e-6)

    @pytest.mark.parametrize(
        "settings",
        [
            {"mean": (0.5, 0.5, 0.5)},
            {"mean": (0.5,), "std": (0.5,)},
            {"mean": (0.5, 0.5, 0.5), "std": (1, 0, 1)},
        ],
    )
    def test_half_a_normalization_is_an_error(self, part, settings):
        with pytest.raises(ValueError, match=r"mean|std"):
            data.cifar10(part(), **settings)

    @pytest.mark.parametrize(
        "changes",
        [
            {"train_images": images(6, 3).astype(np.float32)},
            {"train_images": images(6, 3)[0]},
            {"train_images": images(0, 3)},
            {"train_labels": np.zeros(6)},
            {"train_labels": np.zeros((6, 1), dtype=np.uint8)},
            {"train_labels": np.zeros(5, dtype=np.uint8)},
            {"train_labels": np.full(6, 10, dtype=np.uint8)},
        ],
    )
    def test_what_is_no_image_set_is_an_error(self, part, changes):
        with pytest.raises(ValueError):
            data.cifar10(part(**changes))

    def test_missing_it_says_what_to_fetch_and_where_to_put_it(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"170 MB from https://.*by hand.*" + "here"):
            data.cifar10(tmp_path / "here")

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.npz"):
            data.cifar10(tmp_path / "none.npz")

    def test_is_read_through_torchvision(self, tmp_path, monkeypatch):
        monkeypatch.setattr("torchvision.datasets.CIFAR10", stand_in())
        found = data.cifar10(tmp_path)
        assert found.name == "CIFAR-10"
        assert found.train.inputs.shape == (5, 3, 32, 32)

    def test_a_download_is_announced_before_it_begins(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr("torchvision.datasets.CIFAR10", stand_in(present=False))
        data.cifar10(tmp_path, download=True)
        assert "170 MB from https://example" in capsys.readouterr().out

    def test_a_download_that_fails_says_how_to_do_it_by_hand(self, tmp_path, monkeypatch):
        monkeypatch.setattr("torchvision.datasets.CIFAR10", stand_in(present=False, network=False))
        with pytest.raises(OSError, match=r"could not be fetched.*by hand"):
            data.cifar10(tmp_path, download=True)


def stand_in(present=True, network=True):
    """Return a class that behaves like torchvision's, without a file and without a network."""
    there = {"": present}

    class Images:
        url = "https://example.org/cifar.tar.gz"

        def __init__(self, root, train=True, download=False):
            if download and not network:
                raise OSError("no route to host")
            there[""] = there[""] or download
            if not there[""]:
                raise RuntimeError("Dataset not found")
            self.data, self.targets = images(5, 3), [0, 1, 2, 3, 4]

    return Images


def write_idx(path, values):
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + values.tobytes())


class TestFashion:
    def store(self, root):
        raw = root / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        pictures = images(5)[:, :28, :28]
        for part in ("train", "t10k"):
            write_idx(raw / f"{part}-images-idx3-ubyte", np.ascontiguousarray(pictures))
            write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(5, dtype=np.uint8))
        return raw

    def test_reads_the_published_files(self, tmp_path):
        self.store(tmp_path)
        found = data.fashion(tmp_path)
        assert found.train.inputs.shape == (5, 1, 28, 28)
        assert found.name == "Fashion-MNIST (part)"

    def test_looks_in_the_data_folder(self, tmp_path, monkeypatch):
        self.store(tmp_path)
        monkeypatch.setenv("LOSSVIZ_DATA", str(tmp_path))
        assert len(data.fashion().train) == 5

    def test_damaged_files_are_an_error(self, tmp_path):
        raw = self.store(tmp_path)
        (raw / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03\0")
        with pytest.raises(FileNotFoundError, match="damaged"):
            data.fashion(tmp_path)

    def test_missing_it_says_what_to_fetch_and_where_to_put_it(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"30 MB from http.*FashionMNIST/raw"):
            data.fashion(tmp_path)
