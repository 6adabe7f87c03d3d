"""Draws the trajectories of a step: on-policy ones, sampled ahead, and teacher-sampled ones.

In some of them the student sees a part of the context (`dropout.py`).
"""

from collections.abc import Sequence

from distill import dropout
from distill.data.prepare import RunData
from distill.mixture import Kind, draw_items
from distill.model.encoder import Prompt
from distill.model.trajectories import Trajectory, sample_on_policy
from distill.roles import Roles
from distill.settings import TrainerSettings


def sample_on_policy_ahead(
    settings: TrainerSettings, roles: Roles, data: RunData, step: int
) -> dict[int, list[Trajectory]]:
    """Sample the on-policy trajectories of the next `refresh_every` steps in one batch.

    Decoding reads all weights once per token, whether for one sequence or for twenty.
    """
    prompts_of = {
        ahead: [
            *_drawn_prompts(settings, roles, "on_policy", data.prompts, ahead),
            *_drawn_prompts(settings, roles, "on_policy_replay", data.replay, ahead),
        ]
        for ahead in range(step, min(step + settings.refresh_every, settings.steps))
    }
    roles.sampler.generator.manual_seed(settings.seed * 1_000_003 + step)
    prompts = [prompt for of_step in prompts_of.values() for prompt in of_step]
    seeds = roles.sampler.seeds(len(prompts))
    local_items = roles.parallel.local_items
    local = sample_on_policy(
        roles.teacher,
        roles.on_policy_sampler,
        local_items(prompts),
        settings.temperature,
        local_items(seeds),
    )
    sampled = iter(roles.parallel.gather(local))
    return {ahead: [next(sampled) for _ in of_step] for ahead, of_step in prompts_of.items()}


def _drawn_prompts(
    settings: TrainerSettings, roles: Roles, kind: Kind, source: Sequence[Prompt], step: int
) -> list[Prompt]:
    drawn = draw_items(settings, kind, source, step)
    return dropout.with_parts(settings, roles.encoder, roles.parts, drawn, step, kind)


def teacher_sampled_of_step(
    settings: TrainerSettings, roles: Roles, data: RunData, step: int
) -> list[Trajectory]:
    """Draw the step's teacher-sampled trajectories from the prepared data."""
    sources: dict[Kind, list[Trajectory]] = {
        "teacher_sampled": data.teacher_sampled,
        "teacher_sampled_replay": data.teacher_sampled_replay,
    }
    return [
        item
        for kind, source in sources.items()
        for item in dropout.trajectories_with_parts(
            settings,
            roles.encoder,
            roles.parts,
            draw_items(settings, kind, source, step),
            step,
            kind,
        )
    ]
