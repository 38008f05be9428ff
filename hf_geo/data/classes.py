"""Which class of a model each class of a data set is."""

from collections.abc import Sequence

import torch


def match_classes(model: Sequence[str], data: Sequence[str], model_name: str, data_name: str) -> torch.Tensor:
    """The model's number of each of a data set's classes, shape (classes of the data,).

    Where both name their classes the names decide, and the data may have fewer; otherwise the numbers do.

    Args:
        model: Names of the model's classes.
        data: Names of the data set's.
        model_name: For the message.
        data_name: For the message.

    Raises:
        ValueError: The data have a class that the model does not know, or another number of unnamed ones.
    """
    plain = [name.casefold().strip() for name in model]
    # Letters count where they tell two classes apart.
    known = {name: i for i, name in enumerate(plain) if plain.count(name) == 1} | {
        name: i for i, name in enumerate(model)
    }
    numbers = [known.get(name, known.get(name.casefold().strip())) for name in data]
    if None not in numbers and len(set(numbers)) == len(numbers):
        return torch.tensor(numbers)
    if _are_names(model) and _are_names(data):
        unknown = [name for name, number in zip(data, numbers, strict=True) if number is None] or list(data)
        raise ValueError(
            f"{model_name!r} does not know the class{'es' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown[:5]))} of "
            f"{data_name} (its own are {', '.join(map(repr, model[:5]))}{', ...' if len(model) > 5 else ''}): evaluate it on "
            "data with its classes."
        )
    if len(model) != len(data):
        raise ValueError(
            f"{model_name!r} tells {len(model)} classes apart, but {data_name} has {len(data)}: "
            "evaluate it on the data set it was trained on."
        )
    return torch.arange(len(data))


def _are_names(names: Sequence[str]) -> bool:
    """Whether the classes have names and not just numbers, as transformers writes them where none were given."""
    return any(name not in (str(i), f"LABEL_{i}") for i, name in enumerate(names))
