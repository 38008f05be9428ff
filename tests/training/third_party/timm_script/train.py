"""The bones of timm's own training script: its options, its way to an optimizer, and steps without a closure."""

import argparse

import timm
import torch
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.utils import NativeScaler, ParseKwargs


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--opt", default="sgd")
    parser.add_argument("--lr", type=float, default=None)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--weight-decay", type=float, default=2e-5)
    parser.add_argument("--opt-kwargs", nargs="*", default={}, action=ParseKwargs)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=4)
    optimizer = create_optimizer_v2(model, **optimizer_kwargs(cfg=args), **args.opt_kwargs)
    images, labels = torch.randn(16, 3, 32, 32), torch.arange(16) % 4
    scaler = NativeScaler(device="cpu")
    for epoch in range(3):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        scaler(loss, optimizer, parameters=model.parameters())
        print(f"epoch {epoch} loss {loss.item()}")


if __name__ == "__main__":
    main()
