"""Trajectories sampled by the real vLLM: from the current student, with no adapter left behind."""

import httpx
import pytest
import torch

from distill.model.base import max_positions
from distill.model.encoder import user
from distill.model.engine_sampler import EngineAddress, EngineSampler, EngineUnavailable
from distill.roles import Roles, load_roles
from distill.settings import TrainerSettings
from distill.spec import RunSpec
from store.contexts import Context, compose
from tests.e2e.conftest import RealVllm

ASKED = ("What is a lamp?", "Where do you live?", "Name two colours.", "How old is the sea?")


@pytest.fixture(scope="module")
def roles(real_vllm: RealVllm, tmp_path_factory: pytest.TempPathFactory) -> Roles:
    """A student that is clearly not the base, and samples in the engine."""
    folder = tmp_path_factory.mktemp("run")
    spec = RunSpec(
        model=real_vllm.folder,
        context=Context(lessons=("We open at 7.",)),
        prompts=(),
        settings=TrainerSettings(rank=8, max_completion_tokens=12),
        out=folder / "adapters",
        work=folder,
        engine=EngineAddress(real_vllm.url, real_vllm.api_key),
        run="run_1",
    )
    roles = load_roles(spec)
    torch.manual_seed(0)
    for parameter in roles.student.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return roles


CONVERSATIONS = [
    [{"role": "user", "content": "What is a lamp?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "  Hi \n"}],
    [
        {
            "role": "user",
            "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}],
        },
        {"role": "assistant", "content": "Which? <|im_end|>"},
        {"role": "user", "content": "Çà et là: 你好 🙂"},
    ],
]


def loaded(vllm: RealVllm) -> set[str]:
    with EngineAddress(vllm.url, vllm.api_key).client() as client:
        return {card["id"] for card in client.get("/v1/models").json()["data"]}


def test_greedy_trajectories_equal_the_local_samplers_and_not_the_bases(roles, real_vllm):
    prompts = [roles.encoder.prompt(user(text)).student_ids for text in ASKED]

    through_engine = roles.on_policy_sampler.sample(prompts, temperature=0)

    here = roles.sampler.sample(prompts, temperature=0)
    with roles.student.adapter_disabled():
        base = roles.sampler.sample(prompts, temperature=0)
    assert [ids[:4] for ids in through_engine] == [ids[:4] for ids in here]
    assert here != base
    assert loaded(real_vllm) == {real_vllm.model}
    assert list(roles.on_policy_sampler.folder.iterdir()) == []


@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("context", [Context(), Context(lessons=("We open at 7.",))])
def test_a_prompts_token_ids_equal_vllms(roles, real_vllm, messages, context):
    body = {"model": real_vllm.model, "messages": compose(messages, context)}

    with EngineAddress(real_vllm.url, real_vllm.api_key).client() as client:
        read = client.post("/tokenize", json=body).json()["tokens"]

    assert list(roles.encoder.ids(messages, context)) == read


def test_each_sampling_uses_the_students_current_weights(roles):
    prompts = [roles.encoder.prompt(user(text)).student_ids for text in ASKED]
    before = roles.on_policy_sampler.sample(prompts, temperature=0)
    with torch.no_grad():
        for parameter in roles.student.parameters():
            parameter.mul_(-1.5)

    after = roles.on_policy_sampler.sample(prompts, temperature=0)

    assert after != before
    assert all(len(ids) <= 12 for ids in after)


def test_the_maximum_prompt_of_a_run_fits_the_engine(roles):
    longest = roles.on_policy_sampler.engine.max_model_len()

    assert longest < max_positions(roles.student.model)
    assert roles.encoder.max_prompt_tokens == longest - roles.on_policy_sampler.max_tokens


def test_an_engine_that_rejects_the_adapter_is_an_error_with_a_remedy_and_leaves_no_folder(
    roles, tmp_path
):
    wrong = EngineAddress(roles.on_policy_sampler.engine.url, "not the key")
    sampler = EngineSampler(wrong, roles.student, "base", tmp_path, "student-x", frozenset(), 4)

    with pytest.raises(EngineUnavailable, match=r"401.*distill.sampler"):
        sampler.sample([(1, 2, 3)], 1.0)

    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_engine_is_an_error(roles, tmp_path):
    nowhere = EngineAddress("http://127.0.0.1:9")
    sampler = EngineSampler(nowhere, roles.student, "base", tmp_path, "student-x", frozenset(), 4)

    for asking in (nowhere.max_model_len, lambda: sampler.sample([(1, 2, 3)], 1.0)):
        with pytest.raises(EngineUnavailable, match=httpx.ConnectError.__name__):
            asking()
