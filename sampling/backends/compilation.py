"""The networks of a model, compiled by a back end: converted once, kept in the cache, checked
against PyTorch each time before they draw."""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections.abc import Collection
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from core.errors import is_ours, reason_of
from core.terminal import complain
from sampling.backends.cache import ConversionCache, version_of
from sampling.backends.choice import BACKENDS
from sampling.backends.conversion import Converter
from sampling.backends.formats import FORMATS, TOLERANCE, Network, Unfit, difference
from sampling.backends.parts import Part, drawing_parts
from sampling.networks import Networks

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

LAYOUT = 2  # of an entry of the cache: one more when what is written or refused changes
AROUND_SECONDS, PARAMETERS_A_SECOND = 3, 7_000_000  # of a conversion, about
STOP_SECONDS = 5.0  # for which is waited until it has let go of the weights
CHECKED = 5, 7  # height and width of the call that is compared with PyTorch


class CompiledNetworks(Networks):
    """The UNet and the decoder as a back end computes them, of any size."""

    def __init__(self, backend: str, decoder: Network, unet: Network, *shallow: Network):
        """`shallow`: the UNet's shallow layers, where it is divisible."""
        self.backend = backend
        self.versions = {name: version(name) for name in BACKENDS[backend].packages[-1:]}
        self._decoder, self._unet, self._shallow = decoder, unet, shallow

    def unet(
        self, sample: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        return _outputs(self._unet, **_named(sample, timestep, embeddings))[0]

    def whole_unet(
        self, sample: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        output, deep = _outputs(self._unet, **_named(sample, timestep, embeddings))
        return output, deep

    def shallow_unet(
        self, sample: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor,
        deep: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        (shallow,) = self._shallow
        return _outputs(shallow, **_named(sample, timestep, embeddings), deep=deep)[0]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return 2 * _outputs(self._decoder, latents=latents)[0] - 1  # of pictures in 0..1


def _named(sample: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor) -> dict:
    timestep = timestep.float().expand(len(sample))
    return {"sample": sample, "timestep": timestep, "encoder_hidden_states": embeddings}


def _outputs(network: Network, **inputs: torch.Tensor) -> list[torch.Tensor]:
    given = {name: value.contiguous().numpy() for name, value in inputs.items()}
    return [torch.from_numpy(output) for output in network(given)]


class Compilation:
    """Has a back end compile a pipeline's networks, which are then in `networks`.

    Where that fails, a sentence says why, and `networks` stays None: PyTorch draws.
    """

    def __init__(
        self, pipe: StableDiffusionPipeline, backend: str, when: str = "at once",
        changing: Collection[torch.Tensor] = (), cache: ConversionCache | None = None,
    ):  # fmt: skip
        """`when`: "at once", before this returns; "meanwhile", in a thread, with a process for what
        the cache lacks; or "if cached", in a thread, and only where the cache has them. `changing`:
        weights that may change meanwhile."""
        self.networks: CompiledNetworks | None = None
        self.backend = backend
        self._cache, self._only_cached = cache or ConversionCache(), when == "if cached"
        self._parts = [_own(part, changing) for part in drawing_parts(pipe)]
        self._converter = None if when == "at once" else Converter(backend)
        self._stopped = False
        self._thread = threading.Thread(target=self._compile, name="compilation", daemon=True)
        if when == "at once":
            self._compile()
        else:
            self._thread.start()

    def wait(self) -> None:
        """Until it is over."""
        if self._thread.is_alive():
            self._thread.join()

    def stop(self) -> None:
        """Give it up, where it is not over: PyTorch draws."""
        self._stopped = True
        if self._converter:
            self._converter.stop()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _compile(self) -> None:
        try:
            keys = {part.name: key_of(part, self.backend) for part in self._parts}
            missing = [part for part in self._parts if not self._cache.find(keys[part.name])]
            if missing and self._only_cached:
                return
            for refusal in filter(None, map(self._cache.refusal, keys.values())):
                raise Unfit(f"{refusal}, as an earlier start has found")
            if missing:
                _announce(self.backend, sum(part.parameters for part in missing))
            networks = [self._network(part, keys[part.name]) for part in self._parts]
            self.networks = CompiledNetworks(self.backend, *networks)
        except Exception as error:  # there are as many as ways in which a compiler can fail
            if is_ours(error):
                raise
            if self._stopped:
                return
            complain(
                f"warning: {BACKENDS[self.backend].title} cannot compute this model "
                f"({reason_of(error):.200}). PyTorch draws, in more time."
            )
        finally:
            self._parts = []  # their weights
            if self._converter:
                self._converter.close()

    def _network(self, part: Part, key: str) -> Network:
        damaged = None
        if entry := self._cache.find(key):
            damaged = version_of(entry)
            try:
                return self._opened(part, entry)
            except Exception as error:  # whatever a library says of a damaged file
                if is_ours(error):
                    raise
                complain(f"{entry} is damaged ({reason_of(error):.100}) and is made again.")
        size = sum(each.numel() * each.element_size() for each in part.module.parameters())
        write = self._converter or FORMATS[self.backend].write
        entry = self._cache.make(key, size, lambda folder: write(part, folder), damaged)
        made = version_of(entry)
        try:
            return self._opened(part, entry)
        except Unfit as error:  # it would be again
            self._cache.refuse(key, reason_of(error))
            raise
        except Exception:
            self._cache.discard(key, made)
            raise

    def _opened(self, part: Part, entry: Path) -> Network:
        """The network of an entry, which computes what PyTorch does. Raises Unfit if not."""
        kind = FORMATS[self.backend]
        network = kind.open(entry / kind.file)
        off = difference(part, network, part.example(2, *CHECKED))
        if not off <= TOLERANCE:
            raise Unfit(f"its {part.name} differs from PyTorch's by {off:.1e}")
        return network


def _own(part: Part, changing: Collection[torch.Tensor]) -> Part:
    """A part with modules of its own, as tracing one swaps its weights for a time, while PyTorch
    may be drawing. The weights are the same in memory, but for those that may change."""
    changing_ids = {id(each) for each in changing}
    weights = (*part.module.parameters(), *part.module.buffers())
    shared = {id(each): each for each in weights if id(each) not in changing_ids}
    return replace(part, module=copy.deepcopy(part.module, shared).eval())


def key_of(part: Part, backend: str) -> str:
    """A name for all that decides what a conversion writes."""
    module = part.module
    config = {name: value for name, value in module.config.items() if not name.startswith("_")}
    versions = {name: version(name) for name in ("torch", "diffusers", *BACKENDS[backend].packages)}
    about = [LAYOUT, part.name, str(part.inputs), str(part.outputs), config, versions]
    digest = hashlib.sha256(json.dumps(about, default=str, sort_keys=True).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return f"{backend}-{part.name}-{digest.hexdigest()[:32]}"


def _announce(backend: str, parameters: int) -> None:
    seconds = AROUND_SECONDS + round(parameters / PARAMETERS_A_SECOND)
    complain(f"Preparing {BACKENDS[backend].title} for this model, once: about {seconds} s.")
