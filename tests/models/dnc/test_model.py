"""The network as a whole: the paper's size and equations, sequences in pieces, precisions, bad settings, fresh processes."""

import json
import time

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_geo.models import DncConfig, DncForSequenceCopy, build_copy_model, parse_model_args
from tests.models.dnc import oracle
from tests.training.launching import launch_or_fail

SMALL = {"hidden_size": 8, "memory_size": 4, "word_size": 3, "num_read_heads": 2}
torch.manual_seed(0)
INPUTS = torch.rand(2, 6, 6)


def make_model(**settings) -> DncForSequenceCopy:
    torch.manual_seed(1)
    return DncForSequenceCopy(DncConfig(**{**SMALL, **settings}))


def test_it_has_the_published_number_of_parameters() -> None:
    model = DncForSequenceCopy(DncConfig())
    assert model.num_parameters() == 43_980
    # Of the paper's interface: W R + 3 W + 5 R + 3 numbers.
    assert model.cell.interface.out_features == 16 * 4 + 3 * 16 + 5 * 4 + 3


def test_its_logits_are_those_of_the_papers_equations() -> None:
    model = make_model().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # so that gates open and close
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    found = model(INPUTS.double()).logits.detach().numpy()
    for sequence, logits in zip(INPUTS.double().numpy(), found, strict=True):
        np.testing.assert_allclose(logits, oracle.run(weights, model.config, sequence), atol=1e-4)
    clipped = make_model(clip_value=0.05).double()
    clipped.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(clipped(INPUTS.double()).logits.detach().numpy(), found.clip(-0.05, 0.05))


def test_the_loss_sums_over_labelled_bits_and_averages_over_sequences() -> None:
    model, labels = make_model(), (torch.rand(2, 6, 5) > 0.5).float()
    labels[0, :4], labels[1, 5:] = -100, -100
    out = model(INPUTS, labels)
    losses = F.binary_cross_entropy_with_logits(out.logits, labels.clamp(min=0), reduction="none")
    torch.testing.assert_close(out.loss, (losses[0, 4:].sum() + losses[1, :5].sum()) / 2)


@pytest.mark.parametrize("heads", (1, 2))
def test_a_sequence_may_be_read_in_pieces(heads: int) -> None:
    model = make_model(num_write_heads=heads)
    state, pieces = None, []
    for piece in INPUTS.split([1, 3, 2], dim=1):
        logits, state = model(piece, state=state, return_dict=False)
        pieces.append(logits)
    whole = model(INPUTS)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole.logits)  # one product of all steps, or several
    assert all(map(torch.equal, state, whole.state))


@pytest.mark.parametrize("autocast", (True, False))
def test_half_precision_keeps_a_precise_memory(autocast: bool) -> None:
    model = make_model(num_write_heads=2)
    reference = model(INPUTS).logits
    model = model if autocast else model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = model(INPUTS, labels=torch.ones(2, 6, 5))
    out.loss.backward()
    assert out.state.memory.dtype == out.loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    torch.testing.assert_close(out.logits.float(), reference, atol=0.02, rtol=0)


@pytest.mark.slow
def test_twenty_training_steps_take_a_second_of_one_core() -> None:
    """At batch 16 of the longest sequences of the experiment, nine steps: measured at 48 a second, by the process's time."""
    model, data = DncForSequenceCopy(DncConfig()), (torch.rand(16, 9, 6), torch.ones(16, 9, 5))
    optimizer = torch.optim.Adam(model.parameters())
    for steps in (3, 40):  # the first ones allocate
        started = time.process_time()
        for _ in range(steps):
            optimizer.zero_grad()
            model(*data).loss.backward()
            optimizer.step()
    assert steps / (time.process_time() - started) > 20


BAD = {
    "memory_size=2,num_write_heads=3": "memory_size=2 is too small for num_write_heads=3, as each head needs a location",
    "word_size=0": "word_size is at least 1, not 0",
    "clip_value=0.0": "clip_value is above 0, not 0.0",
    "hidden_size=big": "dnc cannot be made with hidden_size='big'",
    "hidden_size=1000000000000": "dnc cannot be made with hidden_size=1000000000000",
    "words=3": "dnc has no argument 'words': it takes clip_value, hidden_size",
}  # fmt: skip


@pytest.mark.parametrize("given", BAD)
def test_impossible_settings_are_refused(given: str) -> None:
    with pytest.raises(ValueError) as caught:
        build_copy_model("dnc", 6, 5, model_args=parse_model_args(given))
    assert BAD[given] in str(caught.value)


def test_weights_are_opened_in_float32_however_they_were_stored(tmp_path) -> None:
    make_model().bfloat16().save_pretrained(tmp_path)
    assert {p.dtype for p in build_copy_model(str(tmp_path), 6, 5).parameters()} == {torch.float32}


OPEN = """
import json, sys, torch
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
torch.manual_seed(0)
print(json.dumps({"package": "hf_geo" in sys.modules, "logits": model(torch.rand(2, 6, 6)).logits[0, -1].tolist()}))
"""


@pytest.mark.slow
def test_a_fresh_process_without_this_package_opens_it(tmp_path) -> None:
    model = make_model().eval()
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "open.py").write_text(OPEN)
    done = launch_or_fail(tmp_path / "open.py", tmp_path / "model", HF_HOME=str(tmp_path / "home"), PYTHONPATH="")
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["package"]
    torch.testing.assert_close(torch.tensor(found["logits"]), model(INPUTS).logits[0, -1])

    again = build_copy_model(str(tmp_path / "model"), 6, 5)
    assert torch.equal(again(INPUTS).logits, model(INPUTS).logits)
    with pytest.raises(ValueError, match="reads 6 numbers a step and predicts 5, but the data have 8 and 7"):
        build_copy_model(str(tmp_path / "model"), 8, 7)
    with pytest.raises(ValueError, match="brings its own configuration"):
        build_copy_model(str(tmp_path / "model"), 6, 5, model_args={"memory_size": 3})
