"""Products of bytes in the registers of a processor that has AVX-512 VNNI, written in LLVM's own language.

A tile is up to 6 queries times 4 strips of 16 rows. Its sums stay in registers while the dimensions pass by, four at a
time: one instruction multiplies 64 pairs of bytes and adds them up, where one of floats has 16. At the
end the sums become bounds, and only the bounds and one bit for each pair go to memory.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, Final

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

QUERIES: Final = 6
STRIP: Final = 16  # rows: so many numbers of 32 bits as a register holds
STRIPS: Final = 4
LANES: Final = STRIP * STRIPS

_NEEDED: Final = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni")
_INT, _LONG, _MASK = ir.IntType(32), ir.IntType(64), ir.IntType(STRIP)
_INTS, _FLOATS = ir.VectorType(_INT, STRIP), ir.VectorType(ir.FloatType(), STRIP)
_FUSED: Final = ("contract",)
_intrinsic: Any = intrinsic  # its types know nothing of the first argument
_WORD: Final = 4  # bytes: four dimensions, or one float
_REGISTER: Final = 64


@cache
def available() -> bool:
    """Tell whether this processor has the instructions, and numba may use them."""
    names = ("CPU_NAME", "CPU_FEATURES", "ENABLE_AVX", "DISABLE_JIT")
    told = [getattr(config, name) for name in names]  # what the environment says of the processor
    return told == [None, None, 1, 0] and all(llvm.get_host_cpu_features().get(name, False) for name in _NEEDED)


class _Builder:
    """Emits one tile.

    Parameters
    ----------
    b : llvmlite.ir.IRBuilder
    strips : int
        From 1 to `STRIPS`.
    """

    def __init__(self, b: Any, strips: int) -> None:
        self.b, self.strips = b, strips
        # Inline assembly, since the intrinsic of this name has other types in each version of LLVM.
        kind = ir.FunctionType(_INTS, [_INTS, _INTS, _INTS])
        self._multiply = partial(b.call, ir.InlineAsm(kind, "vpdpbusd $2, $1, $0", "=v,v,v,0"))

    def load(self, address: Any, kind: Any, offset: Any = 0) -> Any:
        """Load from an address, which need not be aligned, and an offset in bytes."""
        value = self.b.load(self._pointer(address, kind, offset))
        value.align = 1
        return value

    def store(self, value: Any, address: Any, offset: Any) -> None:
        """Store to an address and an offset in bytes."""
        self.b.store(value, self._pointer(address, value.type, offset)).align = 1

    def _pointer(self, address: Any, kind: Any, offset: Any) -> Any:
        shift = offset if isinstance(offset, ir.Value) else _LONG(offset)
        return self.b.inttoptr(self.b.add(address, shift), kind.as_pointer())

    def everywhere(self, value: Any, kind: Any) -> Any:
        """Fill a register with one value."""
        nothing = kind(ir.Undefined)
        return self.b.shuffle_vector(self.b.insert_element(nothing, value, _INT(0)), nothing, _INTS([0] * STRIP))

    def sums(self, queries: list[Any], rows: Any, steps: Any) -> list[list[Any]]:
        """Add up the products of all dimensions: for each query and each strip a register of integers."""
        b = self.b
        before, loop, after = b.block, b.append_basic_block(), b.append_basic_block()
        b.branch(loop)
        b.position_at_end(loop)
        step = b.phi(_LONG)
        step.add_incoming(_LONG(0), before)
        sums = [[b.phi(_INTS) for _ in range(self.strips)] for _ in queries]
        at, along = b.mul(step, _LONG(_REGISTER)), b.mul(step, _LONG(_WORD))
        lines = [
            self.load(b.add(rows, b.mul(steps, _LONG(_REGISTER * strip))), _INTS, at) for strip in range(self.strips)
        ]
        following = b.add(step, _LONG(1))
        step.add_incoming(following, loop)
        added = []
        for query, line_sums in zip(queries, sums, strict=True):
            four = self.everywhere(self.load(query, _INT, along), _INTS)
            added.append([self._multiply([line, four, total]) for line, total in zip(lines, line_sums, strict=True)])
        for totals, new in zip(sums, added, strict=True):
            for total, value in zip(totals, new, strict=True):
                total.add_incoming(_INTS([0] * STRIP), before)
                total.add_incoming(value, loop)
        b.cbranch(b.icmp_signed("<", following, steps), loop, after)
        b.position_at_end(after)
        return added

    def bounds(self, sums: list[list[Any]], terms: Any, asked: Any, upper: Any, masks: Any, tiles: Any) -> None:  # noqa: PLR0917
        """Turn sums into bounds, and tell which reach what their query asks for."""
        b = self.b
        size = _REGISTER * 4
        known = [[self.load(terms, _FLOATS, size * s + _REGISTER * t) for t in range(4)] for s in range(self.strips)]
        for query, line in enumerate(sums):
            about = [self.load(asked, kind, (5 * query + at) * _WORD) for at, kind in enumerate(_ABOUT)]
            scale, error, length, bar = (self.everywhere(about[at], _FLOATS) for at in (0, 1, 2, 4))
            shift, mask = self.everywhere(about[3], _INTS), _LONG(0)
            before = b.mul(tiles, _LONG(query))
            line_start, mask_start = b.mul(before, _LONG(LANES * _WORD)), b.mul(before, _LONG(8))
            for strip, (total, (step, long, wrong, half)) in enumerate(zip(line, known, strict=True)):
                product = b.fmul(b.sitofp(b.sub(total, shift), _FLOATS), step, flags=_FUSED)
                bound = b.fsub(b.fmul(product, scale, flags=_FUSED), half, flags=_FUSED)
                for factor, term in ((error, long), (length, wrong)):
                    bound = b.fadd(b.fmul(factor, term, flags=_FUSED), bound, flags=_FUSED)
                self.store(bound, upper, b.add(line_start, _LONG(STRIP * strip * _WORD)))
                bits = b.zext(b.bitcast(b.fcmp_ordered(">=", bound, bar), _MASK), _LONG)
                mask = b.or_(mask, b.shl(bits, _LONG(STRIP * strip)))
            self.store(mask, masks, mask_start)


_ABOUT: Final = (ir.FloatType(), ir.FloatType(), ir.FloatType(), _INT, ir.FloatType())


@_intrinsic  # type: ignore[untyped-decorator]
def tile(  # noqa: PLR0917
    _: Any,
    wide: Any,  # noqa: ARG001  numba reads the names; the values come to `emit`
    queries: Any,  # noqa: ARG001
    rows: Any,  # noqa: ARG001
    terms: Any,  # noqa: ARG001
    steps: Any,  # noqa: ARG001
    asked: Any,  # noqa: ARG001
    upper: Any,  # noqa: ARG001
    masks: Any,  # noqa: ARG001
    tiles: Any,  # noqa: ARG001
) -> Any:
    """Compare `QUERIES` queries with `wide` strips. What is no number is an address.

    Parameters
    ----------
    wide : int
        From 1 to `STRIPS`.
    queries
        `QUERIES` addresses of signed bytes.
    rows
        Of each strip, ``steps`` times 16 rows' next four bytes, unsigned: each is 128 more than it stands for.
    terms
        Of each strip, float32 (4, 16): the worth of a byte, the rows' lengths, the length of what their bytes leave
        out, and what is taken from each product.
    steps : int
        A fourth of the dimensions.
    asked
        Of each query, float32 (5,): the worth of a byte, the length of what its bytes leave out, and of what they do
        not, what to take from the sum (int32), and the bar.
    upper
        float32 (`QUERIES`, tiles, `LANES`), the first of each query's tiles to be written: what each product is at
        most, less what is taken from it.
    masks
        int64 (`QUERIES`, tiles), likewise: a bit for each row whose bound reaches the bar.
    tiles : int
    """

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        wide, queries, rows, terms, steps, asked, upper, masks, tiles = arguments
        done = b.append_basic_block()
        choice = b.switch(wide, done)
        for strips in range(1, STRIPS + 1):
            begin = b.append_basic_block()
            choice.add_case(_LONG(strips), begin)
            b.position_at_end(begin)
            build = _Builder(b, strips)
            each = [build.load(queries, _LONG, 8 * at) for at in range(QUERIES)]
            build.bounds(build.sums(each, rows, steps), terms, asked, upper, masks, tiles)
            b.branch(done)
        b.position_at_end(done)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 9), emit


@_intrinsic  # type: ignore[untyped-decorator]
def reach(_: Any, upper: Any, bar: Any) -> Any:  # noqa: ARG001
    """Return an int64 with a bit for each of `LANES` floats, from an address on, that reaches a bar (float32)."""

    def emit(_context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        build, (upper, bar), mask = _Builder(b, STRIPS), arguments, _LONG(0)
        everywhere = build.everywhere(bar, _FLOATS)
        for strip in range(STRIPS):
            some = build.load(upper, _FLOATS, STRIP * strip * _WORD)
            bits = b.zext(b.bitcast(b.fcmp_ordered(">=", some, everywhere), _MASK), _LONG)
            mask = b.or_(mask, b.shl(bits, _LONG(STRIP * strip)))
        return mask

    return types.int64(types.intp, types.float32), emit


@_intrinsic  # type: ignore[untyped-decorator]
def lift(_: Any, upper: Any, peaks: Any) -> Any:  # noqa: ARG001
    """Put the greater of two floats in the place of the second, for `LANES` of each, from two addresses on."""

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        build, (upper, peaks) = _Builder(b, STRIPS), arguments
        for at in range(0, LANES * _WORD, _REGISTER):
            new, old = (build.load(address, _FLOATS, at) for address in (upper, peaks))
            build.store(b.select(b.fcmp_ordered(">", new, old), new, old), peaks, at)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), emit


@_intrinsic  # type: ignore[untyped-decorator]
def lowest(_: Any, mask: Any) -> Any:  # noqa: ARG001
    """Return the position of the lowest bit of an int64 that is not 0."""

    def emit(_context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        return b.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.int64), emit


@_intrinsic  # type: ignore[untyped-decorator]
def fetch(_: Any, address: Any) -> Any:  # noqa: ARG001
    """Have the cache line at an address come while something else is done."""

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        there = ir.PointerType(ir.IntType(8))
        kind = ir.FunctionType(ir.VoidType(), [there, _INT, _INT, _INT])
        ask = b.module.globals.get("llvm.prefetch.p0") or ir.Function(b.module, kind, "llvm.prefetch.p0")
        b.call(ask, [b.inttoptr(arguments[0], there), _INT(0), _INT(3), _INT(1)])
        return context.get_dummy_value()

    return types.void(types.intp), emit


llvm.initialize_native_asmparser()
