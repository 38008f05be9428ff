"""One process and two: the same weights however an update is divided, resumed bit-identical, evaluated as saved."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Dinov2Config, Dinov2ForImageClassification

from hf_geo.training.averaging import AVERAGED
from hf_geo.training.processes import unused_parameters
from tests.scripts import TRAIN
from tests.training import averages, divisions, evaluations, resumes, searches, trajectories
from tests.training.launching import launch, launch_or_fail
from tests.training.problems import Normalized, flat, loss_of, make_problem, make_trainer

BOTH = pytest.mark.parametrize("processes", (1, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    launch_or_fail("-m", "tests.training.forking", folder, timeout=600)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    """Tensors of a part, by its number of processes."""
    return lambda part, processes: load_file(folder / str(processes) / f"{part}.safetensors")


@pytest.mark.parametrize(("kind", "name"), trajectories.PROBLEMS)
def test_every_loop_leads_to_the_same_weights(found, kind: str, name: str) -> None:
    ways = {
        key: value
        for key, value in (found("trajectories", 1) | found("trajectories", 2)).items()
        if key.startswith(f"{kind}/{name}/")
    }
    whole = ways.pop(f"{kind}/{name}/1 x 8 x 1")
    assert (whole - flat(make_problem(kind)[0])).abs().max() > 1e-3
    assert len(ways) == (5 if kind == "points" else 3)
    for way, weights in ways.items():
        torch.testing.assert_close(weights, whole, rtol=0, atol=1e-6, msg=lambda text, way=way: f"{way}: {text}")


@BOTH
@pytest.mark.parametrize(("kind", "name"), divisions.ROWS)
def test_the_same_update_however_divided(found, kind: str, name: str, processes: int) -> None:
    weights, losses = divisions.by_hand(kind, name)
    trained = found("divisions", processes)
    torch.testing.assert_close(trained[f"{kind}/{name}"], weights, rtol=0, atol=1e-6)
    torch.testing.assert_close(trained[f"{kind}/{name}/losses"].double(), losses.double(), rtol=0, atol=1e-4)


@BOTH
@pytest.mark.parametrize("kind", divisions.EVALUATED)
def test_the_same_evaluation_with_any_number_of_processes(found, kind: str, processes: int) -> None:
    batch = {name: values[:16] for name, values in divisions.KINDS[kind].data.items()}
    with torch.no_grad():
        loss = divisions.make_model(kind).eval()(**batch)["loss"]
    assert found("divisions", processes)[f"{kind}/evaluated"].item() == pytest.approx(loss.item(), abs=1e-6)


@BOTH
@pytest.mark.parametrize("name", resumes.RUNS)
def test_a_resumed_run_ends_bit_identical(found, processes: int, name: str) -> None:
    ends = {key: weights for key, weights in found("resumes", processes).items() if key.startswith(f"{name}/")}
    unbroken = ends.pop(f"{name}/unbroken")
    assert len(ends) == len(resumes.RUNS[name][1])
    assert [key for key, weights in ends.items() if not torch.equal(weights, unbroken)] == []


@BOTH
@pytest.mark.parametrize(("name", "tensors"), [("ema", 6), ("swa", 6), ("line", 12)])
def test_a_resumed_average_or_line_ends_bit_identical(found, processes: int, name: str, tensors: int) -> None:
    ends = found("averages", processes)
    unbroken = {key: value for key, value in ends.items() if key.startswith(f"{name}/unbroken/")}
    assert len(unbroken) == tensors
    for step in averages.RUNS[name][1]:
        assert [
            key for key, value in unbroken.items() if not torch.equal(value, ends[key.replace("unbroken", str(step))])
        ] == []


def test_two_processes_average_as_one_does(found) -> None:
    two = found("averages", 2)
    for key, value in found("averages", 1).items():
        torch.testing.assert_close(two[key], value, rtol=0, atol=1e-12)


def test_sharded_weights_average_as_whole_ones_do(found) -> None:
    ends = found("averages", 2)
    sharded = {key: value for key, value in ends.items() if key.startswith("by hand/True/")}
    assert len(sharded) == 6
    assert [key for key, value in sharded.items() if not torch.equal(value, ends[key.replace("True", "False")])] == []


@pytest.fixture(scope="module")
def evaluated(folder) -> dict:
    return json.loads((folder / "2" / "evaluations.json").read_text())


@pytest.mark.parametrize("row", evaluations.ROWS)
def test_two_processes_report_the_network_that_is_saved(folder, evaluated, row: str) -> None:
    for step, printed in enumerate(evaluated[row], start=1):
        model, checkpoint = Normalized(), folder / "2" / row / f"checkpoint-{step}"
        model.load_state_dict(load_file(checkpoint / "model.safetensors"))
        # Norm statistics are taken anew for an average, and not saved with the weights.
        assert (checkpoint / AVERAGED).is_file() == (row == "ema")
        assert printed == pytest.approx(loss_of(model), abs=0.5 if row == "ema" else 1e-9)


def test_machines_hear_before_training_that_their_disks_do_not_fit(evaluated) -> None:
    shared, own, not_shared, twice = evaluated["refusals"]
    assert shared is own is None
    assert "do not share the disk" in not_shared and "add --save_on_each_node true" in not_shared
    assert "share the disk" in twice and "leave out --save_on_each_node" in twice


@pytest.mark.parametrize("batch_norms", [False, True])
@pytest.mark.parametrize("data", ["Points", "Stream"])
@pytest.mark.parametrize("size", evaluations.SIZES)
def test_each_sample_counts_once_in_an_epoch_of_two_processes(
    evaluated, size: int, data: str, batch_norms: bool
) -> None:
    ranks = evaluated["epochs"][f"{size} {data} {batch_norms}"]
    assert len(ranks[0]) == len(ranks[1])  # or one process would wait for the other for ever
    counted = sum(count for rank in ranks for _, count in rank)
    if batch_norms:
        assert all(samples > 1 for rank in ranks for samples, _ in rank)
        assert 0 <= size - counted <= 2  # at most the single samples of the processes
    else:
        assert counted == size


def test_buffers_of_every_kind_become_the_first_processs(evaluated) -> None:
    assert evaluated["odd buffers"] == [True, True]


@pytest.fixture(scope="module")
def searched(folder) -> dict:
    return json.loads((folder / "2" / "searches.json").read_text())


@pytest.mark.parametrize("name", searches.ROWS)
def test_ddp_looks_for_unused_parameters_where_there_are_some(found, searched, name: str) -> None:
    looked, error = searched["rows"][name]
    assert looked == searches.ROWS[name].searches
    if name == "not looked for":
        assert "no part in the loss" in error and "add --ddp_find_unused_parameters true" in error
        return
    assert error is None and searched["same weights"]
    if name not in ("batch norms", "line", "skipped at random"):  # where statistics or draws are a process's own
        one, two = (found("searches", processes)[name] for processes in (1, 2))
        torch.testing.assert_close(two, one, rtol=0, atol=1e-6)


def test_a_trial_leaves_the_model_and_random_numbers_alone(tmp_path) -> None:
    trainer = make_trainer(tmp_path, searches.with_unused_norm(), optim="sgd")
    model = trainer.model.eval()
    before, draws = {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.get_rng_state()
    assert unused_parameters(trainer) == {"unused.weight", "unused.bias"}
    assert torch.equal(torch.get_rng_state(), draws) and not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.slow
def test_a_script_says_how_to_train_a_network_with_unused_parameters(tmp_path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    Dinov2ForImageClassification(Dinov2Config(**sizes, num_labels=10)).save_pretrained(tmp_path / "dinov2")
    words = [TRAIN, f"--model={tmp_path / 'dinov2'}", "--dataset=digits", "--optim=adamw_torch", "--max_steps=3"]
    words += ["--save_strategy=no", "--eval_strategy=no", "--report_to=none", "--disable_tqdm=true"]
    words += [f"--output_dir={tmp_path / 'run'}"]
    done = launch(*words, "--ddp_find_unused_parameters=false", processes=2)
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("train.py: error: ")]
    assert done.returncode != 0 and "add --ddp_find_unused_parameters true" in said
    assert "scripts/train.py" not in done.stderr.partition("Traceback")[2].partition("ChildFailedError")[0]
    done = launch_or_fail(*words, "--overwrite=true", processes=2)
    assert "no part in the loss of a trial: dinov2.embeddings.mask_token." in done.stderr


def test_no_thread_is_left_that_could_abort_the_process_when_it_ends(searched) -> None:
    before, after = searched["threads"]
    assert before > 0 and after == 0
