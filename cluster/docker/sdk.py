"""What we use of the Docker SDK, which has no types."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Literal, Protocol, TypedDict


class Networks(TypedDict):
    """The networks that a container is on, by name."""

    Networks: Mapping[str, object]


class ContainerFacts(TypedDict):
    """What the Engine says of a container."""

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


class Volume(Protocol):
    """A volume of the Engine."""

    name: str

    def remove(self) -> None:
        """Removes it."""


class Network(Protocol):
    """A network of the Engine."""

    id: str
    name: str
    attrs: NetworkFacts

    def reload(self) -> None:
        """Asks the Engine for its facts again."""

    def remove(self) -> None:
        """Removes it."""

    def connect(self, container: Container, *, ipv4_address: str) -> None:
        """Puts a container on it."""

    def disconnect(self, container: Container, *, force: bool) -> None:
        """Takes a container off it."""


class Container(Protocol):
    """A container of the Engine."""

    name: str
    labels: Mapping[str, str]
    status: Literal["created", "restarting", "running", "removing", "paused", "exited", "dead"]
    attrs: ContainerFacts

    def start(self) -> None:
        """Starts it."""

    def stop(self, *, timeout: float) -> None:
        """Ends it in an orderly way, forced after so many seconds."""

    def kill(self) -> None:
        """Ends it at once."""

    def pause(self) -> None:
        """Freezes it."""

    def unpause(self) -> None:
        """Undoes ``pause``."""

    def wait(self, *, timeout: float, condition: str = ...) -> object:
        """Waits until it has ended, or for another condition."""

    def remove(self, *, force: bool, v: bool) -> None:
        """Removes it, with its anonymous volumes where ``v`` says so."""

    def logs(self, *, tail: int | str) -> bytes:
        """The last lines of its log."""


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
        """A container by its name."""

    def list(self, **choice: object) -> Sequence[Container]:
        """Those that are chosen."""

    def create(self, image: str, command: Sequence[str], **options: object) -> Container:
        """Makes one and does not start it."""


class NetworkList(Protocol):
    """The Engine's networks."""

    def get(self, name: str) -> Network:
        """A network by its name."""

    def list(self, **choice: object) -> Sequence[Network]:
        """Those that are chosen."""

    def create(self, name: str, **options: object) -> Network:
        """Makes one."""


class VolumeList(Protocol):
    """The Engine's volumes."""

    def list(self, **choice: object) -> Sequence[Volume]:
        """Those that are chosen."""

    def create(self, name: str, **options: object) -> Volume:
        """Makes one."""


class Images(Protocol):
    """The Engine's images."""

    def get(self, name: str) -> Image:
        """An image by its reference."""

    def list(self, name: str) -> Sequence[Image]:
        """Those of a repository."""


class Api(Protocol):
    """The calls beneath all of these; ``send`` sends one request."""

    send: Callable[..., object]

    def pull(self, repository: str, **options: object) -> Generator[PullLine, None, None]:
        """Pulls an image, a line of progress at a time."""

    def import_image_from_data(self, data: bytes, **options: object) -> object:
        """Makes an image of a file system."""


class Client(Protocol):
    """A client of the Engine."""

    api: Api
    containers: Containers
    images: Images
    networks: NetworkList
    volumes: VolumeList

    def ping(self) -> object:
        """Raises where the Engine does not answer."""

    def close(self) -> None:
        """Closes its connections."""
