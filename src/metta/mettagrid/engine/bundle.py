"""Passing dozens of arrays to compiled functions as one pointer.

Numba passes a tuple of arrays as hundreds of single arguments, at every call and to every function, which makes
both calling and compiling slow. Here the arrays of a named tuple are described in one small int64 table (address,
shape and strides of each), and compiled functions get the address of that table. To them it looks like the named
tuple itself: `state.agents[w, a, ROW]` reads the same compiled and interpreted.

The arrays have to outlive the table.
"""

# Numba says little about its types, and less in some versions.
# mypy: disable-error-code="no-untyped-call,misc,untyped-decorator,override,unused-ignore,import-untyped"

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin, lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, models, register_model
from numba.np import arrayobj, numpy_support

from metta.mettagrid.engine.compile import is_interpreted

Bundle = TypeVar("Bundle", bound=NamedTuple)


@dataclass(frozen=True)
class Array:
    """What kind of array a field of a bundle is; belongs into the field's `Annotated` type.

    Attributes:
        dtype: element type.
        ndim: dimensions.
        columns: size of the last dimension where it is always the same, which makes finding an element cheaper.
    """

    dtype: str
    ndim: int
    columns: int | None = None


def array_fields(bundle: type[NamedTuple]) -> dict[str, Array]:
    """The arrays of a named tuple by name, from its annotations.

    Raises:
        TypeError: a field does not say which array it is.
    """
    fields = {}
    for name, hint in get_type_hints(bundle, include_extras=True).items():
        kinds = (
            [arg for arg in get_args(hint) if isinstance(arg, Array)] if get_origin(hint) is Annotated else []
        )
        if not kinds:
            raise TypeError(f"{bundle.__name__}.{name} is annotated {hint}: say which array it is.")
        fields[name] = kinds[0]
    return fields


def describe(bundle: Any) -> Any:
    """The table of a bundle for compiled functions; interpreted ones get the bundle itself.

    Raises:
        TypeError: an array is not what the bundle's annotations say.
    """
    for name, kind in array_fields(type(bundle)).items():
        array = getattr(bundle, name)
        same = array.dtype == kind.dtype and array.ndim == kind.ndim and array.flags.c_contiguous
        if not same or kind.columns not in (None, array.shape[-1]):
            raise TypeError(
                f"{type(bundle).__name__}.{name} is {array.dtype} {array.shape} with strides {array.strides}, "
                f"but has to be C-contiguous and {kind}."
            )
    if is_interpreted():
        return bundle
    table: list[int] = []
    for array in bundle:
        table += [array.ctypes.data, *array.shape, *array.strides]
    return np.array(table, np.int64)


class BundleType(types.Type):
    """Compile-time type of a bundle: a pointer to its table."""

    def __init__(self, name: str, fields: tuple[tuple[str, Array], ...]) -> None:
        self.fields = fields
        super().__init__(name=f"Bundle({name})")

    @property
    def key(self) -> Any:
        """What makes two such types equal."""
        return self.name, self.fields

    def place(self, field: str) -> tuple[int, Array]:
        """Where the entry of a field begins in the table, and its kind."""
        at = 0
        for name, kind in self.fields:
            if name == field:
                return at, kind
            at += 1 + 2 * kind.ndim
        raise AttributeError(f"{self.name} has no field {field}.")


def opener(bundle: type[Bundle]) -> Callable[[Any], Bundle]:
    """A function for kernels that turns what `describe` made back into the bundle."""
    if is_interpreted():
        return _same
    bundle_type = BundleType(bundle.__name__, tuple(array_fields(bundle).items()))

    def open_bundle(typing_context: Any, table: Any) -> Any:  # noqa: ARG001 - Numba calls it
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, args[0])
            return builder.bitcast(array.data, context.get_value_type(bundle_type))

        return bundle_type(table), generate

    opened: Any = intrinsic(open_bundle)
    return cast(Callable[[Any], Bundle], opened)


def _same(table: Any) -> Any:
    return table


@register_model(BundleType)
class _BundleModel(models.PrimitiveModel):
    def __init__(self, manager: Any, bundle_type: BundleType) -> None:
        super().__init__(manager, bundle_type, ir.IntType(64).as_pointer())


@infer_getattr
class _BundleAttributes(AttributeTemplate):
    key = BundleType

    def generic_resolve(self, bundle: BundleType, attribute: str) -> Any:
        return BundleArrayType(bundle.place(attribute)[1])


class BundleArrayType(types.Array):
    """Compile-time type of an array of a bundle. Its indices are never negative, and none is checked for that.

    Numba asks at every access whether an index counts from the end, which made the engine slower by a seventh.
    """

    def __init__(self, kind: Array) -> None:
        self.kind = kind
        dtype = numpy_support.from_dtype(np.dtype(kind.dtype))
        super().__init__(dtype, kind.ndim, "C", name=f"{kind}")

    @property
    def key(self) -> Any:
        """What makes two such types equal."""
        return *super().key, self.kind

    @property
    def mangling_args(self) -> Any:
        """What tells functions of such arrays apart."""
        name, args = super().mangling_args
        return name, [*args, str(self.kind.columns)]

    def copy(self, dtype: Any = None, ndim: Any = None, layout: Any = None, readonly: Any = None) -> Any:
        """The type of a part of such an array: Numba asks for it where some of the indices are given."""
        if ndim is not None and layout == "C":
            return BundleArrayType(replace(self.kind, ndim=ndim))
        return super().copy(dtype, ndim, layout, readonly)


register_model(BundleArrayType)(models.ArrayModel)


def _element(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The address of an element, or None if the indices do not name one."""
    array_type: Any = signature.args[0]
    index_type: Any = signature.args[1]
    several = isinstance(index_type, types.BaseTuple)
    index_types = list(index_type) if several else [index_type]
    if len(index_types) != array_type.ndim or not all(
        isinstance(kind, types.Integer) for kind in index_types
    ):
        return None
    indices = cgutils.unpack_tuple(builder, args[1]) if several else [args[1]]
    places = [
        context.cast(builder, index, kind, types.intp)
        for index, kind in zip(indices, index_types, strict=True)
    ]
    return element_address(context, builder, array_type, args[0], places)


def element_address(context: Any, builder: Any, array_type: Any, array: Any, places: Any) -> Any:
    """Generate the address of an element of an array, or of a part of it where fewer indices are given."""
    opened = context.make_array(array_type)(context, builder, array)
    offset = context.get_constant(types.intp, 0)
    for place, stride in zip(places, cgutils.unpack_tuple(builder, opened.strides), strict=False):
        offset = builder.add(offset, builder.mul(place, stride, flags=["nsw"]), flags=["nsw"])
    return cgutils.pointer_add(builder, opened.data, offset)


@lower_builtin(operator.getitem, BundleArrayType, types.BaseTuple)
@lower_builtin(operator.getitem, BundleArrayType, types.Integer)
def _get_item(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array, index = signature.args
    element = _element(context, builder, signature, args)
    if element is None:
        whole = isinstance(index, types.BaseTuple)
        get = arrayobj.getitem_array_tuple if whole else arrayobj.getitem_arraynd_intp
        return get(context, builder, signature, args)
    return arrayobj.load_item(context, builder, array, element)


@lower_builtin(operator.setitem, BundleArrayType, types.BaseTuple, types.Any)
@lower_builtin(operator.setitem, BundleArrayType, types.Integer, types.Any)
def _set_item(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array, _, value = signature.args
    element = _element(context, builder, signature, args)
    if element is None:
        return arrayobj.setitem_array(context, builder, signature, args)
    stored = context.cast(builder, args[2], value, array.dtype)
    arrayobj.store_item(context, builder, array, stored, element)
    return None


@lower_getattr_generic(BundleType)
def _read_attribute(context: Any, builder: Any, bundle: BundleType, table: Any, attribute: str) -> Any:
    """Generate the loads that make an array out of its entry in the table."""
    at, kind = bundle.place(attribute)
    always = builder.module.add_metadata([])

    def entry(offset: int) -> Any:
        load = builder.load(cgutils.gep_inbounds(builder, table, at + offset))
        load.set_metadata("invariant.load", always)  # nothing writes to the table while a kernel runs
        return load

    array = context.make_array(BundleArrayType(kind))(context, builder)
    shape = [entry(1 + axis) for axis in range(kind.ndim)]
    strides = [entry(1 + kind.ndim + axis) for axis in range(kind.ndim)]
    size = np.dtype(kind.dtype).itemsize
    itemsize = strides[-1] = context.get_constant(types.intp, size)
    if kind.columns is not None:
        shape[-1] = context.get_constant(types.intp, kind.columns)
        if kind.ndim > 1:
            strides[-2] = context.get_constant(types.intp, size * kind.columns)
    arrayobj.populate_array(
        array,
        data=builder.inttoptr(entry(0), array.data.type),
        shape=shape,
        strides=strides,
        itemsize=itemsize,
        meminfo=None,
    )
    return array._getvalue()
