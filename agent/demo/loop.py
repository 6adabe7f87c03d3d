"""The demo, stage by stage, against a real daemon and over HTTP alone.

1. Start `byheart serve` in a folder of its own.
2. Measure the base on questions that nothing is trained on.
3. Customers ask, the model errs, the operator demonstrates the right answers as feedback.
4. Wait while lessons, run, gate and swap happen by themselves.
5. Measure again: the base with the lessons in its prompt, and the adapter without them.

Every number in the table at the end was measured in this run. The demo fails when no adapter was
promoted, or when it answers no better than the base.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import openai

from agent.demo.errors import DemoFailed
from agent.demo.measure import MAX_TOKENS, Score, ask_all
from agent.demo.service import Service
from agent.demo.shops import Shop
from config.settings import Settings
from store import adapters, conversations, lessons, namespaces, runs
from store.clock import utcnow
from store.db import Database
from store.models import Run
from store.schema import AdapterStatus, RunStatus
from store.views import BASE

POLL_S = 0.5
LESSONS_S = 240.0
RUN_S = 120.0
"""Beyond `distill.settle_s`, for a run to start."""
ROLLOUT_S = 240.0


@dataclass(frozen=True)
class Outcome:
    """What the run showed."""

    corrected: int
    lessons: list[str]
    run: str
    adapter: str
    gate: list[str]
    base: Score
    in_prompt: Score
    internalised: Score


@dataclass(frozen=True)
class Demo:
    """One run of the loop."""

    shop: Shop
    settings: Settings
    service: Service
    db: Database
    show: Callable[..., None]
    """Shows what is going on, how much is done, of how much."""

    def run(self) -> Outcome:
        """All stages, in order.

        Raises:
            DemoFailed: A stage did not come to its end.
            ServiceDied: The daemon ended meanwhile.
        """
        try:
            return self._stages()
        except (openai.OpenAIError, httpx.HTTPError) as error:
            self.service.check()
            raise DemoFailed(f"The daemon did not answer as asked: {error}") from error

    def _stages(self) -> Outcome:
        with openai.OpenAI(base_url=f"{self.service.url}/v1", api_key="none") as client:
            model = client.models.list().data[0].id
            base = self.measure(client, model, "asking the base, knowing nothing")
            corrected = self.teach(client, model)
            texts = self.await_lessons(corrected)
            run = self.await_run()
            adapter, gate = self.await_rollout(run)
            in_prompt = self.measure(client, BASE, "asking the base, lessons in its prompt")
            internalised = self.measure(client, model, "asking the adapter, nothing in its prompt")
        return Outcome(corrected, texts, run.id, adapter, gate, base, in_prompt, internalised)

    def measure(self, client: openai.OpenAI, model: str, what: str) -> Score:
        """One arm over all measured questions."""
        questions = self.shop.measured
        done = iter(range(1, len(questions) + 1))
        return ask_all(
            client, model, questions, lambda: self.show(what, next(done), len(questions))
        )

    def teach(self, client: openai.OpenAI, model: str) -> int:
        """Customers ask; the operator corrects what is wrong. Returns how much was."""
        corrected = 0
        for number, fact in enumerate(self.shop.fact, start=1):
            answer = client.chat.completions.with_raw_response.create(
                model=model,
                messages=[{"role": "user", "content": fact.ask}],
                max_tokens=MAX_TOKENS,
                temperature=0,
            )
            said = answer.parse().choices[0].message.content or ""
            if not fact.is_right(said):
                self.correct(answer.headers["X-Byheart-Interaction"], fact.answer)
                corrected += 1
            self.show("customers ask, the operator corrects", number, len(self.shop.fact))
        return corrected

    def correct(self, interaction: str, right: str) -> None:
        """The operator's feedback: what the answer should have been."""
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
            raise DemoFailed("The model answered every customer right: there is nothing to learn.")
        deadline = time.monotonic() + LESSONS_S
        while True:
            self.service.check()
            with self.db.read() as session:
                known = lessons.in_use(session, namespaces.DEFAULT)
                texts = [lessons.text(lesson) for lesson in known]
                pending = conversations.unread(session, utcnow(), limit=1)
            self.show("the model states the lessons", len(texts), corrected)
            if not pending and texts:
                return texts
            if time.monotonic() > deadline:
                raise DemoFailed(f"Only {len(texts)} lessons came of {corrected} corrections.")
            time.sleep(POLL_S)

    def await_run(self) -> Run:
        """Wait until the run, which starts by itself, has published a candidate."""
        deadline = time.monotonic() + self.settings.distill.settle_s + RUN_S
        while True:
            self.service.check()
            with self.db.read() as session:
                found = runs.listing(session, namespaces.DEFAULT)
                run = found[-1] if found else None
            if run is None and time.monotonic() > deadline:
                needed = self.settings.distill.min_new_lessons
                raise DemoFailed(f"No run started: it takes {needed} lessons, each another one.")
            if run and run.status is RunStatus.PUBLISHED:
                return run
            if run and run.status not in (RunStatus.QUEUED, RunStatus.RUNNING):
                raise DemoFailed(f"Run {run.id} ended as {run.status}: {run.reason}")
            at = run.progress if run else {}
            phase = f"distilling: {at.get('phase', 'waiting')}"
            self.show(phase, at.get("step", 0), at.get("total"))
            time.sleep(POLL_S)

    def await_rollout(self, run: Run) -> tuple[str, list[str]]:
        """Wait until the candidate serves. Returns its name and the gate's reasons."""
        deadline = time.monotonic() + ROLLOUT_S
        while time.monotonic() < deadline:
            self.service.check()
            self.show("gate, identity probe, swap", None, None)
            with self.db.read() as session:
                adapter = adapters.get(session, str(run.adapter))
                reasons = list(adapters.evaluation(session, str(run.adapter)).reasons)
            if adapter and adapter.status is AdapterStatus.LIVE:
                return adapter.name, reasons
            if adapter and adapter.status is not AdapterStatus.CANDIDATE:
                raise DemoFailed(f"The candidate is {adapter.status}:\n" + "\n".join(reasons))
            time.sleep(POLL_S)
        raise DemoFailed("The candidate was not rolled out in time.")
