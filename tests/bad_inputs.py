"""What users get wrong, as a table: the script, what is given to it, and what its one sentence has to name and to advise.

Options of a row replace those of a good call (`GOOD` in tests/wrong_calls.py); None leaves one out. Where a row needs
files, a function makes them in the row's own folder, which is the working directory, and returns the options.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from tests.wrong_calls import (
    CLASSES,
    IMAGES,
    PNG,
    WORD_MODEL,
    Options,
    Payload,
    Row,
    as_they_are,
    benchmark,
    checkpoint,
    cut,
    edit_json,
    evaluate,
    explore,
    files,
    inspect,
    made,
    merging,
    model,
    number,
    one_class,
    other_architecture,
    own_code,
    pairs,
    perturb,
    push,
    pushed,
    recipe,
    remove,
    replace,
    table,
    train,
    with_options,
)

SMALL_GAN = {"task": "unconditional-image-generation", "model": "resnet_gan", "image_size": 16, "model_args": "width=4"}
unlabelled = {f"{index}.png": PNG for index in range(20)}


def generate(given: Options | Callable[[Path], Options], names: str, advises: str) -> Row:
    """A run that generates images."""
    return train(lambda folder: {**SMALL_GAN, **(given(folder) if callable(given) else given)}, names, advises)


def weights(write: Callable[[Path], object]) -> Callable[[Path], Options]:
    """Writes a file of Inception weights."""
    return lambda folder: (write(folder / "w.pth"), {"fid_model": "w.pth"})[1]


def exploring(spoil: Callable[[Path], object], *words: str) -> Callable[[Path], list[str]]:
    """Exploring a trained folder of timm, spoiled."""
    return lambda folder: (spoil(folder / "line"), ["line", *words])[1]


HELP = "--help says what each option takes"
ROWS: dict[str, Row] = {
    # The command line
    "optimizer misspelt": train({"optim": "fromag"}, "Unknown optimizer 'fromag'", "Did you mean 'fromage'?"),
    "model misspelt": train({"model": "resnet_18"}, "Unknown model 'resnet_18'", "Nearest: resnet18"),
    "no model": train({"model": None}, "No model is named", "as in --model resnet18"),
    "no data set": train({"dataset": None}, "No data set is named", "as in --dataset uoft-cs/cifar10"),
    "option misspelt": train({"optimm": "sgd"}, "--optimm=sgd", "did you mean --optim?"),
    "bfloat16 without a GPU": train({"bf16": "true"}, "--bf16 true needs a GPU with bfloat16", "give --use_cpu true too"),
    "an option of another task": train({"lowercase": "true"}, "--lowercase is not for image-classification", "leave it out"),
    "rare words of another's vocabulary": train({"task": "causal-lm", "min_frequency": 2}, "--min_frequency 2 is for 'word_transformer'", "its own vocabulary"),
    "an option without effect": train({"do_train": "true"}, "--do_train changes nothing here", "leave it out"),
    "neither true nor false": train({"bf16": "maybe"}, "--bf16: ", HELP),
    "augmentation": train({"augmentation": "mirror"}, "--augmentation: invalid choice: 'mirror'", "crop-flip"),
    "task": train({"task": "segmentation"}, "no task 'segmentation'", "--task is one of image-classification, text-classification"),
    "a memory smaller than its write heads": train(
        {"model": "dnc", "dataset": "repeat-copy", "model_args": "memory_size=2,num_write_heads=3"},
        "memory_size=2 is too small for num_write_heads=3", "give memory_size=3 or more",
    ),
    "data that are no sequences to copy": train({"model": "dnc"}, "A model of sequences trains on repeat-copy", "give --dataset repeat-copy"),
    # Images to generate
    "generating with a classifier": generate({"model": "test_resnet"}, "'test_resnet' generates no images", "resnet_gan"),
    "a size that cannot be generated": generate({"image_size": 28}, "not of 28", "choose another image_size"),
    "argument of a generator misspelt": generate({"model_args": "wdth=4"}, "no argument 'wdth'", "width"),
    "generating with ALI-G": generate({"optim": "alig"}, "alig takes steps for a loss that falls to zero", "another --optim"),
    "generating a line": generate({"subspace": "line"}, "one network with one loss", "leave --subspace out"),
    "generating with a loss": generate({"loss": "smooth-top-k"}, "--loss smooth-top-k is for", "leave it out"),
    "generating from a stream": generate({"streaming": "true"}, "--streaming True", "leave it out"),
    "one image to compare with": generate({"max_eval_samples": 1}, "has one image", "more images"),
    "classes where there are none": generate(files(unlabelled, label_column="label"), "There is no column 'label'", "The columns are image"),
    "features of no folder": generate({"fid_model": "test_resnet"}, "is no trained classifier", "Inception weights"),
    "no Inception weights": generate({"fid_model": "gone.pth"}, "There is no file 'gone.pth'", "give its path"),
    "Inception weights with code": generate(weights(lambda path: torch.save({"a": Payload()}, path)), "more than weights", "download it again"),
    "Inception weights cut short": generate(weights(lambda path: path.write_bytes(b"PK\x03\x04")), "is damaged", "download it again"),
    "weights of another network": generate(weights(lambda path: torch.save({"a": torch.ones(1)}, path)), "another network", "weights-inception-2015"),
    # Numbers out of range
    "negative learning rate": number("learning_rate", -0.5, "a number of at least 0"),
    "a step without a bound": train(
        {"optim": "sgd", "learning_rate": "inf"}, "--learning_rate inf leaves a step without a bound", "give a number"
    ),
    "negative steps": number("max_steps", -5, "at least 1, or -1 to train for --num_train_epochs"),
    "negative seed": number("seed", -1, "a whole number from 0 to 4294967295"),
    "milestone at zero": train({"milestones": 0}, "--milestones are epochs above 0", "in rising order, not 0.0"),
    "no samples": train({"max_train_samples": 0}, "--max_train_samples", "at least 1, not 0"),
    "image size of no whole patches": train({"model": "test_vit", "image_size": 50}, "'test_vit' does not take images of 3 x 50 x 50", "give --image_size 64"),
    "features instead of logits": train({"model_args": "features_only=true"}, "'test_resnet' gives a list for 2 images", "leave out what --model_args change of its outputs"),
    "evaluating at another size": evaluate({"image_size": 48}, "--image_size 48 is not how 'line' prepares images", "leave it out", needs=("line",)),
    # Options that contradict each other, or that nothing can be done with
    "overwrite and resume": train({"overwrite": "true", "resume_from_checkpoint": "true"}, "--overwrite and --resume_from_checkpoint", "give one of them"),
    "best model without evaluation": train({"load_best_model_at_end": "true"}, "--load_best_model_at_end", ""),
    "best by what is not measured": train({"metric_for_best_model": "f1"}, "--metric_for_best_model f1 is not measured", "choose accuracy or loss"),
    "label names": train({"label_names": "nope"}, "--label_names ['nope']", "leave it out"),
    "losses only": train({"prediction_loss_only": "true"}, "--prediction_loss_only True", "leave it out"),
    "subspace settings alone": train({"num_points": 3}, "--num_points 3 is about a subspace", "give --subspace"),
    "subspace of nothing": train({"subspace": "line", "subspace_parameters": "nothing"}, "matches parameters='nothing'", "nothing to span"),
    "subspace pattern": train({"subspace": "line", "subspace_parameters": "("}, "'(' is none", "a regular expression"),
    "subspace with checkpointing": train({"subspace": "line", "subspace_samples": 2, "gradient_checkpointing": "true"}, "a batch's 2 positions", "--subspace_samples 1"),
    "geometry between logs": train({"log_geometry": "true", "logging_strategy": "epoch"}, "not epoch", "needs --logging_strategy steps"),
    "prefetching without workers": train({"dataloader_prefetch_factor": 2}, "--dataloader_prefetch_factor", "--dataloader_num_workers > 0"),
    "less than a batch": train({"dataloader_drop_last": "true", "per_device_train_batch_size": 64}, "no batch of 64", "choose a smaller --per_device_train_batch_size"),
    "noise on embeddings": train({"neftune_noise_alpha": 0.1}, "--neftune_noise_alpha 0.1", "leave it out"),
    "settings of a schedule": train({"lr_scheduler_kwargs": '{"nope": 1}'}, "{'nope': 1}", "change one of them"),
    "settings a schedule needs": train({"lr_scheduler_type": "cosine_with_min_lr"}, "--lr_scheduler_type cosine_with_min_lr", "change one of them"),
    "deepspeed that is not installed": train({"deepspeed": "gone.json"}, "deepspeed", "is required"),
    "optimizer that is not installed": train({"optim": "galore_adamw"}, "galore_torch", "pip install"),
    # Optimizers' settings
    "kernels of a missing package": train({"use_liger_kernel": "true"}, "--use_liger_kernel", "pip install liger-kernel, or leave it out"),
    "debugging on a missing TPU": train({"debug": "tpu_metrics_debug"}, "--debug tpu_metrics_debug", "pip install torch_xla, or leave it out"),
    "setting out of range": train({"optim_args": "p_bound=-1.0"}, "not -1.0", "p_bound has to be above 0 and finite"),
    "unknown group": train({"optim_args": "geometry.lr=1"}, "no parameter group 'geometry'", "it makes rest"),
    # Recipes
    "recipe missing": train({"config": "quickstrat"}, "there is no file or recipe 'quickstrat'", "did you mean quickstart or "),
    "recipe of several papers": train({"config": "imagenet.yaml"}, "several recipes are called 'imagenet.yaml'", "choose ali-g/imagenet or fromage/imagenet or"),
    "recipe is a folder": train({"config": "."}, "'.' cannot be read (Is a directory)", "give the path of a YAML file"),
    "recipe binary": recipe(bytes(range(256)), "can't decode byte 0x80", "write one `option: value` a line"),
    "recipe key a number": recipe("1: 2", "unknown option '1'", "--help lists them all"),
    # Data sets
    "no such folder": train({"dataset": "./gone/here"}, "There is no folder './gone/here'", "look whether its path is right"),
    "data a file": train({"dataset": "/etc/hostname"}, "There is no folder '/etc/hostname'", "look whether its path is right"),
    "no network": train({"dataset": "uoft-cs/cifar10"}, "'uoft-cs/cifar10' is no folder here", "check the network"),
    "empty folder": train(files({"x/y.unknown": ""}), "'data' cannot be read", "give a folder"),
    "train split": train({"train_split": "traning"}, "no split 'traning' (--train_split)", "it has train, test"),
    "text instead of images": train(files({"train.txt": "some words\n"}), "No image column is found", "give a folder of images"),
    "image column": train(with_options(table(IMAGES), image_column="picture"), "no column 'picture' (--image_column)", "The columns are image"),
    "label column": train(with_options(table(IMAGES), label_column="image"), "'image' (--label_column) does not hold classes", "The columns are image"),
    "one class in words": train(one_class, "are of one class, 'cat'", "give images of a second class"),
    "label out of range": train(table(IMAGES, [0, 7] * 10), "run from 0 to 7, but there are 2 classes", "repair them"),
    "image broken": train(with_options(table([*IMAGES[:19], b""]), max_bad_samples=0, max_train_samples=None, max_eval_samples=None), "cannot be used: cannot identify image file", "repair the data set, or raise the limit"),
    "one sample": train(table(IMAGES[:1], [0]), "1 training sample", "--eval_split"),
    "broken CSV": train(files({"train.csv": 'a,b\n1,2,3\n"'}), "'data' cannot be read as a data set", "give a folder"),
    "broken card": train(files({"README.md": "---\nconfigs: [\n---\n"}, table(IMAGES)), "'data' cannot be read as a data set", "give a folder"),
    "file name in no encoding": train(files({**CLASSES, "cat/\udcff.png": PNG}), "'data' cannot be read as a data set", "give a folder"),
    # Texts
    "text column": train({**WORD_MODEL, "text_column": "txt"}, "'txt' (--text_column) is not in the data set", "Its columns are text"),
    "text in bytes": train(files({"train.txt": b"\xff\xfe\x00\xd8" * 9}, **{**WORD_MODEL, "dataset": "data"}), "'data' cannot be read as a data set", "give a folder"),
    "text of one line": train(files({"train.txt": "a b c\n"}, **{**WORD_MODEL, "dataset": "data"}), "Of 1 rows", "--eval_split"),
    "columns that are not shared evenly": train({**WORD_MODEL, "columns": 7, "gradient_accumulation_steps": 2}, "7 columns", "use a multiple of 2 columns"),
    "window longer than the text": train({**WORD_MODEL, "bptt": 10**8}, "bptt=100000000 is longer", "use a smaller bptt"),
    "words that are too frequent": train({**WORD_MODEL, "min_frequency": 10**8}, "no word that occurs 100000000 times", "--min_frequency"),
    "width of a language model": train({**WORD_MODEL, "model_args": "d_model=9,nhead=2"}, "d_model=9", "a multiple of nhead=2"),
    "width in words": train({**WORD_MODEL, "model_args": "d_model=many"}, "d_model='many'", "change --model_args"),
    "width below zero": train({**WORD_MODEL, "model_args": "d_model=-8"}, "d_model=-8", "change --model_args"),
    # Texts to classify
    "pair column": train(pairs(text_column="premise", text_pair_column="hypothesi"), "'hypothesi' (--text_pair_column) is not in the data set", "Its columns are premise, hypothesis"),
    "pair of one column": train(pairs(text_column="premise", text_pair_column="premise"), "--text_pair_column premise is the text column itself", "name the other one"),
    "real numbers as classes": train(pairs(label_column="score"), "'score' (--label_column) does not hold classes", "The columns are premise"),
    "one class of texts": train(pairs(label_column="tag"), "are of one class, 'x'", "give texts of a second class"),
    "no room for words": train(pairs(max_length=5), "--max_length 5 leaves no room for words", "use a larger one"),
    "ragged word vectors": train(pairs("cat 1 2 3 4\ndog 1 2 3\n"), "Line 2 of 'vectors.txt' does not hold 4 numbers", "get the file anew"),
    "word vectors of another width": train(pairs("cat 1 2 3\n"), "have 3 numbers each, and --model_args asks for word_size=4", "leave it out"),
    "word vectors for an encoder": train(pairs("cat 1 2\n", model="test_resnet", model_args=None, task="text-classification"), "--word_vectors vectors.txt is for 'bilstm_nli'", "brings its own configuration"),
    "small letters for an encoder": train(pairs(model="test_resnet", model_args=None, task="text-classification", lowercase="true"), "--lowercase True is for 'bilstm_nli'", "vocabulary"),
    "sizes of a BiLSTM": train(pairs(model_args="hidden=3"), "no argument 'hidden'", "it takes classifier_size"),
    # Architectures
    "argument misspelt": train({"model_args": "depht=3"}, "depht=3", "change --model_args"),
    "classes as an argument": train({"model_args": "num_classes=3"}, "num_classes", "leave it out of --model_args"),
    "channels": train({"model_args": "in_chans=7"}, "7 channels", "images have 1 (grey) or 3 (colour)"),
    "a file as an argument": train({"model_args": "checkpoint_path='/etc/hostname'"}, "checkpoint_path='/etc/hostname'", "leave it out"),
    "weights that are not here": train({"pretrained": "true"}, "pretrained weights of 'test_resnet'", "give their folder with --model"),
    # Model folders
    "no model folder": train({"model": "gone/x/y"}, "There is no folder 'gone/x/y'", "look whether its path is right"),
    "model folder without config": train(names="no config.json", advises="give the folder of a trained one", **model(remove("config.json"))),
    "config no JSON": train(names="config.json' is not JSON", advises="copy or download the model again", **model(replace("config.json", "{"))),
    "config of nothing": train(names="from 'line'", advises="transformers opens no", **model(replace("config.json", "{}"))),
    "config of an unknown architecture": train(names="'resnet_of_tomorrow'", advises="install the release it needs", **model(edit_json("config.json", architecture="resnet_of_tomorrow"))),
    "config of odd classes": train(names="num_classes='many'", advises="it is a number, 0 or more", **model(edit_json("config.json", num_classes="many"))),
    "config of another size": train(names="timm cannot build", advises="change --model_args or --model", **model(edit_json("config.json", architecture="test_vit"))),
    "weights cut short": train(names="model.safetensors' is damaged or cut short", advises="copy or download it again", **model(cut("model.safetensors"))),
    "no weights": train(names="'line' has no weights", advises="give a folder or id that has", **model(remove("model.safetensors"))),
    "an image classifier for text": train(names="from 'line'", advises="transformers opens no tokenizer", **model(as_they_are, task="causal-lm", dataset="docs")),
    # The output folder and checkpoints
    "finished": train(made("out/model.safetensors"), "'out' holds a finished run", "replace it with --overwrite true"),
    "unfinished": train(made("out/checkpoint-5/trainer_state.json"), "'out' holds an unfinished run", "--resume_from_checkpoint true"),
    "output a file": train(lambda folder: {"output_dir": str(made("out/x")(folder)["output_dir"]) + "/x"}, "'out/x' cannot be written", "choose another --output_dir"),
    "output in a device": train({"output_dir": "/dev/null/x"}, "'/dev/null/x' cannot be written", "choose another --output_dir"),
    "nothing to resume": train({"resume_from_checkpoint": "true"}, "no checkpoint in 'new'", "start without --resume_from_checkpoint"),
    "no checkpoint": train({"resume_from_checkpoint": "somewhere"}, "'somewhere' is not a checkpoint folder", "say true for the newest"),
    "checkpoint of another width": train(names="checkpoint-1 is of another model", advises="resume with the model", **checkpoint(as_they_are, model_args="channels=(8,8,8,8)")),
    "checkpoint of another model": train(names="checkpoint-1 is of another model", advises="resume with the model", **checkpoint(as_they_are, model="test_vit")),
    "checkpoint of another optimizer": train(names="1 parameter groups and this run's SGD has 2", advises="resume with the optimizer", **checkpoint(as_they_are, optim="sgd")),
    "checkpoint of other settings": train(names="p_bound=", advises="resume with the checkpoint's value", **checkpoint(as_they_are, optim_args="p_bound=3.0")),
    "checkpoint without weights": train(names="checkpoint-1", advises="name another one", **checkpoint(remove("model.safetensors"))),
    "checkpoint cut short": train(names="model.safetensors", advises="name another one", **checkpoint(cut("model.safetensors"))),
    "checkpoint with code": train(names="optimizer.pt", advises="name another one", **checkpoint(lambda folder: torch.save({"payload": Payload()}, folder / "optimizer.pt"))),
    # Pushing
    "push without token": train({"push_to_hub": "true", "hub_model_id": "ada/run"}, "no token to push to ada/run", "hf auth login"),
    "push to nowhere": train({"push_to_hub": "true", "hub_model_id": "a/b/c"}, "'a/b/c' cannot be a repository's name", "hf-geo push"),
    "pushing by half a word": push(["run", "ada/run", "--priv"], "unknown option --priv", "did you mean --private?"),
    "pushing to a bad name": push(pushed("run", "ada run"), "'ada run' cannot be a repository's name", "NAMESPACE/NAME"),
    "pushing offline": push(pushed("run", "ada/run"), "HF_HUB_OFFLINE forbids", "push it later with", environment={"HF_TOKEN": "hf_" + "y" * 34}),
    # Evaluating
    "evaluating nothing": evaluate({"model": None}, "required: --model", HELP),
    "evaluating another option": evaluate({"position": 3}, "--position=3", "did you mean --positions?", needs=("line",)),
    "positions in words": evaluate({"positions": "many"}, "not 'many'", "a whole number of at least 2", needs=("line",)),
    "evaluating somewhere": evaluate({"device": "quantum"}, "no device 'quantum' on this machine", "use cpu", needs=("line",)),
    "evaluation seed": evaluate({"seed": -1}, "--seed", "from 0 to 4294967295, not '-1'", needs=("line",)),
    "exporting nowhere": evaluate({"export_position": 0.5, "positions": None}, "--export_position 0.5", "give a new folder for it with --output_dir", needs=("line",)),
    "exporting outside": evaluate({"export_position": 1.5, "positions": None, "output_dir": "new"}, "got 1.5", "lies in [0, 1]", needs=("line",)),
    "subspace cut short": evaluate(names="subspace.safetensors is damaged or cut short", advises="copy or download it again", **model(cut("subspace.safetensors"))),
    "subspace of another kind": evaluate(names="no kind 'ring'", advises="A subspace is a line", **model(edit_json("subspace_config.json", kind="ring"))),
    "subspace of another architecture": evaluate(names="is of another architecture", advises="the model", **model(edit_json("subspace_config.json", shapes={"timm_model.fc.weight": [1, 2]}))),
    # Merging
    "merging one model": Row(names="--model 1 times", advises="name each with --model", **merging("average", others=())),
    "barrier between three": Row(names="barrier takes two networks, and there is --model 3 times", advises="name each", **merging("barrier", others=("b", "c"))),
    "merging by luck": Row(names="invalid choice: 'luck'", advises="greedy", **merging("luck")),
    "merging architectures": Row(names="'line' and 'other' are of different architectures: for ", advises="the other shape", **merging("average", change=other_architecture)),
    "merging equal models": Row(names="'line' and 'other' are equal, so the barrier between them is zero", advises="give other networks", **merging("barrier", change=None)),
    "merging equal models among more": Row(names="'b' and 'c' are equal: give", advises="other networks", **merging("average", others=("b", "c"))),
    "merging quantized weights": Row(names="The weights of 'other' are quantized", advises="merge, then quantize", **merging("average", change=edit_json("config.json", quantization_config={"bits": 4}))),
    "merging on other classes": Row(names="has 10 classes, but data has 2", advises="", **merging("average", "--dataset=data", change=lambda other: (perturb(other), table(IMAGES)(other.parent)))),
    "coefficients of another sum": Row(names="[0.5, 0.6] sum to 1.1", advises="change them", **merging("average", "--coefficients=0.5,0.6")),
    "coefficients of too many": Row(names="3 coefficients for 2 networks", advises="give one for each", **merging("average", "--coefficients=0.5,0.3,0.2")),
    "coefficients in words": Row(names="not 'half'", advises="numbers separated by commas", **merging("average", "--coefficients=half")),
    "position of an average": Row(names="--position is for --method interpolate, not for average", advises="leave it out", **merging("average", "--position=0")),
    "positions of an average": Row(names="--positions is for --method barrier, interpolate or curve", advises="leave it out", **merging("average", "--positions=5")),
    "position outside": Row(names="got 1.5", advises="lies in [0, 1]", **merging("interpolate", "--position=1.5")),
    "position twice": Row(names="--position and --select_position contradict", advises="give one of them", **merging("interpolate", "--position=0.5", "--select_position")),
    "choosing on the test split": Row(names="has no split to choose on besides the reported one", advises="--eval_split", **merging("greedy", "--eval_split=test")),
    "greedy by what is not measured": Row(names="--metric f1 is not measured", advises="choose one of loss, accuracy", **merging("greedy", "--metric=f1")),
    "bend without a recipe": Row(names="--method curve trains a bend", advises="--recipe", **merging("curve")),
    "bend without a head": Row(names="--without_head is not for --method curve", advises="leave it out", **merging("curve", "--recipe=quickstart", "--without_head")),
    "merging into a result": Row(names="'line' holds a result already", advises="choose another --output_dir", **merging("average", "--output_dir=line")),
    # Exploring
    "exploring nothing": explore([], "required: FOLDER_OR_ID", HELP),
    "exploring another's folder": explore(lambda folder: ((folder / "own").mkdir(), ["own"])[1], "'own' holds no model", "give the folder of a trained one"),
    "exploring without data": explore(exploring(edit_json("training_args.json", dataset="./gone")), "'line' was trained on './gone'", "name the data with --dataset", needs=("line",)),
    "exploring a damaged log": explore(exploring(replace("trainer_state.json", "{}"), "--positions=2", "--recalibration_batches=1"), "is no log of a training", "copy it again", needs=("line",)),
    "exploring a damaged subspace": explore(exploring(cut("subspace.safetensors")), "subspace.safetensors is damaged or cut short", "copy or download it again", needs=("line",)),
    "a Space in a folder with files": explore(exploring(as_they_are, "--export_space=line"), "'line' is not empty", "name a new folder", needs=("line",)),
    "a Space with a port": explore(exploring(as_they_are, "--export_space=new", "--port=7860"), "--export_space opens no page", "leave --port out", needs=("line",)),
    "a Space of local data": explore(exploring(lambda line: table(IMAGES)(line.parent), "--dataset=data", "--export_space=new"), "'data' are on this machine alone", "push them to the Hub", needs=("line",)),
    # Inspecting
    "inspecting an unknown model": inspect({"model": "resnet81"}, "Unknown model 'resnet81'", "Nearest: resnet18"),
    "inspecting an optimizer": inspect({"optim": "adamsr"}, "Unknown optimizer 'adamsr'", "Did you mean 'adamsrt'?"),
    "inspecting small batches": inspect({"batch_size": 1}, "--batch_size", "a whole number of at least 3, not '1'"),
    "inspecting odd pixels": inspect({"model": "test_vit", "img_size": 17}, "3 x 17 x 17", "divisible by patch size (16)"),
    "inspecting an argument": inspect({"model_args": "depht=3"}, "'depht': 3", "change --model_args"),
    "inspecting layers in words": inspect({"model": "gpt2", "model_args": "n_layer=many"}, "n_layer='many'", "change --model_args"),
    "inspecting code": inspect(names="'line' brings Python code of its own", advises="read it", **model(own_code)),
    # Benchmarks
    "benchmark of a method": benchmark(["optim", "--methods", "fromag"], "invalid choice: 'fromag'", "'fromage'"),
    "benchmark without rounds": benchmark(["optim", "--rounds", "0"], "--rounds", "a whole number of at least 1, not '0'"),
    "benchmark somewhere": benchmark(["language", "--device", "quantum"], "no device 'quantum' on this machine", "use cpu"),
}  # fmt: skip
