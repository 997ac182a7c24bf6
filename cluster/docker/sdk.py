"""The part of the Docker SDK that raftload uses, with the types that the SDK lacks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Literal, Protocol, TypedDict


class Networks(TypedDict):
    """The networks that a container is on, by name."""

    Networks: Mapping[str, object]


class ContainerConfig(TypedDict):
    """How a container was made."""

    User: str


class ContainerFacts(TypedDict):
    """What the Engine says of a container."""

    Config: ContainerConfig
    NetworkSettings: Networks


class Pool(TypedDict):
    """Addresses of a network."""

    Subnet: str


class Pools(TypedDict):
    """All addresses of a network."""

    Config: list[Pool]


class NetworkFacts(TypedDict):
    """What the Engine says of a network."""

    Created: str
    IPAM: Pools
    Labels: Mapping[str, str] | None


class VolumeFacts(TypedDict):
    """What the Engine says of a volume."""

    Labels: Mapping[str, str] | None


class Volume(Protocol):
    """A volume of the Engine."""

    name: str
    attrs: VolumeFacts

    def remove(self) -> None:
        """Remove it."""


class Network(Protocol):
    """A network of the Engine."""

    id: str
    name: str
    attrs: NetworkFacts

    def reload(self) -> None:
        """Ask the Engine for its facts again."""

    def remove(self) -> None:
        """Remove it."""

    def connect(self, container: Container, *, ipv4_address: str) -> None:
        """Put a container on it."""

    def disconnect(self, container: Container, *, force: bool) -> None:
        """Take a container off it."""


class Container(Protocol):
    """A container of the Engine."""

    name: str
    labels: Mapping[str, str]
    status: Literal["created", "restarting", "running", "removing", "paused", "exited", "dead"]
    attrs: ContainerFacts

    def start(self) -> None:
        """Start it."""

    def stop(self, *, timeout: float) -> None:
        """End it in an orderly way, forced after so many seconds."""

    def kill(self) -> None:
        """End it at once."""

    def pause(self) -> None:
        """Freeze it."""

    def unpause(self) -> None:
        """Undo ``pause``."""

    def wait(self, *, timeout: float, condition: str = ...) -> object:
        """Wait until it has ended, or for another condition."""

    def remove(self, *, force: bool, v: bool) -> None:
        """Remove it, with its anonymous volumes where ``v`` says so."""

    def put_archive(self, path: str, data: bytes) -> bool:
        """Unpack a tar file into a folder of it, also before it was started."""

    def get_archive(self, path: str) -> tuple[Iterable[bytes], object]:
        """Return a file of it as the parts of a tar file, and facts about it."""

    def logs(self, *, tail: int | str) -> bytes:
        """Return the last lines of its log."""


class Image(Protocol):
    """An image of the Engine."""

    labels: Mapping[str, str] | None
    tags: Sequence[str]


class Progress(TypedDict, total=False):
    """How far a layer was pulled, in bytes."""

    current: int
    total: int


class PullLine(TypedDict, total=False):
    """A line of the progress of a pull."""

    error: str
    id: str
    status: str
    progressDetail: Progress


class Containers(Protocol):
    """The Engine's containers."""

    def get(self, name: str) -> Container:
        """Return a container by its name."""

    def list(self, **choice: object) -> Sequence[Container]:
        """Those that are chosen."""

    def create(self, image: str, command: Sequence[str], **options: object) -> Container:
        """Make one and do not start it."""


class NetworkList(Protocol):
    """The Engine's networks."""

    def get(self, name: str) -> Network:
        """Return a network by its name."""

    def list(self, **choice: object) -> Sequence[Network]:
        """Those that are chosen."""

    def create(self, name: str, **options: object) -> Network:
        """Make one."""


class VolumeList(Protocol):
    """The Engine's volumes."""

    def list(self, **choice: object) -> Sequence[Volume]:
        """Those that are chosen."""

    def create(self, name: str, **options: object) -> Volume:
        """Make one."""


class Images(Protocol):
    """The Engine's images."""

    def get(self, name: str) -> Image:
        """Return an image by its reference."""

    def list(self, name: str) -> Sequence[Image]:
        """Those of a repository."""


class Api(Protocol):
    """The calls beneath all of these; ``send`` sends one request."""

    send: Callable[..., object]

    def pull(self, repository: str, **options: object) -> Generator[PullLine, None, None]:
        """Pull an image, a line of progress at a time."""

    def import_image_from_data(self, data: bytes, **options: object) -> object:
        """Make an image of a file system."""


class Client(Protocol):
    """A client of the Engine."""

    api: Api
    containers: Containers
    images: Images
    networks: NetworkList
    volumes: VolumeList

    def ping(self) -> object:
        """Raise where the Engine does not answer."""

    def close(self) -> None:
        """Close its connections."""
