"""Compiles every Triton kernel, with every rule and in every precision, for NVIDIA GPUs; no GPU is needed."""

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hf_geo.optim.kernels import orthogonality, programs, rules
from hf_geo.optim.kernels.tables import LENGTHS

PRECISIONS = [(tl.float32, tl.float32), (tl.bfloat16, tl.float32), (tl.float16, tl.float32), (tl.float64, tl.float64)]
RULES = ["sgd", "sgd_mrt", "adam_s", "adam_srt", "sgd_g", "adam_g", "fromage", "alig", "scale"]
PLAIN = [programs.count, programs.multiply, programs.add_up, programs.move, programs.adam, programs.limit_step]
PRODUCTS = [orthogonality.compare_rows, orthogonality.regularize]
NUMBERS = {"lr", "s0", "s1", "s2", "s3", "omega", "eps", "log_beta1", "log_beta2"}


def pointed_to(name: str, wide: tl.dtype) -> str:
    """The type of a kernel's argument."""
    if name in NUMBERS:
        return "fp64"
    types = {"count": "i32", "corrections": "*fp64", "skip": "*fp32", "skipped": "*fp32"}
    widths = dict.fromkeys(("products", "sums", "coefficients", "sq_norm", "loss", "sizes"), f"*{wide.name}")
    return {**types, **widths}.get(name, "*i64")


def compile_kernel(kernel: triton.JITFunction, dtype: tl.dtype, wide: tl.dtype, **chosen) -> None:
    """Compiles a kernel, with a learning rate that is a tensor, momenta and counted steps where it knows of these."""
    flags = dict.fromkeys(("HAS_X", "HAS_M", "HAS_V", "COUNTS", "SKIP"), True)
    known = {"DTYPE": dtype, "WIDE": wide, "GRAD": wide, "RATE": tl.float32, "HEIGHT": 4, "WIDTH": 256}
    known = {**known, **flags, **LENGTHS, **chosen}
    constants = {name: known[name] for name in kernel.arg_names if name in known}
    types = {n: "*fp32" if n == "rate" else pointed_to(n, wide) for n in kernel.arg_names if n not in constants}
    source = ASTSource(
        fn=kernel,
        signature={**types, **dict.fromkeys(constants, "constexpr")},
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
    )
    triton.compile(source, target=GPUTarget("cuda", 80, 32))


if __name__ == "__main__":
    for dtype, wide in PRECISIONS:
        for kernel in (*PLAIN, *PRODUCTS):
            compile_kernel(kernel, dtype, wide)
    for kernel in (programs.step_rows, programs.combine):
        for rule in RULES:
            compile_kernel(kernel, *PRECISIONS[1], RULE=getattr(rules, rule))
    print("compiled")
