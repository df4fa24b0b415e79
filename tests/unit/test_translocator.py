"""ViT-MT and TransLocator: the fusion against loops, gradients, ablations, and maps that cannot be used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from torch import Tensor, nn  # noqa: E402

from geofix.errors import BadInputError, UsageError  # noqa: E402
from geofix.models.config import EncoderConfig  # noqa: E402
from geofix.models.encoder import build_encoder  # noqa: E402
from geofix.models.translocator import Design, LayerFusion, TransLocator, read_design  # noqa: E402

CLASSES = (3, 5, 9)
COLOURS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))


def trunk(seed: int = 0, **options: Any) -> EncoderConfig:
    kwargs = {"patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "img_size": [16, 24], **options}
    name = "vit_tiny_patch16_224"
    config = EncoderConfig(trunk=name, trunk_kwargs=kwargs, aggregation="token", seed=seed)
    shown = build_encoder(config).transform.as_dict()
    return config.model_copy(
        update={"input": type(build_encoder(config).transform)(**{**shown, "size": (16, 24)})}
    )


def network(**design: Any) -> TransLocator:
    """A network with both branches unless `semantic=None`; its fusions turned away from the plain mean."""
    given = {"semantic": trunk(7), "colours": COLOURS, "scenes": (3, 16), **design}
    made = TransLocator(build_encoder(trunk()), CLASSES, Design(**given), seed=3)
    torch.manual_seed(5)
    for name, value in made.named_parameters():
        if name.startswith(("fusions", "attention")):
            nn.init.normal_(value, std=0.3)
    return made.eval()


def pictures(count: int = 4) -> Tensor:
    torch.manual_seed(1)
    photos, maps = torch.randn(count, 3, 16, 24), torch.randint(0, 4, (count, 1, 16, 24)).float()
    return torch.cat([photos, maps], dim=1)


def linear(layer: nn.Linear, vector: list[float]) -> list[float]:
    """A linear layer by loops."""
    weight, bias = layer.weight.detach().double().tolist(), layer.bias.detach().double().tolist()
    return [
        b + sum(w * v for w, v in zip(row, vector, strict=True)) for row, b in zip(weight, bias, strict=True)
    ]


def test_class_tokens_meet_after_every_layer_as_loops_say() -> None:
    made, images = network(width=5), pictures(2)
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    for fusion in made.fusions:
        fusion.register_forward_hook(lambda _, given, out: seen.append((given[0][0], given[0][1], out)))
    assert made.semantic is not None
    inner = {"photo": [], "map": []}
    for name, branch in (("photo", made.encoder), ("map", made.semantic)):
        for block in branch.trunk.blocks:
            block.register_forward_hook(lambda _, given, out, name=name: inner[name].append((given[0], out)))
    with torch.no_grad():
        made(images)
    assert len(seen) == len(made.fusions) == len(made.encoder.trunk.blocks) == 3
    for layer, (photo, plan, out) in enumerate(seen):
        fusion = made.fusions[layer]
        for row in range(2):
            a = linear(fusion.f[0], photo[row].double().tolist())
            b = linear(fusion.f[1], plan[row].double().tolist())
            expected = linear(fusion.g, [x + y for x, y in zip(a, b, strict=True)])
            assert out[row].tolist() == pytest.approx(expected, abs=1e-5)
        assert torch.equal(inner["photo"][layer][1][:, 0], photo)
        if layer + 1 < len(seen):  # both branches go on with the fused token and their own patches
            for name in inner:
                following, before = inner[name][layer + 1][0], inner[name][layer][1]
                assert torch.equal(following[:, 0], out) and torch.equal(following[:, 1:], before[:, 1:])


def test_the_last_fusion_weighs_both_tokens_as_written() -> None:
    made, images = network(fuse=False), pictures(3)
    tokens: list[Tensor] = []
    assert made.semantic is not None and made.attention is not None
    for branch in (made.encoder, made.semantic):
        branch.trunk.norm.register_forward_hook(lambda _, __, out: tokens.append(out[:, 0]))
    with torch.no_grad():
        found = made.features(images)
        a, b = tokens
        hidden = nn.functional.gelu(made.attention.weigh[0](torch.cat([a, b], dim=1)))
        first, second = made.attention.weigh[2](hidden).unbind(dim=1)
        w = 1 / (1 + torch.exp(second - first))
        expected = torch.cat([(1 + w)[:, None] * a, (2 - w)[:, None] * b], dim=1)
        plain = network(fuse=False, combine="concatenation").features(images)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(plain, torch.cat([a, b], dim=1), atol=1e-5)


def test_one_branch_is_timms_own_vit() -> None:
    made, images = network(semantic=None), pictures()
    with torch.no_grad():
        own = made.encoder.trunk.forward_features(images[:, :3])[:, 0]
        assert torch.allclose(made.features(images[:, :3]), own, atol=1e-5)
        assert torch.allclose(made.encoder.features(images[:, :3]), own, atol=1e-5)  # what is embedded


def test_fusion_begins_as_the_mean_of_the_tokens() -> None:
    for common in (16, 24):
        a, b = torch.randn(2, 5, 16)
        assert torch.allclose(LayerFusion(16, common)([a, b]), (a + b) / 2, atol=1e-5)


def test_gradients_reach_both_branches_and_every_layer() -> None:
    made = network().train()
    places, scenes = made.outputs(pictures())
    torch.stack([values.square().mean() for values in [*places, *scenes]]).sum().backward()
    assert made.semantic is not None
    for branch in (made.encoder, made.semantic):
        for block in branch.trunk.blocks:
            assert float(block.attn.qkv.weight.grad.abs().max()) > 0
        assert float(branch.trunk.patch_embed.proj.weight.grad.abs().max()) > 0
    for part in (made.fusions, made.attention, made.heads, made.scene_heads):
        assert all(float(p.grad.abs().max()) > 0 for p in part.parameters())


def count(made: nn.Module) -> int:
    return sum(value.numel() for value in made.parameters())


def test_ablations_change_the_parameters_that_they_name() -> None:
    width, depth, total = 16, 3, sum(CLASSES)
    base = network(semantic=None, scenes=())
    seg = network(fuse=False, scenes=(), combine="concatenation")
    attention = network(fuse=False, scenes=())
    fused = network(scenes=())
    scenes = network()
    branch = count(build_encoder(trunk()))
    assert count(base) == branch + total * (width + 1)
    assert count(seg) == 2 * branch + total * (2 * width + 1)
    assert count(attention) - count(seg) == width * (2 * width + 1) + 2 * (width + 1)
    assert count(fused) - count(attention) == depth * 3 * width * (width + 1)
    assert count(scenes) - count(fused) == (3 + 16) * (2 * width + 1)
    images = pictures()
    other = images.clone()
    other[:, 3] = (other[:, 3] + 1) % 4
    for made, sees in ((base, False), (seg, True), (attention, True), (fused, True)):
        a, b = (made(values)[2] for values in (images, other))
        assert torch.equal(a, b) != sees


def test_without_fusion_a_branch_does_not_change_the_other() -> None:
    images, other = pictures(), pictures()
    other[:, :3] = 0
    separate = network(fuse=False, combine="concatenation")
    fused = network(combine="concatenation")
    with torch.no_grad():
        a, b = separate.features(images)[:, 16:], separate.features(other)[:, 16:]
        assert torch.equal(a, b)
        assert not torch.allclose(fused.features(images)[:, 16:], fused.features(other)[:, 16:], atol=1e-3)


def test_maps_come_in_as_colours_or_as_channels() -> None:
    made = network()
    numbers = torch.tensor([[[0, 1], [2, 3]]])
    colours = made.map_input(numbers.float())
    transform = made.encoder.transform
    for place, rgb in zip(((0, 0), (0, 1), (1, 0), (1, 1)), COLOURS, strict=True):
        expected = (np.array(rgb) / 255 - transform.mean) / transform.std
        assert colours[0, :, place[0], place[1]].tolist() == pytest.approx(expected, abs=1e-6)
    channels = network(semantic=trunk(7, in_chans=4), maps="channels", least_share=0.25)
    few = torch.zeros(1, 4, 4)
    few[0, 0, 0], few[0, 2:] = 1.0, 2.0  # class 1: 1 of 16 pixels, class 2: 8
    planes = channels.map_input(few)
    assert planes.shape == (1, 4, 4, 4) and float(planes[0, 1].sum()) == 0
    assert float(planes[0, 0].sum()) == 7 and float(planes[0, 2].sum()) == 8
    assert channels(pictures())[0].shape == (4, 3)
    with pytest.raises(BadInputError, match="shows class 4; the model knows 4"):
        made.map_input(torch.full((1, 2, 2), 4.0))


def test_designs_are_written_and_read_as_json() -> None:
    import json

    made = network(width=9)
    again = read_design(json.loads(json.dumps(made.describe())))
    other = TransLocator(build_encoder(trunk()), CLASSES, again, load_weights=False).eval()
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(pictures())[2], made(pictures())[2])
    with pytest.raises(BadInputError, match="design"):
        read_design({"semantic": None})


def test_trunks_that_are_no_vit_or_differ_are_refused() -> None:
    resnet = build_encoder(EncoderConfig(trunk="test_resnet", aggregation="avg"))
    with pytest.raises(UsageError, match="no vision transformer with a class token"):
        TransLocator(resnet, CLASSES, Design())
    pooled = trunk(class_token=False, global_pool="avg").model_copy(update={"aggregation": "avg"})
    with pytest.raises(UsageError, match="class token"):
        TransLocator(build_encoder(pooled), CLASSES, Design())
    deeper = Design(semantic=trunk(depth=4), colours=COLOURS)
    with pytest.raises(UsageError, match="as many layers"):
        TransLocator(build_encoder(trunk()), CLASSES, deeper)
