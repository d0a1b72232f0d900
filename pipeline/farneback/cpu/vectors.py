"""Vectors of 16 numbers for numba kernels.

LLVM maps them to one register of AVX-512, two of AVX, four of SSE or Neon. ``+ - * /`` work lane by
lane, fused where possible (FMA) but never reordered.

Numba's cache on disk does not notice changes of this file: touch the kernels after an edit.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
_BYTE, _I32, _F32 = ir.IntType(8), ir.IntType(32), ir.FloatType()
_BYTES, _INTS, _FLOATS = (ir.VectorType(t, LANES) for t in (_BYTE, _I32, _F32))
_FUSED = ("contract",)


class _Floats(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


class _Ints(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"int32x{LANES}")


floats, ints = _Floats(), _Ints()


@register_model(_Floats)
class _FloatsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: types.Type) -> None:
        super().__init__(manager, kind, _FLOATS)


@register_model(_Ints)
class _IntsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: types.Type) -> None:
        super().__init__(manager, kind, _INTS)


def _repeat(builder: Any, scalar: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(_INTS, [0] * LANES))


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any, vector: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


# ------------------------------------------------------------------------------ memory


@intrinsic
def broadcast(typing, x):
    """Return a float32 in every lane."""
    return floats(types.float32), lambda c, b, sig, args: _repeat(b, args[0], _FLOATS)


@intrinsic
def lane_numbers(typing):
    """Return 0, 1, 2, ... as integers."""
    numbers = ir.Constant(_INTS, list(range(LANES)))
    return ints(), lambda c, b, sig, args: numbers


@intrinsic
def load(typing, array, index):
    """Return 16 neighbouring float32 of a flat array."""

    def generate(context, builder, signature, args):
        at = _place(context, builder, signature.args[0], args[0], args[1], _FLOATS)
        return builder.load(at, align=4)

    return floats(array, types.intp), generate


@intrinsic
def load_bytes(typing, array, index):
    """Return 16 neighbouring uint8 of a flat array as float32."""

    def generate(context, builder, signature, args):
        at = _place(context, builder, signature.args[0], args[0], args[1], _BYTES)
        return builder.uitofp(builder.load(at, align=1), _FLOATS)

    return floats(array, types.intp), generate


@intrinsic
def store(typing, array, index, value):
    """Write 16 neighbouring float32 of a flat array."""

    def generate(context, builder, signature, args):
        at = _place(context, builder, signature.args[0], args[0], args[1], _FLOATS)
        builder.store(args[2], at, align=4)
        return context.get_dummy_value()

    return types.none(array, types.intp, floats), generate


@intrinsic
def first(typing, x):
    """Return the integer in lane 0."""

    def generate(context, builder, signature, args):
        return builder.extract_element(args[0], ir.Constant(_I32, 0))

    return types.int32(ints), generate


# ------------------------------------------------------------------------------ lane by lane


def _lanewise(name: str) -> Callable[..., Any]:
    @intrinsic
    def operation(typing, x, y):
        if x == floats and y == floats:

            def on_floats(context, builder, signature, args):
                return getattr(builder, f"f{name}")(*args, flags=_FUSED)

            return floats(floats, floats), on_floats
        if x == ints and y == ints:
            return ints(ints, ints), lambda c, b, sig, args: getattr(b, name)(*args)
        return None

    return operation


def _make_operator(symbol: Callable[..., Any], operation: Callable[..., Any]) -> None:
    @overload(symbol)
    def implementation(x, y):
        if isinstance(x, _Floats | _Ints) and x == y:
            return lambda x, y: operation(x, y)
        return None


for _symbol, _name in (
    (operator.add, "add"),
    (operator.sub, "sub"),
    (operator.mul, "mul"),
    (operator.truediv, "div"),
):
    _make_operator(_symbol, _lanewise(_name))


def _llvm(name: str) -> Callable[..., Any]:
    @intrinsic
    def function(typing, x):
        def generate(context, builder, signature, args):
            kind = ir.FunctionType(_FLOATS, [_FLOATS])
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

        return floats(floats), generate

    return function


floor = _llvm(f"llvm.floor.v{LANES}f32")
magnitude_of = _llvm(f"llvm.fabs.v{LANES}f32")
square_root = _llvm(f"llvm.sqrt.v{LANES}f32")


@intrinsic
def positive(typing, x):
    """Return max(x, 0)."""

    def generate(context, builder, signature, args):
        zero = ir.Constant(_FLOATS, [ir.Constant(_F32, 0.0)] * LANES)
        return builder.select(builder.fcmp_ordered(">", args[0], zero), args[0], zero)

    return floats(floats), generate


@intrinsic
def to_ints(typing, x):
    """Convert whole numbers to integers, clipped to ±1e9; NaN becomes -1e9."""

    def generate(context, builder, signature, args):
        def limit(value):
            return ir.Constant(_FLOATS, [ir.Constant(_F32, value)] * LANES)

        least, most = limit(-1e9), limit(1e9)
        x = builder.select(builder.fcmp_ordered(">", args[0], least), args[0], least)
        x = builder.select(builder.fcmp_ordered("<", x, most), x, most)
        return builder.fptosi(x, _INTS)

    return ints(floats), generate


@intrinsic
def to_floats(typing, x):
    """Convert integers to float32."""
    return floats(ints), lambda c, b, sig, args: b.sitofp(args[0], _FLOATS)


@intrinsic
def inside(typing, x, width, y, height):
    """Return -1 where 0 <= x < width and 0 <= y < height, else 0."""

    def generate(context, builder, signature, args):
        in_row = builder.icmp_unsigned("<", args[0], _repeat(builder, args[1], _INTS))
        in_column = builder.icmp_unsigned("<", args[2], _repeat(builder, args[3], _INTS))
        return builder.sext(builder.and_(in_row, in_column), _INTS)

    return ints(ints, types.int32, ints, types.int32), generate


@intrinsic
def where(typing, mask, x, y):
    """Return x in the lanes of the mask, elsewhere y."""

    def generate(context, builder, signature, args):
        chosen = builder.icmp_signed("!=", args[0], ir.Constant(_INTS, [0] * LANES))
        return builder.select(chosen, args[1], args[2])

    return floats(ints, floats, floats), generate


# ------------------------------------------------------------------------------ across lanes


@intrinsic
def all_are(typing, x, value, y, other):
    """Return whether all lanes of x are ``value`` and all of y are ``other``."""

    def generate(context, builder, signature, args):
        same = builder.and_(
            builder.icmp_signed("==", args[0], _repeat(builder, args[1], _INTS)),
            builder.icmp_signed("==", args[2], _repeat(builder, args[3], _INTS)),
        )
        bits = ir.IntType(LANES)
        every = ir.Constant(bits, 2**LANES - 1)
        return builder.icmp_unsigned("==", builder.bitcast(same, bits), every)

    return types.boolean(ints, types.int32, ints, types.int32), generate


def _extreme(name: str, neutral: int) -> Callable[..., Any]:
    @intrinsic
    def reduction(typing, x, mask):
        def generate(context, builder, signature, args):
            chosen = builder.icmp_signed("!=", args[1], ir.Constant(_INTS, [0] * LANES))
            rest = ir.Constant(_INTS, [neutral] * LANES)
            kind = ir.FunctionType(_I32, [_INTS])
            function = cgutils.get_or_insert_function(builder.module, kind, name)
            return builder.call(function, [builder.select(chosen, args[0], rest)])

        return types.int32(ints, ints), generate

    return reduction


least = _extreme(f"llvm.vector.reduce.smin.v{LANES}i32", 10**6)  # over the lanes of a mask
greatest = _extreme(f"llvm.vector.reduce.smax.v{LANES}i32", -(10**6))


def _shuffle(lanes: list[int]) -> Callable[..., Any]:
    """Make a function that picks lanes from two vectors laid end to end."""
    mask = ir.Constant(_INTS, lanes)

    @intrinsic
    def shuffle(typing, x, y):
        return floats(floats, floats), lambda c, b, sig, args: b.shuffle_vector(*args, mask)

    return shuffle


from1, from2, from3, from6, from9, from12 = (
    _shuffle([lane + n for n in range(LANES)]) for lane in (1, 2, 3, 6, 9, 12)
)
even = _shuffle([2 * n for n in range(LANES)])
odd = _shuffle([2 * n + 1 for n in range(LANES)])
zip_low = _shuffle([n // 2 + LANES * (n % 2) for n in range(LANES)])
zip_high = _shuffle([(LANES + n) // 2 + LANES * (n % 2) for n in range(LANES)])
