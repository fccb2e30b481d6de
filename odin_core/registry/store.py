"""Models on disk: named by their content, written whole, refused when the content no longer fits the name."""

from pathlib import Path

from odin_core.errors import OdinError
from odin_core.lake import write_text
from odin_core.policies.joint import JointPolicy, version_of


class ModelCorrupt(OdinError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path}: this model file is damaged ({why}) and is not used. Restore it from a backup, or rewind the life "
            f"to before it was trained (odin registry list says when; odin life rewind --to SESSION) and run on: it "
            f"will be trained again"
        )


def save(folder: Path, version: str, model: JointPolicy) -> None:
    """Write the model, unless it lies there already; a damaged file of that name is replaced."""
    path, text = folder / f"{version}.json", model.to_json()
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(text, path)


def load(folder: Path, version: str) -> JointPolicy:
    """The model, verified against its name. Raises ModelCorrupt."""
    path = folder / f"{version}.json"
    try:
        model = JointPolicy.from_json(path.read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelCorrupt(path, f"{type(error).__name__}: {error}") from error
    if version_of(model) != version:
        raise ModelCorrupt(path, "its content does not have the hash in its name")
    return model
