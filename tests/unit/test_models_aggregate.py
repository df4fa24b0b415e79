"""SALAD against a plain float64 reference, its token, small maps, autocast, and model directories with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from geofix.models.aggregate import Salad, transport  # noqa: E402
from geofix.models.config import EncoderConfig  # noqa: E402
from geofix.models.encoder import build_encoder, class_token  # noqa: E402
from geofix.models.registry import Model, load_model, save_model  # noqa: E402

torch.set_num_threads(1)
TINY = EncoderConfig(
    trunk="mobilenetv3_small_050",
    image_size=64,
    seed=3,
    aggregation="salad",
    salad_clusters=3,
    salad_width=4,
    salad_token=5,
    salad_hidden=16,
)
VIT = TINY.model_copy(
    update={"trunk": "vit_tiny_patch16_224", "trunk_kwargs": {"img_size": 64, "depth": 1, "reg_tokens": 2}}
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_transport(scores: np.ndarray, dust_bin: float) -> np.ndarray:
    """Sinkhorn as in the textbook: scale columns (clusters), then rows (positions), of exp(scores)."""
    n, m = scores.shape
    kernel = np.exp(np.hstack([scores, np.full((n, 1), dust_bin)]))
    wanted = np.append(np.ones(m), n - m) if n > m else np.full(m + 1, n / (m + 1))
    for _ in range(3):
        kernel = kernel * (wanted / kernel.sum(axis=0))
        kernel = kernel / kernel.sum(axis=1, keepdims=True)
    return kernel[:, :m]


def plain_salad(layer: Salad, feature_map: np.ndarray, token: np.ndarray | None) -> np.ndarray:
    """One picture (C, H, W), position by position and cluster by cluster."""
    w = {k: v.detach().double().numpy() for k, v in layer.state_dict().items()}

    def two_layers(name: str, x: np.ndarray) -> np.ndarray:
        hidden = np.maximum(w[f"{name}.0.weight"] @ x + w[f"{name}.0.bias"], 0)
        return w[f"{name}.2.weight"] @ hidden + w[f"{name}.2.bias"]

    positions = [
        feature_map[:, i, j] for i in range(feature_map.shape[1]) for j in range(feature_map.shape[2])
    ]
    shares = plain_transport(np.array([two_layers("scores", x) for x in positions]), float(w["dust_bin"]))
    values = [two_layers("features", x) for x in positions]
    parts = []
    if layer.token is not None:
        parts.append(two_layers("token", np.mean(positions, axis=0) if token is None else token))
    for cluster in range(shares.shape[1]):
        parts.append(sum(shares[n, cluster] * value for n, value in enumerate(values)))
    parts = [part / np.linalg.norm(part) for part in parts]
    whole = np.concatenate(parts)
    return whole / np.linalg.norm(whole)


@pytest.mark.parametrize("token", [0, 5])
@pytest.mark.parametrize("with_class_token", [False, True])
@pytest.mark.parametrize("side", [7, 2])  # 49 positions for 6 clusters, and fewer positions than clusters
def test_salad_equals_a_plain_reference(token: int, with_class_token: bool, side: int) -> None:
    torch.manual_seed(4)
    layer = Salad(10, clusters=6, width=4, token=token, hidden=8)
    with torch.no_grad():
        layer.dust_bin.fill_(0.3)
    feature_map, class_vector = 3 * random(3, 10, side, side), random(3, 10, seed=1)
    given = class_vector if with_class_token else None
    found = layer(feature_map.float(), None if given is None else given.float()).detach().numpy()
    assert found.shape == (3, 6 * 4 + token)
    for i in range(3):
        expected = plain_salad(layer, feature_map[i].numpy(), None if given is None else given[i].numpy())
        np.testing.assert_allclose(found[i], expected, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)
    parts = found[:, token:].reshape(3, 6, 4)
    np.testing.assert_allclose(np.linalg.norm(parts, axis=2), 1 / np.sqrt(6 + bool(token)), atol=1e-6)


def test_transport_keeps_mass_and_survives_extreme_scores() -> None:
    shares = transport(30 * random(2, 40, 5), torch.tensor(1.0, dtype=torch.float64), iterations=200)
    assert (shares >= 0).all() and (shares.sum(dim=2) <= 1 + 1e-12).all()
    np.testing.assert_allclose(shares.sum(dim=1), 1.0, atol=0.02)  # every cluster is filled
    single = transport(torch.full((1, 30, 4), 80.0), torch.tensor(-80.0))  # exp(80) is above float32's middle
    assert torch.isfinite(single).all()
    assert torch.isfinite(transport(torch.full((1, 1, 16), -500.0), torch.tensor(500.0))).all()
    dust = transport(torch.zeros(1, 30, 4), torch.tensor(0.0))
    np.testing.assert_allclose(dust.sum(), 4.0, rtol=1e-5)  # 30 positions: 4 to the clusters, 26 to the bin


def test_gradients_reach_every_weight_and_agree_with_differences() -> None:
    torch.manual_seed(5)
    layer = Salad(4, clusters=2, width=3, token=2, hidden=32)
    layer(random(2, 4, 3, 3).float()).square().mul(torch.arange(8.0)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    scores = random(1, 5, 3).requires_grad_()
    bin_ = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(transport, (scores, bin_))


def test_transport_stays_in_float32_under_autocast() -> None:
    torch.manual_seed(6)
    layer = Salad(10, clusters=6, width=4, token=5, hidden=8)
    x = random(2, 10, 4, 4).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = layer(x.bfloat16())
    assert low.dtype == torch.float32
    np.testing.assert_allclose(low.norm(dim=1).detach(), 1.0, atol=1e-6)
    np.testing.assert_allclose(low.detach(), layer(x).detach(), atol=0.05)


def test_encoder_uses_the_class_token_where_there_is_one() -> None:
    images = random(2, 3, 64, 64).float()
    vit = build_encoder(VIT)
    with torch.inference_mode():
        features = vit.trunk.forward_features(images)
        token = class_token(features, vit.trunk)
        assert token is not None and torch.equal(token, features[:, 0])
        grid = features[:, 3:].transpose(1, 2).unsqueeze(-1)  # class token and two registers in front
        np.testing.assert_allclose(vit(images), vit.pool(grid, token), atol=1e-6)
        assert not torch.allclose(vit(images), vit.pool(grid, None), atol=1e-3)
    bare = build_encoder(
        VIT.model_copy(
            update={"trunk_kwargs": {**VIT.trunk_kwargs, "class_token": False, "global_pool": "avg"}}
        )
    )
    with torch.inference_mode():
        assert class_token(bare.trunk.forward_features(images), bare.trunk) is None  # registers only
        assert bare(images).shape == (2, 17)


def test_dimension_with_and_without_projection() -> None:
    images = random(2, 3, 64, 64).float()
    plain = build_encoder(TINY)
    projected = build_encoder(TINY.model_copy(update={"dimension": 9}))
    with torch.inference_mode():
        assert plain.dimension == 17 and plain(images).shape == (2, 17)
        assert projected.dimension == 9 and projected(images).shape == (2, 9)
    assert projected.project.weight.requires_grad


def test_model_directory_round_trip(tmp_path: Path) -> None:
    encoder = build_encoder(TINY.model_copy(update={"dimension": 9}))
    save_model(Model("salad", {"ground": encoder}), tmp_path / "m")
    again = load_model(tmp_path / "m").encoder("ground")
    images = random(2, 3, 64, 64).float()
    with torch.inference_mode():
        assert again.config == encoder.config and torch.equal(again(images), encoder(images))


def test_directories_written_before_salad_still_load(tmp_path: Path) -> None:
    encoder = build_encoder(EncoderConfig(trunk="mobilenetv3_small_050", image_size=32, dimension=8))
    save_model(Model("old", {"ground": encoder}), tmp_path / "m")
    path = tmp_path / "m" / "model.json"
    written = json.loads(path.read_text())
    new = [k for k in written["encoders"]["ground"] if k.startswith("salad_") or k == "train_blocks"]
    assert len(new) == 5
    for key in new:
        del written["encoders"]["ground"][key]
    path.write_text(json.dumps(written))
    images = random(2, 3, 32, 32).float()
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path / "m").encoder("ground")(images), encoder(images))
