"""A table spread over two processes gives what one process gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("this torch has no torch.distributed", allow_module_level=True)

import sharded_step  # noqa: E402

RANKS = 2


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, sharded_step.__file__, str(rank), str(RANKS), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]
    try:
        for process in running:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("which", range(len(sharded_step.LOSSES)))
@pytest.mark.parametrize("sampled", [False, True])
def test_two_ranks_equal_one_process(ranks: list[dict[str, torch.Tensor]], which: int, sampled: bool) -> None:
    alone = sharded_step.step(sharded_step.LOSSES[which], 0, 1, None, sampled)
    together = {name: torch.cat([rank[f"{which}.{sampled}.{name}"] for rank in ranks]) for name in alone}
    together["anchors"] /= RANKS  # each rank took the mean over its own anchors
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, atol=1e-5, rtol=1e-5)
    assert (alone["each"] == 0).any() and (alone["each"] > 0).any()
