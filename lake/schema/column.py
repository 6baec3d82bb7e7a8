"""A column: its type, role, and where its values come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.types as pt

from lake.errors import InvalidInput
from lake.schema.arrow import arrow_type, unwrap, vector_layout
from lake.schema.roles import Role, as_role, infer, settle

Metric = Literal["l2", "cosine", "dot", "hamming"]

ROLE = "lake.role"
EMBEDDING = "lake.embedding"
DERIVATION = "lake.derivation"
DESCRIPTION = "lake.description"
KEY_MARK = "lance-schema:unenforced-primary-key"
KEY_POSITION = "lance-schema:unenforced-primary-key:position"
OURS = frozenset({ROLE, EMBEDDING, DERIVATION, DESCRIPTION, KEY_MARK, KEY_POSITION})


@dataclass(frozen=True)
class Embedding:
    """What the vectors of a column are.

    Parameters
    ----------
    dimension : int
        Elements of one vector, as in the Arrow type; bytes for binary vectors.
    of : str, optional
        The column that was embedded. It is kept by name: Lance's own rename of that column leaves the old
        name here, which `Schema.decode` accepts and the constructors of `Schema` refuse.
    model : str, optional
        The model that made the vectors; queries must use the same one.
    metric : {"l2", "cosine", "dot", "hamming"}
        How the model means its vectors to be compared. Binary (uint8) vectors take hamming, and only they.
    normalized : bool
        Whether all vectors have length one, so that l2, cosine and dot rank alike.
    """

    dimension: int
    of: str | None = field(default=None, kw_only=True)
    model: str | None = field(default=None, kw_only=True)
    metric: Metric = field(default="l2", kw_only=True)
    normalized: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if type(self.dimension) is not int or self.dimension < 1:
            raise InvalidInput(f"the dimension of an embedding is {self.dimension!r}; give a whole number above 0")
        if self.metric not in get_args(Metric):
            raise InvalidInput(f"no metric {self.metric!r}; there are {', '.join(get_args(Metric))}")
        if type(self.normalized) is not bool:
            raise InvalidInput(f"normalized is {self.normalized!r}; give True or False")
        for name, text in (("of", self.of), ("model", self.model)):
            if text is not None and not (isinstance(text, str) and text):
                raise InvalidInput(f"an embedding's {name!r} is {text!r}; give a name, or None")


@dataclass(frozen=True)
class Derivation:
    """How the values of a derived column are made. A record only: nothing here is ever executed.

    Parameters
    ----------
    inputs : tuple of str
        The columns that the function reads; by name, as in `Embedding`.
    function : str
        The function's registered name.
    version : str
        Changes whenever the function's results do.
    parameters : mapping of str to str
        What else decides the results. Read only.
    """

    inputs: tuple[str, ...]
    function: str
    version: str
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        given: Any = self.inputs
        if isinstance(given, str):
            raise InvalidInput(f"the inputs of a derivation are a tuple of columns; write ({given!r},)")
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "parameters", dict(self.parameters))
        if not self.function:
            raise InvalidInput("a derivation needs the name of its function")
        texts = [*self.inputs, self.function, self.version, *self.parameters, *self.parameters.values()]
        for text in texts:
            if not isinstance(text, str):
                raise InvalidInput(f"a derivation holds text only, not {text!r}; convert it to str")


@dataclass(frozen=True, init=False)
class Column:
    """One column of a `Schema`.

    Parameters
    ----------
    name : str
    type : pa.DataType, type or Embedding
        An Arrow type; a Python type (see `lake.schema.arrow.arrow_type`); or an `Embedding`, which stands for
        a fixed-size list of float32. The attribute `type` is always the Arrow type that Lance stores.
    role : Role or str, optional
        Follows from the type when not given. ``json`` turns strings into JSON, ``blob`` turns binary into
        blobs: cast the data with ``table.cast(schema.to_arrow())``.
    nullable : bool
        Key columns never are.
    embedding : Embedding, optional
        Every vector column has one; when not given, l2 (hamming for uint8, cosine for multi-vectors).
    derivation : Derivation, optional
    description : str
        For people, and for models that write queries.
    metadata : mapping of str to str, optional
        Other Arrow field metadata: the user's, and the marks of GeoArrow and of Lance's blobs. Read only.
    """

    name: str
    type: pa.DataType = field(hash=False)  # equal types may differ in their hash
    role: Role
    nullable: bool
    embedding: Embedding | None
    derivation: Derivation | None
    description: str
    metadata: Mapping[str, str] = field(hash=False)

    def __init__(
        self,
        name: str,
        type: Any,  # noqa: A002
        role: Role | str | None = None,
        *,
        nullable: bool = True,
        embedding: Embedding | None = None,
        derivation: Derivation | None = None,
        description: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(type, Embedding):
            embedding, type = embedding or type, pa.list_(pa.float32(), type.dimension)  # noqa: A001
        taken = OURS & (metadata or {}).keys()
        if taken:
            raise InvalidInput(f"column {name!r}: the metadata {', '.join(sorted(taken))} is the lake's own")
        check_texts(f"column {name!r}", {DESCRIPTION: description, **(metadata or {})})
        kind, marks = unwrap(name, type, metadata or {})
        kind = arrow_type(name, kind)
        if role is None:
            role = Role.VECTOR if embedding else infer(kind, marks)
        role = as_role(name, role)
        kind, marks = settle(name, role, kind, marks)
        if role is Role.VECTOR:
            embedding = _fitting(name, kind, embedding)
        elif embedding is not None:
            raise InvalidInput(f"column {name!r} has an embedding but the role {role.value!r}: leave out one")
        values = (name, kind, role, bool(nullable), embedding, derivation, description, marks)
        for attribute, value in zip(self.__dataclass_fields__, values, strict=True):
            object.__setattr__(self, attribute, value)


def check_texts(where: str, metadata: Mapping[str, str]) -> None:
    """Refuse what Lance's metadata cannot hold: it holds text in UTF-8."""
    for text in (*metadata, *metadata.values()):
        try:
            text.encode()
        except (UnicodeEncodeError, AttributeError):
            raise InvalidInput(f"{where}: {text!r} in its metadata is not text in UTF-8") from None


def _fitting(name: str, kind: pa.DataType, embedding: Embedding | None) -> Embedding:
    """Check an embedding against its column's type, or make the one that the type implies."""
    layout = vector_layout(kind)
    assert layout is not None  # noqa: S101  # the role was settled
    element, dimension, many = layout
    binary = pt.is_uint8(element)
    if embedding is None:
        return Embedding(dimension, metric="hamming" if binary else "cosine" if many else "l2")
    if embedding.dimension != dimension:
        raise InvalidInput(
            f"column {name!r} of type {kind} holds {dimension} elements, its embedding says "
            f"{embedding.dimension}: make them the same"
        )
    if binary != (embedding.metric == "hamming"):
        metrics = "hamming" if binary else "l2, cosine or dot; hamming needs uint8"
        raise InvalidInput(f"column {name!r}: vectors of {element} compare by {metrics}, not {embedding.metric}")
    return embedding
