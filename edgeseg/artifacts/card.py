"""The model card: a small document that describes a network to every later step.

Training creates it, and each artefact carries it: in the safetensors header, ONNX
``metadata_props`` and the side-car, always under the key ``edgeseg.card``. It alone defines the
preprocessing of training, evaluation, calibration and streaming.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from edgeseg.artifacts.documents import Document, printable
from edgeseg.errors import UsageError

CARD_KEY = "edgeseg.card"
"""Name of the card in safetensors headers and in ONNX ``metadata_props``."""

Rgb = tuple[
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Precision = Literal["fp32", "fp16", "int8"]
Color = Literal["rgb", "bgr", "gray"]
Resize = Literal["stretch", "letterbox"]
Reduce = Literal["bilinear", "area"]

# Okabe and Ito, "Color Universal Design" (2008): distinguishable with every common colour
# vision deficiency. Their black stays for the background, which overlays leave clear.
_OKABE_ITO: tuple[Rgb, ...] = (
    (0, 0, 0),
    (0, 158, 115),
    (230, 159, 0),
    (86, 180, 233),
    (213, 94, 0),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
)
# Each the colour of a grid (steps of 17, L* above 30) that lies farthest from all before it
# and from the colour of "void", seen by the kind of eye that tells it worst.
_FARTHEST: tuple[Rgb, ...] = (
    *((136, 0, 255), (119, 51, 17), (85, 68, 85), (170, 255, 136), (136, 187, 102)),
    *((68, 51, 170), (187, 85, 255), (0, 255, 255), (119, 34, 119), (221, 0, 68)),
    *((255, 170, 204), (153, 85, 136), (85, 119, 68), (85, 221, 85), (170, 68, 17)),
    *((221, 17, 187), (238, 119, 136), (153, 153, 255), (221, 255, 238), (153, 153, 51)),
    *((187, 221, 153), (153, 34, 221), (102, 102, 102), (221, 255, 0)),
)
_COLOURS = (*_OKABE_ITO, *_FARTHEST)


_BACKGROUND_NAMES = ("background", "bg", "unlabelled", "unlabeled", "void")
"""Names, casefolded, that make a class the background; earlier ones win."""


def css_colour(colour: Rgb) -> str:
    """Return ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def default_palette(count: int, background: int | None) -> tuple[Rgb, ...]:
    """Return ``count`` RGB colours that colour-blind people can tell apart.

    The least CIE76 distance between two of them, to normal eyes and as Machado, Oliveira and
    Fernandes (2009) simulate protanopia, deuteranopia and tritanopia, is 16 for up to 19
    colours and 12 for up to 32, black counted. Past 32 they repeat at two thirds of the
    brightness, and names and outlines must help.

    Args:
        background: Id of the class that is black; None if there is none.
    """
    colours: list[Rgb] = []
    for index in range(1, count + 1):
        cycle, place = divmod(index, len(_COLOURS))
        red, green, blue = _COLOURS[place] if place else (128, 128, 128)
        dim = (2 / 3) ** cycle
        colours.append((round(red * dim), round(green * dim), round(blue * dim)))
    if background is not None:
        colours.insert(background, _COLOURS[0])
    return tuple(colours[:count])


def background_of(names: Sequence[str]) -> int | None:
    """Return the id of the class whose name says that it is the background, None if none does."""
    plain = [name.strip().casefold() for name in names]
    return next((plain.index(name) for name in _BACKGROUND_NAMES if name in plain), None)


BOUNDARY = "boundary"
"""Name of the class that separates touching objects, see :mod:`edgeseg.data.instances`."""


class ClassMap(Document):
    """Class names, their RGB colours, and the mask value that loss and metrics ignore.

    ``background`` is the id of the class that views leave clear and that has no regions, None if
    all classes are things to see, as in street scenes whose class 0 is the road or the sky.
    Documents may give its id, its name or null. Without the key it is the class named
    background, bg, unlabelled, unlabeled or void, and None if there is no such class.
    """

    names: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=2)]
    palette: tuple[Rgb, ...] = ()  # completed from the names
    ignore: Annotated[int, Field(ge=0, le=255)] = 255
    background: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: object) -> object:
        """Derive the background from the names, and the palette from both, if absent."""
        if not isinstance(values, dict):
            return values
        names = values.get("names")
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            return values
        background = values.get("background", background_of(names))
        if isinstance(background, str):
            if background not in names:
                raise ValueError(
                    f"the background {background!r} is none of the classes {', '.join(names)}"
                )
            background = names.index(background)
        palette = values.get("palette")
        if "palette" not in values or _made_for_class_0(palette, len(names)):
            known = isinstance(background, int) and 0 <= background < len(names)
            palette = default_palette(len(names), background if known else None)
        return values | {"background": background, "palette": palette}

    @model_validator(mode="after")
    def _consistent(self) -> ClassMap:
        if len(self.palette) != len(self.names):
            raise ValueError(f"{len(self.names)} class names but {len(self.palette)} colours")
        if len(set(self.names)) != len(self.names):
            raise ValueError("class names repeat")
        if len(self.names) > 255:
            raise ValueError("a uint8 label map holds at most 255 classes")
        if self.ignore < len(self.names):
            raise ValueError(f"the ignore value {self.ignore} is also the id of a class")
        if self.background is not None and self.background >= len(self.names):
            raise ValueError(
                f"the background {self.background} is not an id of {len(self.names)} classes"
            )
        return self

    @model_serializer(mode="wrap")
    def _silent_if_named(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Omit a background that the names give, as older versions of edgeseg reject the key."""
        values: dict[str, object] = handler(self)
        if self.background == background_of(self.names):
            values.pop("background", None)
        return values

    def __len__(self) -> int:
        return len(self.names)

    @property
    def clear(self) -> frozenset[int]:
        """Ids that overlays leave clear: the background, if there is one."""
        return frozenset() if self.background is None else frozenset((self.background,))

    @property
    def has_boundary(self) -> bool:
        """Whether the classes are background, one object class and its boundary."""
        return len(self) == 3 and self.names[-1] == BOUNDARY

    @property
    def object_class(self) -> int:
        """Id of objects where there are no others: 1, or 0 where 1 is the background."""
        return 0 if self.background == 1 else 1

    def with_background(self, name: str) -> ClassMap:
        """Return the classes with another background; default colours are made again to match.

        Args:
            name: Name of a class, or ``none``.

        Raises:
            UsageError: No class has this name.
        """
        if name not in (*self.names, "none"):
            raise UsageError(
                f"no class is named {printable(name, 80)!r}, so it cannot be the background",
                hint=f"the classes are {', '.join(self.names)}; none leaves no class clear",
            )
        stated = {
            "names": self.names,
            "ignore": self.ignore,
            "background": name if name in self.names else None,
        }
        if self.palette != default_palette(len(self), self.background):
            stated["palette"] = self.palette
        return ClassMap.model_validate(stated)


def _made_for_class_0(palette: object, count: int) -> bool:
    """Whether a palette is the one that older versions of edgeseg made up, class 0 black."""
    if not isinstance(palette, list | tuple) or len(palette) != count:
        return False
    made_up = default_palette(count, 0)
    return all(
        isinstance(colour, list | tuple) and tuple(colour) == other
        for colour, other in zip(palette, made_up, strict=True)
    )


class OpenSize(Document):
    """Heights and widths that a network accepts: multiples of ``step``, at least ``smallest``."""

    step: Annotated[int, Field(ge=1, le=8192)]
    smallest: Annotated[int, Field(ge=1, le=8192)]

    def takes(self, *sizes: int) -> bool:
        """Whether all ``sizes``, in pixels, are accepted."""
        return all(size >= self.smallest and size % self.step == 0 for size in sizes)

    def __str__(self) -> str:
        return f"multiples of {self.step} from {self.smallest} on"


class InputSpec(Document):
    """How a picture becomes the network's input tensor.

    A uint8 picture is resized to ``height`` × ``width``, ordered as ``color`` says, and each
    channel becomes ``(value * scale - mean) / std`` in float32, laid out (C, height, width).
    ``reduce`` says how: bilinear with half-pixel centres, or the mean of the area that a pixel
    covers, which keeps what is thin where pictures shrink a lot (:mod:`edgeseg.ops.preprocess`
    defines both). A network with an ``open_size`` takes tensors of other
    heights and widths as well; its own are those that it was trained and calibrated at.

    With ``tiles``, the network was trained at the scale of the pictures: instead of being resized,
    they are cut into overlapping tiles of ``height`` × ``width`` (:mod:`edgeseg.engines.tiles`),
    and ``resize`` and ``reduce`` do not matter.
    """

    height: Annotated[int, Field(ge=8, le=8192)]
    width: Annotated[int, Field(ge=8, le=8192)]
    color: Color = "rgb"
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1 / 255
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = (0.485, 0.456, 0.406)
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = (0.229, 0.224, 0.225)
    resize: Resize = "stretch"
    reduce: Reduce = "bilinear"
    open_size: OpenSize | None = None
    tiles: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> InputSpec:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(
                f"color {self.color!r} has {self.channels} channel(s), "
                f"mean has {len(self.mean)} and std {len(self.std)}"
            )
        if self.open_size is not None and not self.open_size.takes(self.height, self.width):
            raise ValueError(
                f"{self.width}x{self.height} is not among its open sizes, {self.open_size}"
            )
        if self.tiles and (self.resize, self.reduce) != ("stretch", "bilinear"):
            raise ValueError("tiles are not resized, so they go with neither letterbox nor area")
        return self

    @model_serializer(mode="wrap")
    def _silent_by_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Omit defaults of keys that older versions of edgeseg would reject."""
        values: dict[str, object] = handler(self)
        if self.reduce == "bilinear":
            values.pop("reduce", None)
        if not self.tiles:
            values.pop("tiles", None)
        return values

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether the network accepts tensors of ``shape`` (C, height, width)."""
        if self.open_size is None or len(shape) != 3:
            return shape == self.shape
        return shape[0] == self.channels and self.open_size.takes(*shape[1:])

    @property
    def channels(self) -> int:
        """Number of channels: 1 for grey, else 3."""
        return 1 if self.color == "gray" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, height, width) of one input tensor."""
        return self.channels, self.height, self.width


class ModelCard(Document):
    """Description of a network: architecture, input, classes and origin."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1, max_length=200)]
    arch: Annotated[str, Field(min_length=1, max_length=100)]
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    classes: ClassMap
    input: InputSpec
    output: Literal["labels_u8", "logits"] = "labels_u8"
    precision: Precision = "fp32"
    dataset: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    parent_sha256: Sha256 | None = None
    edgeseg_version: str = ""
    created: datetime = Field(default_factory=lambda: datetime.now(timezone.utc))

    def derive(self, *, parent_sha256: str, precision: Precision | None = None) -> ModelCard:
        """Derive the card of an artefact made from the one with hash ``parent_sha256``."""
        return self.model_copy(
            update={
                "parent_sha256": parent_sha256,
                "precision": precision or self.precision,
                "created": datetime.now(timezone.utc),
            }
        )
