"""Frozen trunks and optimiser groups."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from geofix.errors import UsageError  # noqa: E402
from geofix.models.config import EncoderConfig  # noqa: E402
from geofix.models.encoder import Encoder, build_encoder  # noqa: E402
from geofix.models.groups import freeze_trunk, parameter_groups, trunk_blocks  # noqa: E402

torch.set_num_threads(1)
CNN = EncoderConfig(trunk="mobilenetv2_035", image_size=64, dimension=8)
VIT = EncoderConfig(
    trunk="vit_tiny_patch16_224",
    trunk_kwargs={"img_size": 32, "depth": 4, "proj_drop_rate": 0.5, "drop_path_rate": 0.5},
    image_size=32,
    dimension=8,
)


def make(config: EncoderConfig, train_blocks: int | None) -> Encoder:
    encoder = build_encoder(config.model_copy(update={"train_blocks": train_blocks}))
    freeze_trunk(encoder)
    return encoder


def trained(encoder: Encoder) -> set[str]:
    return {name for name, p in encoder.trunk.named_parameters() if p.requires_grad}


def step(encoder: Encoder) -> None:
    """One optimiser step on random pictures in training mode."""
    encoder.train()
    optimiser = torch.optim.SGD(parameter_groups(encoder, 0.1, 0.1, 0.0))
    images = torch.randn(4, 3, *encoder.transform.size, generator=torch.Generator().manual_seed(0))
    encoder(images)[:, 0].sum().backward()
    optimiser.step()


def test_frozen_trunk_does_not_change_and_the_head_does() -> None:
    encoder = make(CNN, 0)
    before = copy.deepcopy(encoder.state_dict())
    step(encoder)
    after = encoder.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith("trunk."))  # statistics too
    assert not torch.equal(before["project.weight"], after["project.weight"])
    assert not torch.equal(before["pool.p"], after["pool.p"])


def test_last_blocks_train_with_their_batch_norm_and_the_rest_stands_still() -> None:
    encoder = make(CNN, 2)
    assert all(name.startswith(("blocks.6.", "blocks.5.", "conv_head", "bn2")) for name in trained(encoder))
    assert {"blocks.6.0.conv_pw.weight", "conv_head.weight", "bn2.weight"} <= trained(encoder)
    before = copy.deepcopy(encoder.state_dict())
    step(encoder)
    changed = {k for k, v in encoder.state_dict().items() if not torch.equal(before[k], v)}
    assert {"trunk.bn2.running_mean", "trunk.blocks.6.0.bn1.running_mean"} <= changed
    assert not [k for k in changed if k.startswith(("trunk.conv_stem", "trunk.bn1", "trunk.blocks.0"))]
    encoder.eval()
    assert not any(m.training for m in encoder.modules())


def test_frozen_parts_stay_in_evaluation_mode_after_a_copy() -> None:
    twin = copy.deepcopy(make(CNN, 1)).train()
    assert not twin.trunk.bn1.training and twin.trunk.bn2.training and twin.training
    assert all(part not in set(make(CNN, 1).modules()) for part in twin.frozen)


def test_transformer_blocks() -> None:
    encoder = make(VIT, 1)
    assert len(trunk_blocks(encoder)) == 4
    assert {name.split(".")[0] for name in trained(encoder)} == {"blocks", "norm"}
    assert {name.split(".")[1] for name in trained(encoder) if name.startswith("blocks")} == {"3"}
    encoder.train()
    drops = [m.training for m in encoder.trunk.blocks[0].modules() if isinstance(m, torch.nn.Dropout)]
    assert drops and not any(drops)
    assert encoder.trunk.blocks[3].mlp.drop1.training


def test_the_whole_trunk_and_starting_anew() -> None:
    encoder = make(CNN, None)
    assert trained(encoder) == {name for name, _ in encoder.trunk.named_parameters()}
    assert encoder.frozen == ()
    encoder.config = encoder.config.model_copy(update={"train_blocks": 0})
    assert freeze_trunk(encoder) == 0 and not trained(encoder)
    encoder.config = encoder.config.model_copy(update={"train_blocks": None})
    assert freeze_trunk(encoder) == sum(p.numel() for p in encoder.trunk.parameters())
    assert all(m.training for m in encoder.train().modules())


def test_a_head_behind_the_features_is_never_trained() -> None:
    encoder = make(EncoderConfig(trunk="mobilenetv3_small_050", image_size=32), None)
    assert not encoder.trunk.conv_head.weight.requires_grad
    encoder.train()(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)


def test_finding_the_blocks_changes_nothing() -> None:
    encoder = build_encoder(CNN)
    before, state = copy.deepcopy(encoder.state_dict()), torch.random.get_rng_state()
    encoder.train()
    assert len(trunk_blocks(encoder)) == 17
    assert all(m.training for m in encoder.modules())
    assert all(p.grad is None and p.requires_grad for p in encoder.parameters())
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_too_many_blocks_are_named() -> None:
    with pytest.raises(UsageError, match="train_blocks is 18, trunk 'mobilenetv2_035' has 17 blocks"):
        make(CNN, 18)


@pytest.mark.parametrize("config", [CNN, VIT], ids=["cnn", "vit"])
def test_every_trained_parameter_is_in_one_group(config: EncoderConfig) -> None:
    encoder = make(config, None)
    groups = {g["name"]: g for g in parameter_groups(encoder, 1e-5, 1e-4, 0.05)}
    assert set(groups) == {"trunk", "trunk_no_decay", "head", "head_no_decay"}
    assert {n: (g["lr"], g["weight_decay"]) for n, g in groups.items()} == {
        "trunk": (1e-5, 0.05),
        "trunk_no_decay": (1e-5, 0.0),
        "head": (1e-4, 0.05),
        "head_no_decay": (1e-4, 0.0),
    }
    ids = [id(p) for g in groups.values() for p in g["params"]]
    assert sorted(ids) == sorted(id(p) for p in encoder.parameters() if p.requires_grad)
    assert all(p.ndim > 1 for n in ("trunk", "head") for p in groups[n]["params"])
    names = {id(p): n for n, p in encoder.named_parameters()}
    free = {names[id(p)] for p in groups["trunk_no_decay"]["params"]}
    assert not any(name.endswith("conv_pw.weight") for name in free)
    assert config is CNN or {"trunk.cls_token", "trunk.pos_embed"} <= free


def test_frozen_parts_and_fixed_projections_are_in_no_group() -> None:
    config = CNN.model_copy(update={"projection": "random"})
    groups = parameter_groups(make(config, 0), 1e-5, 1e-4, 0.05)
    assert [(g["name"], len(g["params"])) for g in groups] == [("head_no_decay", 1)]  # the exponent of GeM
