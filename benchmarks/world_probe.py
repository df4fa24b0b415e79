"""Small networks that show what can be learned from a world: a ground classifier and a two-view matcher."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

DIM = 128
PAIRS = 128
RADIUS_M = 200.0
EARTH_M = 6_371_000.0


def haversine_m(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Great-circle metres between rows of (lon, lat) in degrees, broadcasting."""
    lon1, lat1, lon2, lat2 = (np.radians(v) for v in (a[..., 0], a[..., 1], b[..., 0], b[..., 1]))
    h = np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_M * np.arcsin(np.sqrt(np.clip(h, 0, 1)))


def recall(guess: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Share of guesses within RADIUS_M of the truth, percent."""
    return float(100 * (haversine_m(guess, truth) <= RADIUS_M).mean())


def small_net(channels: tuple[int, int, int] = (48, 96, 160)) -> nn.Module:
    """Halves the image, then three convolutions, a mean over each of 3 x 2 parts and a linear map to DIM.

    The parts matter: what colour lies at the horizon and what colour lies at one's feet.
    """
    layers: list[nn.Module] = [nn.AvgPool2d(2)]
    before, stride = 3, 1
    for c in channels:
        layers += [nn.Conv2d(before, c, 3, stride, 1, bias=False), nn.BatchNorm2d(c), nn.ReLU(inplace=True)]
        before, stride = c, 2
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d((3, 2)), nn.Flatten(), nn.Linear(6 * before, DIM))
    return net.to(memory_format=torch.channels_last)


def unit(net: nn.Module, images: Tensor) -> Tensor:
    """Unit embeddings (N, DIM) of a batch; bfloat16 inside."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = net(images)
    return functional.normalize(z.float(), dim=1)


def as_batch(images: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) floats around zero."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def _jitter(x: Tensor) -> Tensor:
    """Random gain and tint per image: what a photo's camera changes."""
    n = len(x)
    gain = torch.exp(0.10 * torch.randn(n, 1, 1, 1) + 0.04 * torch.randn(n, 3, 1, 1))
    return (x + 1) * gain - 1


def embed(net: nn.Module, images: NDArray[np.uint8]) -> Tensor:
    """Unit embeddings (N, DIM)."""
    net.eval()
    with torch.inference_mode():
        return torch.cat([unit(net, as_batch(images[i : i + 256])) for i in range(0, len(images), 256)])


@dataclass
class Data:
    """Photos, their positions (lon, lat), class of each training photo, and class centres."""

    train: NDArray[np.uint8]
    test: NDArray[np.uint8]
    train_at: NDArray[np.float64]
    test_at: NDArray[np.float64]
    label: NDArray[np.int64]
    centre: NDArray[np.float64]


def _steps(seconds: float, net: nn.Module, extra: list[nn.Parameter], rate: float = 2e-3):
    """Yield (step, optimiser) until the time is over, with a cosine rate by time."""
    optimiser = torch.optim.AdamW([*net.parameters(), *extra], lr=rate, weight_decay=0.02)
    start, step = time.process_time(), 0
    while (done := (time.process_time() - start) / seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 30) * (0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * done)))
        yield step, optimiser
        step += 1


def learn_ground(data: Data, seconds: float, seed: int = 0) -> dict[str, float]:
    """R@200 m of a cosine classifier over cells and of the nearest photo, after `seconds` of CPU."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = small_net()
    table = nn.Parameter(0.1 * torch.randn(len(data.centre), DIM))
    label, steps = torch.from_numpy(data.label), 0
    for step, optimiser in _steps(seconds, net, [table]):
        net.train()
        pick = rng.integers(0, len(data.train), 96)
        z = unit(net, _jitter(as_batch(data.train[pick])))
        loss = functional.cross_entropy(
            16 * z @ functional.normalize(table, dim=1).T, label[pick], label_smoothing=0.1
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps = step + 1
    test = embed(net, data.test)
    cell = (test @ functional.normalize(table.detach(), dim=1).T).argmax(1).numpy()
    near = (test @ embed(net, data.train).T).argmax(1).numpy()
    return {
        "prototype": recall(data.centre[cell], data.test_at),
        "nearest": recall(data.train_at[near], data.test_at),
        "epochs": steps * 96 / len(data.train),
    }


def learn_views(
    data: Data, tiles: NDArray[np.uint8], gallery: NDArray[np.uint8],
    gallery_at: NDArray[np.float64], seconds: float, seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """R@200 m and top-10 of photo to aerial tile matching; `tiles` lie around the training photos."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    nets = nn.ModuleList([small_net(), small_net()])
    sharpness, steps = nn.Parameter(torch.tensor(2.4)), 0
    for step, optimiser in _steps(seconds, nets, [sharpness]):
        nets.train()
        pick = rng.choice(len(data.train), PAIRS, replace=False)
        ground = unit(nets[0], _jitter(as_batch(data.train[pick])))
        turn = int(rng.integers(4))
        above = as_batch(tiles[pick]).rot90(turn, (2, 3))
        aerial = unit(nets[1], _jitter(above))
        score = sharpness.exp() * ground @ aerial.T
        near = haversine_m(data.train_at[pick][:, None], data.train_at[pick][None]) < 150
        score = score.masked_fill(torch.from_numpy(near) & ~torch.eye(len(pick), dtype=torch.bool), -1e4)
        target = torch.arange(len(pick))
        loss = functional.cross_entropy(score, target) + functional.cross_entropy(score.T, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps = step + 1
    score = embed(nets[0], data.test) @ embed(nets[1], gallery).T
    top = score.topk(10, dim=1).indices.numpy()
    hit = haversine_m(gallery_at[top], data.test_at[:, None]) <= RADIUS_M
    return {"top1": float(100 * hit[:, 0].mean()), "top10": float(100 * hit.any(1).mean()),
            "epochs": steps * PAIRS / len(data.train)}  # fmt: skip
