# The verbs of the project. Every one of them sets up what it needs first.

# Who has set up for a GPU goes on with it.
ENGINE ?= $(if $(wildcard .venv/.installed-gpu),gpu,cpu)
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed-$(ENGINE)

.PHONY: setup demo test unit integration e2e bench-lora bench-step bench-loss bench-samplers bench-distill bench-generations bench-gateway docs check fmt lock clean

setup: $(STAMP)  ## install the pinned packages into .venv (ENGINE=gpu on a GPU machine)

$(STAMP): requirements-$(ENGINE).lock pyproject.toml .ci/setup
	.ci/setup $(ENGINE) $(PYTHON)
	@touch $@

demo: setup  ## the whole loop on this machine, half an hour on two busy cores
	$(BIN)/byheart demo

test: setup  ## unit, integration and end-to-end tests
	$(BIN)/pytest

unit integration e2e: setup  ## one of the suites
	$(BIN)/pytest tests/$@

bench-lora: setup  ## tokens a second with an adapter on the CPU, about six minutes
	$(BIN)/python -m tests.bench.lora_cpu

bench-step: setup  ## what a step costs by length of the context; slow at 8000 tokens, resumes
	$(BIN)/python -m tests.bench.step_cost --out bench/step
	$(BIN)/python -m tests.bench.step_cost --out bench/step --report

bench-loss: setup  ## time and memory of the loss alone: about two minutes
	$(BIN)/python -m tests.bench.loss_memory

bench-samplers: setup  ## tokens a second of the student's trajectories, about five minutes
	$(BIN)/python -m tests.bench.samplers

bench-distill: setup  ## what each way of distilling keeps of a context: hours, in pieces
	$(BIN)/python -m tests.bench.quality --out bench/quality
	$(BIN)/python -m tests.bench.quality --out bench/quality --report

bench-gateway: setup  ## what the gateway costs beside LiteLLM's proxy: about ten minutes, quiet machine
	$(BIN)/python -m tests.bench.gateway --out bench/gateway

bench-generations: setup  ## what is kept over generations: an hour or two, resumes
	$(BIN)/python -m tests.bench.generations --out bench/generations
	$(BIN)/python -m tests.bench.generations --out bench/generations --report

check: setup  ## lint, format, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup  ## write CONFIGURATION.md and HTTP.md again
	$(BIN)/python -m agent.reference

fmt: setup  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## resolve pyproject.toml into the lock files again
	.ci/lock

clean:  ## remove the virtual environment
	rm -rf .venv
