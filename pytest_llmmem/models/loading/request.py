"""The input of a strategy, and the code that most strategies share: the class, its arguments, the call as text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.findings import WITHOUT_CONFIG
from pytest_llmmem.models.checkpoints.index_file import is_inside
from pytest_llmmem.models.checkpoints.model_config import read_config
from pytest_llmmem.models.checkpoints.tensors import DTYPES
from pytest_llmmem.models.loading import engines, pipelines
from pytest_llmmem.models.loading.arguments import name_of_dtype, refusing_unknown
from pytest_llmmem.models.loading.mismatched_shapes import naming_mismatches


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """A request to load a checkpoint."""

    checkpoint: Checkpoint

    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments from the test's marker: ``dtype``, ``max_memory``, and any other argument of ``from_pretrained``."""

    offload_folder: Path
    """An existing empty folder for offloaded weights. Its creator removes it."""

    device: str | None = None
    """The target device: ``"cuda:0"``; ``None`` keeps the model on the CPU, where it is made."""

    host_available_bytes: int | None = None
    """Available memory of the host, or of the container if that is less; ``None`` when unknown."""

    reports: list[Mapping[str, Any]] = field(default_factory=list, init=False)
    """The loading report of each ``from_pretrained`` call of transformers."""

    calls: list[Mapping[str, Any]] = field(default_factory=list, init=False)
    """The arguments of each ``from_pretrained`` call."""

    @property
    def model_class(self) -> Any:
        """The class that the config names, ``AutoModel`` when it names none, ``AutoModelFor...`` for a checkpoint's own code.

        Raises ``CheckpointError`` without transformers, for an unknown class, and for untrusted code.
        """
        if self.checkpoint.kind in pipelines.PIPELINES:
            return pipelines.pipeline_class(self.checkpoint)
        if self.checkpoint.format == "onnx":
            return engines.onnx_class(self.checkpoint)
        transformers = self._transformers()
        if self.checkpoint.format == "gguf":
            return transformers.AutoModelForCausalLM
        config = read_config(self.checkpoint.path)
        names, own = config.class_names, config.own_classes
        if own and self.options.get("trust_remote_code"):
            return getattr(transformers, min(own, key=lambda auto: own[auto] not in names))
        for name in names:
            if isinstance(found := getattr(transformers, name, None), type):
                return found
        if own:
            msg = (
                f"--llm-model={self.checkpoint.source}: {next(iter(own.values()))} is code that comes with the checkpoint: "
                "read it, and pass --llm-trust-remote-code to let it run"
            )
            raise CheckpointError(msg)
        if names:
            msg = (
                f"--llm-model={self.checkpoint.source}: config.json names {' and '.join(names)}, and transformers "
                f"{transformers.__version__} has no such class: install a version that has it"
            )
            raise CheckpointError(msg)
        return transformers.AutoModel

    def from_pretrained(self, **arguments: Any) -> Any:
        """Call ``from_pretrained`` with these arguments; the test's own options take precedence.

        Raises ``CheckpointError`` without a ``config.json``, and for weights outside of the folder.
        """
        __tracebackhide__ = True
        self._require_files()
        keywords = self._keywords(self._placed(arguments)) | self._file
        if self.checkpoint.kind == "diffusers":
            pipelines.check_arguments(self.model_class, keywords)
        self.calls.append(keywords)
        # transformers 4.47 returns a model with its report before it would apply a tp_plan
        reports = self.model_class.__module__.startswith("transformers.") and "tp_plan" not in keywords
        with refusing_unknown(keywords), naming_mismatches(self):
            loaded = self.model_class.from_pretrained(
                self._place, **keywords | ({"output_loading_info": True} if reports else {})
            )
        if not reports:
            return loaded
        model, report = loaded
        self.reports.append(report)
        return model

    def written(self, **arguments: Any) -> str:
        """The call ``from_pretrained(**arguments)`` as text. Raises ``CheckpointError`` as ``from_pretrained`` does."""
        self._require_files()
        keywords = self._keywords(self._placed(arguments)) | self._file
        given = (f"{name}={value!r}" for name, value in keywords.items())
        # these libraries' classes are called directly
        is_called = self.checkpoint.kind == "sentence-transformers" or self.checkpoint.format == "onnx"
        method = "" if is_called else ".from_pretrained"
        return f"{self.model_class.__name__}{method}({', '.join((repr(str(self._place)), *given))})"

    def initialized(self) -> Any:
        """A model with random weights, built from the config alone, in the dtype that the installed version gives it."""
        if self.checkpoint.kind in pipelines.PIPELINES or self.checkpoint.format == "onnx" or self._file:
            source = f"--llm-model={self.checkpoint.source}"
            msg = f"{source}: only a model of transformers is built from its config: load it with 'default'"
            raise CheckpointError(msg)
        config, cls, keywords = self.config, self.model_class, self._keywords({})
        # from_config of the Auto classes calls _from_config; it has no public name
        build = cls.from_config if hasattr(cls, "from_config") else cls._from_config
        with refusing_unknown(keywords):
            return build(config, **keywords)

    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer; that of a GGUF file is in the file."""
        return self._transformers().AutoTokenizer.from_pretrained(self._place, **self._trust, **self._file)

    @property
    def config(self) -> Any:
        """``config.json`` as transformers reads it. Raises ``CheckpointError`` without one."""
        self._require_files()
        return self._transformers().AutoConfig.from_pretrained(self.checkpoint.path, **self._trust)

    @property
    def _trust(self) -> dict[str, bool]:
        return {"trust_remote_code": True} if self.options.get("trust_remote_code") else {}

    @property
    def loaded_bytes(self) -> int:
        """Bytes of the weights in the dtype of ``from_pretrained``: transformers 4 converts to float32 by default."""
        dtype = self.dtype_name
        return self.checkpoint.weights_bytes if dtype is None else self.checkpoint.nbytes_in(dtype)

    @property
    def dtype_name(self) -> str | None:
        """The dtype of ``from_pretrained``, such as ``"float32"``; ``None``: each weight keeps that of the checkpoint."""
        dtype = self._options().get("dtype")
        if dtype is None and installed("transformers") < (5,):
            return "float32"
        return name_of_dtype(dtype)

    @property
    def _place(self) -> Path:
        """The path argument of ``from_pretrained``."""
        path = self.checkpoint.path
        if self.checkpoint.format == "onnx":
            return self.checkpoint.shards[0].path
        return path.parent if self._file and path.is_file() else path

    @property
    def _file(self) -> dict[str, str]:
        """The argument of ``from_pretrained`` that names a GGUF file. Other files are not loaded by name."""
        if self.checkpoint.kind == "file" and self.checkpoint.format == "gguf":
            return {"gguf_file": self.checkpoint.shards[0].path.name}
        return {}

    def _placed(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments with the device, unless the strategy sets the placement itself."""
        own = not {"device_map", "tp_plan", "distributed_config"}.isdisjoint(arguments)
        return arguments if own or self.device is None else {**arguments, "device_map": self.device}

    def _options(self) -> dict[str, Any]:
        options = dict(self.options)
        if "torch_dtype" in options:
            options["dtype"] = options.pop("torch_dtype")
        return options

    def _keywords(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments and, over them, the options, with the names and types of the installed version."""
        keywords = {**arguments, **self._options()}
        # onnxruntime has no such argument, and does not need torch
        if "dtype" in keywords and self.checkpoint.format != "onnx":
            library, since = (
                ("diffusers", (0, 40)) if self.checkpoint.kind == "diffusers" else ("transformers", (4, 56))
            )
            name = "dtype" if installed(library) >= since else "torch_dtype"
            keywords[name] = _torch_dtype(keywords.pop("dtype"))
        trusted = keywords.pop("trust_remote_code", False)
        if trusted and hasattr(self.model_class, "from_config"):  # classes of transformers itself warn about it
            keywords["trust_remote_code"] = True
        return keywords

    def _require_files(self) -> None:
        """Check that the required files exist, and that none is in another folder."""
        if self.checkpoint.kind in pipelines.PIPELINES or self._file or self.checkpoint.format == "onnx":
            return
        if self.checkpoint.kind == "file":
            name = self.checkpoint.shards[0].path.name
            how = "load it with --llm-loader=package.module:function, or put it in a folder with its config.json, as "
            msg = f"--llm-model={self.checkpoint.source}: transformers loads no file called {name}: {how}{_usual_name(name)}"
            raise CheckpointError(msg)
        if not (self.checkpoint.path / "config.json").exists():
            msg = f"--llm-model={self.checkpoint.source}: {WITHOUT_CONFIG}"
            raise CheckpointError(msg)
        for name in self.checkpoint.missing:
            if not is_inside(name):
                where = f"the index names {excerpt(name)}, which is no file of the checkpoint's folder"
                msg = f"--llm-model={self.checkpoint.source}: {where}, and nothing is loaded: look where it came from"
                raise CheckpointError(msg)

    def _transformers(self) -> Any:
        try:
            import transformers
        except ImportError as error:
            msg = f"--llm-model={self.checkpoint.source}: loading needs transformers ({error}): pip install 'pytest-llmmem[hf]'"
            raise CheckpointError(msg) from error
        return transformers


@dataclass(frozen=True, slots=True)
class Code:
    """An expression that appears unchanged in the text of a call."""

    text: str

    def __repr__(self) -> str:
        return self.text


def installed(library: str) -> tuple[int, ...]:
    """The first two numbers of an installed library's version, without importing it; empty when it is not installed."""
    from packaging.version import Version

    try:
        return Version(version(library)).release[:2]
    except PackageNotFoundError:
        return ()


def _usual_name(name: str) -> str:
    return "model.safetensors" if name.endswith(".safetensors") else "pytorch_model.bin"


def _torch_dtype(dtype: Any) -> Any:
    """The ``torch.dtype`` of that name, which versions before 4.56 require. ``"auto"`` and other values are left unchanged."""
    import torch

    return getattr(torch, dtype) if isinstance(dtype, str) and dtype in DTYPES else dtype
