"""Decides which statements of a context the candidate has learned.

A statement is learned if the candidate, without it in the prompt, knows it as well as the teacher
does with it. Held-out questions show that:

- It finds the statement's own words as an answer hardly less likely than the teacher does:
  `MAX_DEFICIT` nats per token, and `MAX_FACT_DEFICIT` nats for all numbers and names together. This
  measures also what neither of them says in a greedy answer, as with small models.
- Every number and name of the statement that the teacher's greedy answer gives is in the
  candidate's greedy answer, and in as many of its sampled answers as of the teacher's, but for one.
- On the teacher's answer, its divergence from the teacher is at most `MAX_DIVERGENCE`. Of a rule or
  a format, which no answer repeats, this is all there is, so it must be at most `MAX_OPEN_GAP` of
  the base's.

A statement with fewer than `MIN_QUESTIONS` questions is not learned, since nothing shows that it
is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from distill.evaluate import facts, measure
from distill.evaluate.answers import SAMPLES, Answers, Check, candidate_answers, given_facts, words
from distill.model.encoder import Encoder, Prompt
from distill.model.sampler import LocalSampler
from distill.model.teacher import Teacher
from store.contexts import Context

MIN_QUESTIONS = 2
# Chosen on the forty questions of the clinic in tests/bench/contexts (embedded model, seed 0,
# 2026-12-01). The adapter answers six statements as often as the teacher does; there it is behind
# by at most 0.34 nats per token and 0.3 nats for all facts, elsewhere by more than 0.5 or 0.8.
MAX_DEFICIT, MAX_FACT_DEFICIT = 0.35, 0.7
MAX_DIVERGENCE = 0.5
# Below the second, in nats per token, the base needs no teaching.
MAX_OPEN_GAP, MIN_DIVERGENCE = 0.35, 0.05
SPARED = 1
"""Sampled answers in which the candidate may fail where the teacher does not, by chance."""
NOTHING = Context()


@dataclass(frozen=True)
class Question:
    """One question, with the answers of teacher and candidate."""

    prompt: str
    teacher: str
    candidate: str
    facts: list[str]
    """The statement's numbers and names that the teacher's answer gives, in lower case."""
    teacher_samples: int
    """Sampled answers of the teacher that give all of them, of `SAMPLES`."""
    candidate_samples: int
    divergence: float
    """KL(teacher || candidate) on the teacher's greedy answer, nats per token."""
    deficit: float
    """By how much the candidate finds the statement's words less likely than the teacher does, in
    nats per token; 0 for an instruction."""
    fact_deficit: float
    """The same for all its numbers and names together, in nats."""
    right: bool
    """Whether the greedy answer is: it gives the facts, or if there are none, shows no problem."""
    problem: str
    """Why the answers do not show that the statement is learned; empty if they do."""


@dataclass(frozen=True)
class Judgement:
    """One statement of the context, and whether the candidate answers as if it had it."""

    statement: str
    questions: list[Question]

    @property
    def reason(self) -> str:
        """Why it counts as not learned; empty if it is learned."""
        if len(self.questions) < MIN_QUESTIONS:
            return (
                f"only {len(self.questions)} held-out questions ask about it; {MIN_QUESTIONS} are "
                "needed"
            )
        return "; ".join(
            f"{each.prompt!r}: {each.problem}" for each in self.questions if each.problem
        )

    @property
    def learned(self) -> bool:
        """Whether it is learned."""
        return not self.reason


@dataclass(frozen=True)
class Judge:
    """Judges statements, with any part of the context in the candidate's prompt."""

    teacher: Teacher
    """The teacher, with the student, whose adapter is the candidate."""
    sampler: LocalSampler
    """Samples from the model in its current adapter state."""
    encoder: Encoder
    checks: Sequence[Check]
    taught: Sequence[Answers]
    """The teacher's answers, one for each question of each check, in order."""
    gaps: Sequence[float]
    """KL(teacher || base) on the teacher's answers, in the same order, nats per token."""
    temperature: float
    """The sampling temperature in serving."""
    tolerance: float
    """The factor on all bounds; at 2, one fact may be missing from an answer."""

    def judge(self, context: Context = NOTHING, *, sampled: bool = True) -> list[Judgement]:
        """Judge each statement, with `context` in the candidate's prompt.

        Args:
            context: A part of the run's context.
            sampled: Whether answers are also sampled; else only greedy ones count.
        """
        reference = [
            replace(item, prompt=self.encoder.with_student_context(item.prompt, context))
            for check in self.checks
            for item in check.reference
        ]
        prompts = [item.prompt for item in reference]
        counts = [len(answers.sampled) if sampled else 0 for answers in self.taught]
        own = candidate_answers(self.sampler, self.encoder, prompts, self.temperature, counts)
        kls = [float(kl.mean()) for kl in measure.token_kls(self.teacher, reference)]
        divergences = zip(kls, self._divergence_bounds(), strict=True)
        deficits = self._deficits(context)
        rows = iter(zip(prompts, self.taught, own, divergences, deficits, strict=True))
        return [
            Judgement(
                check.statement,
                [self._question(check.statement, *next(rows)) for _ in check.reference],
            )
            for check in self.checks
        ]

    def _divergence_bounds(self) -> list[float]:
        stated = [bool(check.verbatim) for check in self.checks for _ in check.reference]
        return [
            MAX_DIVERGENCE if is_stated else max(MIN_DIVERGENCE, MAX_OPEN_GAP * gap)
            for is_stated, gap in zip(stated, self.gaps, strict=True)
        ]

    def _deficits(self, context: Context) -> list[tuple[float, float]]:
        """By how much each statement's words are less likely than for the teacher.

        Returns:
            For each question of each check, nats per token, and nats for all facts together.
        """
        verbatim = [item for check in self.checks for item in check.verbatim]
        shown = [self.encoder.with_student_context(item.prompt, context) for item in verbatim]
        student = self.teacher.student
        taught = measure.teacher_logprobs(student, verbatim)
        own = measure.completion_logprobs(
            student,
            [
                (prompt.student_ids, item.completion)
                for prompt, item in zip(shown, verbatim, strict=True)
            ],
        )
        found = iter(zip(verbatim, taught, own, strict=True))
        deficits = []
        for check in self.checks:
            for _ in check.reference:
                if not check.verbatim:
                    deficits.append((0.0, 0.0))
                    continue
                item, teacher, candidate = next(found)
                difference = (teacher - candidate)[:-1]  # the end says nothing of the statement
                positions = facts.fact_positions(
                    self.encoder.tokenizer, check.statement, item.prompt.text, item.completion[:-1]
                )
                deficits.append((float(difference.mean()), float(difference[positions].sum())))
        return deficits

    def _question(
        self,
        statement: str,
        prompt: Prompt,
        taught: Answers,
        own: Answers,
        divergence: tuple[float, float],
        deficits: tuple[float, float],
    ) -> Question:
        """One question with its answers, its divergence and the bound on it, and its deficits."""
        given = given_facts(statement, prompt.text, taught.greedy)
        hits, needed = (
            sum(given <= words(text) for text in answers.sampled) for answers in (own, taught)
        )
        measured = (
            ("the divergence is {:.2f} nats per token", *divergence),
            ("the statement is less likely by {:.2f} nats per token", deficits[0], MAX_DEFICIT),
            ("its facts are less likely by {:.2f} nats", deficits[1], MAX_FACT_DEFICIT),
        )
        missing = sorted(given - words(own.greedy))
        if len(missing) <= self.tolerance - 1:
            missing = []
        problem = self._problem(missing, measured)
        right = not missing if given else not problem
        if not problem and own.sampled and hits < needed - SPARED * self.tolerance:
            problem = f"{hits} of {SAMPLES} sampled answers are right, {needed} of the teacher's"
        answers = prompt.text, taught.greedy, own.greedy, sorted(given)
        return Question(*answers, needed, hits, divergence[0], *deficits, right, problem)

    def _problem(self, missing: list[str], measured: Sequence[tuple[str, float, float]]) -> str:
        """What is wrong with a greedy answer, by the measured values and their bounds."""
        exceeded = [
            f"{text.format(value)}, {self.tolerance * bound:.2g} at most"
            for text, value, bound in measured
            if value > self.tolerance * bound
        ]
        lacking = [f"the answer lacks {', '.join(missing)}"] if missing else []
        return "; ".join([*lacking, *exceeded])
