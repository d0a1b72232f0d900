"""The engine for CUDA devices: the same code on a CPU here, and on a device where there is one."""

import logging
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import farneback
from pipeline.farneback import Parameters, cuda
from pipeline.farneback.cuda import engine, torch_ops
from tests.pipeline.farneback import gate

DEVICES = ["cpu", *([] if cuda.why_not() else ["cuda"])]


def flow_of(frames, device="cpu"):
    return engine.Engine(*frames.shape[1:], Parameters(), device).flows(frames)


def maps_of_flow(flow):
    return [part.numpy() for part in torch_ops.maps(torch.from_numpy(flow).permute(0, 3, 1, 2))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "case", [case for case in gate.CASES if not case.startswith("texture 31x")]
)
def test_the_engine_passes_the_gate(case, device):
    frames = gate.CASES[case]()
    flow = flow_of(frames, device)
    maps, ranges = maps_of_flow(flow)
    found = gate.compare(frames, flow, maps)
    assert found.pass_gate(), found
    magnitude = np.sqrt((flow * flow).sum(-1))
    expected = np.stack([magnitude.min((1, 2)), magnitude.max((1, 2))], 1)
    np.testing.assert_allclose(ranges, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_cut_into_batches_does_not_show(monkeypatch, size, device):
    frames = gate.noise_over_a_still_picture(64, 72, 8)
    whole = flow_of(frames, device)
    monkeypatch.setattr(engine, "_pairs_that_fit", lambda pixels, device: size)
    np.testing.assert_array_equal(flow_of(frames, device), whole)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_results_do_not_depend_on_how_a_sequence_comes(size, device):
    frames = gate.texture(64, 72, 7)
    pieces = [frames[k : k + size] for k in range(0, 7, size)]
    stream = engine.Engine(64, 72, Parameters(), device)
    fields = [stream.flows(piece) for piece in pieces]
    flow = flow_of(frames, device)
    np.testing.assert_array_equal(np.concatenate(fields), flow)
    stream = engine.Engine(64, 72, Parameters(), device)
    found = [stream.magnitude_maps(piece) for piece in pieces]
    joined = map(np.concatenate, zip(*found, strict=True))
    for part, expected in zip(joined, maps_of_flow(flow), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_a_batch_that_does_not_fit_is_halved_until_it_does(monkeypatch, caplog):
    frames = gate.texture(64, 64, 9)
    expected = flow_of(frames)
    real, tried = torch_ops.expand, []

    def of_a_small_device(part, tables):
        tried.append(len(part) - 1)
        if len(part) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(part, tables)

    monkeypatch.setattr(torch_ops, "expand", of_a_small_device)
    with caplog.at_level(logging.WARNING):
        found = flow_of(frames)
    np.testing.assert_array_equal(found, expected)
    assert tried == [8, 4, 2, 2, 2, 2]
    assert "going on with 2 pairs at once" in caplog.text


def test_a_single_pair_that_does_not_fit_is_an_error(monkeypatch):
    def full(part, tables):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch_ops, "expand", full)
    with pytest.raises(torch.OutOfMemoryError):
        flow_of(gate.texture(64, 64, 3))


def test_no_frames_have_no_flow():
    assert flow_of(np.zeros((1, 64, 64), np.uint8)).shape == (0, 64, 64, 2)


TRITON = pytest.mark.skipif(not find_spec("triton"), reason="needs Triton")


@TRITON
@pytest.mark.slow
def test_the_triton_kernels_pass_the_gate_in_the_interpreter():
    """The interpreter takes as long for a block of any size: few large ones go through the gate.

    Several blocks beside each other give what plain PyTorch gives.
    """
    code = """
import torch
from pipeline.farneback import Parameters
from pipeline.farneback.cuda import kernels, torch_ops
from tests.pipeline.farneback import gate

def pairs(expanded):
    return [e[:-1] for e in expanded], [e[1:] for e in expanded]

frames = torch.from_numpy(gate.noise_over_a_still_picture(33, kernels.BLOCK + 1, 2))
tables = torch_ops.Tables(*frames.shape[1:], Parameters(iterations=1), torch.device("cpu"))
expanded = pairs(torch_ops.expand(frames, tables))
flow, plain = kernels.flow(*expanded, tables), torch_ops.flow(*expanded, tables)
torch.testing.assert_close(flow, plain, rtol=0, atol=1e-5)

kernels.BLOCK = 1024
frames = torch.from_numpy(gate.texture(64, 66, 2))
tables = torch_ops.Tables(*frames.shape[1:], Parameters(), torch.device("cpu"))
expanded = kernels.expand(frames, tables)
for ours, plain in zip(expanded, torch_ops.expand(frames, tables)):
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-4)
flow = kernels.flow(*pairs(expanded), tables)
maps, _ = torch_ops.maps(flow)
found = gate.compare(frames.numpy(), flow.permute(0, 2, 3, 1).numpy(), maps.numpy())
assert found.pass_gate(), found
print("passed")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "passed\n", done.stderr


@TRITON
@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_the_triton_kernels_compile_for_devices_that_are_not_here(capability):
    """The interpreter accepts more than the compiler does."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pipeline.farneback.cuda import kernels

    sizes = {"h": "i32", "w": "i32"}
    constants = {"BLOCK": 128, "ROWS": 32, "REACH": 5, "ROW_TAPS": 4, "COLUMN_TAPS": 4}
    others = {"frames": "*u8", "first_row": "*i64", "first_column": "*i64", "chunks": "i32"}
    others |= {"H": "i32", "W": "i32"} | {f"ig{n}": "fp32" for n in ("11", "03", "33", "55")}
    for kernel in (
        kernels._make_level,
        kernels._expand_level,
        kernels._sum_columns,
        kernels._solve,
    ):
        signature = {
            name: "constexpr" if name in constants else (sizes | others).get(name, "*fp32")
            for name in kernel.arg_names
        }
        fixed = {(n,): constants[a] for n, a in enumerate(kernel.arg_names) if a in constants}
        source = ASTSource(fn=kernel, signature=signature, constexprs=fixed)
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert compiled.asm["cubin"]


@pytest.mark.skipif(bool(cuda.why_not()), reason="needs a CUDA device")
def test_auto_is_the_device():
    assert farneback.resolve("auto") == "cuda"
    frames = gate.texture(100, 120)
    flow = farneback.flow(frames)
    np.testing.assert_array_equal(flow, flow_of(frames, "cuda"))
