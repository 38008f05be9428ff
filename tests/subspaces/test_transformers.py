"""Subspaces of transformers' models, and of PEFT's adapters: every point is an ordinary model or adapter."""

import copy
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from hf_geo.subspaces import Subspace, SubspaceConfig, draw_generator

IDS = torch.arange(14).view(2, 7)


def make_gpt2() -> GPT2LMHeadModel:
    """Tiny, with its embedding tied to its head."""
    config = GPT2Config(
        n_layer=2,
        n_head=2,
        n_embd=16,
        vocab_size=50,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=0,
        loss_type="ForCausalLM",
    )
    return GPT2LMHeadModel(config)


def train(subspace: Subspace, steps: int = 4) -> None:
    optimizer = torch.optim.AdamW([p for p in subspace.model.parameters() if p.requires_grad], lr=0.01)
    for step in range(steps):
        generator = draw_generator(0, step)
        subspace.sample(generator)
        loss = subspace.model(input_ids=IDS, labels=IDS).loss + subspace.regularizer(generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    subspace.model.eval()


@pytest.mark.parametrize(("position", "checkpointing"), [(1.0, False), (0.3, True)])
def test_a_point_of_a_tied_model_opens_with_transformers(tmp_path: Path, position: float, checkpointing: bool) -> None:
    model = make_gpt2()
    parameters = len(list(model.parameters()))
    subspace = Subspace.attach(model, SubspaceConfig(), model_init=make_gpt2)
    assert len(list(model.parameters())) == 2 * parameters
    if checkpointing:
        model.gradient_checkpointing_enable()
    train(subspace)
    subspace.set_position(position)
    model.save_pretrained(tmp_path, state_dict=subspace.folded_state_dict())
    opened = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert opened.lm_head.weight is opened.transformer.wte.weight
    assert torch.equal(opened(input_ids=IDS).logits, model(input_ids=IDS).logits)


def test_a_line_of_adapters_costs_two_and_each_point_is_an_adapter(tmp_path: Path) -> None:
    position = 0.3
    base = make_gpt2()

    def make_adapted() -> torch.nn.Module:
        settings = peft.LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
        return peft.get_peft_model(copy.deepcopy(base), settings)

    model = make_adapted()
    adapter = sum(p.numel() for p in model.parameters() if p.requires_grad)
    subspace = Subspace.attach(model, SubspaceConfig(parameters="trainable"), model_init=make_adapted)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2 * adapter
    train(subspace)
    subspace.set_position(position)
    model.save_pretrained(tmp_path, state_dict=subspace.folded_state_dict())
    subspace.save(tmp_path / "subspace")
    expected = model(input_ids=IDS).logits

    opened = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()
    assert torch.equal(opened(input_ids=IDS).logits, expected)
    Subspace.load(tmp_path / "subspace", opened).set_position(position)
    assert torch.equal(opened(input_ids=IDS).logits, expected)
    assert not torch.equal(base.eval()(input_ids=IDS).logits, expected)
