"""The demo's stages, against a real daemon and over HTTP only.

1. Start `byheart serve` in its own folder.
2. Measure the base model on test questions that are not used in training.
3. Customers ask, the model answers wrong, the operator sends the right answers as feedback.
4. Wait while the daemon extracts lessons, trains, gates and swaps the adapter in.
5. Measure again: the base model with the lessons in its prompt, and the adapter with those that it
   has not learned.
6. The operator corrects what is still wrong, and it is asked again.

Every number in the printed table was measured in this demo. The demo fails if no adapter goes live,
or if the adapter is no better than the base model.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import httpx
import openai

from agent.demo.errors import DemoFailed
from agent.demo.measure import MAX_TOKENS, Answered, Score, ask_all, ask_one
from agent.demo.service import Service
from agent.demo.shops import Question, Shop
from config.settings import Settings
from store import adapters, conversations, lessons, namespaces, runs
from store.adapter_tables import Run
from store.clock import utcnow
from store.db import Database
from store.schema import AdapterStatus, RunStatus
from store.views import BASE

POLL_S = 0.5
LESSONS_S = 240.0
RUN_S = 120.0
"""Seconds after `distill.settle_s` in which a run must start."""
ROLLOUT_S = 240.0


@dataclass(frozen=True)
class Outcome:
    """What the demo measured."""

    corrected: int
    lessons: list[str]
    run: str
    adapter: str
    gate: list[str]
    base: Score
    in_prompt: Score
    internalised: Score
    recorrected: tuple[Answered, ...]
    """The answers to the questions that the adapter got wrong, asked again after a correction."""


@dataclass(frozen=True)
class Demo:
    """One run of the loop."""

    shop: Shop
    settings: Settings
    service: Service
    db: Database
    show: Callable[..., None]
    """Shows the stage, the amount done, and the total."""

    def run(self) -> Outcome:
        """Run all stages in order.

        Raises:
            DemoFailed: A stage did not complete.
            ServiceDied: The daemon exited.
        """
        try:
            return self._stages()
        except (openai.OpenAIError, httpx.HTTPError) as error:
            self.service.check()
            raise DemoFailed(f"A request to the daemon failed: {error}") from error

    def _stages(self) -> Outcome:
        with openai.OpenAI(base_url=f"{self.service.url}/v1", api_key="none") as client:
            model = client.models.list().data[0].id
            base = self.measure(client, model, "asking the base model, no lessons")
            corrected = self.teach(client, model)
            texts = self.await_lessons(corrected)
            run = self.await_run()
            adapter, gate = self.await_rollout(run)
            in_prompt = self.measure(client, BASE, "asking the base model, lessons in prompt")
            internalised = self.measure(client, model, "asking the adapter, the rest in the prompt")
            wrong = [each.question for each in internalised.answers if not each.right]
            again = tuple(self.correct_again(client, model, wrong))
        scores = (base, in_prompt, internalised)
        return Outcome(corrected, texts, run.id, adapter, gate, *scores, again)

    def measure(self, client: openai.OpenAI, model: str, stage: str) -> Score:
        """Ask `model` all test questions."""
        questions = self.shop.measured
        done = iter(range(1, len(questions) + 1))
        return ask_all(
            client, model, questions, lambda: self.show(stage, next(done), len(questions))
        )

    def teach(self, client: openai.OpenAI, model: str) -> int:
        """Ask as customers, correct wrong answers as the operator; return how many were wrong."""
        corrected = 0
        for number, fact in enumerate(self.shop.fact, start=1):
            text, interaction = self.ask(client, model, fact.ask)
            if not fact.is_right(text):
                self.correct(interaction, fact.answer)
                corrected += 1
            self.show(
                "customers ask, the operator corrects wrong answers", number, len(self.shop.fact)
            )
        return corrected

    def ask(self, client: openai.OpenAI, model: str, question: str) -> tuple[str, str]:
        """Ask as a customer; return the answer and the id of the interaction."""
        answer = client.chat.completions.with_raw_response.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_tokens=MAX_TOKENS,
            temperature=0,
        )
        text = answer.parse().choices[0].message.content or ""
        return text, answer.headers["X-Byheart-Interaction"]

    def correct_again(
        self, client: openai.OpenAI, model: str, wrong: Sequence[Question]
    ) -> Iterator[Answered]:
        """Correct what the adapter still gets wrong, and ask again at once.

        The correction shows that a fact is not known, so it is in the prompt of the next request.
        """
        for number, question in enumerate(wrong, start=1):
            _, interaction = self.ask(client, model, question.text)
            self.correct(interaction, question.fact.answer)
            yield ask_one(client, model, question)
            self.show("the operator corrects what is still wrong", number, len(wrong))

    def correct(self, interaction: str, right: str) -> None:
        """Send the right answer as the operator's feedback."""
        body = {
            "target_id": interaction,
            "name": "demonstration",
            "value": True,
            "demonstration": right,
        }
        httpx.post(f"{self.service.url}/v1/feedback", json=body).raise_for_status()

    def await_lessons(self, corrected: int) -> list[str]:
        """Wait until the corrections have become lessons."""
        if not corrected:
            raise DemoFailed(
                "The model answered every question correctly, so there is nothing to learn."
            )
        deadline = time.monotonic() + LESSONS_S
        while True:
            self.service.check()
            with self.db.read() as session:
                used = lessons.in_use(session, namespaces.DEFAULT)
                texts = [lessons.text(lesson) for lesson in used]
                pending = conversations.unread(session, utcnow(), limit=1)
            self.show("extracting lessons", len(texts), corrected)
            if not pending and texts:
                return texts
            if time.monotonic() > deadline:
                raise DemoFailed(f"{corrected} corrections yielded only {len(texts)} lessons.")
            time.sleep(POLL_S)

    def await_run(self) -> Run:
        """Wait until the daemon has started a run, and it has published a candidate."""
        deadline = time.monotonic() + self.settings.distill.settle_s + RUN_S
        while True:
            self.service.check()
            with self.db.read() as session:
                found = runs.listing(session, namespaces.DEFAULT)
                run = found[-1] if found else None
            if run is None and time.monotonic() > deadline:
                needed = self.settings.distill.min_new_lessons
                raise DemoFailed(f"No run started: it needs {needed} different lessons.")
            if run and run.status is RunStatus.PUBLISHED:
                return run
            if run and run.status not in (RunStatus.QUEUED, RunStatus.RUNNING):
                raise DemoFailed(f"Run {run.id} ended as {run.status}: {run.reason}")
            progress = run.progress if run else {}
            stage = f"distilling: {progress.get('stage', 'waiting')}"
            self.show(stage, progress.get("step", 0), progress.get("total"))
            time.sleep(POLL_S)

    def await_rollout(self, run: Run) -> tuple[str, list[str]]:
        """Wait until the candidate is live; return its name and gate results."""
        deadline = time.monotonic() + ROLLOUT_S
        while time.monotonic() < deadline:
            self.service.check()
            self.show("gating and swapping in the adapter", None, None)
            with self.db.read() as session:
                adapter = adapters.get(session, str(run.adapter))
                reasons = list(adapters.evaluation(session, str(run.adapter)).reasons)
            if adapter and adapter.status is AdapterStatus.LIVE:
                return adapter.name, reasons
            if adapter and adapter.status is not AdapterStatus.CANDIDATE:
                raise DemoFailed(f"The candidate is {adapter.status}:\n" + "\n".join(reasons))
            time.sleep(POLL_S)
        raise DemoFailed("The candidate did not go live in time.")
