"""Backbones: torchvision's networks without classifiers, with exactly the weights asked for."""

import hashlib
import pickle
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch
import torchvision

from features.backbones import BATCH_ON_CPU, Backbone, load_backbone, resolve_device
from features.weights import WeightsUnavailable
from pipeline.common.errors import SettingsError

# Of the largest number in an embedding. Single precision keeps seven digits, and other batch shapes
# sum up in another order: through fifty layers, some of them with weights as they come, that leaves
# four (1.2e-4 was seen). float16 keeps three.
TOLERANCE = 3e-4
DIMENSIONS = {"resnet18": 512, "mobilenet_v2": 1280}


@pytest.fixture(scope="module")
def pictures():
    """(5, 64, 64, 3) uint8 with structure at several scales, no two alike."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.integers(0, 200, (5, 4, 4, 3)), np.ones((1, 16, 16, 1)))
    return (coarse + rng.integers(0, 56, (5, 64, 64, 3))).astype(np.uint8)


def reference(name, model, pictures):
    """What torchvision's own model hands to its classifier, from pictures normalised by hand."""
    heard = []
    classifier = getattr(model, "fc" if name.startswith("resnet") else "classifier")
    hook = classifier.register_forward_pre_hook(lambda module, args: heard.append(args[0]))
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    x = (pictures.astype(np.float32) / 255 - mean) / std
    with torch.no_grad():
        model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    hook.remove()
    return heard[0].numpy()


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_every_backbone_is_torchvisions_model_without_its_classifier(named_weights, pictures):
    name, model, path = named_weights
    backbone = load_backbone(name, str(path), "cpu")
    found = backbone.embed(pictures)
    assert found.dtype == np.float32
    assert found.shape == (5, DIMENSIONS[name]) == (5, backbone.dimension)
    assert_close(found, reference(name, model, pictures))
    assert np.abs(found[1:] - found[0]).max() > 1e-2, "embeddings hardly depend on the picture"


def test_a_grey_map_counts_as_three_equal_channels(mobilenet, pictures):
    grey = pictures[..., 0]
    as_colour = np.repeat(grey[..., None], 3, axis=-1)
    np.testing.assert_array_equal(mobilenet.embed(grey), mobilenet.embed(as_colour))


def test_how_many_pictures_go_in_at_once_does_not_matter(mobilenet, pictures):
    many = np.concatenate([pictures] * (BATCH_ON_CPU // 5 + 2))  # the last batch is not full
    assert len(many) > BATCH_ON_CPU
    assert len(many) % BATCH_ON_CPU
    together = mobilenet.embed(many)
    alone = np.concatenate([mobilenet.embed(picture[None]) for picture in pictures])
    assert_close(together, np.tile(alone, (len(many) // 5, 1)))


def test_batches_go_on_from_one_clip_into_the_next(mobilenet, pictures, monkeypatch):
    many = np.concatenate([pictures] * 8)
    lengths = (3, 0, 1, BATCH_ON_CPU + 2, 5)  # 27 pictures
    clips = [many[7 * n :][:length] for n, length in enumerate(lengths)]
    sizes, forward = [], Backbone._forward

    def counted(self, pictures, windows, **options):
        sizes.append(len(windows))
        return forward(self, pictures, windows, **options)

    monkeypatch.setattr(Backbone, "_forward", counted)
    found = [vectors for vectors, _ in mobilenet.embed_each((clip, None) for clip in clips)]
    assert sizes == [BATCH_ON_CPU, sum(lengths) - BATCH_ON_CPU], "full ones, and a rest"
    assert [len(of_clip) for of_clip in found] == list(lengths)
    assert_close(np.concatenate(found), np.concatenate([mobilenet.embed(clip) for clip in clips]))


def test_windows_of_several_clips_share_a_batch(video_network):
    backbone = video_network
    shown = np.random.default_rng(0).integers(0, 255, (40, 32, 32), np.uint8)
    clips = [shown[:16], shown[16:36], shown[36:]]  # the last two have windows that are not full
    embedded = backbone.embed_each(((clip, None) for clip in clips), 4)
    for clip, (found, _) in zip(clips, embedded, strict=True):
        assert found.shape == (len(backbone.rows(len(clip), 4)), 512)
        np.testing.assert_allclose(found, backbone.embed(clip, 4), rtol=1e-4, atol=1e-5)


def test_no_pictures_give_no_embeddings(mobilenet):
    assert mobilenet.embed(np.empty((0, 64, 64, 3), np.uint8)).shape == (0, 1280)


def test_a_backbone_is_frozen(mobilenet):
    assert not mobilenet.module.training
    assert not any(p.requires_grad for p in mobilenet.module.parameters())


# -------------------------------------------------------------------------------- random weights


@pytest.mark.parametrize("name", DIMENSIONS)
def test_random_weights_tell_pictures_apart_even_in_half_precision(name, pictures):
    backbone = load_backbone(name, "random:0", "cpu")
    assert backbone.dimension == DIMENSIONS[name]
    stored = backbone.embed(pictures).astype(np.float16)
    assert np.isfinite(stored).all()
    assert len(np.unique(stored, axis=0)) == len(pictures)


def test_random_weights_are_the_same_for_the_same_seed_and_others_for_another(pictures):
    first, again, other = (
        load_backbone("mobilenet_v2", f"random:{seed}", "cpu") for seed in (0, 0, 1)
    )
    assert first.weights == "random:0"
    np.testing.assert_array_equal(first.embed(pictures), again.embed(pictures))
    assert first.sha256 == again.sha256
    assert first.sha256 != other.sha256
    assert not np.array_equal(first.embed(pictures), other.embed(pictures))


def test_loading_a_backbone_leaves_the_random_state_alone(mobilenet_weights):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    load_backbone("mobilenet_v2", "random:0", "cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
    load_backbone("mobilenet_v2", str(mobilenet_weights), "cpu")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("seed", ["", "x", "-1", "1.5"])
def test_a_seed_that_is_no_number_is_refused(seed):
    with pytest.raises(SettingsError, match=f"random:{seed}"):
        load_backbone("mobilenet_v2", f"random:{seed}")


# ----------------------------------------------------------------------------- weights from files


def test_weights_are_known_by_their_values_not_by_their_file(
    mobilenet, mobilenet_weights, tmp_path
):
    state = torch.load(mobilenet_weights, weights_only=True)
    forms = {
        "plain": state,
        "wrapped": {"state_dict": state, "epoch": 3},
        "parallel": {f"module.{key}": value for key, value in state.items()},
        "both": {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        "uncounted": {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
    }
    for form, content in forms.items():
        torch.save(content, tmp_path / f"{form}.pth")
        loaded = load_backbone("mobilenet_v2", str(tmp_path / f"{form}.pth"), "cpu")
        assert (loaded.sha256, loaded.weights) == (mobilenet.sha256, "file"), form
    state["features.0.0.weight"][0, 0, 0, 0] += 1e-3
    torch.save(state, tmp_path / "changed.pth")
    changed = load_backbone("mobilenet_v2", str(tmp_path / "changed.pth"), "cpu")
    assert changed.sha256 != mobilenet.sha256


def test_a_file_that_does_not_fit_is_refused_with_what_is_missing_and_unexpected(
    mobilenet_weights, tmp_path
):
    state = torch.load(mobilenet_weights, weights_only=True)
    del state["features.0.0.weight"]
    state["something.else"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(SettingsError) as caught:
        load_backbone("mobilenet_v2", str(tmp_path / "w.pth"))
    assert "missing features.0.0.weight" in str(caught.value)
    assert "unexpected something.else" in str(caught.value)
    assert str(tmp_path / "w.pth") in str(caught.value)
    assert "mobilenet_v2" in caught.value.hint


def test_weights_of_another_network_are_refused(mobilenet_weights):
    with pytest.raises(SettingsError, match=r"does not fit resnet18: missing .* and \d+ more"):
        load_backbone("resnet18", str(mobilenet_weights))


def test_a_weight_of_another_shape_is_refused_with_both_shapes(mobilenet_weights, tmp_path):
    state = torch.load(mobilenet_weights, weights_only=True)
    state["classifier.1.weight"] = torch.zeros(2, 1280)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(SettingsError, match=r"classifier.1.weight \(2, 1280\) for \(1000, 1280\)"):
        load_backbone("mobilenet_v2", str(tmp_path / "w.pth"))


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return open, (str(tmp_path / "owned"), "w")

    for name, save in {"torch": torch.save, "pickle": pickle_to}.items():
        path = tmp_path / f"{name}.pth"
        save({"features.0.0.weight": Attack()}, path)
        # PyTorch's own text would advise to run the code in it.
        with pytest.raises(SettingsError, match="is not a file of weights: PyTorch cannot read it"):
            load_backbone("mobilenet_v2", str(path))
        assert not (tmp_path / "owned").exists()


def pickle_to(value, path):
    path.write_bytes(pickle.dumps(value))


DAMAGED = {
    "empty": b"",
    "web page": b"<!doctype html>\n<title>404 Not Found</title>\n",
    "text": b"hello world\n",
    "number": b"101\n",
    "archive": b"PK\x03\x04 but not really",
    "noise": bytes(range(256)) * 4,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_file_that_holds_no_weights_is_refused(content, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(SettingsError, match=r"w\.pth"):
        load_backbone("mobilenet_v2", str(tmp_path / "w.pth"))


def test_a_file_cut_short_is_refused(mobilenet_weights, tmp_path):
    whole = mobilenet_weights.read_bytes()
    (tmp_path / "w.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SettingsError, match=r"w\.pth"):
        load_backbone("mobilenet_v2", str(tmp_path / "w.pth"))


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {"state_dict": 5}, {"a": 1}, 7])
def test_a_file_that_holds_something_else_than_a_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(SettingsError, match=r"w\.pth"):
        load_backbone("mobilenet_v2", str(tmp_path / "w.pth"))


def test_a_file_that_is_not_there_is_refused_with_what_could_be_given(tmp_path):
    with pytest.raises(SettingsError, match="no weights at") as caught:
        load_backbone("mobilenet_v2", str(tmp_path / "nowhere.pth"))
    assert "random:SEED" in caught.value.hint


def test_an_unknown_backbone_is_refused_with_where_they_are_listed():
    with pytest.raises(SettingsError, match="vgg16b") as caught:
        load_backbone("vgg16b", "random:0")
    assert "--list-backbones" in caught.value.hint


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "tpu0", ""])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(SettingsError, match="cannot be used"):
        load_backbone("mobilenet_v2", "random:0", device)


def test_auto_is_a_device_that_works():
    assert torch.zeros(1, device=resolve_device("auto")).sum() == 0


def test_real_imagenet_weights_load_from_a_file(sample_models, pictures):
    path = sample_models / "mobilenet_v2_imagenet.pth"
    backbone = load_backbone("mobilenet_v2", str(path), "cpu")
    model = torchvision.models.mobilenet_v2(weights=None)
    model.load_state_dict(torch.load(path, weights_only=True))
    expected = reference("mobilenet_v2", model.eval(), pictures)
    assert_close(backbone.embed(pictures), expected)


# ------------------------------------------------------------------------------ ImageNet weights


def test_imagenet_weights_in_the_torch_hub_folder_are_used(
    no_network, mobilenet_weights, mobilenet
):
    file = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    (no_network / file).write_bytes(mobilenet_weights.read_bytes())
    backbone = load_backbone("mobilenet_v2", "imagenet", "cpu")
    assert backbone.weights == "imagenet"
    assert backbone.sha256 == mobilenet.sha256


@pytest.mark.parametrize("name", DIMENSIONS)
def test_imagenet_weights_that_cannot_be_had_are_an_error_that_says_where_to_put_them(
    name, no_network
):
    with pytest.raises(WeightsUnavailable) as caught:
        load_backbone(name)
    url = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].url
    assert name in str(caught.value)
    assert url in caught.value.hint
    assert str(no_network) in caught.value.hint
    assert "--weights PATH" in caught.value.hint
    assert list(no_network.iterdir()) == []


def test_a_pickle_with_code_in_the_torch_hub_folder_does_not_run(no_network, tmp_path):
    class Attack:
        def __reduce__(self):
            return open, (str(tmp_path / "owned"), "w")

    file = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    torch.save({"features.0.0.weight": Attack()}, no_network / file)
    with pytest.raises(SettingsError):
        load_backbone("mobilenet_v2", "imagenet", "cpu")
    assert not (tmp_path / "owned").exists()


@pytest.fixture
def served(no_network, monkeypatch, mobilenet_weights, tmp_path):
    """MobileNetV2's weights on a server of this machine, where torchvision will look for them."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name)
    content = mobilenet_weights.read_bytes()
    shop = tmp_path / "served"
    shop.mkdir()
    (shop / f"right-{hashlib.sha256(content).hexdigest()[:8]}.pth").write_bytes(content)
    (shop / "wrong-00000000.pth").write_bytes(content)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=shop))
    Thread(target=server.serve_forever, daemon=True).start()

    def offer(prefix):
        file = next(shop.glob(f"{prefix}-*.pth")).name
        preset = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.value
        monkeypatch.setattr(preset, "url", f"http://127.0.0.1:{server.server_port}/{file}")
        return no_network / file

    yield offer
    server.shutdown()
    server.server_close()


def test_imagenet_weights_are_downloaded_once(served, mobilenet):
    kept = served("right")
    assert load_backbone("mobilenet_v2", "imagenet", "cpu").sha256 == mobilenet.sha256
    assert kept.is_file()
    touched = kept.stat().st_mtime_ns
    assert load_backbone("mobilenet_v2", "imagenet", "cpu").sha256 == mobilenet.sha256
    assert kept.stat().st_mtime_ns == touched


def test_a_download_with_a_wrong_checksum_is_not_used(served):
    kept = served("wrong")
    with pytest.raises(WeightsUnavailable, match="hash"):
        load_backbone("mobilenet_v2", "imagenet", "cpu")
    assert not kept.exists()


@pytest.mark.parametrize("what", ["web page", "archive", "another network"])
def test_a_damaged_file_in_the_torch_hub_folder_is_named(what, no_network):
    file = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    if what in DAMAGED:
        (no_network / file).write_bytes(DAMAGED[what])
    else:
        torch.save({"fc.weight": torch.zeros(2, 2)}, no_network / file)
    with pytest.raises(SettingsError) as caught:
        load_backbone("mobilenet_v2", "imagenet", "cpu")
    assert file in f"{caught.value} {caught.value.hint}"
    assert "neither in" not in str(caught.value), "it is there, but damaged"
