"""A benchmark of localizers as jobs: its trainings wait for the snapshot, and for models they take up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geofix.jobs.pipeline import Pipeline, Stage
from geofix.jobs.run_stage import stages_of

if TYPE_CHECKING:
    from geofix.pipeline.benchmark import Plan


def staged_benchmark(plan: Plan) -> Pipeline:
    """Every stage of every part as a job of its own; any number of workers may share them."""
    stages: list[Stage] = []
    if plan.setup is not None:
        stages = stages_of(plan.setup, plan.home, {}, before="00 setup ")
    ready = [stages[-1].name] if stages else []
    trained: dict[str, str] = {}
    for number, part in enumerate(plan.parts, start=1):
        short = part.name.removeprefix(f"{plan.benchmark.name}-")
        after = [*ready, *(trained[name] for name in part.after)]
        made = stages_of(part.file, plan.home, {}, before=f"{number:02d} {short} ", after=after)
        trained[part.name] = made[0].name
        stages += made
    return Pipeline(stages=stages)
