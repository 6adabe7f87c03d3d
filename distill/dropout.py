"""Context dropout: the part of the context that the student sees in a trajectory.

What an adapter has not learned stays in the prompt, so the student must answer like the teacher
with any part of the context in front. In a share of the trajectories it sees a random part, from
one statement to all of them; the teacher always sees the whole. A statement in front then neither
pulls other answers towards it nor is ignored.

Every choice is a function of (seed, step, kind, index), so a resumed run repeats it.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from distill.context.parts import ContextParts
from distill.mixture import Kind
from distill.model.encoder import Encoder, Prompt
from distill.model.trajectories import Trajectory
from distill.settings import TrainerSettings
from store.contexts import Context

WHOLE_SHARE = 1 / 8
"""Of the trajectories with a part of the context, those with all of it."""
MAX_PART = 1 / 2
"""The largest part otherwise, as a share of the statements."""


def draw_part(parts: ContextParts, settings: TrainerSettings, place: str) -> Context:
    """The part of the context that the student sees in one trajectory; mostly empty."""
    rng = random.Random(f"{settings.seed}/context/{place}")  # noqa: S311 - reproducible, not secret
    if rng.random() >= settings.partial_context_share:
        return Context()
    if rng.random() < WHOLE_SHARE:
        return parts.context
    count = rng.randint(1, max(1, round(MAX_PART * len(parts))))
    return parts.subset(rng.sample(range(len(parts)), count))


def with_parts(
    settings: TrainerSettings,
    encoder: Encoder,
    parts: ContextParts,
    prompts: Sequence[Prompt],
    step: int,
    kind: Kind,
) -> list[Prompt]:
    """The prompts of a step, some with a part of the context in front for the student."""
    shown = [draw_part(parts, settings, f"{step}/{kind}/{index}") for index in range(len(prompts))]
    return [
        encoder.with_student_context(prompt, context) if context else prompt
        for prompt, context in zip(prompts, shown, strict=True)
    ]


def trajectories_with_parts(
    settings: TrainerSettings,
    encoder: Encoder,
    parts: ContextParts,
    trajectories: Sequence[Trajectory],
    step: int,
    kind: Kind,
) -> list[Trajectory]:
    """The same for trajectories that the teacher has sampled, whose target stays as it is."""
    prompts = with_parts(
        settings, encoder, parts, [item.prompt for item in trajectories], step, kind
    )
    return [
        replace(item, prompt=prompt) for item, prompt in zip(trajectories, prompts, strict=True)
    ]
