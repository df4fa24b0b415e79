"""What a step is made of: rates, clipping, precision, compilation, curves, and the term that is at fault."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402
from test_classify_training import TINY as CLASSIFIER  # noqa: E402
from test_training_loop import config, tensors  # noqa: E402
from torch import Tensor  # noqa: E402
from training_files import snapshot  # noqa: E402

from geofix.log import progress_to  # noqa: E402
from geofix.training import classify_step, loop, step  # noqa: E402
from geofix.training.classify import train_classifier  # noqa: E402
from geofix.training.classify_config import parse_classifier_config  # noqa: E402
from geofix.training.config import OptimiserSection, TrainingConfig  # noqa: E402
from geofix.training.distributed import Team  # noqa: E402
from geofix.training.loop import _batches, _wrapped, train  # noqa: E402
from geofix.training.run import Run, prepare  # noqa: E402
from geofix.training.state import rate, set_rates  # noqa: E402
from geofix.training.step import DivergedError, autocast, take_step  # noqa: E402

CPU = torch.device("cpu")


def begun(asked: TrainingConfig, folder: Path) -> Run:
    """A run before its first step, its table started."""
    run = prepare(asked, snapshot(folder).path, folder / "out", CPU, Team())
    run.state.clock.table_started = True
    run.state.train()
    return run


def test_rates_rise_linearly_and_fall_along_a_cosine() -> None:
    settings = OptimiserSection(warmup=0.1, final=0.2)
    shares = [rate(settings, number, 1000) for number in range(1001)]
    assert shares[0] == pytest.approx(0.01) and shares[49] == pytest.approx(0.5)
    assert shares[99] == shares[100] == 1.0, "the end of the rise"
    assert shares[325] == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert shares[550] == pytest.approx(0.6), "half of the way down"
    assert shares[1000] == pytest.approx(0.2) and shares[999] == pytest.approx(0.2, abs=1e-5)
    assert all(a < b for a, b in pairwise(shares[:100]))
    assert all(a > b for a, b in pairwise(shares[100:]))
    assert rate(OptimiserSection(warmup=0, final=0), 0, 10) == 1.0


def test_every_rate_follows_the_share(tmp_path: Path) -> None:
    asked = config(optimiser={"trunk_lr": 1e-4, "head_lr": 2e-3, "prototype_lr": 3e-2, "warmup": 0.1})
    state = begun(asked, tmp_path).state
    for number, share in ((0, 0.1), (4, 0.5), (10, 1.0), (55, 0.55), (100, 0.1)):
        assert set_rates(state, asked.optimiser, number, 100) == pytest.approx(share)
        for group in state.optimiser.param_groups:
            highest = 1e-4 if "trunk" in group["name"] else 2e-3
            assert group["lr"] == pytest.approx(highest * share), group["name"]
        assert [rows.lr for _, rows in state.tables.values()] == [pytest.approx(3e-2 * share)]


@pytest.mark.parametrize("clip", [1e-3, 1e6])
def test_the_gradient_is_clipped_to_its_largest_norm(tmp_path: Path, clip: float) -> None:
    asked = config(optimiser={"clip": clip})
    run = begun(asked, tmp_path)
    outcome = take_step(run.state, next(iter(_batches(run))), asked)
    grads = [p.grad for group in run.state.optimiser.param_groups for p in group["params"]]
    norm = float(torch.stack([grad.norm() for grad in grads if grad is not None]).norm())
    assert 1e-3 < outcome.norm < 1e6, "before clipping"
    assert norm == pytest.approx(min(clip, outcome.norm), rel=1e-3)


@pytest.mark.parametrize(
    ("precision", "able", "low"),
    [
        ("float32", True, False),
        ("auto", True, False),
        ("native", True, True),
        ("native", False, False),
        ("bfloat16", False, True),
    ],
)
def test_the_precision_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, able: bool, low: bool
) -> None:
    monkeypatch.setattr(step, "cpu_has_bfloat16", lambda: able)
    monkeypatch.setattr(classify_step, "cpu_has_bfloat16", lambda: able)
    left = right = torch.eye(2)
    with autocast(config(precision=precision), CPU):
        assert (left @ right).dtype == (torch.bfloat16 if low else torch.float32)
    assert (left @ right).dtype == torch.float32
    other = parse_classifier_config({**CLASSIFIER, "precision": precision}, "test")
    assert classify_step.low_precision(other, CPU) == low
    assert classify_step.low_precision(other, torch.device("cuda")) == (precision != "float32")


def test_a_step_computes_in_the_precision_asked_for(tmp_path: Path) -> None:
    run = begun(config(), tmp_path)
    batch, seen = next(iter(_batches(run))), set()
    for network in run.state.networks.values():
        network.project.register_forward_hook(lambda _module, _given, made: seen.add(made.dtype))
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        seen.clear()
        take_step(run.state, batch, config(precision=precision))
        assert seen == {dtype}


def test_compiled_encoders_learn_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = snapshot(tmp_path)
    compiled: list[torch.nn.Module] = []
    original = torch.compile

    def cheap(network: torch.nn.Module) -> Any:
        compiled.append(network)
        return original(network, backend="eager")  # traced as any other, but no compiler is needed

    monkeypatch.setattr(loop.torch, "compile", cheap)
    for asked in (False, True):
        train(config(compile=asked, epochs=2), made.path, tmp_path / str(asked))
        assert len(compiled) == 2 * asked, "ground and aerial, where it is asked for"
    plain, other = tensors(tmp_path / "False"), tensors(tmp_path / "True")
    assert plain.keys() == other.keys(), "nothing of the compilation is in the model"
    for name, value in plain.items():
        torch.testing.assert_close(other[name], value, atol=1e-5, rtol=1e-4, msg=name)
    run = begun(config(compile=True), tmp_path / "other")
    wrapped = _wrapped(run).networks
    for role, network in run.state.networks.items():
        assert wrapped[role] is not network and wrapped[role]._orig_mod is network


def test_the_curves_are_those_of_the_docs(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    asked = config(epochs=11, validation={"every": 11}, optimiser={"warmup": 0.5})
    train(asked, made.path, tmp_path / "out")
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    events.Reload()
    names = set(events.Tags()["scalars"])
    terms = {"ground_prototype", "ground_aerial", "aerial_prototype"}
    own = {f"loss/{name}" for name in terms | {"total"}}
    own |= {"step/gradient_norm", "step/rate", "step/photos_per_second"}
    (line,) = (tmp_path / "out" / "epochs.jsonl").read_text().splitlines()
    figures = json.loads(line)
    assert names == own | {f"val/{name}" for name in figures if name not in ("epoch", "step")}
    rates = {event.step: event.value for event in events.Scalars("step/rate")}
    expected = {number: rate(asked.optimiser, number - 1, 22) for number in (1, 10, 20)}
    assert rates == {number: pytest.approx(value) for number, value in expected.items()}
    assert [event.step for event in events.Scalars("loss/ground_aerial")] == [1, 10, 20]
    assert [event.step for event in events.Scalars("loss/ground_prototype")] == [10, 20], "warm-up"
    (main,) = events.Scalars("val/main")
    assert main.step == figures["step"] == 22 and main.value == pytest.approx(figures["main"])
    for place in (1, 2):
        total = events.Scalars("loss/total")[place].value
        parts = sum(events.Scalars(f"loss/{name}")[place - (name != "ground_aerial")].value for name in terms)
        assert total == pytest.approx(parts, rel=1e-5)


class Spoiled(torch.autograd.Function):
    """Values that stay, and a gradient that is no number."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * torch.nan


def spoil(original: Callable[..., Tensor], *, argument: bool, rows: slice) -> Callable[..., Tensor]:
    """A loss whose gradient is none for some anchors, behind it or before it."""

    def spoiled(anchors: Tensor, *rest: Any, **options: Any) -> Tensor:
        parts = list(anchors.split(1)) if argument else []
        for place in range(len(parts))[rows]:
            parts[place] = Spoiled.apply(parts[place])
        losses = original(torch.cat(parts) if parts else anchors, *rest, **options)
        return losses if argument else Spoiled.apply(losses)

    return spoiled


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(
    ("what", "rows", "term"),
    [
        ("pair_term", slice(0), "ground_aerial"),
        ("prototype_terms", slice(3, 4), "ground_prototype"),
        ("prototype_terms", slice(-1, None), "aerial_prototype"),
    ],
)
def test_the_term_whose_gradient_is_no_number_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, rows: slice, term: str, separate: bool
) -> None:
    asked = config(separate=separate)
    run = begun(asked, tmp_path)
    batch = next(iter(_batches(run)))
    before = [p.detach().clone() for g in run.state.optimiser.param_groups for p in g["params"]]
    whole = getattr(step, what)
    spoiled = spoil(whole, argument=what == "prototype_terms", rows=rows)

    def chosen(anchors: Tensor, *rest: Any, **options: Any) -> Tensor:
        # Of two tables the first is the prototypes', which photos alone are compared with.
        alone = what == "prototype_terms" and separate and (len(anchors) == 8) != (term == "ground_prototype")
        return (whole if alone else spoiled)(anchors, *rest, **options)

    monkeypatch.setattr(step, what, chosen)
    state = replace(run.state, clock=replace(run.state.clock, step=4, epoch=1))
    with pytest.raises(DivergedError, match=rf"^The gradient of {term} is nan at step 5 \(epoch 2\)\."):
        take_step(state, batch, asked)
    after = [p for g in run.state.optimiser.param_groups for p in g["params"]]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), "weights are as before"


def test_a_gradient_that_is_lost_within_an_encoder_is_its_term_s(tmp_path: Path) -> None:
    """Finite at the vectors, and no number beyond: only terms that see tiles can be at fault."""
    asked = config(loss={"aerial_prototype": 0})
    run = begun(asked, tmp_path)
    batch = next(iter(_batches(run)))
    run.state.networks["aerial"].project.register_forward_hook(lambda _m, _g, made: Spoiled.apply(made))
    with pytest.raises(DivergedError, match=r"^The gradient of ground_aerial is nan at step 1 \(epoch 1\)\."):
        take_step(run.state, batch, asked)


def test_a_gradient_too_long_for_its_numbers_names_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(compile=True)
    run = begun(asked, tmp_path)
    batch = next(iter(_batches(run)))
    original = torch.compile
    monkeypatch.setattr(loop.torch, "compile", lambda network: original(network, backend="eager"))
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(torch.inf))
    told = "The gradient of ground_prototype, aerial_prototype, ground_aerial is inf"
    with pytest.raises(DivergedError, match=told):
        take_step(_wrapped(run), batch, asked)


def test_a_classifier_names_the_term_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = classify_step.class_terms

    def spoiled(outputs: list[Tensor], labels: Tensor) -> list[Tensor]:
        return original([outputs[0], Spoiled.apply(outputs[1]), outputs[2]], labels)

    monkeypatch.setattr(classify_step, "class_terms", spoiled)
    asked = parse_classifier_config(CLASSIFIER, "test")
    with (
        progress_to(lambda *_: None),
        pytest.raises(DivergedError, match=r"gradient of adaptive-middle is nan at step 1 \(epoch 1\)"),
    ):
        train_classifier(asked, snapshot(tmp_path).path, tmp_path / "out")
