"""A base that the trainer would train wrongly is rejected when it is loaded."""

import pytest
import torch
import transformers

from distill.model import base, packing
from distill.model.base import ModelError
from tests.support.tiny import CHAT_TEMPLATE, save_tiny_model, tiny_model, tiny_tokenizer

CPU = torch.device("cpu")


def model_of(family: str, **options) -> transformers.PreTrainedModel:
    sizes = {
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "attn_implementation": "sdpa",
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(**(sizes | options))
        return getattr(transformers, f"{family}ForCausalLM")(config).eval()


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def check(model: transformers.PreTrainedModel) -> None:
    base.check_layers(model)
    base.check_packing(model)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("Llama", {}),
        ("Qwen2", {"use_sliding_window": False, "sliding_window": 16}),
        ("Qwen3", {}),
        ("Qwen3Moe", EXPERTS),
        ("Mistral", {"sliding_window": None}),
        ("Phi3", {"sliding_window": 512}),
        ("Granite", {}),
    ],
)
def test_models_with_full_attention_are_supported(family, options):
    check(model_of(family, **options))


@pytest.mark.parametrize(
    ("family", "options", "feature"),
    [
        ("Mistral", {"sliding_window": 16}, "window of 16 tokens"),
        ("Gemma2", {"sliding_window": 128}, "window of 128 tokens"),
        ("Gemma2", {"sliding_window": 256}, "capped"),
        ("Granite", {"logits_scaling": 4.0}, "scaled"),
        ("Phi", {}, "biased"),
        ("Lfm2", {"layer_types": ["conv", "full_attention"]}, "Layers of the kind Linear"),
    ],
)
def test_an_unsupported_layer_is_rejected_with_its_name(family, options, feature):
    model = model_of(family, **options)
    if family == "Phi":
        torch.nn.init.normal_(model.lm_head.bias)

    with pytest.raises(ModelError, match=f"{feature}.* not supported"):
        check(model)


def leaking(query, _positions, segments):
    """A mask by which a token sees what stands before it in the row, of whichever sequence."""
    cached = len(segments) - len(query.ids)
    seen = torch.arange(len(segments)) <= torch.arange(len(query.ids))[:, None] + cached
    return seen[None, None]


def test_attention_across_packed_sequences_is_detected(monkeypatch):
    monkeypatch.setattr(packing, "attention_mask", leaking)

    with pytest.raises(ModelError, match="do not get the logits of unpacked ones"):
        base.check_packing(tiny_model())


def test_a_cache_that_packing_leaves_changed_is_detected(monkeypatch):
    monkeypatch.setattr(transformers.DynamicCache, "crop", lambda *_: None)

    with pytest.raises(ModelError, match="do not get the logits of unpacked ones"):
        base.check_packing(tiny_model())


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "no chat template"),
        ("{{ raise_exception('System role not supported') }}", "System role not supported"),
        (CHAT_TEMPLATE.replace("messages %}", "messages[1:] %}"), "drops the system message"),
    ],
)
def test_a_template_without_system_messages_is_rejected(template, message):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template

    with pytest.raises(ModelError, match=message):
        base.check_template(tokenizer)


def test_a_missing_folder_is_reported_as_missing(tmp_path):
    with pytest.raises(ModelError, match=r"There is no folder .*nowhere"):
        base.load_base(tmp_path / "nowhere", CPU)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"not a tensor"),
        ("model.safetensors", b""),
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "no_report-of"}'),
        ("tokenizer.json", b"{"),
    ],
)
def test_a_corrupt_model_is_an_error_that_names_the_folder(tmp_path, name, content):
    folder = save_tiny_model(tmp_path / "model")
    (folder / name).write_bytes(content)

    with pytest.raises(ModelError, match=str(folder)):
        base.load_base(folder, CPU)


def test_dynamic_rope_is_used_up_to_the_models_own_length():
    parameters = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    config = transformers.LlamaConfig(max_position_embeddings=64, rope_parameters=parameters)

    assert base.max_positions(type("Model", (), {"config": config})()) == 64


def save(model: transformers.PreTrainedModel, folder) -> None:
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


COMPRESSED = {
    "num_key_value_heads": 4,
    "head_dim": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}


@pytest.mark.parametrize(("family", "options"), [("StableLm", {}), ("DeepseekV3", COMPRESSED)])
def test_a_model_that_cannot_be_packed_is_rejected_with_its_class(tmp_path, family, options):
    save(model_of(family, **options), tmp_path)

    with pytest.raises(ModelError, match=f"{family}ForCausalLM are not supported: packed"):
        base.load_base(tmp_path, CPU)


def test_a_model_without_linear_layers_is_rejected(tmp_path):
    config = transformers.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    save(transformers.GPT2LMHeadModel(config), tmp_path)

    with pytest.raises(ModelError, match="GPT2LMHeadModel are not supported: they have no linear"):
        base.load_base(tmp_path, CPU)


def test_a_multimodal_models_length_is_that_of_its_text_part():
    text = transformers.LlamaConfig(max_position_embeddings=77)
    several = type("Several", (), {"get_text_config": lambda _: text})()

    assert base.max_positions(type("Model", (), {"config": several})()) == 77


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_length_dependent_rope_is_used_up_to_the_length_where_it_changes(rope_type):
    factors = (
        {"short_factor": [1.0] * 4, "long_factor": [9.0] * 4} if rope_type == "longrope" else {}
    )
    parameters = {
        "rope_type": rope_type,
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        **factors,
    }
    config = transformers.LlamaConfig(
        hidden_size=16,
        num_attention_heads=2,
        max_position_embeddings=128,
        rope_parameters=parameters,
    )

    assert base.max_positions(type("Model", (), {"config": config})()) == 32
