"""A loaded model, with its measurements."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pytest_llmmem.core.readings import Peak
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.models.checkpoints.tensors import ALL_DTYPES
from pytest_llmmem.models.loading import fidelity, residency, storage
from pytest_llmmem.models.loading.arguments import as_bytes
from pytest_llmmem.models.loading.offload import written_bytes
from pytest_llmmem.models.loading.request import LoadRequest
from pytest_llmmem.models.loading.tie_faults import TieFaults, tie_faults_of


class LoadedModel:
    """The value of the fixture ``loaded_model``: the model and its memory. All sizes are bytes."""

    def __init__(
        self,
        model: Any,
        request: LoadRequest,
        *,
        load: str,
        call: str,
        seconds: float,
        peak: Peak | None,
        kept_bytes: int | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = model
        self._request = request
        self.checkpoint = request.checkpoint
        """The checkpoint, as its headers describe it."""
        self.load = load
        """The strategy's name."""
        self.call = call
        """The equivalent call in a user's code."""
        self.seconds = seconds
        """Duration of the load."""
        self.peak = peak
        """Memory that the load needed; ``None`` outside a worker, where nothing is measured."""
        self.kept_bytes = kept_bytes
        """Memory that the load freed and the C library kept: unused, but counted. ``None`` where unknown."""
        self.passed = dict(request.calls[-1]) if request.calls else {}
        """The arguments of ``from_pretrained``, from the strategy and from the test; empty when it was not called."""
        self._report = report
        self.max_memory = {str(device): as_bytes(cap) for device, cap in (self.passed.get("max_memory") or {}).items()}
        """Memory limit of each device in the call; empty when the call sets none."""
        self.disk_bytes = written_bytes(request.offload_folder)
        """Bytes that the load left in its offload folder. 0 where offloaded weights are read from the checkpoint itself."""
        self.mapped_after_load_bytes = self.mapped_nbytes

    def __repr__(self) -> str:
        if self._model is None:
            return f"<LoadedModel {self.load}: released>"
        sizes = storage.nbytes_by_device(self._model)
        held = ", ".join(f"{format_size(size)} on {device}" for device, size in sizes.items())
        return f"<LoadedModel {self.load}: {type(self._model).__name__}, {self.dtype}, {held or 'no tensors'}>"

    @property
    def model(self) -> Any:
        """The model itself. Raises ``RuntimeError`` after ``release()``."""
        __tracebackhide__ = True
        if self._model is None:
            msg = "this model was released: load it anew in another test, or do not call release() before using it"
            raise RuntimeError(msg)
        return self._model

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer, loaded at the first access."""
        return self._request.tokenizer()

    @property
    def dtype(self) -> Any:
        """The ``torch.dtype`` of the floating-point weights; ``None`` for a model without tensors."""
        own = getattr(self.model, "dtype", None)
        return own if _is_dtype(own) else storage.main_dtype(self.model)

    @property
    def device_map(self) -> dict[str, Any]:
        """Device by module name; ``{"": device}`` when the whole model is on one device, or the placement is unknown."""
        if told := getattr(self.model, "hf_device_map", None):
            return dict(told)
        sizes = storage.nbytes_by_device(self.model)
        return {"": max(sizes, key=lambda device: sizes[device], default="cpu")}

    @property
    def nbytes(self) -> int:
        """Storage in memory: tied weights count once, quantized ones at their stored size, ``disk`` and ``meta`` not at all."""
        return sum(
            size for device, size in storage.nbytes_by_device(self.model).items() if device not in {"disk", "meta"}
        )

    def nbytes_on(self, device: str) -> int:
        """Bytes on ``"cpu"``, ``"cuda:0"``, ``"disk"`` (read at each use) or ``"meta"`` (weights without values)."""
        return storage.nbytes_by_device(self.model).get(device, 0)

    @property
    def mapped_nbytes(self) -> int | None:
        """Bytes of mapped weights that are not resident yet. ``None`` where unknown."""
        return residency.mapped_nbytes(self._model) if self._model is not None else 0

    @property
    def bits_per_parameter(self) -> float | None:
        """Stored bits per parameter of the checkpoint, on disk too: 16 for a float16 load, a little over 4 for nf4.

        For a model spread over several ranks, per parameter of this rank's part. ``None`` where no parameter is known, and for
        a model without tensors.
        """
        sizes = storage.nbytes_by_device(self.model, of="weights")
        parameters = self.checkpoint.parameters * storage.share_here(self.model)
        held = sum(size for device, size in sizes.items() if device != "meta")
        return 8 * held / parameters if parameters and sizes else None

    @property
    def quantized_fraction(self) -> float:
        """Share of the checkpoint's parameters stored in fewer bits than in the checkpoint, and in fewer than 16."""
        bits = min(16, ALL_DTYPES[self.checkpoint.dtype or "float16"].bits)
        return storage.quantized_elements(self.model, bits=bits) / max(1, self.checkpoint.parameters)

    @property
    def promised_nbytes(self) -> int | None:
        """Expected bytes of the checkpoint's weights; ``None`` where they are not predicted.

        They follow from the strategy and the requested dtype, not from the model. Ties count once, packed weights at packed size.
        """
        from pytest_llmmem.models.estimates.estimate import promised_nbytes

        asked = self.passed.get("dtype", self.passed.get("torch_dtype"))
        return promised_nbytes(self.checkpoint, self.load, dtype=None if asked is None else str(asked))

    @property
    def promised_dtype(self) -> str | None:
        """Expected dtype of the weights when none is requested, such as ``"float16"``."""
        from pytest_llmmem.models.estimates.estimate import promised_dtype

        return promised_dtype(self.checkpoint, self.load)

    @property
    def buffer_nbytes(self) -> int:
        """Bytes of the modules' buffers in memory, such as rotary frequencies and masks. They may be in no checkpoint."""
        return storage.buffer_nbytes(self.model)

    @property
    def beside_nbytes(self) -> int:
        """Bytes that modules hold in memory besides parameters and buffers: in attributes, lists and caches."""
        weights = storage.nbytes_by_device(self.model, of="weights")
        in_memory = sum(size for device, size in weights.items() if device not in {"disk", "meta"})
        return max(0, self.nbytes - in_memory - self.buffer_nbytes)

    @property
    def lost_ties(self) -> tuple[str, ...]:
        """Names of weights with their own storage that the checkpoint has tied to others."""
        return fidelity.compare(self.checkpoint, self.model).missing

    @property
    def tie_faults(self) -> TieFaults:
        """Ties of the model's class that are lost in the model, or stored twice in the checkpoint. Empty after ``release()``."""
        return tie_faults_of(self.checkpoint, self._model) if self._model is not None else TieFaults()

    @property
    def differences(self) -> fidelity.Differences:
        """Differences from the checkpoint: from the loading report, or else from names and first values."""
        if self._report is not None:
            return fidelity.from_report(self._report)
        return fidelity.compare(self.checkpoint, self.model)

    @property
    def copies(self) -> float | None:
        """The unreclaimable peak of the load divided by ``nbytes``. ``None`` when it was not measured."""
        return self.peak.peak_bytes / self.nbytes if self.peak and self.nbytes else None

    def touch(self) -> None:
        """Make every mapped weight resident, as a first forward pass would."""
        residency.touch(self.model)

    def release(self) -> None:
        """Drop the model and return its memory to the kernel."""
        self._model = None
        self.__dict__.pop("tokenizer", None)
        residency.trim()


def _is_dtype(value: Any) -> bool:
    return type(value).__module__ == "torch" and type(value).__name__ == "dtype"
