"""Typed data: reads JSON directly into a type, and finds the type that a handler is annotated with."""

from __future__ import annotations

import collections.abc
import inspect
import logging
import sys
import types
import typing
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import msgspec

from ._protocol import DECODE_ERRORS, check_json, parse_data

Read = Callable[[Any], Any]
"""Turns the raw data of a message into the data for a handler; raises :class:`MismatchError`."""

log = logging.getLogger("reverb.payload")

_JSON_CONTAINERS = frozenset(
    {
        dict,
        list,
        collections.abc.Mapping,
        collections.abc.MutableMapping,
        collections.abc.Sequence,
        typing.Union,
        types.UnionType,
    }
)
_JSON_TYPES = _JSON_CONTAINERS | {Any, object, None, types.NoneType, bool, int, float, str}


class MismatchError(Exception):
    """Data does not fit its type. The text continues "does not fit …"."""

    def __init__(self, type_: Any, path: str, reason: str) -> None:
        super().__init__(f"{name_of(type_)}: {reason} at {path}")
        self.path = path


def reader(type_: Any) -> Read:
    """Return the function that reads data as ``type_``. It is cached, because decoders are costly to make.

    Raises TypeError if no data can be read into the type. None and ``Any`` mean JSON; ``msgspec.Raw`` means its
    text.
    """
    if type_ is msgspec.Raw:
        return _read_raw
    return parse_data if type_ in (None, Any) else _reader(type_)


@lru_cache(maxsize=1000)
def _reader(type_: Any) -> Read:
    if any(hasattr(each, "__pydantic_validator__") for each in _parts(type_)):
        return _pydantic_reader(type_)
    decode = msgspec.json.Decoder(type_).decode
    for each in _parts(type_):
        is_type = isinstance(each, type) or typing.get_origin(each) is not None
        if is_type and isinstance(msgspec.inspect.type_info(each), msgspec.inspect.CustomType):
            raise TypeError(f"data can't be read into {name_of(each)}")

    def read(data: Any) -> Any:
        if type(data) is str:
            try:
                return decode(data)
            except DECODE_ERRORS:
                data = parse_data(data)  # lenient JSON, or the text itself if it is not JSON
        try:
            return msgspec.convert(data, type_, str_keys=True)
        except msgspec.ValidationError as error:
            raise _mismatch(type_, error) from None

    return read


def _read_raw(data: Any) -> msgspec.Raw:
    """Return the JSON text of data. If data came as text, it is returned as received, not parsed."""
    if type(data) is str:
        try:
            check_json(data)
        except DECODE_ERRORS:
            from ._lenient_json import mend_surrogates

            try:
                check_json(mend_surrogates(data))
            except DECODE_ERRORS:
                return msgspec.Raw(msgspec.json.encode(data))
        return msgspec.Raw(data)
    return msgspec.Raw(
        msgspec.json.encode(data, enc_hook=str)
    )  # the data of an error event contains the exception


def _mismatch(type_: Any, error: msgspec.ValidationError) -> MismatchError:
    reason, _, path = str(error).partition(" - at ")
    return MismatchError(type_, path.strip("`") or "$", reason)


def _pydantic_reader(type_: Any) -> Read:
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(type_)

    def read(data: Any) -> Any:
        try:
            if type(data) is str:
                try:
                    return adapter.validate_json(data)
                except ValidationError as error:
                    what, path, _ = first_of(error)
                    if what != "json_invalid" or path != "$":
                        raise
                    data = parse_data(data)  # lenient JSON, or the text itself if it is not JSON
            return adapter.validate_python(data)
        except ValidationError as error:
            _, path, reason = first_of(error)
            raise MismatchError(type_, path, reason) from None

    def first_of(error: ValidationError) -> tuple[str, str, str]:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        return first["type"], "$" + "".join(steps), first["msg"]

    return read


def _parts(type_: Any) -> list[Any]:
    """Return a generic type and all types in it."""
    return [type_, *(part for each in typing.get_args(type_) for part in _parts(each))]


def name_of(type_: Any) -> str:
    return type_.__qualname__ if isinstance(type_, type) and not typing.get_args(type_) else str(type_)


# --- handlers --------------------------------------------------------------------------------------------------


if sys.version_info >= (3, 14):  # from 3.14 on, annotations are evaluated when they are read
    import annotationlib

    _signature = partial(inspect.signature, annotation_format=annotationlib.Format.FORWARDREF)
else:
    _signature = inspect.signature


def check_handler(handler: Any, *arguments: str) -> list[inspect.Parameter]:
    """Return the parameters of a handler, if they are known.

    Raises TypeError if the handler can't be called, or not with these ``arguments`` according to its signature.
    """
    if not callable(handler):
        raise TypeError(f"a handler must be callable, not {type(handler).__name__}")
    if _is_generator(handler):
        raise TypeError(f"{handler_name(handler)} is a generator function: to call it would run none of its code")
    signature = signature_of(handler)
    if signature is None:
        return []
    parameters = list(signature.parameters.values())
    user_id = {"user_id": None} if takes_user_id(parameters) else {}
    try:
        signature.bind(*arguments, **user_id)
    except TypeError as error:
        # A decorator may pass more arguments than it takes. Then its own signature counts.
        own = signature_of(handler, follow_wrapped=False)
        if own is None or not _is_callable_with(own, *arguments, **user_id):
            what = ", ".join([*arguments, *user_id])
            name = handler_name(handler)
            raise TypeError(f"handler {name} can't be called with ({what}): {error}") from None
    return parameters


def signature_of(handler: Callable[..., Any], *, follow_wrapped: bool = True) -> inspect.Signature | None:
    try:
        return _signature(handler, follow_wrapped=follow_wrapped)
    except (TypeError, ValueError):  # some builtins have no signature
        return None


def _is_callable_with(signature: inspect.Signature, *arguments: Any, **keywords: Any) -> bool:
    try:
        signature.bind(*arguments, **keywords)
    except TypeError:
        return False
    return True


def _is_generator(handler: Any) -> bool:
    code = getattr(handler, "__code__", None)
    is_awaitable = code is not None and code.co_flags & inspect.CO_ITERABLE_COROUTINE  # by types.coroutine()
    return inspect.isasyncgenfunction(handler) or (inspect.isgeneratorfunction(handler) and not is_awaitable)


def handler_name(handler: Any) -> str:
    """Return the name of a handler, for the log."""
    while isinstance(handler, partial):
        handler = handler.func
    return getattr(handler, "__qualname__", repr(handler))


def takes_user_id(parameters: list[inspect.Parameter]) -> bool:
    return any(each.name == "user_id" and each.kind is not each.POSITIONAL_ONLY for each in parameters)


def annotated_type(handler: Callable[..., Any], parameters: list[inspect.Parameter], place: int = 1) -> Any:
    """Return the type of the data according to the annotation of the parameter at ``place``; by default the
    second.

    None if there is no annotation, or only types that JSON has: those have always been hints for readers, and a
    handler with ``data: dict`` also gets events without data. None, too, if the annotation can't be found or used,
    because it may be meant for type checkers only; the log says so.
    """
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    annotation = positional[place].annotation if len(positional) > place else inspect.Parameter.empty
    if annotation is inspect.Parameter.empty:
        return None
    try:
        type_ = _resolved(annotation, _globals_of(handler))
        if all(each in _JSON_TYPES for each in _leaves(type_)):
            return None
        reader(type_)
    except Exception as error:  # anything that an annotation, or the library that reads it, raises
        name = handler_name(handler)
        log.info("handler %s gets its data as JSON, because its annotation can't be used: %s", name, error)
        return None
    return type_


def _resolved(annotation: Any, names: dict[str, Any]) -> Any:
    """Return an annotation with quoted names replaced by what they mean."""

    def annotated() -> None: ...

    annotated.__annotations__ = {"data": annotation}
    return typing.get_type_hints(annotated, names, include_extras=True)["data"]


def _globals_of(handler: Any) -> dict[str, Any]:
    while isinstance(handler, partial):
        handler = handler.func
    if not inspect.isroutine(handler):
        handler = type(handler).__call__
    return getattr(inspect.unwrap(handler), "__globals__", {})


def _leaves(annotation: Any) -> list[Any]:
    """Return the types in an annotation, without the containers that JSON has, too."""
    for alias in ("__supertype__", "__value__"):  # of a NewType, and of a "type" statement
        if hasattr(annotation, alias):
            return _leaves(getattr(annotation, alias))
    if typing.get_origin(annotation) in _JSON_CONTAINERS:
        return [leaf for each in typing.get_args(annotation) for leaf in _leaves(each)]
    return [annotation]
