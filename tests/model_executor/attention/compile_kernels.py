"""Compile every kernel for a CUDA architecture; no GPU is needed, only Triton's own assembler.

Run as a script, in a process without the interpreter: `compile_kernels.py 90:bf16 80:fp32`. Types
and sizes are those that `TritonAttention` launches; it prints one line a kernel.
"""

from __future__ import annotations

import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from stretto.model_executor.attention import triton_kernels as kernels

INTEGERS = ("key_stride", "value_stride", "num_seqs", "num_splits", "query_stride", "table_stride")
INDICES = ("query_start_loc", "seq_lens", "block_tables")


def argument_type(name: str, dtype: str) -> str:
    if name in INTEGERS:
        return "i32"
    if name in INDICES:
        return "*i32"
    if name == "scale":
        return "fp32"
    if name == "slot_mapping":
        return "*i64"
    return "*fp32" if name.startswith("partial") else f"*{dtype}"


def compile_kernel(kernel: Any, dtype: str, capability: int, **constants: Any) -> None:
    names = kernel.arg_names
    given = {name: constants[name] for name in names if name in constants}
    signature = {n: "constexpr" if n in given else argument_type(n, dtype) for n in names}
    constexprs = {(names.index(name),): value for name, value in given.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs)
    target = GPUTarget("cuda", capability, 32)
    options = {"enable_fp_fusion": False}
    compiled = triton.compile(source, target=target, options=options)
    print(kernel.__name__, dtype, len(compiled.asm["cubin"]), "bytes")


def compile_all(capability: int, dtype: str) -> None:
    is_float32 = dtype == "fp32"
    rows = 16 if is_float32 else 64
    common: dict[str, Any] = {
        "NUM_KV_HEADS": 12,
        "GROUP": 1,
        "HEAD_DIM": 64,
        "SPLIT": 256,
        "BLOCK_SIZE": 16,
        "BLOCK_N": 32 if is_float32 else 64,
        "PRECISION": "ieee" if is_float32 else "tf32",
    }
    decode = common | {"BLOCK_M": 16, "BLOCK_Q": 16, "ONE_QUERY": True}
    prefill = common | {"BLOCK_M": rows, "BLOCK_Q": rows, "ONE_QUERY": False}
    compile_kernel(kernels.store_kv, dtype, capability, WIDTH=768, BLOCK=1024)
    compile_kernel(kernels.attend_splits, dtype, capability, **decode)
    compile_kernel(kernels.merge_splits, dtype, capability, **decode)
    compile_kernel(kernels.attend, dtype, capability, **prefill)


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        capability, dtype = wanted.split(":")
        compile_all(int(capability), dtype)
