"""What libraries write of an attached model opens in them as the plain network at the position it is at."""

import copy
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import timm
import torch
from datasets import Dataset
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    CLIPConfig,
    CLIPModel,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from hf_geo.subspaces import Subspace, SubspaceConfig

SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
IDS, IMAGES = torch.arange(12).view(2, 6), torch.randn(2, 3, 32, 32)
LINE = SubspaceConfig(jitter=0.5)


def _gpt2() -> nn.Module:
    """Its head is tied to its embedding."""
    torch.manual_seed(0)
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 16, "vocab_size": 50, "n_positions": 16}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, loss_type="ForCausalLM"))


def _vit() -> nn.Module:
    """transformers writes its tensors under older names."""
    return ViTForImageClassification(ViTConfig(**SIZES, image_size=32, patch_size=16, num_labels=3))


def _clip() -> nn.Module:
    """Has a parameter at its root, so that attaching replaces the class whose name is written as the architecture."""
    vision, text = {**SIZES, "image_size": 32, "patch_size": 16}, {**SIZES, "vocab_size": 50}
    return CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=8))


def _timm() -> nn.Module:
    return timm.create_model("test_vit", num_classes=3, img_size=32)


def _adapted(**settings: object) -> nn.Module:
    adapter = peft.LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False, **settings)
    return peft.get_peft_model(_gpt2(), adapter)


class Mixed(nn.Module, PyTorchModelHubMixin):
    """huggingface_hub's own way to save any network, here one with a tie."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x.float()).tanh())


def _save_pretrained(model: nn.Module, folder: Path) -> None:
    model.save_pretrained(folder)


def _save_for_hf(model: nn.Module, folder: Path) -> None:
    timm.models.save_for_hf(model, folder, model_args={"img_size": 32}, safe_serialization="both")


def _open_timm(folder: Path) -> nn.Module:
    return timm.create_model(f"local-dir:{folder}", pretrained=True)


def _open_adapter(folder: Path) -> nn.Module:
    return peft.PeftModel.from_pretrained(_gpt2(), folder)


def _outputs(model: nn.Module, inputs: Tensor | dict) -> Tensor:
    answer = model.eval()(**inputs) if isinstance(inputs, dict) else model.eval()(inputs)
    return answer if isinstance(answer, Tensor) else answer["logits" if "logits" in answer else "logits_per_text"]


open_lm, open_images = AutoModelForCausalLM.from_pretrained, AutoModelForImageClassification.from_pretrained


@pytest.mark.parametrize(
    ("make", "save", "reopen", "inputs"),
    [
        (_gpt2, _save_pretrained, open_lm, IDS),
        (lambda: torch.compile(_gpt2(), backend="eager"), _save_pretrained, open_lm, IDS),
        (_vit, _save_pretrained, open_images, IMAGES),
        (_clip, _save_pretrained, AutoModel.from_pretrained, {"input_ids": IDS, "pixel_values": IMAGES}),
        (_adapted, _save_pretrained, _open_adapter, IDS),
        (lambda: _adapted(modules_to_save=["lm_head"]), _save_pretrained, _open_adapter, IDS),
        (Mixed, _save_pretrained, Mixed.from_pretrained, IDS),
        (_timm, _save_for_hf, _open_timm, IMAGES),
    ],
    ids=["gpt2", "compiled", "vit", "root", "lora", "modules_to_save", "mixin", "timm"],
)
def test_a_saved_folder_opens_as_the_network_at_the_position(
    make: Callable[[], nn.Module],
    save: Callable[[nn.Module, Path], None],
    reopen: Callable[[Path], nn.Module],
    inputs: Tensor | dict,
    tmp_path: Path,
) -> None:
    model = make()
    Subspace.attach(model, LINE).set_position(0.3)
    save(model, tmp_path)
    assert torch.equal(_outputs(reopen(tmp_path), inputs), _outputs(model, inputs))
    assert "arametriz" not in "".join(path.read_text() for path in tmp_path.glob("*.json"))
    assert any(name.endswith("original1") for name in model.state_dict()), "the model itself has lost its points"


def test_a_model_with_an_attached_part_is_saved_plainly_too(tmp_path: Path) -> None:
    model = _gpt2()
    Subspace.attach(model.transformer.h, LINE).set_position(0.3)
    model.save_pretrained(tmp_path)
    assert torch.equal(_outputs(open_lm(tmp_path), IDS), _outputs(model, IDS))


def test_a_deep_copy_is_saved_at_its_own_position(tmp_path: Path) -> None:
    model = _gpt2()
    Subspace.attach(model, LINE).set_position(0.1)
    twin = Subspace(copy.deepcopy(model), LINE)
    twin.set_position(0.9)
    twin.model.save_pretrained(tmp_path)
    opened = _outputs(open_lm(tmp_path), IDS)
    assert torch.equal(opened, _outputs(twin.model, IDS))
    assert not torch.equal(opened, _outputs(model, IDS))


def test_a_checkpoint_of_transformers_trainer_resumes_all_control_points(tmp_path: Path) -> None:
    data = Dataset.from_dict({"input_ids": IDS.tolist(), "labels": IDS.tolist()})
    settings = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "learning_rate": 0.1}

    def train(resume: bool) -> tuple[Subspace, Trainer]:
        subspace = Subspace.attach(_gpt2(), LINE)
        args = TrainingArguments(tmp_path, max_steps=1, save_steps=1, **settings)
        trainer = Trainer(subspace.model, args, train_dataset=data)
        trainer.train(resume_from_checkpoint=resume)
        return subspace, trainer

    start, (trained, trainer), (resumed, _) = Subspace.attach(_gpt2(), LINE), train(False), train(True)
    for index in (0, 1):
        first, ends, found = (subspace.point_state_dict(index) for subspace in (start, trained, resumed))
        assert all(torch.equal(found[name], value) for name, value in ends.items())
        assert not torch.equal(ends["lm_head.weight"], first["lm_head.weight"])
    trainer.save_model(tmp_path / "final")
    assert torch.equal(_outputs(open_lm(tmp_path / "final"), IDS), _outputs(trained.model, IDS))
