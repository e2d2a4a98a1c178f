"""A model that has been loaded, and what can be asked of it."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pytest_llmmem.core.readings import Peak
from pytest_llmmem.models.checkpoints.tensors import ALL_DTYPES
from pytest_llmmem.models.loading import fidelity, residency, storage
from pytest_llmmem.models.loading.offload import as_bytes, written_bytes
from pytest_llmmem.models.loading.request import LoadRequest


class LoadedModel:
    """What the fixture ``loaded_model`` gives: the model, and the truth about its memory. All sizes are bytes."""

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
        self._trusted = {"trust_remote_code": True} if request.options.get("trust_remote_code") else {}
        self.checkpoint = request.checkpoint
        """What the checkpoint's headers say."""
        self.load = load
        """The strategy's name."""
        self.call = call
        """What a user would write to load it so."""
        self.seconds = seconds
        """How long the load took."""
        self.peak = peak
        """What the load needed; ``None`` outside a worker, where nothing is measured."""
        self.kept_bytes = kept_bytes
        """Memory that the load freed and the C library keeps: not in use, and counted all the same. ``None`` where unknown."""
        self.passed = dict(request.calls[-1]) if request.calls else {}
        """The arguments of ``from_pretrained``, by the strategy and by the test; empty when it was not called."""
        self._report = report
        self.max_memory = {str(device): as_bytes(cap) for device, cap in (self.passed.get("max_memory") or {}).items()}
        """What each device was allowed to hold, as the load's own call has it; empty when it says nothing."""
        self.disk_bytes = written_bytes(request.offload_folder)
        """What the load left in its offload folder. 0 where offloaded weights are read from the checkpoint itself."""
        self.mapped_after_load_bytes = self.mapped_nbytes

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
        """The checkpoint's tokenizer, loaded when first asked for."""
        import transformers

        return transformers.AutoTokenizer.from_pretrained(self.checkpoint.path, **self._trusted)

    @property
    def dtype(self) -> Any:
        """The ``torch.dtype`` of the floating-point weights; ``None`` of a model without tensors."""
        own = getattr(self.model, "dtype", None)
        return own if _is_dtype(own) else storage.main_dtype(self.model)

    @property
    def device_map(self) -> dict[str, Any]:
        """Module name to device; ``{"": device}`` when all of the model is on one, or nothing says what is where."""
        if told := getattr(self.model, "hf_device_map", None):
            return dict(told)
        sizes = storage.nbytes_by_device(self.model)
        return {"": max(sizes, key=lambda device: sizes[device], default="cpu")}

    @property
    def nbytes(self) -> int:
        """Real storage in memory: tied weights once, quantised ones as they are stored, nothing for ``disk`` and ``meta``."""
        return sum(
            size for device, size in storage.nbytes_by_device(self.model).items() if device not in {"disk", "meta"}
        )

    def nbytes_on(self, device: str) -> int:
        """Bytes on ``"cpu"``, ``"cuda:0"``, ``"disk"`` (read from there at each use) or ``"meta"`` (weights without numbers)."""
        return storage.nbytes_by_device(self.model).get(device, 0)

    @property
    def mapped_nbytes(self) -> int | None:
        """Weights that are mapped and not resident yet: still to be paid for. ``None`` where that is unknown."""
        return residency.mapped_nbytes(self._model) if self._model is not None else 0

    @property
    def bits_per_parameter(self) -> float | None:
        """Stored bits per parameter of the checkpoint, on disk too: 16 for a float16 load, a little over 4 for nf4.

        Of a model that is spread over several ranks, per parameter of this rank's part. ``None`` where no parameter is known.
        """
        sizes = storage.nbytes_by_device(self.model, of="weights")
        parameters = self.checkpoint.parameters * storage.share_here(self.model)
        held = sum(size for device, size in sizes.items() if device != "meta")
        return 8 * held / parameters if parameters else None

    @property
    def quantized_fraction(self) -> float:
        """Share of the checkpoint's parameters that are stored in fewer bits than it has, and in fewer than a half float."""
        bits = min(16, ALL_DTYPES[self.checkpoint.dtype or "float16"].bits)
        return storage.quantized_elements(self.model, bits=bits) / max(1, self.checkpoint.parameters)

    @property
    def promised_nbytes(self) -> int | None:
        """Bytes that the checkpoint's weights take as they were to be loaded; ``None`` where that is not predicted.

        By the strategy and the dtype that was asked for, not by what the model happens to hold: ties once, packed ones packed.
        """
        from pytest_llmmem.models.estimates.estimate import promised_nbytes

        asked = self.passed.get("dtype", self.passed.get("torch_dtype"))
        return promised_nbytes(self.checkpoint, self.load, dtype=None if asked is None else str(asked))

    @property
    def buffer_nbytes(self) -> int:
        """Bytes of the modules' buffers in memory, which may be in no checkpoint: tables of rotary frequencies, masks."""
        return storage.buffer_nbytes(self.model)

    @property
    def beside_nbytes(self) -> int:
        """Bytes that modules hold in memory beside their parameters and buffers: in attributes, lists and caches."""
        weights = storage.nbytes_by_device(self.model, of="weights")
        in_memory = sum(size for device, size in weights.items() if device not in {"disk", "meta"})
        return max(0, self.nbytes - in_memory - self.buffer_nbytes)

    @property
    def lost_ties(self) -> tuple[str, ...]:
        """Names of weights that have a place of their own, and none in the checkpoint: it has them tied to others."""
        return fidelity.compare(self.checkpoint, self.model).missing

    @property
    def differences(self) -> fidelity.Differences:
        """What it has otherwise than the checkpoint: by the loading report, or else by names and the first numbers."""
        if self._report is not None:
            return fidelity.from_report(self._report)
        return fidelity.compare(self.checkpoint, self.model)

    @property
    def copies(self) -> float | None:
        """How often the load held the model: its unreclaimable peak over ``nbytes``. ``None`` when it was not measured."""
        return self.peak.peak_bytes / self.nbytes if self.peak and self.nbytes else None

    def touch(self) -> None:
        """Make every mapped weight resident, as a first forward would."""
        residency.touch(self.model)

    def release(self) -> None:
        """Let the model go and hand its memory back to the kernel."""
        self._model = None
        self.__dict__.pop("tokenizer", None)
        residency.trim()


def _is_dtype(value: Any) -> bool:
    return type(value).__module__ == "torch" and type(value).__name__ == "dtype"
