"""Training in several processes: one model, and whenever they are killed, a step to go on from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
if not torch.distributed.is_available():
    pytest.skip("this torch has no torch.distributed", allow_module_level=True)

import killed_ranks  # noqa: E402
from test_training_loop import TINY, tensors  # noqa: E402
from training_files import snapshot  # noqa: E402

from geofix.errors import BadInputError  # noqa: E402
from geofix.models.registry import load_model  # noqa: E402
from geofix.training import checkpoint  # noqa: E402
from geofix.training.distributed import Team  # noqa: E402

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot, what two processes are told, and what they make of it undisturbed (`whole`)."""
    folder = tmp_path_factory.mktemp("town")
    snapshot(folder)
    told = {**TINY, "epochs": 3, "validation": {"keep": "last"}}
    (folder / "two.json").write_text(json.dumps(told), encoding="utf-8")
    assert both(folder, "whole")[0] == (0, 0)
    return folder


def both(folder: Path, out: str, killed: int = 0, before: int = 0) -> tuple[tuple[int, int], str]:
    """Run two ranks, one of which may be killed before a rename; how they ended, and what they said."""
    meeting = folder / f"meeting-{len(list(folder.glob('said-*')))}"
    running, said = [], [folder / f"said-{meeting.name}-{rank}" for rank in range(2)]
    for rank in range(2):
        words = [str(rank), str(folder), str(meeting), str(folder / out), str(before * (rank == killed))]
        with said[rank].open("wb") as stream:
            running.append(
                subprocess.Popen(
                    [sys.executable, killed_ranks.__file__, *words],
                    env={**os.environ, **ENVIRONMENT},
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        for rank in (killed, 1 - killed):
            running[rank].wait(300)
    finally:
        for process in running:
            process.kill()
    text = "".join(path.read_text(encoding="utf-8") for path in said)
    return (running[0].returncode, running[1].returncode), text


@pytest.mark.parametrize(
    ("killed", "renames"),
    [
        (1, [2, 1]),  # with its second checkpoint unwritten, and after going on once more
        (0, [3]),  # between the renames of its second checkpoint
    ],
)
def test_a_kill_between_the_renames_loses_one_checkpoint_at_most(
    town: Path, killed: int, renames: list[int]
) -> None:
    out = f"killed-{killed}"
    first, second = (town / out / name for name in killed_ranks.NAMES)
    for before in renames:
        ends, said = both(town, out, killed, before)
        assert ends[killed] == -signal.SIGKILL and ends[1 - killed] != 0, said[-2000:]
        held = [(path, checkpoint.previous_path(path)) for path in (first, second)]
        steps = [{killed_ranks.step_of(file) for file in files} - {0} for files in held]
        assert steps[1 - killed] == {2, 4} and steps[killed] == {2}, "steps that each rank can go on from"
    ends, said = both(town, out)
    assert ends == (0, 0), said[-2000:]
    assert "the one before is used" in said
    assert sorted((town / out).glob("checkpoint*")) == sorted([first, second])
    whole, parts = tensors(town / "whole"), tensors(town / out)
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name
    told = [(town / run / "epochs.jsonl").read_text().splitlines() for run in ("whole", out)]
    assert told[0] == told[1]


class Apart(Team):
    """A team whose other process brings other steps."""

    def newest(self, numbers: list[int]) -> int | None:
        return None


def test_checkpoints_that_share_no_step_are_refused(town: Path) -> None:
    whole = town / "whole"
    with pytest.raises(BadInputError, match="is of step 6, the checkpoint of another process is of another"):
        checkpoint._agreed(whole / "checkpoint.pt", Apart(0, 2))


def test_steps_of_one_process_are_its_own() -> None:
    assert Team().newest([4, 9]) == 9 and Team().newest([]) is None


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    file = tmp_path / "two.yaml"
    file.write_text(json.dumps({**TINY, "epochs": 2, "separate": True}), encoding="utf-8")
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    call += ["-m", "geofix.cli", "train", str(file), "--snapshot", str(made.path), "--out", "out", "--json"]
    done = subprocess.run(
        call,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **ENVIRONMENT},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["epochs"] == 2 and result["prototypes"] > 2
    model = load_model(tmp_path / "out" / "model")
    assert len(model.tensors["prototypes.weight"]) == result["prototypes"]
    ranks = [
        torch.load(tmp_path / "out" / n, weights_only=True) for n in ("checkpoint.pt", "checkpoint-rank1.pt")
    ]
    for name, value in ranks[0]["networks"]["ground"].items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(value, ranks[1]["networks"]["ground"][name]), name
    rows = [item["table"]["weight"] for item in ranks]
    assert len(rows[0]) + len(rows[1]) == result["prototypes"]
