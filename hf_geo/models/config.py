"""The options for the model."""

import ast
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel
from transformers.hf_argparser import HfArg

Model = TypeVar("Model", bound=PreTrainedModel)


@dataclass
class ModelArguments:
    """Which network to train, and how it is built."""

    _argument_group_name = "Model"

    model: str | None = HfArg(
        default=None,
        help="A timm architecture (resnet18, cifar_resnet20), or a Hub id or folder whose weights are loaded "
        "(hf-hub:timm/resnet18.a1_in1k, google/vit-base-patch16-224, runs/digits).",
    )
    pretrained: bool = HfArg(
        default=False, help="Load timm's pretrained weights; a Hub id or a folder always brings its own."
    )
    model_args: str | None = HfArg(
        default=None, help="Further arguments of the architecture, as in 'drop_path_rate=0.1,global_pool=avg'."
    )
    loss: Literal["cross-entropy", "crammer-singer", "smooth-top-k", "truncated-top-k"] = HfArg(
        default="cross-entropy",
        help="What a classifier is trained to make small. crammer-singer is the multi-class hinge loss; smooth-top-k "
        "(Berrada et al. 2018) and truncated-top-k (Lapin et al. 2016) ask for the right class among the best --top_k.",
    )
    top_k: int = HfArg(default=5, help="How many classes a top-k loss looks at.")
    loss_temperature: float = HfArg(default=1.0, help="Temperature of the smooth top-k loss.")
    word_vectors: str | None = HfArg(
        default=None,
        help="A file of word vectors for bilstm_nli, as text (GloVe's) or safetensors: words in it keep these vectors.",
    )
    words_without_vector: Literal["drop", "train"] = HfArg(
        default="drop", help="With --word_vectors: leave other words out of the sentences, or train vectors for them."
    )
    fid_model: str | None = HfArg(
        default=None,
        help="In whose features generated images are compared with real ones: a folder or Hub id of a timm classifier, or a "
        "file of torch-fidelity's Inception weights (.pth, or ORGANISATION/REPOSITORY/FILE.pth on the Hub), with which the "
        "distance is called FID. Default: the colours of 4 x 4 fields.",
    )
    fid_protocol: Literal["standard", "fromage"] = HfArg(
        default="standard",
        help="fromage: as that paper did, evaluate on the first 10,000 training images and stretch the range of each "
        "generated one; real ones are mirrored at random.",
    )
    trust_remote_code: bool = HfArg(
        default=False, help="Run Python code that the model brings along. It can do whatever you can: read it first."
    )

    @property
    def parsed_model_args(self) -> dict[str, Any]:
        return parse_model_args(self.model_args)


def parse_model_args(text: str | None) -> dict[str, Any]:
    """Parses `"drop_rate=0.1,img_size=(32,32),global_pool=avg"`; a bare word is a string, `true` a bool.

    Raises:
        ValueError: The text is no list of `key=value`.
    """
    try:
        call = ast.parse(f"f({text or ''})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise SyntaxError
        values = {k.arg: _value(k.value) for k in call.keywords}
        if None in values or len(values) < len(call.keywords):
            raise SyntaxError
        return values
    except (SyntaxError, ValueError, TypeError) as error:  # TypeError: of a set or dict whose keys are lists
        raise ValueError(
            f"--model_args {text!r} cannot be read: write key=value,key=value with numbers, words, (tuples) "
            "or quoted strings as values."
        ) from error


def build_from_args(name: str, known: Collection[str], given: Mapping[str, Any], make: Callable[..., Model]) -> Model:
    """Builds a network of this package with the arguments that the user gives.

    Args:
        name: The network's name, for messages.
        known: The arguments that it takes.
        given: Arguments from `parse_model_args`.
        make: Builds the network from them.

    Raises:
        ValueError: An argument is unknown, or the values make no network.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"{name} has no argument {unknown[0]!r}: it takes {', '.join(sorted(known))}.")
    try:
        return make(**given)
    except (TypeError, RuntimeError, StrictDataclassError) as error:  # RuntimeError: more memory than there is
        listed = ", ".join(f"{key}={value!r}" for key, value in given.items()) or "its defaults"
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} cannot be made with {listed}: {reason}; change --model_args.") from error


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return {"true": True, "false": False, "none": None}.get(node.id.lower(), node.id)
    return ast.literal_eval(node)
